//! A store that fails on demand, for tests of code that uses locks, and [tests of the
//! contract](contract) for a store of your own.
//!
//! In a test, build a `Locks` with a [`FaultyStore`] ([`Locks::builder`](crate::Locks::builder)),
//! and pass it to the service, or, if the service uses the attributes, run the service in the
//! [`scope`](crate::Locks::scope) of that `Locks`. Around a
//! [`MemoryStore`](crate::store::MemoryStore), the store follows tokio's paused clock, so a test
//! that waits for a lease to run out takes no time.
//!
//! ```
//! use lock::{Error, ErrorKind, Locks, locked, store::MemoryStore, test_util::FaultyStore};
//! use std::time::Duration;
//!
//! // The code under test.
//! #[locked(id = "invoice:{invoice_id}", lease = "10s", wait = "5s")]
//! async fn charge(invoice_id: u64) -> Result<&'static str, Error> {
//!     tokio::time::sleep(Duration::from_secs(60)).await;
//!     Ok("charged")
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() { busy().await.unwrap(); lost().await; down().await; }
//! # /*
//! #[tokio::test(start_paused = true)]
//! # */
//! async fn busy() -> Result<(), Error> {
//!     let locks = Locks::in_memory();
//!     let guard = locks.lock("invoice:7").acquire().await?;
//!     let error = locks.scope(charge(7)).await.unwrap_err();
//!     assert_eq!(error.kind(), ErrorKind::Busy);
//!     guard.release().await?;
//!     assert_eq!(locks.scope(charge(7)).await?, "charged");
//!     Ok(())
//! }
//!
//! # /*
//! #[tokio::test(start_paused = true)]
//! # */
//! async fn lost() {
//!     let store = FaultyStore::new(MemoryStore::new());
//!     let locks = Locks::builder().store(store.clone()).build().await.unwrap();
//!     let steal = async {
//!         tokio::time::sleep(Duration::from_secs(1)).await;
//!         assert!(store.steal("lock:invoice:7").await);
//!     };
//!     let (outcome, ()) = tokio::join!(locks.scope(charge(7)), steal);
//!     assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Lost);
//! }
//!
//! # /*
//! #[tokio::test(start_paused = true)]
//! # */
//! async fn down() {
//!     let store = FaultyStore::new(MemoryStore::new());
//!     let locks = Locks::builder().store(store.clone()).build().await.unwrap();
//!     store.go_down();
//!     let error = locks.scope(charge(7)).await.unwrap_err();
//!     assert_eq!(error.kind(), ErrorKind::Unavailable);
//!     store.come_back();
//!     assert_eq!(locks.scope(charge(7)).await.unwrap(), "charged");
//! }
//! ```

pub mod contract;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lock_core::{
    Token,
    contract::{
        AcquireRequest, Acquisition, ClaimRequest, ClientRecord, DebounceReply, DebounceRequest,
        Delivery, DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish, EndWindowRequest,
        ExtendRequest, FinishRequest, ForceReleaseRequest, Holder, IntroduceRequest, KeepRequest,
        Kept, Release, ReleaseRequest, RenewRequest, Renewal, ScanPage, ScanRequest, SetAside,
        StoreError, TakeBackRequest, WaitingCalls, answer_each,
    },
};
use tokio::runtime::Handle;

use crate::store::{
    AdminStore, Answers, DebounceStore, DurableStore, EmbeddedStore, Listener, Store, StoreFuture,
};

/// How long the thief in [`FaultyStore::steal`] keeps a lock.
const STOLEN_FOR: Duration = Duration::from_secs(10);

/// A [`Store`] around another one, which fails on demand.
///
/// Clones share the store and its faults: pass one clone to
/// [`LocksBuilder::store`](crate::LocksBuilder::store), and keep another to inject faults. The
/// store is embedded if the inner store is.
///
/// The library repeats a call that gets no answer for up to two seconds. So its callers do not
/// notice a single lost answer. While the store [is down](Self::go_down), a call fails with
/// `Unavailable` after two seconds, and a lock is `Lost` once its lease has run out.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{ErrorKind, Locks, store::MemoryStore, test_util::{Fault, FaultyStore, Operation}};
///
/// let store = FaultyStore::new(MemoryStore::new());
/// let locks = Locks::builder().store(store.clone()).build().await?;
///
/// store.fail_next(Operation::Acquire, Fault::LostReply, 1);
/// drop(locks.lock("report").acquire().await?); // the library has repeated the call
/// assert_eq!(store.calls(Operation::Acquire), 2);
///
/// store.fail_next(Operation::Acquire, Fault::Rejected, 1);
/// let error = locks.lock("report").acquire().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Rejected);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FaultyStore(Arc<Shared>);

struct Shared {
    inner: Box<dyn Store>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    down: bool,
    delay: Duration,
    planned: HashMap<Operation, VecDeque<Fault>>,
    calls: HashMap<Operation, u64>,
}

/// An operation of a [`Store`]: one of its methods.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// # let store = lock::test_util::FaultyStore::new(lock::store::MemoryStore::new());
/// # let locks = lock::Locks::builder().store(store.clone()).build().await?;
/// use std::time::Duration;
/// use lock::test_util::{Fault, Operation};
///
/// let guard = locks.lock("report").acquire().await?;
/// store.fail_next(Operation::Renew, Fault::Unavailable, 2);
/// tokio::time::sleep(Duration::from_secs(60)).await;
/// assert!(guard.is_held(), "the third try has renewed it in time");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// A batch for [`Store::acquire`].
    Acquire,
    /// A batch for [`Store::renew`].
    Renew,
    /// A batch for [`Store::release`].
    Release,
    /// A batch for [`AdminStore::extend`].
    Extend,
    /// A batch for [`AdminStore::holder`].
    Holder,
    /// A batch for [`AdminStore::force_release`].
    ForceRelease,
    /// A batch for [`AdminStore::introduce`].
    Introduce,
    /// A batch for [`AdminStore::client`].
    Client,
    /// A batch for [`AdminStore::scan`].
    Scan,
    /// A batch for [`DebounceStore::register`].
    Debounce,
    /// A batch for [`DebounceStore::end_window`].
    EndWindow,
    /// A batch for [`DebounceStore::due_in`].
    DueIn,
    /// A batch for any method of [`DurableStore`].
    Durable,
}

/// How a call of a store fails.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// # let store = lock::test_util::FaultyStore::new(lock::store::MemoryStore::new());
/// # let locks = lock::Locks::builder().store(store.clone()).build().await?;
/// use lock::{ErrorKind, test_util::{Fault, Operation}};
///
/// for fault in [Fault::Unavailable, Fault::LostReply] {
///     store.fail_next(Operation::Acquire, fault, 1);
///     locks.lock("report").acquire().await?.release().await?; // the library asks again
/// }
/// store.fail_next(Operation::Acquire, Fault::Rejected, 1);
/// let error = locks.lock("report").acquire().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Rejected);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The call does not reach the store: it has no effect, but the caller does not know this.
    Unavailable,
    /// The store refuses the call: it has no effect, and the caller knows this.
    Rejected,
    /// The call takes effect, but its answer is lost: the caller does not know the outcome.
    LostReply,
}

impl FaultyStore {
    /// Creates a store that works like the inner one until a fault is injected.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use lock::{Locks, store::MemoryStore, test_util::FaultyStore};
    ///
    /// let store = FaultyStore::new(MemoryStore::new());
    /// // `locks` is for the code under test, and the test keeps `store`.
    /// let locks = Locks::builder().store(store.clone()).build().await?;
    /// assert!(locks.lock("report").try_acquire().await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(inner: impl Store) -> Self {
        Self(Arc::new(Shared { inner: Box::new(inner), state: Mutex::default() }))
    }

    /// Prevents all calls from reaching the store from now on, as if the network was cut. The locks
    /// in the store stay, and expire as usual.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let store = lock::test_util::FaultyStore::new(lock::store::MemoryStore::new());
    /// # let locks = lock::Locks::builder().store(store.clone()).build().await?;
    /// let guard = locks.lock("report").acquire().await?;
    /// store.go_down();
    /// guard.lost().await; // its lease runs out, because it cannot be renewed
    /// assert!(!guard.is_held());
    /// # Ok(())
    /// # }
    /// ```
    pub fn go_down(&self) {
        self.state().down = true;
    }

    /// Lets calls reach the store again.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let store = lock::test_util::FaultyStore::new(lock::store::MemoryStore::new());
    /// # let locks = lock::Locks::builder().store(store.clone()).build().await?;
    /// store.go_down();
    /// let error = locks.lock("report").acquire().await.unwrap_err();
    /// assert_eq!(error.kind(), lock::ErrorKind::Unavailable);
    /// store.come_back();
    /// assert!(locks.lock("report").try_acquire().await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn come_back(&self) {
        self.state().down = false;
    }

    /// Makes the next `times` calls of `operation` fail with `fault`, after the faults that were
    /// planned earlier. Calls while the store [is down](Self::go_down) do not count.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let store = lock::test_util::FaultyStore::new(lock::store::MemoryStore::new());
    /// # let locks = lock::Locks::builder().store(store.clone()).build().await?;
    /// use lock::test_util::{Fault, Operation};
    ///
    /// let guard = locks.lock("report").acquire().await?;
    /// store.fail_next(Operation::Release, Fault::LostReply, 1);
    /// guard.release().await?; // the second try finds out that the first one was carried out
    /// assert_eq!(store.calls(Operation::Release), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fail_next(&self, operation: Operation, fault: Fault, times: usize) {
        let mut state = self.state();
        let planned = state.planned.entry(operation).or_default();
        planned.extend(std::iter::repeat_n(fault, times));
    }

    /// Delays each answer by this much from now on; the calls still take effect immediately. Zero
    /// ends the delay. Calls from outside of a runtime are not delayed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let store = lock::test_util::FaultyStore::new(lock::store::MemoryStore::new());
    /// # let locks = lock::Locks::builder().store(store.clone()).build().await?;
    /// use std::time::Duration;
    ///
    /// store.delay(Duration::from_millis(300));
    /// let asked = tokio::time::Instant::now();
    /// let _guard = locks.lock("report").acquire().await?;
    /// assert!(asked.elapsed() >= Duration::from_millis(300));
    /// # Ok(())
    /// # }
    /// ```
    pub fn delay(&self, by: Duration) {
        self.state().delay = by;
    }

    /// Takes the lock of this key away from its holder without notifying it: the holder learns of
    /// the loss at its next renewal, as after a failover that lost the key. Another token then
    /// holds the lock for ten seconds. Returns false if nobody held the lock, or if the inner store
    /// has no [`AdminStore`] that names the holder.
    ///
    /// A key is the prefix and the id: `lock:invoice:7`, unless the builder was given another
    /// prefix. To make a holder lose its lock immediately, use
    /// [`Lock::force_release`](crate::Lock::force_release).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lock may or may not be taken away, and may then be free
    /// instead of held by another token.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let store = lock::test_util::FaultyStore::new(lock::store::MemoryStore::new());
    /// # let locks = lock::Locks::builder().store(store.clone()).build().await?;
    /// let guard = locks.lock("report").acquire().await?;
    /// assert!(store.steal(&locks.lock("report").key()).await);
    /// assert!(guard.is_held(), "the holder does not know yet");
    /// guard.lost().await; // it learns of the loss at its next renewal
    /// # Ok(())
    /// # }
    /// ```
    pub async fn steal(&self, key: &str) -> bool {
        let inner = &self.0.inner;
        let mut holders = inner.holder(&[key.into()]).await;
        let Some(Ok(Some(Holder { token, .. }))) = holders.pop() else { return false };
        let released = inner.release(&[ReleaseRequest::new(key, token)]).await;
        let thief = Token::from("thief:1".to_owned());
        let _ = inner.acquire(&[AcquireRequest::new(key, thief, STOLEN_FOR)]).await;
        matches!(released.first(), Some(Ok(Release { ours: true, .. })))
    }

    /// Returns the number of calls of this operation, including those that failed. A batch counts
    /// as one call.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let store = lock::test_util::FaultyStore::new(lock::store::MemoryStore::new());
    /// # let locks = lock::Locks::builder().store(store.clone()).build().await?;
    /// use lock::test_util::Operation;
    ///
    /// let guard = locks.lock("report").acquire().await?;
    /// tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    /// assert_eq!(store.calls(Operation::Acquire), 1);
    /// assert!(store.calls(Operation::Renew) > 10, "every third of its lease of ten seconds");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.state().calls.get(&operation).copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No user code runs while it is locked.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, operation: Operation) -> (Option<Fault>, Duration) {
        let mut state = self.state();
        *state.calls.entry(operation).or_default() += 1;
        if state.down {
            return (Some(Fault::Unavailable), state.delay);
        }
        let fault = state.planned.get_mut(&operation).and_then(VecDeque::pop_front);
        (fault, state.delay)
    }

    /// One call. At its first poll, its fault is chosen and it takes effect, in the order of the
    /// calls.
    fn call<'a, Q: Sync, A: Send + 'a>(
        &'a self,
        operation: Operation,
        batch: &'a [Q],
        ask: fn(&'a (dyn Store + 'static), &'a [Q]) -> Answers<'a, A>,
    ) -> Answers<'a, A> {
        Box::pin(async move {
            let (fault, delay) = self.next(operation);
            let inner = || ask(&*self.0.inner, batch);
            let failed = |error| answer_each(Err(error), batch.len());
            let answer = match fault {
                None => inner().await,
                Some(Fault::Unavailable) => {
                    failed(StoreError::unavailable("the test has cut the connection"))
                }
                Some(Fault::Rejected) => failed(StoreError::rejected("the test has refused it")),
                Some(Fault::LostReply) => {
                    drop(inner().await);
                    failed(StoreError::unavailable("the test has lost the answer"))
                }
            };
            if !delay.is_zero() && Handle::try_current().is_ok() {
                tokio::time::sleep(delay).await;
            }
            answer
        })
    }
}

impl Store for FaultyStore {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        self.call(Operation::Acquire, batch, <dyn Store>::acquire)
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        self.call(Operation::Renew, batch, <dyn Store>::renew)
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        self.call(Operation::Release, batch, <dyn Store>::release)
    }

    fn subscribe<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, Delivery> {
        self.0.inner.subscribe(client, listener)
    }

    fn shard(&self, key: &str) -> usize {
        self.0.inner.shard(key)
    }

    fn admin(&self) -> Option<&dyn AdminStore> {
        self.0.inner.admin().map(|_| self as _)
    }

    fn debounce(&self) -> Option<&dyn DebounceStore> {
        self.0.inner.debounce().map(|_| self as _)
    }

    fn durable(&self) -> Option<&dyn DurableStore> {
        self.0.inner.durable().map(|_| self as _)
    }

    fn embedded(&self) -> Option<&dyn EmbeddedStore> {
        self.0.inner.embedded().map(|_| self as _)
    }
}

/// Its answers may be delayed, so it has none of them at once.
impl EmbeddedStore for FaultyStore {}

impl AdminStore for FaultyStore {
    fn extend<'a>(&'a self, batch: &'a [ExtendRequest]) -> Answers<'a, Option<Duration>> {
        self.call(Operation::Extend, batch, <dyn Store>::extend)
    }

    fn holder<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<Holder>> {
        self.call(Operation::Holder, keys, <dyn Store>::holder)
    }

    fn force_release<'a>(&'a self, batch: &'a [ForceReleaseRequest]) -> Answers<'a, Release> {
        self.call(Operation::ForceRelease, batch, <dyn Store>::force_release)
    }

    fn introduce<'a>(&'a self, batch: &'a [IntroduceRequest]) -> Answers<'a, ()> {
        self.call(Operation::Introduce, batch, <dyn Store>::introduce)
    }

    fn client<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<ClientRecord>> {
        self.call(Operation::Client, keys, <dyn Store>::client)
    }

    fn scan<'a>(&'a self, batch: &'a [ScanRequest]) -> Answers<'a, ScanPage> {
        self.call(Operation::Scan, batch, <dyn Store>::scan)
    }
}

impl DebounceStore for FaultyStore {
    fn register<'a>(&'a self, batch: &'a [DebounceRequest]) -> Answers<'a, DebounceReply> {
        self.call(Operation::Debounce, batch, <dyn Store>::register)
    }

    fn end_window<'a>(&'a self, batch: &'a [EndWindowRequest]) -> Answers<'a, bool> {
        self.call(Operation::EndWindow, batch, <dyn Store>::end_window)
    }

    fn due_in<'a>(&'a self, windows: &'a [Arc<str>]) -> Answers<'a, Option<Duration>> {
        self.call(Operation::DueIn, windows, <dyn Store>::due_in)
    }
}

impl DurableStore for FaultyStore {
    fn keep<'a>(&'a self, batch: &'a [KeepRequest]) -> Answers<'a, Kept> {
        self.call(Operation::Durable, batch, <dyn Store>::keep)
    }

    fn due<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, DueCalls> {
        self.call(Operation::Durable, batch, <dyn Store>::due)
    }

    fn waiting<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, WaitingCalls> {
        self.call(Operation::Durable, batch, <dyn Store>::waiting)
    }

    fn claim<'a>(&'a self, batch: &'a [ClaimRequest]) -> Answers<'a, DurableClaim> {
        self.call(Operation::Durable, batch, <dyn Store>::claim)
    }

    fn finish<'a>(&'a self, batch: &'a [FinishRequest]) -> Answers<'a, DurableFinish> {
        self.call(Operation::Durable, batch, <dyn Store>::finish)
    }

    fn set_aside<'a>(&'a self, books: &'a [DurableBook]) -> Answers<'a, Vec<SetAside>> {
        self.call(Operation::Durable, books, <dyn Store>::set_aside)
    }

    fn take_back<'a>(&'a self, batch: &'a [TakeBackRequest]) -> Answers<'a, bool> {
        self.call(Operation::Durable, batch, <dyn Store>::take_back)
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("state", &*self.state()).finish_non_exhaustive()
    }
}
