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

/// A lock that is held until this guard is dropped, or until the lock is lost.
///
/// Dropping does not wait until the lock is free: the lock is released immediately, in the
/// background, and the release is repeated while the store cannot be reached. Dropping never blocks
/// and never panics, on any thread, whether inside a runtime, outside of one, or after the runtime
/// has shut down. Use [`release`](Self::release) to learn the outcome, or
/// [`Locks::flush`](crate::Locks::flush) before the process exits.
///
/// The lease is renewed in the background for as long as the guard lives, within `hold_at_most`.
/// **The lock can still be lost**: the store may lose its data, or be unreachable for longer than
/// the lease. Then [`is_held`](Self::is_held) returns false and [`lost`](Self::lost) resolves. If
/// the store keeps its data, clock rates differ by less than a hundredth and this process is
/// running, both happen before another process can get the lock. A resource that must never accept
/// a stale write checks the [`fencing_token`](Self::fencing_token).
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
#[must_use = "the lock is released as soon as its guard is dropped: bind it to a name, as in `let \
              _guard = ..`; `let _ = ..` drops it immediately"]
#[clippy::has_significant_drop]
pub struct LockGuard(Held);

impl LockGuard {
    pub(crate) fn new(held: Held) -> Self {
        Self(held)
    }

    /// Is the release left to another guard of the same lock?
    pub(crate) fn is_alias(&self) -> bool {
        self.0.is_alias()
    }

    pub(crate) fn hold(&self) -> &Arc<Hold> {
        self.0.hold()
    }

    /// Returns the id of the lock.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let guard = locks.lock("invoice:7").acquire().await?;
    /// assert_eq!(guard.id(), "invoice:7");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn id(&self) -> &str {
        &self.hold().lock.id
    }

    /// Ends the guard without a release: another operation has already freed the lock in the store.
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

    /// Returns the fencing token: a number that grows with every grant of this lock.
    ///
    /// Send it with every write to the resource that the lock protects, and let the resource refuse
    /// numbers smaller than the largest it has seen. Then a holder that was paused for longer than
    /// its lease cannot overwrite what its successor wrote. The number fits an `i64`.
    ///
    /// Every grant by the store draws `max(last + 1, microseconds of the server's clock)` from a
    /// counter (one per database, or in a Redis Cluster one per slot), so the numbers keep growing
    /// across expiry, release and loss of data. A fencing token is 1,024 times that number, plus
    /// the number of times that the lock has passed from one caller of this process to the next
    /// without a request to the store. So tokens have gaps, and they exceed 2<sup>53</sup>: a
    /// double (a JavaScript number, a number in many JSON parsers) may round the tokens of two
    /// hand-overs to the same number. Store a token as a 64-bit integer, or send it as text.
    ///
    /// If the store has lost the lock and granted it to another process, a hand-over inside this
    /// process has a smaller token than that grant, and a resource that checks tokens refuses this
    /// holder. The holder learns of the loss at its next renewal.
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

    /// Returns whether the lock is still held.
    ///
    /// This checks the clock, so it is correct even after the whole process was paused. Once it has
    /// returned false, it always returns false. Call it before each side effect in code that does
    /// not `.await`.
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

    /// Returns how long the lock stays held if it is not renewed again; zero once it is lost.
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

    /// How long ago the deadline passed, for tests that check that the keeper signals a loss in
    /// time.
    #[cfg(lock_mutants)]
    #[doc(hidden)]
    pub fn __overdue(&self) -> Duration {
        self.hold().overdue()
    }

    /// Resolves when the lock is lost; never resolves if the lock is released first.
    ///
    /// The future does not borrow the guard, so it can be spawned, or used in `select!` with the
    /// work that the lock protects.
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

    /// Returns a token that is cancelled when the lock is lost, for code that takes a
    /// `CancellationToken`.
    ///
    /// It is a child of the guard's own token: cancelling it does not affect the lock. Pass it to
    /// tasks that the holder spawns, because they are not stopped with the holder.
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

    /// Adds `by` to the remaining lease once, exact to the millisecond.
    ///
    /// Renewal continues as before, and never shortens the extended lease. Extend a lease before a
    /// period in which the process cannot renew it. The lock's `lease` setting is not changed.
    ///
    /// # Errors
    ///
    /// - `Unsupported` if the store has no [`AdminStore`](crate::store::AdminStore).
    /// - `Lost` if the lock is no longer held.
    /// - `Invalid` if `by` is under a millisecond, or the lease would last beyond `hold_at_most` or
    ///   24 hours.
    /// - `Unavailable` if there was no answer. The store may nevertheless have extended the lease;
    ///   [`remaining`](Self::remaining) does not count on that, and a release still frees the lock.
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
            return Err(Error::invalid("a lease can only be extended by one millisecond or more")
                .on(self.shared_id()));
        }
        self.0.extend(by).await
    }

    /// Releases the lock and reports whether it was still held.
    ///
    /// # Errors
    ///
    /// - `Lost` if the lock was no longer held: the work may have overlapped with that of another
    ///   holder.
    /// - `Unavailable` if the store did not answer for two seconds, `Rejected` if it refused. The
    ///   release is then repeated in the background.
    ///
    /// If the first try got no answer and a later try finds the lock gone, the first try counts as
    /// the release.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, whether or not it was polled, the lock is still released.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let guard = locks.lock("report").acquire().await?;
    /// // ... write the report
    /// guard.release().await?; // `Lost`: another holder may have written it as well
    /// # Ok(())
    /// # }
    /// ```
    pub async fn release(self) -> Result<(), Error> {
        self.0.release().await
    }

    /// Gives up the guard without releasing the lock, and returns its token.
    ///
    /// The lock is no longer renewed, so it becomes free when its lease ends, unless another
    /// process [adopts](crate::Lock::adopt) it with the token before that. Use this to hand a lock
    /// over to another process.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let token = locks.lock("report").acquire().await?.leak();
    /// assert!(locks.lock("report").try_acquire().await?.is_none(), "it was not released");
    /// // ... the process that continues the work is given the token, and within the lease it calls
    /// let guard = locks.lock("report").adopt(token).await?;
    /// guard.release().await?;
    /// assert!(locks.lock("report").try_acquire().await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
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

/// Resolves when a lock is lost. Every poll checks the clock first: after a stall, the deadline
/// counts even if the keeper could not signal the loss yet.
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
        assert!(extended.is_err() || guard.is_held(), "Ok, but the lock is lost");
    }
}
