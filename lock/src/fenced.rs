//! Resources that check fencing tokens, which make a lock safe where a lease alone cannot.
//!
//! A holder that was paused for longer than its lease may continue to write when it resumes, and no
//! lock service can stop it (Kleppmann, "How to do distributed locking", 2016). The resource can:
//! it remembers the largest [fencing token](crate::LockGuard::fencing_token) that has written to
//! it, and refuses smaller ones.
//!
//! In PostgreSQL, the check is part of the statement; a fencing token fits a `bigint`:
//!
//! ```sql
//! UPDATE ledger SET balance = $1, fence = $2 WHERE id = $3 AND fence <= $2
//! ```
//!
//! If no row is updated, the writer is stale. The comparison is `<=`, because one holder may write
//! more than once.

use std::sync::LazyLock;

use redis::{RedisResult, Script, ToRedisArgs, aio::ConnectionLike};

/// The Lua script of [`set`]: `KEYS[1]` is a hash, `ARGV[1]` the value and `ARGV[2]` the token. It
/// returns 1 if it has written the value, and 0 if the token is stale.
///
/// ```
/// use lock::fenced;
///
/// /// As [`set`](fenced::set), on a connection that blocks.
/// fn set_blocking(
///     connection: &mut redis::Connection,
///     key: &str,
///     value: i64,
///     fencing_token: u64,
/// ) -> redis::RedisResult<bool> {
///     let script = redis::Script::new(fenced::SET);
///     script.key(key).arg(value).arg(fencing_token).invoke(connection)
/// }
/// ```
pub const SET: &str = include_str!("fenced_set.lua");

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(SET));

/// Writes a value to Redis, unless a larger fencing token has already written to that key.
///
/// Returns false if a larger token has: this writer has lost its lock and must stop.
///
/// The key becomes a hash with the fields `value` and `fence`: read the value with `HGET key
/// value`. The key has no expiry. If you set one, a stale write may be accepted after the key has
/// expired.
///
/// # Errors
///
/// The errors of the connection.
///
/// # Cancel safety
///
/// The value may or may not be written if the future is dropped.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use lock::{Locks, fenced};
///
/// let locks = Locks::connect("redis://127.0.0.1/").await?;
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let mut connection = client.get_multiplexed_async_connection().await?;
///
/// let guard = locks.lock("ledger").acquire().await?;
/// if !fenced::set(&mut connection, "ledger", 100, guard.fencing_token()).await? {
///     return Err("somebody else has the lock now".into());
/// }
/// # Ok(())
/// # }
/// ```
pub async fn set<V: ToRedisArgs>(
    connection: &mut impl ConnectionLike,
    key: &str,
    value: V,
    fencing_token: u64,
) -> RedisResult<bool> {
    SCRIPT.key(key).arg(value).arg(fencing_token).invoke_async(connection).await
}
