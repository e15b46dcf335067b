//! The contract between the library and the engines that keep its locks.
//!
//! Policy (waiting, renewing, deadlines, what counts as lost) lives above; a store does one
//! atomic operation at a time and says what it found. [`memory`](crate::MemoryStore) is the
//! reference.

mod durable;
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod wake;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

pub use durable::{
    DurableBook, DurableClaim, DurableFinish, DurableReply, DurableRequest, DurableStep, SetAside,
};
pub use memory::MemoryStore;
pub use wake::{Listener, Wake, WakeUps};

use crate::Token;

/// A boxed future, as the methods of [`Store`] return it.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An engine that keeps locks: one atomic operation per method.
///
/// Implement it to put locks on another system, or to wrap a store in tests. What an
/// implementation must keep:
///
/// - **Atomic.** Each item of a batch takes effect at once or not at all, whatever else happens.
///   A batch as a whole need not be atomic; it names a key with one token once.
/// - **Idempotent for one token.** The same item sent twice is answered as if it was sent once:
///   the library repeats a request whose answer it did not get. [`extend`](Store::extend) is the
///   one exception, and is never repeated.
/// - **In order.** Operations take effect in the order in which their futures are first polled.
///   This is what lets a release that follows an abandoned acquire undo it.
/// - **Bounded.** Every future resolves within a few seconds. An operation whose outcome is not
///   known answers [`StoreError::Unavailable`], never "not ours".
/// - **The store's own clock** decides when a lock expires, and which waiter is alive; no time of
///   a client is ever compared with it. Nothing may be left for ever: each key expires, but for
///   one fence counter.
///
/// A batch is answered item by item, in its own order.
///
/// # The queue
///
/// Each lock has a queue of tokens, in the order of their *places*. A request that finds its lock
/// held [joins](IfHeld::Wait) it in the same operation, and comes again now and then to say that
/// it is alive. Whatever frees the lock gives it to the first living waiter instead, for a
/// [claim window](CLAIM_WINDOW), and [wakes](Listener) that waiter's client, which comes again and
/// is granted it, with the lease it asks for. A waiter whose window passes has lost its turn: the
/// next look at the lock, by anybody, passes it on.
///
/// A store without a queue answers `place: None`; its waiters poll.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// use lock::{AcquireRequest, Acquisition, MemoryStore, Store, Token};
///
/// let store = MemoryStore::new();
/// let take = |token: &str| {
///     AcquireRequest::new("key", Token::from(token.to_owned()), Duration::from_secs(10))
/// };
/// let answers = store.acquire(&[take("one:1"), take("two:1"), take("one:1")]).await;
/// assert!(matches!(answers[0], Ok(Acquisition::Granted { .. })));
/// assert!(matches!(answers[1], Ok(Acquisition::Held { .. })));
/// assert!(matches!(answers[2], Ok(Acquisition::Granted { .. })), "idempotent for one token");
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
    fn acquire<'a>(
        &'a self,
        batch: &'a [AcquireRequest],
    ) -> StoreFuture<'a, Vec<Result<Acquisition, StoreError>>>;

    /// Makes each lock that is held by its token last for at least the lease from now on. Never
    /// shortens it, never creates it.
    fn renew<'a>(
        &'a self,
        batch: &'a [RenewRequest],
    ) -> StoreFuture<'a, Vec<Result<Renewal, StoreError>>>;

    /// Lets go of each lock: hands it to the first living waiter, or frees it if nobody waits.
    /// With `keep`, it stays held for that long instead.
    ///
    /// The token is out of the lock's queue afterwards, too: this is also how a waiter leaves. A
    /// lock that nobody holds is given to its first living waiter, so the same release again, a
    /// claim window later, passes on a lock that its next holder did not claim.
    fn release<'a>(
        &'a self,
        batch: &'a [ReleaseRequest],
    ) -> StoreFuture<'a, Vec<Result<Release, StoreError>>>;

    /// Adds to what remains of each lock that is held by its token, and says what remains then.
    /// `None` if it is not held by it.
    fn extend<'a>(
        &'a self,
        batch: &'a [ExtendRequest],
    ) -> StoreFuture<'a, Vec<Result<Option<Duration>, StoreError>>>;

    /// Who holds the lock of each key, if anybody does.
    fn holder<'a>(
        &'a self,
        keys: &'a [Arc<str>],
    ) -> StoreFuture<'a, Vec<Result<Option<Holder>, StoreError>>>;

    /// Takes the lock of each key away from its holder, and wakes that client; then as
    /// [`release`](Self::release). [`Release::ours`] says whether anybody held it.
    fn force_release<'a>(
        &'a self,
        keys: &'a [Arc<str>],
    ) -> StoreFuture<'a, Vec<Result<Release, StoreError>>>;

    /// Takes note of the newest call of a process in each window, and lets it run if its burst is
    /// over; see [`DebounceRequest`].
    fn debounce<'a>(
        &'a self,
        batch: &'a [DebounceRequest],
    ) -> StoreFuture<'a, Vec<Result<DebounceReply, StoreError>>>;

    /// Ends each window before its time; false if no call waits in it. A run that goes on is left
    /// alone.
    fn end_window<'a>(
        &'a self,
        batch: &'a [EndWindowRequest],
    ) -> StoreFuture<'a, Vec<Result<bool, StoreError>>>;

    /// Keeps durable calls, and lets them run; see [`DurableStep`]. Each step is atomic, and
    /// idempotent for one token, but for a call, which is another call when it is sent again.
    ///
    /// A store need not keep any: this one says so.
    fn durable<'a>(
        &'a self,
        batch: &'a [DurableRequest],
    ) -> StoreFuture<'a, Vec<Result<DurableReply, StoreError>>> {
        let refused = StoreError::rejected("this store keeps no durable calls");
        Box::pin(std::future::ready(answer_each(Err(refused), batch.len())))
    }

    /// Sends the wake-ups of this client, whose tokens are `client:number`, to the listener from
    /// now on, and says how they travel. Called once for each client, before its first acquire.
    ///
    /// A wake-up is a hint: one that is lost costs time, nothing else. A store that has lost sight
    /// of them for a while (a connection that broke) says [`Wake::Connected`] once it sees them
    /// again, and every waiter looks for itself.
    fn listen<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, WakeUps> {
        let _ = (client, listener);
        Box::pin(std::future::ready(WakeUps::Polling))
    }

    /// Does every operation finish at its first poll, in this process?
    ///
    /// Such a store is driven by its callers, right where they are, and by their runtimes' timers,
    /// on tokio's clock (so that tests can pause it). Any other gets a thread of its own, so that
    /// a busy runtime cannot keep its leases from being renewed.
    fn is_embedded(&self) -> bool {
        false
    }
}

/// For so long a lock that was handed over waits for its next holder to claim it.
pub const CLAIM_WINDOW: Duration = Duration::from_secs(1);

/// One lock to be taken.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AcquireRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token of this acquisition.
    pub token: Token,
    /// For how long, from when the store gets the request; whole milliseconds.
    pub lease: Duration,
    /// What to do if another token holds it.
    pub if_held: IfHeld,
}

impl AcquireRequest {
    /// Take the lock of this key with this token, for this lease; one attempt.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token, lease: Duration) -> Self {
        Self { key: key.into(), token, lease, if_held: IfHeld::GiveUp }
    }

    /// The same, with another answer to a lock that is held.
    #[must_use]
    pub fn if_held(mut self, if_held: IfHeld) -> Self {
        self.if_held = if_held;
        self
    }
}

/// What an [`AcquireRequest`] does about a lock that another token holds.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfHeld {
    /// Nothing.
    GiveUp,
    /// Joins the queue, for the first time.
    Wait,
    /// Keeps its place in the queue, or gets it back. `None` if it does not know the place,
    /// because the answer to an earlier request was lost.
    KeepPlace(Option<u64>),
    /// Takes the lock over, if it is this token that holds it.
    Adopt(Token),
}

/// What became of an [`AcquireRequest`].
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquisition {
    /// The lock is held by the token, for the lease.
    Granted {
        /// The fence of this grant; at most 2⁵³.
        fence: u64,
        /// Others wait for it, as far as the operation has seen.
        contended: bool,
    },
    /// It is held by another token (or, when adopting, not by the one that was named).
    Held {
        /// For how long, if it is not for ever.
        remaining: Option<Duration>,
        /// The place of the token in the queue, if it waits there: larger than that of everybody
        /// who was there before.
        place: Option<u64>,
        /// The holder is a client that is connected and [wakes](Listener) those who wait when it
        /// releases the lock. Of any other holder's release nothing is heard, so those who wait for
        /// it look several times a second.
        notifies: bool,
    },
}

/// One lock to be renewed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RenewRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token that should hold it.
    pub token: Token,
    /// How long it shall last from now on; whole milliseconds.
    pub lease: Duration,
}

impl RenewRequest {
    /// Make the lock of this key last for this lease, if this token holds it.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token, lease: Duration) -> Self {
        Self { key: key.into(), token, lease }
    }
}

/// One lock to be released.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReleaseRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token that should hold it.
    pub token: Token,
    /// For how long it still stays held, for `hold_at_least`; whole milliseconds.
    pub keep: Duration,
}

impl ReleaseRequest {
    /// Free the lock of this key, if this token holds it.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token) -> Self {
        Self { key: key.into(), token, keep: Duration::ZERO }
    }

    /// Let it stay held for so long.
    #[must_use]
    pub fn keeping(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }
}

/// One lease to be extended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtendRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token that should hold it.
    pub token: Token,
    /// What is added to the time that remains; whole milliseconds.
    pub by: Duration,
}

impl ExtendRequest {
    /// Extend the lease of the lock of this key, if this token holds it.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token, by: Duration) -> Self {
        Self { key: key.into(), token, by }
    }
}

/// What became of a [`RenewRequest`].
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lock is the token's, for the lease at least.
    Renewed {
        /// Others wait for it.
        contended: bool,
    },
    /// It was not, and nothing was changed.
    NotOurs,
}

/// What became of a [`ReleaseRequest`].
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// The lock was held by the token.
    pub ours: bool,
    /// It was given to a waiter, who has a [claim window](CLAIM_WINDOW) to take it up.
    pub handed_over: bool,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The token of the holder.
    pub token: Token,
    /// For how long it holds the lock, if it is not for ever.
    pub remaining: Option<Duration>,
    /// How many tokens wait in the queue.
    pub waiters: usize,
}

/// The newest call of a process, which wants to run.
///
/// The window and the lock of the run are two keys of one operation: a claim marks the window as
/// run and takes the lock at once. Others that waited in it are [woken](Listener).
///
/// The call of a process that is not heard of any more is claimed by another that took part, a
/// second after it was due.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DebounceRequest {
    /// The key of the window.
    pub window: Arc<str>,
    /// The key of the lock that is held during the run.
    pub run: Arc<str>,
    /// The token of the call; the numbers of one client grow from call to call.
    pub token: Token,
    /// How long ago the call was made; whole milliseconds.
    pub age: Duration,
    /// The window is due so long after its newest call; whole milliseconds.
    pub wait: Duration,
    /// And at the latest so long after the first one, or after the run before if calls go on
    /// coming.
    pub max_wait: Option<Duration>,
    /// The first call of a burst runs at once.
    pub leading: bool,
    /// How long the run's lock lasts unless it is renewed; whole milliseconds.
    pub lease: Duration,
    /// How long the window and what it leaves behind are kept beyond its due time.
    pub keep: Duration,
}

impl DebounceRequest {
    /// The call with this token, made just now, in the window and under the run's lock of these
    /// keys; trailing edge only.
    #[must_use]
    pub fn new(
        window: impl Into<Arc<str>>,
        run: impl Into<Arc<str>>,
        token: Token,
        wait: Duration,
        lease: Duration,
    ) -> Self {
        Self {
            window: window.into(),
            run: run.into(),
            token,
            age: Duration::ZERO,
            wait,
            max_wait: None,
            leading: false,
            lease,
            keep: lease,
        }
    }

    /// The same call, made so long ago.
    #[must_use]
    pub fn made_ago(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Due at the latest so long after the window's first call.
    #[must_use]
    pub fn max_wait(mut self, limit: Option<Duration>) -> Self {
        self.max_wait = limit;
        self
    }

    /// Whether the first call of a burst runs at once.
    #[must_use]
    pub fn leading(mut self, leading: bool) -> Self {
        self.leading = leading;
        self
    }
}

/// What became of a [`DebounceRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebounceReply {
    /// It may ask again in so long.
    NotYet {
        /// Until the window is due for this call.
        left: Duration,
        /// It is the newest of all: else another is to run, and this one only if that one is not
        /// heard of any more.
        newest: bool,
    },
    /// It is due, but another run goes on, under a lock that lasts so long unless it is renewed.
    Running(Duration),
    /// A run has covered it, or its burst was cancelled.
    Superseded,
    /// It may run; the run's lock is held by its token.
    Granted {
        /// The fence of the run.
        fence: u64,
    },
}

/// How a window ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowEnd {
    /// It is due now, and the newest caller is woken by [`Wake::Due`].
    Flush,
    /// Its calls count as covered without a run.
    Cancel,
}

/// One window to be ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndWindowRequest {
    /// The key of the window.
    pub window: Arc<str>,
    /// How it ends.
    pub end: WindowEnd,
}

impl EndWindowRequest {
    /// End the window of this key.
    #[must_use]
    pub fn new(window: impl Into<Arc<str>>, end: WindowEnd) -> Self {
        Self { window: window.into(), end }
    }
}

/// Why a store could not do what it was asked.
///
/// The difference matters: a lock may have been taken by a request that was not answered, and is
/// then undone; a request that was refused has changed nothing.
///
/// ```
/// use lock::StoreError;
///
/// let unknown = StoreError::unavailable("no answer within a second");
/// assert!(unknown.to_string().contains("no answer"));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum StoreError {
    /// No answer, or none in time: the operation may or may not have taken effect.
    Unavailable(Arc<dyn std::error::Error + Send + Sync>),
    /// The store refused: the operation did not take effect.
    Rejected(Arc<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// The outcome is not known.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::from(source.into()))
    }

    /// The store refused.
    pub fn rejected(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Rejected(Arc::from(source.into()))
    }
}

/// The answers to a batch, one for each item: what went wrong with the call went wrong with each.
pub(crate) fn answer_each<T>(
    answers: Result<Vec<Result<T, StoreError>>, StoreError>,
    items: usize,
) -> Vec<Result<T, StoreError>> {
    let (mut answers, missing) = match answers {
        Ok(answers) if answers.len() == items => return answers,
        Ok(answers) => {
            let few = "the store gave fewer answers than it was asked for";
            (answers, StoreError::unavailable(few))
        }
        Err(error) => (Vec::new(), error),
    };
    answers.resize_with(items, || Err(missing.clone()));
    answers
}

/// What a store of this crate says about a failure: which server, what happened and what to change.
///
/// The caller's error shows this text, and has what the server or the system said as its source.
/// The text of any other store's error is a source of the caller's error, and not part of its text.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    #[cfg(feature = "redis")]
    pub(crate) fn new(
        text: String,
        cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { text, cause }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn unavailable(self) -> StoreError {
        StoreError::Unavailable(Arc::new(self))
    }

    #[cfg(feature = "redis")]
    pub(crate) fn rejected(self) -> StoreError {
        StoreError::Rejected(Arc::new(self))
    }

    pub(crate) fn cause(&self) -> Option<&Arc<dyn std::error::Error + Send + Sync>> {
        self.cause.as_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(source) => write!(f, "Unavailable({source})"),
            Self::Rejected(source) => write!(f, "Rejected({source})"),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(source) => write!(f, "no answer from the store: {source}"),
            Self::Rejected(source) => write!(f, "the store refused: {source}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unavailable(source) | Self::Rejected(source) => Some(&**source),
        }
    }
}
