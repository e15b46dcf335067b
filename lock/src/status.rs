//! What a store knows about one lock.

use std::time::Duration;

use lock_core::Token;

/// Who holds a lock, as [`Lock::status`](crate::Lock::status) found it.
///
/// It was so when the store was asked; it may be otherwise by the time it is read.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{Locks, Status};
///
/// let locks = Locks::in_memory();
/// let _guard = locks.lock("report").acquire().await?;
/// match locks.lock("report").status().await? {
///     Status::Held { by_us, remaining, .. } => println!("held, by us: {by_us}, for {remaining:?}"),
///     _ => println!("free"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Nobody holds it.
    Free,
    /// Somebody holds it.
    #[non_exhaustive]
    Held {
        /// A guard of this [`Locks`](crate::Locks), or one of its clones, holds it.
        by_us: bool,
        /// The token of the holder, whichever client it is.
        holder: Token,
        /// What remains of the holder's lease; [`Duration::MAX`] if another client took the key
        /// for ever.
        remaining: Duration,
        /// How many callers wait for it in line: all of this [`Locks`](crate::Locks), and one for
        /// each other client, which stands for all of its own.
        waiters: usize,
    },
}
