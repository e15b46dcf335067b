//! The number of locks on the server, as the server counts them.

use std::error::Error;

use lock_tests::RedisServer;
use redis::aio::MultiplexedConnection;

/// Counts locks, on a separate connection, which clones share.
#[derive(Clone)]
pub(crate) struct Census(MultiplexedConnection);

impl Census {
    /// Connects to the server.
    pub(crate) async fn of(server: &RedisServer) -> Self {
        Self(server.connection().await)
    }

    /// Returns the number of keys with an expiry. The locks of every library have one; the counter
    /// of fencing tokens has none. The cost for the server does not depend on the number of keys.
    pub(crate) async fn locks(&self) -> Result<u64, Box<dyn Error + Send + Sync>> {
        let report: String =
            redis::cmd("INFO").arg("keyspace").query_async(&mut self.0.clone()).await?;
        // db0:keys=1,expires=0,avg_ttl=0
        let expiring = report.lines().filter_map(|line| line.strip_prefix("db")).map(|database| {
            let field = database.split([':', ',']).find_map(|field| field.strip_prefix("expires="));
            field.ok_or("a database of INFO without `expires`")?.parse::<u64>().map_err(Box::from)
        });
        expiring.sum()
    }
}
