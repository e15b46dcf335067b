//! What a store knows about one lock.

use std::time::Duration;

use lock_core::contract;

use crate::{Holder, keeper::Client};

/// The state of a lock, as [`Lock::status`](crate::Lock::status) found it.
///
/// It is a snapshot, which may be out of date by the time it is read.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{Locks, Status};
///
/// let locks = Locks::in_memory();
/// let _guard = locks.lock("report").acquire().await?;
/// match locks.lock("report").status().await? {
///     Status::Held { holders, remaining, .. } => {
///         println!("held by {:?}, for {remaining:?} unless it is renewed", holders[0].name);
///     }
///     _ => println!("free"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Nobody holds the lock.
    Free,
    /// Somebody holds the lock.
    #[non_exhaustive]
    Held {
        /// Whether a guard of this [`Locks`](crate::Locks) or of one of its clones holds it.
        by_us: bool,
        /// The holders, in this process or any other.
        holders: Vec<Holder>,
        /// What remains of the holder's lease; [`Duration::MAX`] if a client of another library has
        /// taken the key without an expiry.
        remaining: Duration,
        /// How many callers wait for the lock: all callers of this [`Locks`](crate::Locks), plus
        /// one for each other client that has waiting callers, however many they are.
        waiters: usize,
    },
}

impl Status {
    pub(crate) async fn of(holder: Option<contract::Holder>, client: &Client) -> Self {
        let Some(holder) = holder else { return Self::Free };
        let by_us = client.is_ours(&holder.token);
        let (remaining, waiters) = (holder.remaining.unwrap_or(Duration::MAX), holder.waiters);
        Self::Held { by_us, holders: vec![Holder::of(holder, client).await], remaining, waiters }
    }
}
