//! How many locks the server holds, by its own count.

use std::error::Error;

use lock_tests::RedisServer;
use redis::aio::MultiplexedConnection;

/// Counts locks, on a connection of its own. Clones share it.
#[derive(Clone)]
pub(crate) struct Census(MultiplexedConnection);

impl Census {
    /// The census of this server.
    pub(crate) async fn of(server: &RedisServer) -> Self {
        Self(server.connection().await)
    }

    /// The number of keys that expire. Every lock does, whoever made it; the counter that fencing
    /// tokens come from does not. Costs the server the same however many there are.
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
