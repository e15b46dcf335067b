//! Requests about locks, and the answers to them.

use std::{sync::Arc, time::Duration};

use crate::Token;

/// A request to acquire one lock.
///
/// ```
/// # mod lock { pub use lock_core::Token; pub mod store { pub use lock_core::contract::*; } }
/// use std::time::Duration;
/// use lock::{Token, store::{AcquireRequest, IfHeld}};
///
/// let token = Token::from("client:1".to_owned());
/// let request = AcquireRequest::new("lock:report", token, Duration::from_secs(10));
/// assert_eq!(request.if_held, IfHeld::GiveUp, "one attempt");
/// let request = request.if_held(IfHeld::Wait);
/// assert_eq!(request.if_held, IfHeld::Wait);
/// ```
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct AcquireRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token of this acquisition.
    pub token: Token,
    /// How long the lock is held unless it is renewed, counted from when the store receives the
    /// request; whole milliseconds.
    pub lease: Duration,
    /// What to do if another token holds the lock.
    pub if_held: IfHeld,
}

impl AcquireRequest {
    /// Creates a request to acquire the lock of this key with this token and this lease, in one
    /// attempt.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token, lease: Duration) -> Self {
        Self { key: key.into(), token, lease, if_held: IfHeld::GiveUp }
    }

    /// Sets what to do if another token holds the lock.
    #[must_use]
    pub fn if_held(mut self, if_held: IfHeld) -> Self {
        self.if_held = if_held;
        self
    }
}

/// What an [`AcquireRequest`] does if another token holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IfHeld {
    /// Gives up, and changes nothing.
    GiveUp,
    /// Joins the queue, for the first time.
    Wait,
    /// Keeps the place in the queue that belongs to this ticket, or takes it again. `None` if the
    /// waiter does not know its ticket, because the answer to an earlier request was lost.
    KeepWaiting(Option<u64>),
    /// Takes the lock over if this token holds it; otherwise changes nothing.
    Adopt(Token),
}

/// The answer to an [`AcquireRequest`].
///
/// ```
/// # mod lock { pub mod store { pub use lock_core::contract::*; } }
/// use lock::store::Acquisition;
/// use std::time::Duration;
///
/// // The token holds the lock, with the fence 7, and others wait for it.
/// let granted = Acquisition::granted(7).contended(true);
/// assert!(matches!(granted, Acquisition::Granted { fence: 7, contended: true, .. }));
/// // Held by another token for two more seconds, and this store has no queue to wait in.
/// let held = Acquisition::held(Some(Duration::from_secs(2)));
/// assert!(matches!(held, Acquisition::Held { ticket: None, .. }));
/// // The same in a store with a queue: the token waits with ticket 5, and the holder notifies it.
/// let waiting = held.waiting(5, true);
/// assert!(matches!(waiting, Acquisition::Held { ticket: Some(5), notifies: true, .. }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Acquisition {
    /// The token holds the lock, for the lease.
    #[non_exhaustive]
    Granted {
        /// The fence of this grant; at most 2<sup>53</sup>.
        fence: u64,
        /// Whether others wait for the lock, as far as the operation has seen.
        contended: bool,
    },
    /// Another token holds the lock (for an adoption: the named token does not hold it).
    #[non_exhaustive]
    Held {
        /// How long the holder keeps the lock unless it renews it; `None` if it never expires, zero
        /// if nobody holds the lock that was to be adopted.
        remaining: Option<Duration>,
        /// The token's ticket in the queue, if it waits there: larger than every ticket that was
        /// drawn earlier.
        ticket: Option<u64>,
        /// Whether the holder is a connected client that notifies the waiters when it releases the
        /// lock. Other holders release it silently, so their waiters repeat the request several
        /// times a second.
        notifies: bool,
    },
}

impl Acquisition {
    /// Returns the answer for a lock that the token now holds, with no known waiters.
    #[must_use]
    pub fn granted(fence: u64) -> Self {
        Self::Granted { fence, contended: false }
    }

    /// Returns the answer for a lock that another token holds, and for which the requesting token
    /// does not queue.
    #[must_use]
    pub fn held(remaining: Option<Duration>) -> Self {
        Self::Held { remaining, ticket: None, notifies: false }
    }

    /// Sets whether others wait for the lock, if this is a grant.
    #[must_use]
    pub fn contended(mut self, yes: bool) -> Self {
        if let Self::Granted { contended, .. } = &mut self {
            *contended = yes;
        }
        self
    }

    /// Sets the ticket with which the token waits in the queue, and whether the holder notifies its
    /// waiters, if this is an answer for a held lock.
    #[must_use]
    pub fn waiting(mut self, its_ticket: u64, holder_notifies: bool) -> Self {
        if let Self::Held { ticket, notifies, .. } = &mut self {
            (*ticket, *notifies) = (Some(its_ticket), holder_notifies);
        }
        self
    }
}

/// A request to renew one lock.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct RenewRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token that should hold it.
    pub token: Token,
    /// How long the lock lasts, counted from when the store receives the request; whole
    /// milliseconds.
    pub lease: Duration,
}

impl RenewRequest {
    /// Creates a request to make the lock of this key last for this lease, if this token holds it.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token, lease: Duration) -> Self {
        Self { key: key.into(), token, lease }
    }
}

/// The answer to a [`RenewRequest`].
///
/// ```
/// # mod lock { pub mod store { pub use lock_core::contract::*; } }
/// use lock::store::Renewal;
///
/// let renewed = Renewal::renewed();
/// assert!(matches!(renewed, Renewal::Renewed { contended: false, .. }));
/// let contended = renewed.contended(true);
/// assert!(matches!(contended, Renewal::Renewed { contended: true, .. }));
/// assert_eq!(Renewal::not_ours(), Renewal::NotOurs);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Renewal {
    /// The token holds the lock, for at least the lease.
    #[non_exhaustive]
    Renewed {
        /// Whether others wait for the lock.
        contended: bool,
    },
    /// The token did not hold the lock, and nothing was changed.
    NotOurs,
}

impl Renewal {
    /// Returns the answer for a lock that the token holds, for at least the lease, with no known
    /// waiters.
    #[must_use]
    pub fn renewed() -> Self {
        Self::Renewed { contended: false }
    }

    /// Returns the answer for a lock that the token did not hold: nothing was changed.
    #[must_use]
    pub fn not_ours() -> Self {
        Self::NotOurs
    }

    /// Sets whether others wait for the lock, if it was renewed.
    #[must_use]
    pub fn contended(mut self, yes: bool) -> Self {
        if let Self::Renewed { contended } = &mut self {
            *contended = yes;
        }
        self
    }
}

/// A request to release one lock.
///
/// ```
/// # mod lock { pub use lock_core::Token; pub mod store { pub use lock_core::contract::*; } }
/// use std::time::Duration;
/// use lock::{Token, store::ReleaseRequest};
///
/// let request = ReleaseRequest::new("lock:report", Token::from("client:1".to_owned()));
/// assert!(request.keep.is_zero(), "free at once");
/// // Held for five more seconds, whatever is left of its lease.
/// let request = request.keeping(Duration::from_secs(5));
/// assert_eq!(request.keep, Duration::from_secs(5));
/// ```
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct ReleaseRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token that should hold it.
    pub token: Token,
    /// How long the lock stays held after this release, for `hold_at_least`; whole milliseconds.
    pub keep: Duration,
}

impl ReleaseRequest {
    /// Creates a request to free the lock of this key, if this token holds it.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token) -> Self {
        Self { key: key.into(), token, keep: Duration::ZERO }
    }

    /// Sets how long the lock stays held after the release.
    #[must_use]
    pub fn keeping(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }
}

/// The answer to a [`ReleaseRequest`].
///
/// ```
/// # mod lock { pub mod store { pub use lock_core::contract::*; } }
/// use lock::store::Release;
///
/// assert!(Release::freed().ours);
/// assert!(!Release::not_ours().ours);
/// let handed_over = Release::freed().handed_over(true);
/// assert!(handed_over.ours && handed_over.handed_over);
/// // Nobody held it, and a waiter has it now.
/// let reserved = Release::not_ours().handed_over(true);
/// assert!(!reserved.ours && reserved.handed_over);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Release {
    /// Whether the token held the lock.
    pub ours: bool,
    /// Whether the lock was handed over to a waiter, for which it is
    /// [reserved](super::RESERVATION).
    pub handed_over: bool,
}

impl Release {
    /// Returns the answer for a lock that the token held, and no longer holds.
    #[must_use]
    pub fn freed() -> Self {
        Self { ours: true, handed_over: false }
    }

    /// Returns the answer for a lock that the token did not hold.
    #[must_use]
    pub fn not_ours() -> Self {
        Self::default()
    }

    /// Sets whether the lock was handed over to a waiter.
    #[must_use]
    pub fn handed_over(mut self, yes: bool) -> Self {
        self.handed_over = yes;
        self
    }
}

/// A request to extend one lease.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct ExtendRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token that should hold it.
    pub token: Token,
    /// How much is added to the remaining time; whole milliseconds.
    pub by: Duration,
}

impl ExtendRequest {
    /// Creates a request to extend the lease of the lock of this key, if this token holds it.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token, by: Duration) -> Self {
        Self { key: key.into(), token, by }
    }
}
