//! The contract between the library and the engines that keep its locks.
//!
//! Policy (waiting, renewing, deadlines, what counts as lost) lives in the library; a store does one
//! atomic operation at a time and says what it found. [`MemoryStore`] is the reference.
//!
//! A store of your own begins with the three methods of [`Store`]. What else it can do it offers as
//! capabilities; a call that needs one it does not offer fails with
//! [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), which names what is missing.
//!
//! | capability | needed for | offered by |
//! |---|---|---|
//! | [`Store::subscribe`] | waiters with a [ticket](Acquisition::waiting) are notified, instead of polling | its own answer |
//! | [`AdminStore`] | `extend`, `status`, `list`, `force_release`, `end_run` | [`Store::admin`] |
//! | [`DebounceStore`] | `debounce`, `#[debounced]` | [`Store::debounce`] |
//! | [`DurableStore`] | durable debounce | [`Store::durable`] |
//! | [`EmbeddedStore`] | a store in this process, without a thread | [`Store::embedded`] |
//!
#![cfg_attr(
    feature = "test-util",
    doc = "[`test_util::contract`](crate::test_util::contract) has tests for each of them."
)]
//! `docs/stores.md` in the repository goes through a store on files, which has the three methods.

mod listener;
mod memory;
mod operations;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use lock_core::contract::answer_each;

pub(crate) use self::listener::CurrentDelivery;
pub use self::{listener::Listener, memory::MemoryStore};
pub use lock_core::contract::{
    AcquireRequest, Acquisition, ClaimRequest, ClientRecord, DebounceReply, DebounceRequest,
    Delivery, DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish, EndWindowRequest,
    ExtendRequest, FinishRequest, ForceReleaseRequest, Holder, IfHeld, IntroduceRequest,
    KeepRequest, Kept, Notice, RESERVATION, Release, ReleaseRequest, RenewRequest, Renewal,
    ScanFor, ScanPage, ScanRequest, SetAside, StoreError, TakeBackRequest, WaitingCalls, WindowEnd,
};

/// A boxed future, as the methods of a store return it.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The answers to a batch: one for each item, in the order of the items.
pub type Answers<'a, T> = StoreFuture<'a, Vec<Result<T, StoreError>>>;

/// An engine that keeps locks: one atomic operation per method.
///
/// Implement it to put locks on another system, or to wrap a store in tests. Three methods are
/// required; see the [module](self) for the capabilities. What an implementation must keep:
///
/// - **Atomic.** Each item of a batch takes effect at once or not at all, whatever else happens.
///   A batch as a whole need not be atomic. It is never empty, and names a key with one token once.
/// - **Idempotent for one token.** The same item sent twice takes effect once: the library repeats a
///   request whose answer it did not get. What the repeat is told may differ: after a release, the
///   lock is not the token's. There are two exceptions: [`extend`](AdminStore::extend) is never
///   repeated, and a [`keep`](DurableStore::keep) that is repeated is another call.
/// - **In order for one key.** Operations on one key take effect in the order in which their futures
///   are first polled. This is what lets a release that follows an abandoned acquire undo it.
///   Operations on different keys may overtake each other.
/// - **Bounded.** Every future resolves within a few seconds. An operation whose outcome is not
///   known answers [`StoreError::Unavailable`], never "not ours".
/// - **The store's own clock** decides when a lock expires, and which waiter is alive; no time of
///   a client is ever compared with it. Every key expires, except one counter of fences.
///
/// # Names of keys
///
/// A lock's key is what the application gives it: prefix and id. Keys of the library's own have a `~`
/// between them: the window `~debounce:ID` and the lock `~run:ID` of a debounce, the record
/// `~client:CLIENT` of a client, and the book
/// `~due:NAME`, `~calls:NAME`, `~aside:NAME` of a durable function with the locks of its runs,
/// `~durable:LENGTH-OF-NAME:NAME:ID`. One request names keys of one id, or of one function. No prefix
/// contains a `~` and no id begins with one.
///
/// # The queue
///
/// Each lock has a queue of tokens, in the order of their *tickets*. A request that finds its lock
/// held [joins](IfHeld::Wait) it in the same operation, and comes again now and then to say that
/// it is alive. Whatever frees the lock gives it to the first living waiter instead,
/// [reserved](RESERVATION) for a second, and [notifies](Listener) that waiter's client, which comes
/// again and is granted it, with the lease it asks for. A waiter who lets the reservation pass has
/// lost its turn: the next operation on the lock, by anybody, passes it on.
///
/// A waiter comes again every 5 seconds at the latest, and several times a second if its client
/// polls. It is dead when it has not come for 15 seconds, or for two if its client polls.
///
/// A store without a queue answers [`Acquisition::held`] without a ticket; its waiters poll. Nobody
/// is then known to wait elsewhere: a process with many callers of one lock passes it on among them
/// for as long as they come.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// use lock::{Token, store::{AcquireRequest, Acquisition, MemoryStore, Store}};
///
/// let store = MemoryStore::new();
/// let take = |token: &str| {
///     AcquireRequest::new("key", Token::from(token.to_owned()), Duration::from_secs(10))
/// };
/// assert!(matches!(store.acquire(&[take("one:1")]).await[0], Ok(Acquisition::Granted { .. })));
/// let answers = store.acquire(&[take("two:1"), take("one:1")]).await;
/// assert!(matches!(answers[0], Ok(Acquisition::Held { .. })));
/// assert!(matches!(answers[1], Ok(Acquisition::Granted { .. })), "idempotent for one token");
/// # }
/// ```
pub trait Store: Send + Sync + 'static {
    /// Takes each lock that is free, or held by the same token already; a lock that is held by
    /// another token is left as it is, and [`if_held`](AcquireRequest::if_held) says what the
    /// request does then. A lock that is adopted passes from the token that is named to the new
    /// one, so that it can be adopted once.
    ///
    /// A waiter that comes again and finds the lock free takes it only if no living waiter is
    /// ahead; else it gives it to the first of them. A request that comes for the first time may
    /// take a free lock without a look at the queue: where every release hands over, a free lock
    /// with a queue is one whose lease ran out.
    ///
    /// Every grant, a repeated one too, draws a fence: larger than all drawn before for that key,
    /// also across expiry, release and loss of data. The source of that is a hybrid logical
    /// clock (Kulkarni et al., 2014): `max(last + 1, microseconds of the store's clock)`.
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition>;

    /// Makes each lock that is held by its token last for at least the lease from now on. Never
    /// shortens it, never creates it.
    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal>;

    /// Releases each lock: hands it to the first living waiter, or frees it if nobody waits.
    /// With `keep`, it stays held for that long instead.
    ///
    /// The token is out of the lock's queue afterwards, too: this is also how a waiter leaves. A
    /// lock that nobody holds is given to its first living waiter, so the same release again, after
    /// the reservation, passes on a lock that its next holder did not claim.
    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release>;

    /// Sends the notices of this client, whose tokens are `client:number`, to the listener from
    /// now on, and says how they travel. Called once for each client, before its first acquire.
    ///
    /// A notice is a hint: one that is lost costs time, nothing else. A store that may have missed
    /// some (its connection broke) says [`Notice::Connected`] once they come again, and every
    /// waiter asks for itself. By default there are none, and waiters poll.
    fn subscribe<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, Delivery> {
        let _ = (client, listener);
        Box::pin(std::future::ready(Delivery::Polling))
    }

    /// Which part of the store this key is in, counted from 0. Requests about different parts go in
    /// calls of their own, so that one which is silent delays no other. A hint: a request about another
    /// part in the same call is served as well.
    fn shard(&self, key: &str) -> usize {
        let _ = key;
        0
    }

    /// Who holds a lock, and what an operator may do about it; `None` if this store offers none of
    /// it.
    fn admin(&self) -> Option<&dyn AdminStore> {
        None
    }

    /// Debounced calls; `None` if this store offers none.
    fn debounce(&self) -> Option<&dyn DebounceStore> {
        None
    }

    /// Durable calls; `None` if this store keeps none.
    fn durable(&self) -> Option<&dyn DurableStore> {
        None
    }

    /// The store as one that lives in this process; `None` if it is reached through a connection.
    ///
    /// An embedded store is driven by its callers, right where they are, and by their runtimes'
    /// timers, on tokio's clock (so that tests can pause it). Any other gets a thread of its own, so
    /// that a busy runtime cannot keep its leases from being renewed.
    fn embedded(&self) -> Option<&dyn EmbeddedStore> {
        None
    }
}

/// The capability behind [`extend`](crate::LockGuard::extend), [`status`](crate::Lock::status),
/// [`list`](crate::Locks::list), [`force_release`](crate::Lock::force_release) and
/// [`end_run`](crate::Debounce::end_run).
///
/// A store may answer a single method with [`StoreError::unsupported`], as the methods with a default
/// do.
pub trait AdminStore: Send + Sync {
    /// Adds to what remains of each lock that is held by its token, and says what remains then.
    /// `None` if it is not held by it.
    fn extend<'a>(&'a self, batch: &'a [ExtendRequest]) -> Answers<'a, Option<Duration>>;

    /// Says who holds the lock of each key, if anybody does.
    fn holder<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<Holder>>;

    /// Takes each lock away from its holder, and notifies that client; then as
    /// [`release`](Store::release). [`Release::ours`] says whether it was held, by the token that
    /// the request names if it names one. A lock that another token holds is left as it is.
    fn force_release<'a>(&'a self, batch: &'a [ForceReleaseRequest]) -> Answers<'a, Release>;

    /// Keeps what a client says of itself, until it expires.
    fn introduce<'a>(&'a self, batch: &'a [IntroduceRequest]) -> Answers<'a, ()> {
        unsupported("what clients say of themselves", batch.len())
    }

    /// Says what was kept of each client, by the keys of the records.
    fn client<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<ClientRecord>> {
        unsupported("what clients say of themselves", keys.len())
    }

    /// Says which ids the store has something of, page by page. A page must not keep the store from
    /// its other clients for more than a few milliseconds.
    fn scan<'a>(&'a self, batch: &'a [ScanRequest]) -> Answers<'a, ScanPage> {
        unsupported("listing", batch.len())
    }
}

/// The answers of a store that has no such method.
fn unsupported<'a, A: Send + 'a>(what: &'static str, items: usize) -> Answers<'a, A> {
    Box::pin(std::future::ready(answer_each(Err(StoreError::unsupported(what)), items)))
}

/// The capability behind [`Locks::debounce`](crate::Locks::debounce).
pub trait DebounceStore: Send + Sync {
    /// Takes note of the newest call of a process in each window, and lets it run if its burst is
    /// over; see [`DebounceRequest`].
    fn register<'a>(&'a self, batch: &'a [DebounceRequest]) -> Answers<'a, DebounceReply>;

    /// Ends each window before its time; false if no call waits in it. A run that goes on is left
    /// alone.
    fn end_window<'a>(&'a self, batch: &'a [EndWindowRequest]) -> Answers<'a, bool>;

    /// Says how long it is until the call is due that waits in each window; `None` if none does.
    fn due_in<'a>(&'a self, windows: &'a [Arc<str>]) -> Answers<'a, Option<Duration>> {
        unsupported("asking about a debounce", windows.len())
    }
}

/// The capability behind durable debounce: calls that are kept in the store.
///
/// Each step is atomic, and idempotent for one token, but for [`keep`](Self::keep): sent again, it
/// is another call.
pub trait DurableStore: Send + Sync {
    /// Keeps each call.
    fn keep<'a>(&'a self, batch: &'a [KeepRequest]) -> Answers<'a, Kept>;

    /// Says which calls are due.
    fn due<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, DueCalls>;

    /// Says which calls wait for each function, whether they are due or not, at most as many of them
    /// as the request says.
    fn waiting<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, WaitingCalls> {
        unsupported("listing durable calls", batch.len())
    }

    /// Lets each call run, if it is due and no other run of its id goes on.
    fn claim<'a>(&'a self, batch: &'a [ClaimRequest]) -> Answers<'a, DurableClaim>;

    /// Ends each run, and frees its lock.
    fn finish<'a>(&'a self, batch: &'a [FinishRequest]) -> Answers<'a, DurableFinish>;

    /// Says which calls have failed for good, for each function.
    fn set_aside<'a>(&'a self, books: &'a [DurableBook]) -> Answers<'a, Vec<SetAside>>;

    /// Takes each call from among those that have failed for good; false if it is not there.
    fn take_back<'a>(&'a self, batch: &'a [TakeBackRequest]) -> Answers<'a, bool>;
}

/// A store in this process, on the runtimes and the clock of its callers.
///
/// The methods are those of [`Store`] without a future, for a store that has every answer at once:
/// they append the answers and return true. One that returns false has done nothing, and is asked by
/// the method of [`Store`]; so an empty `impl` is a store that is embedded, and takes its time. (Its
/// [`subscribe`](Store::subscribe) must be ready at the first poll all the same.)
///
/// A store around another one returns itself, `self.inner.embedded().map(|_| self as _)`: what the
/// inner one returns would be asked past it.
pub trait EmbeddedStore: Send + Sync {
    /// Does what [`Store::acquire`] does, at once.
    fn acquire_now(
        &self,
        batch: &[AcquireRequest],
        answers: &mut Vec<Result<Acquisition, StoreError>>,
    ) -> bool {
        let _ = (batch, answers);
        false
    }

    /// Does what [`Store::renew`] does, at once.
    fn renew_now(
        &self,
        batch: &[RenewRequest],
        answers: &mut Vec<Result<Renewal, StoreError>>,
    ) -> bool {
        let _ = (batch, answers);
        false
    }

    /// Does what [`Store::release`] does, at once.
    fn release_now(
        &self,
        batch: &[ReleaseRequest],
        answers: &mut Vec<Result<Release, StoreError>>,
    ) -> bool {
        let _ = (batch, answers);
        false
    }
}
