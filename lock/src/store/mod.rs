//! The contract between the library and the engines that keep its locks.
//!
//! Policy (waiting, renewing, deadlines, what counts as lost) lives above; a store does one
//! atomic operation at a time and says what it found. [`memory`](crate::MemoryStore) is the
//! reference.

mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

pub use memory::MemoryStore;

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
/// - **The store's own clock** decides when a lock expires; no time of a client is ever compared
///   with it. Nothing may be left for ever: each key expires, but for one fence counter.
///
/// A batch is answered item by item, in its own order.
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
    /// another token is left as it is. A lock that is adopted passes from the token that is named
    /// to the new one, so that it can be adopted once.
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
    ) -> StoreFuture<'a, Vec<Result<Ownership, StoreError>>>;

    /// Frees each lock that is held by its token: at once, or after `keep`, if that is not zero.
    fn release<'a>(
        &'a self,
        batch: &'a [ReleaseRequest],
    ) -> StoreFuture<'a, Vec<Result<Ownership, StoreError>>>;

    /// Adds to what remains of a lock that is held by this token, and says what remains then.
    /// `None` if it is not held by it.
    fn extend<'a>(
        &'a self,
        key: &'a str,
        token: &'a Token,
        by: Duration,
    ) -> StoreFuture<'a, Result<Option<Duration>, StoreError>>;

    /// Who holds the lock, if anybody does.
    fn holder<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Result<Option<Holder>, StoreError>>;

    /// Frees the lock, whoever holds it. Says whether anybody did.
    fn force_release<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Result<bool, StoreError>>;

    /// Registers a call of a debounce, or claims its run; see [`DebounceRequest`].
    fn debounce<'a>(
        &'a self,
        request: &'a DebounceRequest,
    ) -> StoreFuture<'a, Result<DebounceReply, StoreError>>;

    /// Does every operation finish at its first poll, in this process?
    ///
    /// Such a store is driven by its callers, right where they are, and by their runtimes' timers,
    /// on tokio's clock (so that tests can pause it). Any other gets a thread of its own, so that
    /// a busy runtime cannot keep its leases from being renewed.
    fn is_embedded(&self) -> bool {
        false
    }
}

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
    /// Take it over from this token, and only from this one.
    pub adopt: Option<Token>,
}

impl AcquireRequest {
    /// Take the lock of this key with this token, for this lease.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token, lease: Duration) -> Self {
        Self { key: key.into(), token, lease, adopt: None }
    }

    /// Take it over from this token, and only from this one.
    #[must_use]
    pub fn adopting(mut self, from: Token) -> Self {
        self.adopt = Some(from);
        self
    }
}

/// What became of an [`AcquireRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquisition {
    /// The lock is held by the token, for the lease.
    Granted {
        /// The fence of this grant; at most 2⁵³.
        fence: u64,
    },
    /// It is held by another token (or, when adopting, not by the one that was named).
    Held {
        /// For how long, if it is not for ever.
        remaining: Option<Duration>,
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

/// Whether a lock was held by the token that was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It was, and what was asked is done.
    Ours,
    /// It was not, and nothing was changed.
    NotOurs,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The token of the holder.
    pub token: Token,
    /// For how long it holds the lock, if it is not for ever.
    pub remaining: Option<Duration>,
}

/// One step of a debounced call.
///
/// The window and the lock of the run are two keys of one operation: a claim marks the window as
/// run and takes the lock at once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DebounceRequest {
    /// The key of the window.
    pub window: Arc<str>,
    /// The key of the lock that is held during the run.
    pub run: Arc<str>,
    /// The token of the call.
    pub token: Token,
    /// What the call wants.
    pub step: DebounceStep,
    /// How long the run's lock lasts unless it is renewed; whole milliseconds.
    pub lease: Duration,
    /// How long the window and what it leaves behind are kept beyond its due time.
    pub keep: Duration,
}

impl DebounceRequest {
    /// A step of the call with this token, in the window and under the run's lock of these keys.
    #[must_use]
    pub fn new(
        window: impl Into<Arc<str>>,
        run: impl Into<Arc<str>>,
        token: Token,
        step: DebounceStep,
        lease: Duration,
    ) -> Self {
        Self { window: window.into(), run: run.into(), token, step, lease, keep: lease }
    }
}

/// What a debounced call wants of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebounceStep {
    /// Be the newest call of the window.
    Register {
        /// The run is due so long after the newest call; whole milliseconds.
        wait: Duration,
        /// And at the latest so long after the first one.
        max_wait: Option<Duration>,
    },
    /// Run, if the window is due and no other run goes on.
    Claim {
        /// The number the call was registered with.
        call: u64,
    },
}

/// What became of a [`DebounceRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebounceReply {
    /// It is registered under this number; the window is due in so long.
    Registered {
        /// The number to claim with.
        call: u64,
        /// How long it is until the window is due.
        due_in: Duration,
    },
    /// The window is due for this call in so long.
    NotYet(Duration),
    /// It is due, but another run goes on, under a lock that lasts so long unless it is renewed.
    Running(Duration),
    /// A newer call has taken its place.
    Superseded,
    /// It may run; the run's lock is held by its token.
    Granted {
        /// The fence of the run.
        fence: u64,
    },
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
