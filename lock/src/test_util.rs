//! A store that fails when it is told to, for tests of code that uses locks; and, for those who write
//! a store, [tests of its contract](contract).
//!
//! Under a test, a service gets its locks from [`Locks::builder`](crate::Locks::builder) with a
//! [`FaultyStore`], or, if it uses the attributes, runs in the
//! [`scope`](crate::Locks::scope) of such a `Locks`. Around a [`MemoryStore`](crate::store::MemoryStore)
//! it obeys tokio's paused clock, so a test that waits for a lease to run out takes no time.
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

/// For how long a thief keeps what it steals.
const STOLEN_FOR: Duration = Duration::from_secs(10);

/// A [`Store`] around another one, which fails when it is told to.
///
/// Clones are the same store with the same faults: give one to
/// [`LocksBuilder::store`](crate::LocksBuilder::store), and keep one to tell it what goes wrong.
/// It is embedded if the inner store is.
///
/// The library repeats what was not answered, for two seconds: so one lost answer is invisible to
/// its callers, and a store that [is down](Self::go_down) is an `Unavailable` after two seconds,
/// or a `Lost` once a lease has run out.
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
/// drop(locks.lock("report").acquire().await?); // asked again, and answered
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

/// What can be asked of a [`Store`]: its methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Store::acquire`], a batch of them.
    Acquire,
    /// [`Store::renew`], a batch of them.
    Renew,
    /// [`Store::release`], a batch of them.
    Release,
    /// [`AdminStore::extend`], a batch of them.
    Extend,
    /// [`AdminStore::holder`], a batch of them.
    Holder,
    /// [`AdminStore::force_release`], a batch of them.
    ForceRelease,
    /// [`AdminStore::introduce`], a batch of them.
    Introduce,
    /// [`AdminStore::client`], a batch of them.
    Client,
    /// [`AdminStore::scan`], a batch of them.
    Scan,
    /// [`DebounceStore::register`], a batch of them.
    Debounce,
    /// [`DebounceStore::end_window`], a batch of them.
    EndWindow,
    /// [`DebounceStore::due_in`], a batch of them.
    DueIn,
    /// Any method of [`DurableStore`], a batch of one kind.
    Durable,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// It does not reach the store: no effect, and the outcome is not known.
    Unavailable,
    /// The store refuses it: no effect, and that is known.
    Rejected,
    /// It takes effect, but its answer is lost: the outcome is not known.
    LostReply,
}

impl FaultyStore {
    /// A store that does what the inner one does, until it is told otherwise.
    pub fn new(inner: impl Store) -> Self {
        Self(Arc::new(Shared { inner: Box::new(inner), state: Mutex::default() }))
    }

    /// From now on no call reaches the store, as if the network was cut. What it holds stays, and
    /// runs out as ever.
    pub fn go_down(&self) {
        self.state().down = true;
    }

    /// The store is reached again.
    pub fn come_back(&self) {
        self.state().down = false;
    }

    /// Makes the next `times` calls of `operation` fail with `fault`, after the faults that were
    /// planned before. Calls while the store [is down](Self::go_down) do not count.
    pub fn fail_next(&self, operation: Operation, fault: Fault, times: usize) {
        let mut state = self.state();
        let planned = state.planned.entry(operation).or_default();
        planned.extend(std::iter::repeat_n(fault, times));
    }

    /// From now on each answer comes so much later; the call has taken effect at once. Zero ends
    /// it. Calls from outside of a runtime are not delayed.
    pub fn delay(&self, by: Duration) {
        self.state().delay = by;
    }

    /// Takes the lock of this key away from its holder, who is not told and learns of it with the
    /// next renewal, as after a failover that lost the key. A stranger holds it then, for ten
    /// seconds. False if nobody held it, or if the inner store offers no
    /// [`AdminStore`] to say who does.
    ///
    /// A key is the prefix and the id: `lock:invoice:7`, unless the builder was given another
    /// prefix. To lose a lock at once, use [`Lock::force_release`](crate::Lock::force_release).
    ///
    /// # Cancel safety
    ///
    /// The lock may or may not be taken, and may be free instead of a stranger's, if the future
    /// is dropped.
    pub async fn steal(&self, key: &str) -> bool {
        let inner = &self.0.inner;
        let mut holders = inner.holder(&[key.into()]).await;
        let Some(Ok(Some(Holder { token, .. }))) = holders.pop() else { return false };
        let released = inner.release(&[ReleaseRequest::new(key, token)]).await;
        let thief = Token::from("thief:1".to_owned());
        let _ = inner.acquire(&[AcquireRequest::new(key, thief, STOLEN_FOR)]).await;
        matches!(released.first(), Some(Ok(Release { ours: true, .. })))
    }

    /// How many calls of this operation there were, those that went wrong included. A batch is
    /// one call.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.state().calls.get(&operation).copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of others runs under it.
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

    /// One call: what goes wrong with it is decided when it is first polled, and what takes effect
    /// does so then, in the order of the calls.
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
                Some(Fault::Rejected) => failed(StoreError::rejected("the test has it refused")),
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

/// It takes its time.
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
