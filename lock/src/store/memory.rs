//! Locks in the memory of this process: the embedded default, and the reference implementation of
//! the contract.

use std::{
    fmt,
    future::ready,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lock_core::{
    contract::{
        AcquireRequest, Acquisition, ClaimRequest, ClientRecord, DebounceReply, DebounceRequest,
        Delivery, DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish, EndWindowRequest,
        ExtendRequest, FinishRequest, ForceReleaseRequest, Holder, IntroduceRequest, KeepRequest,
        Kept, Release, ReleaseRequest, RenewRequest, Renewal, ScanPage, ScanRequest, SetAside,
        StoreError, TakeBackRequest, WaitingCalls,
    },
    table::{Now, Table},
};

use super::{
    AdminStore, Answers, DebounceStore, DurableStore, EmbeddedStore, Listener, Store, StoreFuture,
};
use crate::clock::{Clock, TokioClock};

/// A store in the memory of this process.
///
/// [`Locks::in_memory`](crate::Locks::in_memory) creates a store for a single `Locks`. Create a
/// store yourself to let several `Locks` share it, as several instances of a service would share a
/// Redis server. Clones refer to the same store. The store uses tokio's clock, which a test can
/// pause.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{Locks, store::MemoryStore};
///
/// let store = MemoryStore::new();
/// let one = Locks::builder().store(store.clone()).build().await?;
/// let other = Locks::builder().store(store).build().await?;
///
/// let guard = one.lock("report").acquire().await?;
/// assert!(other.lock("report").try_acquire().await?.is_none());
/// # drop(guard);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Shared>);

struct Shared {
    clock: TokioClock,
    /// Microseconds since the Unix epoch at the clock's origin.
    epoch: u64,
    table: Mutex<Table<Listener>>,
}

impl MemoryStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Arc::new(Shared {
            clock: TokioClock::new(),
            epoch: u64::try_from(epoch.as_micros()).unwrap_or(0),
            table: Mutex::default(),
        }))
    }

    /// Runs one operation on the table, with the time at which it does so.
    fn at_once<T>(&self, operation: impl FnOnce(&mut Table<Listener>, Now) -> T) -> T {
        // A panic cannot leave the table half changed: nothing below panics between two writes.
        let mut table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        table.sweep(now.moment);
        let answer = operation(&mut table, now);
        let notices = table.notices();
        drop(table);
        for (listener, notice) in notices {
            listener.notify(notice);
        }
        answer
    }

    /// Runs an operation for each item of a batch, in one step.
    fn all<T, A>(
        &self,
        batch: &[T],
        answers: &mut Vec<Result<A, StoreError>>,
        operation: impl Fn(&mut Table<Listener>, &T, Now) -> A,
    ) -> bool {
        self.at_once(|table, now| {
            answers.extend(batch.iter().map(|request| Ok(operation(table, request, now))));
        });
        true
    }

    /// The same, when the future is first polled.
    fn each<'a, T: Sync, A: Send + 'a>(
        &'a self,
        batch: &'a [T],
        operation: impl Fn(&mut Table<Listener>, &T, Now) -> A + Send + 'a,
    ) -> Answers<'a, A> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(batch.len());
            self.all(batch, &mut answers, operation);
            answers
        })
    }

    fn now(&self) -> Now {
        let moment = self.0.clock.now();
        Now { moment, micros: self.0.epoch + moment.as_nanos() / 1000 }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let locks = self.at_once(|table, _| table.locks());
        f.debug_struct("MemoryStore").field("locks", &locks).finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        self.each(batch, Table::acquire)
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        self.each(batch, Table::renew)
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        self.each(batch, Table::release)
    }

    fn subscribe<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, Delivery> {
        self.at_once(|table, _| table.subscribe(client, listener));
        Box::pin(ready(Delivery::Push))
    }

    fn admin(&self) -> Option<&dyn AdminStore> {
        Some(self)
    }

    fn debounce(&self) -> Option<&dyn DebounceStore> {
        Some(self)
    }

    fn durable(&self) -> Option<&dyn DurableStore> {
        Some(self)
    }

    fn embedded(&self) -> Option<&dyn EmbeddedStore> {
        Some(self)
    }
}

impl EmbeddedStore for MemoryStore {
    fn acquire_now(
        &self,
        batch: &[AcquireRequest],
        answers: &mut Vec<Result<Acquisition, StoreError>>,
    ) -> bool {
        self.all(batch, answers, Table::acquire)
    }

    fn renew_now(
        &self,
        batch: &[RenewRequest],
        answers: &mut Vec<Result<Renewal, StoreError>>,
    ) -> bool {
        self.all(batch, answers, Table::renew)
    }

    fn release_now(
        &self,
        batch: &[ReleaseRequest],
        answers: &mut Vec<Result<Release, StoreError>>,
    ) -> bool {
        self.all(batch, answers, Table::release)
    }
}

impl AdminStore for MemoryStore {
    fn extend<'a>(&'a self, batch: &'a [ExtendRequest]) -> Answers<'a, Option<Duration>> {
        self.each(batch, Table::extend)
    }

    fn holder<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<Holder>> {
        self.each(keys, Table::holder)
    }

    fn force_release<'a>(&'a self, batch: &'a [ForceReleaseRequest]) -> Answers<'a, Release> {
        self.each(batch, Table::force_release)
    }

    fn introduce<'a>(&'a self, batch: &'a [IntroduceRequest]) -> Answers<'a, ()> {
        self.each(batch, Table::introduce)
    }

    fn client<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<ClientRecord>> {
        self.each(keys, Table::client)
    }

    fn scan<'a>(&'a self, batch: &'a [ScanRequest]) -> Answers<'a, ScanPage> {
        self.each(batch, Table::scan)
    }
}

impl DebounceStore for MemoryStore {
    fn register<'a>(&'a self, batch: &'a [DebounceRequest]) -> Answers<'a, DebounceReply> {
        self.each(batch, Table::register)
    }

    fn end_window<'a>(&'a self, batch: &'a [EndWindowRequest]) -> Answers<'a, bool> {
        self.each(batch, Table::end_window)
    }

    fn due_in<'a>(&'a self, windows: &'a [Arc<str>]) -> Answers<'a, Option<Duration>> {
        self.each(windows, Table::due_in)
    }
}

impl DurableStore for MemoryStore {
    fn keep<'a>(&'a self, batch: &'a [KeepRequest]) -> Answers<'a, Kept> {
        self.each(batch, Table::keep)
    }

    fn due<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, DueCalls> {
        self.each(batch, Table::due)
    }

    fn waiting<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, WaitingCalls> {
        self.each(batch, Table::waiting)
    }

    fn claim<'a>(&'a self, batch: &'a [ClaimRequest]) -> Answers<'a, DurableClaim> {
        self.each(batch, Table::claim)
    }

    fn finish<'a>(&'a self, batch: &'a [FinishRequest]) -> Answers<'a, DurableFinish> {
        self.each(batch, Table::finish)
    }

    fn set_aside<'a>(&'a self, books: &'a [DurableBook]) -> Answers<'a, Vec<SetAside>> {
        self.each(books, Table::set_aside)
    }

    fn take_back<'a>(&'a self, batch: &'a [TakeBackRequest]) -> Answers<'a, bool> {
        self.each(batch, Table::take_back)
    }
}
