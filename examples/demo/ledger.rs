//! The resource that a lock protects: a ledger for each lock, which refuses stale writers.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use lock::fenced;
use redis::{AsyncConnectionConfig, Client};

/// Accepts writes only in the order of their fencing tokens.
pub(crate) enum Ledger {
    /// The largest token that has written, by lock.
    Memory(Mutex<HashMap<String, u64>>),
    /// A hash for each lock; see [`fenced`].
    Redis(Client),
}

impl Ledger {
    pub(crate) fn new(server: Option<Client>) -> Self {
        server.map_or_else(|| Self::Memory(Mutex::default()), Self::Redis)
    }

    /// Writes, or returns false if a larger token has written before.
    ///
    /// It does not check who holds the lock. The token is enough.
    pub(crate) async fn write(&self, id: &str, value: &str, fence: u64) -> Result<bool, String> {
        match self {
            Self::Memory(ledgers) => {
                let mut ledgers = ledgers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let largest = ledgers.entry(id.to_owned()).or_default();
                let accepted = *largest <= fence;
                *largest = fence.max(*largest);
                Ok(accepted)
            }
            Self::Redis(client) => {
                let bounds = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(Duration::from_secs(1)))
                    .set_response_timeout(Some(Duration::from_secs(1)));
                let write = async {
                    let mut connection =
                        client.get_multiplexed_async_connection_with_config(&bounds).await?;
                    let key = format!("lock-demo-ledger:{id}");
                    let accepted = fenced::set(&mut connection, &key, value, fence).await?;
                    // A demo leaves nothing behind.
                    redis::cmd("EXPIRE").arg(&key).arg(3600).exec_async(&mut connection).await?;
                    redis::RedisResult::Ok(accepted)
                };
                write.await.map_err(|error| format!("the ledger's server: {error}"))
            }
        }
    }
}
