//! Locks: what is asked about one, and what the answer is.

use std::{sync::Arc, time::Duration};

use crate::Token;

/// One lock to be taken.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct AcquireRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token of this acquisition.
    pub token: Token,
    /// How long the lock is held unless it is renewed, from when the store gets the request; whole
    /// milliseconds.
    pub lease: Duration,
    /// What to do if another token holds it.
    pub if_held: IfHeld,
}

impl AcquireRequest {
    /// A request for the lock of this key, with this token and this lease; one attempt.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token, lease: Duration) -> Self {
        Self { key: key.into(), token, lease, if_held: IfHeld::GiveUp }
    }

    /// Sets what to do about a lock that another token holds.
    #[must_use]
    pub fn if_held(mut self, if_held: IfHeld) -> Self {
        self.if_held = if_held;
        self
    }
}

/// What an [`AcquireRequest`] does about a lock that another token holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IfHeld {
    /// Nothing.
    GiveUp,
    /// Joins the queue, for the first time.
    Wait,
    /// Keeps its place in the queue, which this ticket is for, or gets it back. `None` if it does
    /// not know its ticket, because the answer to an earlier request was lost.
    KeepWaiting(Option<u64>),
    /// Takes the lock over, if this token holds it.
    Adopt(Token),
}

/// The answer to an [`AcquireRequest`].
///
/// ```
/// # mod lock { pub mod store { pub use lock_core::contract::*; } }
/// use lock::store::Acquisition;
/// use std::time::Duration;
///
/// let granted = Acquisition::granted(7);
/// // Held by another token for two seconds more, and no queue here to wait in.
/// let held = Acquisition::held(Some(Duration::from_secs(2)));
/// assert_ne!(granted, held);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Acquisition {
    /// The lock is held by the token, for the lease.
    #[non_exhaustive]
    Granted {
        /// The fence of this grant; at most 2<sup>53</sup>.
        fence: u64,
        /// Others wait for it, as far as the operation has seen.
        contended: bool,
    },
    /// It is held by another token (or, when adopting, not by the one that was named).
    #[non_exhaustive]
    Held {
        /// How long the holder keeps it unless it is renewed; `None` if it never expires, zero if nobody
        /// holds the lock that was to be adopted.
        remaining: Option<Duration>,
        /// The token's ticket in the queue, if it waits there: larger than all that were drawn
        /// before.
        ticket: Option<u64>,
        /// The holder is a client that is connected and notifies those who wait when it releases
        /// the lock. Of any other holder's release nothing is heard, so those who wait for it ask
        /// several times a second.
        notifies: bool,
    },
}

impl Acquisition {
    /// The lock is held by the token now; no others are known to wait for it.
    #[must_use]
    pub fn granted(fence: u64) -> Self {
        Self::Granted { fence, contended: false }
    }

    /// Another token holds the lock, and the one that asked does not wait in a queue.
    #[must_use]
    pub fn held(remaining: Option<Duration>) -> Self {
        Self::Held { remaining, ticket: None, notifies: false }
    }

    /// Says of a grant whether others wait for the lock.
    #[must_use]
    pub fn contended(mut self, yes: bool) -> Self {
        if let Self::Granted { contended, .. } = &mut self {
            *contended = yes;
        }
        self
    }

    /// Says of a lock that is held that the token waits in its queue, with this ticket, and whether
    /// the holder notifies those who wait there.
    #[must_use]
    pub fn waiting(mut self, its_ticket: u64, holder_notifies: bool) -> Self {
        if let Self::Held { ticket, notifies, .. } = &mut self {
            (*ticket, *notifies) = (Some(its_ticket), holder_notifies);
        }
        self
    }
}

/// One lock to be renewed.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct RenewRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token that should hold it.
    pub token: Token,
    /// How long it is to last from now on; whole milliseconds.
    pub lease: Duration,
}

impl RenewRequest {
    /// A request to make the lock of this key last for this lease, if this token holds it.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token, lease: Duration) -> Self {
        Self { key: key.into(), token, lease }
    }
}

/// The answer to a [`RenewRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Renewal {
    /// The token holds the lock, for the lease at least.
    #[non_exhaustive]
    Renewed {
        /// Others wait for it.
        contended: bool,
    },
    /// The token did not hold it, and nothing was changed.
    NotOurs,
}

impl Renewal {
    /// The token holds the lock, for the lease at least; no others are known to wait for it.
    #[must_use]
    pub fn renewed() -> Self {
        Self::Renewed { contended: false }
    }

    /// The token did not hold the lock, and nothing was changed.
    #[must_use]
    pub fn not_ours() -> Self {
        Self::NotOurs
    }

    /// Says of a renewed lock whether others wait for it.
    #[must_use]
    pub fn contended(mut self, yes: bool) -> Self {
        if let Self::Renewed { contended } = &mut self {
            *contended = yes;
        }
        self
    }
}

/// One lock to be released.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct ReleaseRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// The token that should hold it.
    pub token: Token,
    /// How long it stays held all the same, for `hold_at_least`; whole milliseconds.
    pub keep: Duration,
}

impl ReleaseRequest {
    /// A request to free the lock of this key, if this token holds it.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token) -> Self {
        Self { key: key.into(), token, keep: Duration::ZERO }
    }

    /// Sets how long the lock stays held all the same.
    #[must_use]
    pub fn keeping(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }
}

/// The answer to a [`ReleaseRequest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Release {
    /// The lock was held by the token.
    pub ours: bool,
    /// It was given to a waiter, for whom it is [reserved](super::RESERVATION).
    pub handed_over: bool,
}

impl Release {
    /// The token held the lock, and does not any longer.
    #[must_use]
    pub fn freed() -> Self {
        Self { ours: true, handed_over: false }
    }

    /// The token did not hold the lock.
    #[must_use]
    pub fn not_ours() -> Self {
        Self::default()
    }

    /// Says whether the lock was given to a waiter.
    #[must_use]
    pub fn handed_over(mut self, yes: bool) -> Self {
        self.handed_over = yes;
        self
    }
}

/// One lease to be extended.
#[derive(Clone, Debug, Hash)]
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
    /// A request to extend the lease of the lock of this key, if this token holds it.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, token: Token, by: Duration) -> Self {
        Self { key: key.into(), token, by }
    }
}
