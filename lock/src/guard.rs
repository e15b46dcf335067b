//! The guard of a held lock.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use lock_core::{Token, limits::whole_millis};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    Error,
    keeper::{Held, Hold},
};

/// A lock that is held until this guard is dropped, or until it is lost.
///
/// Dropping does not wait for the lock to be free: it tells the keeper, which releases it at
/// once, and goes on trying while the store cannot be reached. Dropping never blocks and never
/// panics, on any thread, with, without or after a runtime. Use [`release`](Self::release) to
/// know the outcome, or [`Locks::flush`](crate::Locks::flush) before the process exits.
///
/// The lease is renewed in the background for as long as the guard lives, within
/// `hold_at_most`. **It can be lost all the same**: the store may lose its data, or be out of
/// reach for longer than the lease. Then [`is_held`](Self::is_held) is false and
/// [`lost`](Self::lost) resolves, both before another process can get the lock, if clocks run at
/// the same rate and this process runs at all. A resource that must never accept a stale write
/// checks the [`fencing_token`](Self::fencing_token).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::Locks;
///
/// let locks = Locks::in_memory();
/// let guard = locks.lock("invoice:7").acquire().await?;
/// assert!(guard.is_held());
/// drop(guard);
/// assert!(locks.lock("invoice:7").try_acquire().await?.is_some());
/// # Ok(())
/// # }
/// ```
#[must_use = "the lock is released as soon as its guard is dropped: bind it to a name, as in \
              `let _guard = ..`; `let _ = ..` drops it at once"]
#[clippy::has_significant_drop]
pub struct LockGuard(Held);

impl LockGuard {
    pub(crate) fn new(held: Held) -> Self {
        Self(held)
    }

    /// Is it left to somebody else to release the lock?
    pub(crate) fn is_alias(&self) -> bool {
        self.0.is_alias()
    }

    pub(crate) fn hold(&self) -> &Arc<Hold> {
        self.0.hold()
    }

    /// The id of the lock.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.hold().lock.id
    }

    /// The store has freed the lock with something else that it was asked for.
    #[cfg(feature = "durable")]
    pub(crate) fn freed(self) {
        self.0.freed();
    }

    #[cfg(feature = "durable")]
    pub(crate) fn token(&self) -> &Token {
        &self.hold().token
    }

    pub(crate) fn shared_id(&self) -> &Arc<str> {
        &self.hold().lock.id
    }

    /// A number that grows with every grant of this id.
    ///
    /// Send it along with every write to what the lock protects, and let the resource refuse
    /// numbers below the highest it has seen: then a holder that was paused for longer than its
    /// lease cannot overwrite what its successor wrote. It fits an `i64`.
    ///
    /// Every grant of the store draws `max(last + 1, microseconds of the server's clock)` from one
    /// counter per database, so the numbers go on growing across expiry, release and loss of data. A
    /// fencing token is 1,024 times that number, plus the number of times that the lock has passed
    /// from one caller of this process to the next without the store. So tokens are not dense, and
    /// they exceed 2<sup>53</sup>: a double (a JavaScript number, a number in many JSON parsers)
    /// rounds two hand-overs to one number. Store them as a 64-bit integer, or send them as text.
    ///
    /// Where the store has lost the lock and granted it to another process, a hand-over inside this
    /// process has a smaller token than the other's, and a resource that checks it refuses this
    /// holder. The holder is told with its next renewal.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let first = locks.lock("report").acquire().await?.fencing_token();
    /// let second = locks.lock("report").acquire().await?.fencing_token();
    /// assert!(first < second);
    /// let in_a_database = i64::try_from(second).expect("it fits");
    /// let in_json = second.to_string();
    /// # drop((in_a_database, in_json));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.hold().fencing_token
    }

    /// Whether the lock is still ours.
    ///
    /// It looks at the clock, so it is right even after the whole process was stopped for a while. Once
    /// false, it stays false. Ask before each effect in code that does not `.await`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let (locks, rows) = (lock::Locks::in_memory(), [1, 2, 3]);
    /// let guard = locks.lock("report").acquire().await?;
    /// for row in rows {
    ///     if !guard.is_held() {
    ///         break; // another holder may be writing by now
    ///     }
    ///     println!("write row {row}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.hold().is_kept() && self.hold().is_held()
    }

    /// How long the lock stays ours if it is not renewed from now on; zero once it is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use std::time::Duration;
    ///
    /// let guard = locks.lock("report").lease(Duration::from_secs(30)).acquire().await?;
    /// assert!(guard.remaining() > Duration::from_secs(25));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn remaining(&self) -> Duration {
        if self.hold().is_kept() { self.hold().remaining() } else { Duration::ZERO }
    }

    /// How long ago its deadline was: has the keeper said so in time?
    #[cfg(lock_mutants)]
    #[doc(hidden)]
    pub fn __overdue(&self) -> Duration {
        self.hold().overdue()
    }

    /// Resolves when the lock is lost; never, if it is released first.
    ///
    /// The future does not borrow the guard, so it can be selected against the work that the lock
    /// protects, or spawned.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # use lock::Locks;
    /// # let locks = Locks::in_memory();
    /// # async fn work() {}
    /// let guard = locks.lock("invoice:7").acquire().await?;
    /// tokio::select! {
    ///     () = guard.lost() => println!("stop: somebody else may hold it now"),
    ///     () = work() => println!("done under the lock"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        self.loss()
    }

    pub(crate) fn loss(&self) -> Lost {
        Lost {
            hold: Arc::clone(self.hold()),
            cancelled: Box::pin(self.hold().lost().token().clone().cancelled_owned()),
        }
    }

    /// A token that is cancelled when the lock is lost, for code that is stopped by one.
    ///
    /// It is a child of the guard's own: cancelling it does not affect the lock. Give it to tasks that
    /// the holder spawns, which are not stopped with the holder.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let guard = locks.lock("report").acquire().await?;
    /// let stop = guard.lost_token();
    /// let task = tokio::spawn(stop.run_until_cancelled_owned(std::future::pending::<()>()));
    /// locks.lock("report").force_release().await?;
    /// assert!(task.await.unwrap().is_none(), "stopped");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn lost_token(&self) -> CancellationToken {
        self.hold().lost().token().child_token()
    }

    /// Adds to what remains of the lease, exact to the millisecond, once.
    ///
    /// Renewal goes on as before; it never shortens what was added. Use it ahead of a stretch in
    /// which the process cannot renew. The lock's `lease` setting is not changed.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store has no [`AdminStore`](crate::store::AdminStore); `Lost` if the
    /// lock is not held any more; `Invalid` if `by` is under a millisecond, or the
    /// lease would last beyond `hold_at_most` or 24 hours; `Unavailable` if there was no answer:
    /// the store may then keep the lock for longer, [`remaining`](Self::remaining) does not count
    /// on it, and a release ends it.
    ///
    /// # Cancel safety
    ///
    /// The lease may or may not be extended if the future is dropped; the lock stays held.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # use std::time::Duration;
    /// # let locks = lock::Locks::in_memory();
    /// let guard = locks.lock("report").acquire().await?;
    /// guard.extend(Duration::from_secs(60)).await?;
    /// assert!(guard.remaining() > Duration::from_secs(65));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn extend(&self, by: Duration) -> Result<(), Error> {
        let by = whole_millis(by);
        if by.is_zero() {
            return Err(Error::invalid("a lease is extended by whole milliseconds, one at least")
                .on(self.shared_id()));
        }
        self.0.extend(by).await
    }

    /// Releases the lock and says whether it was still ours.
    ///
    /// # Errors
    ///
    /// `Lost` if it was not: what was done under it may have been done by two at a time.
    /// `Unavailable` if the store did not say for two seconds, or `Rejected` if it refused; the
    /// release is then repeated in the background. A lock that is gone at a second try, after one
    /// without an answer, counts as released by the first.
    ///
    /// # Cancel safety
    ///
    /// The lock is released all the same if the future is dropped, polled or not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let guard = locks.lock("report").acquire().await?;
    /// // ... write the report
    /// guard.release().await?; // an error here says that the report may not have been ours to write
    /// # Ok(())
    /// # }
    /// ```
    pub async fn release(self) -> Result<(), Error> {
        self.0.release().await
    }

    /// Lets go of the lock without releasing it.
    ///
    /// It is not renewed any longer, so it is free when its lease ends, unless another process
    /// [adopts](crate::Lock::adopt) it with the token before that. Use it to hand a lock over to
    /// another process.
    #[must_use = "without the token nobody can adopt the lock"]
    pub fn leak(self) -> Token {
        self.0.leak()
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("id", &self.id())
            .field("fencing_token", &self.fencing_token())
            .field("is_held", &self.is_held())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

/// Resolves when a lock is lost. Every poll looks at the clock first: after a stall, the deadline
/// counts before the keeper has had a chance to say so.
pub(crate) struct Lost {
    hold: Arc<Hold>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Future for Lost {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.hold.is_held() { self.cancelled.as_mut().poll(context) } else { Poll::Ready(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
        time::Duration,
    };

    use crate::{Locks, store::*};

    #[tokio::test(start_paused = true)]
    async fn released_is_not_lost_when_its_deadline_has_passed() {
        let locks = Locks::in_memory();
        let lock = locks.lock("a").lease(Duration::from_millis(500));
        let guard = lock.acquire().await.unwrap();
        let (mut lost, token) = (Box::pin(guard.lost()), guard.lost_token());
        guard.release().await.unwrap();
        assert!(futures_util::poll!(lost.as_mut()).is_pending());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(futures_util::poll!(lost.as_mut()).is_pending(), "never, if it is released first");
        assert!(!token.is_cancelled());
    }

    struct Stalls {
        inner: MemoryStore,
        entered: AtomicBool,
        go: AtomicBool,
    }

    #[derive(Clone)]
    struct Stalling(Arc<Stalls>);

    impl Store for Stalling {
        fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
            self.0.inner.acquire(batch)
        }
        fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
            self.0.inner.renew(batch)
        }
        fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
            self.0.inner.release(batch)
        }
        fn admin(&self) -> Option<&dyn AdminStore> {
            Some(self)
        }
        fn embedded(&self) -> Option<&dyn EmbeddedStore> {
            Some(self)
        }
    }
    impl EmbeddedStore for Stalling {}
    impl AdminStore for Stalling {
        fn extend<'a>(&'a self, batch: &'a [ExtendRequest]) -> Answers<'a, Option<Duration>> {
            Box::pin(async move {
                self.0.entered.store(true, SeqCst);
                while !self.0.go.load(SeqCst) {
                    std::thread::yield_now();
                }
                self.0.inner.admin().unwrap().extend(batch).await
            })
        }
        fn holder<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<Holder>> {
            self.0.inner.admin().unwrap().holder(keys)
        }
        fn force_release<'a>(&'a self, batch: &'a [ForceReleaseRequest]) -> Answers<'a, Release> {
            self.0.inner.admin().unwrap().force_release(batch)
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_is_told_that_a_lock_was_extended_which_is_lost() {
        let store = Stalling(Arc::new(Stalls {
            inner: MemoryStore::default(),
            entered: AtomicBool::new(false),
            go: AtomicBool::new(false),
        }));
        let locks = Locks::builder().store(store.clone()).build().await.unwrap();
        let lock = locks.lock("a").lease(Duration::from_secs(3));
        let guard = Arc::new(lock.acquire().await.unwrap());
        let watched = Arc::clone(&guard);
        let watch = std::thread::spawn(move || {
            while !store.0.entered.load(SeqCst) {
                std::thread::yield_now();
            }
            while watched.is_held() {
                std::thread::yield_now();
            }
            store.0.go.store(true, SeqCst);
        });
        let extended = guard.extend(Duration::from_secs(60)).await;
        watch.join().unwrap();
        assert!(extended.is_err() || guard.is_held(), "told Ok of a lock that is lost");
    }
}
