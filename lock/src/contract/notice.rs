//! Notices: how a store tells a client what happened to a lock that it waits for, or holds.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

/// What a store tells a client, by the number in one of the client's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice {
    /// The lock was handed to this waiter, or its state has changed and the waiter should ask again.
    /// Also for a debounced call: its burst has been run.
    Granted {
        /// The number in the token.
        number: u64,
    },
    /// Others wait for the lock that this token holds.
    Contended {
        /// The number in the token.
        number: u64,
    },
    /// The lock that this token held was released by force.
    Revoked {
        /// The number in the token.
        number: u64,
    },
    /// The burst of the debounced call with this token was flushed.
    Flushed {
        /// The number in the token.
        number: u64,
    },
    /// Notices come from now on, in this way; some may have been lost before.
    Connected(Delivery),
    /// Another server answers than before, which may not have what that one had: every lock that is
    /// held is to be looked at.
    Replaced,
}

/// How notices travel from the store to a client.
///
/// `Debug` of [`Locks`](crate::Locks) shows it, and each connect says it in an event (`tracing`,
/// target `lock`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Delivery {
    /// There are none: waiters poll, backing off to four times a second.
    Polling = 0,
    /// On a connection of their own.
    PubSub = 1,
    /// On the connection that carries the requests, or inside this process.
    Push = 2,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Polling => "polling",
            Self::PubSub => "pub/sub",
            Self::Push => "push",
        })
    }
}

/// Receives one client's notices from a [`Store`](crate::store::Store).
///
/// Clones are the same. It does not keep the client alive.
#[derive(Clone)]
pub struct Listener(Arc<Hear>);

/// Takes a notice, or nothing, and says whether the client is still there.
type Hear = dyn Fn(Option<Notice>) -> bool + Send + Sync;

impl Listener {
    pub(crate) fn new(hear: impl Fn(Option<Notice>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Passes a notice on to the client; false if the client is gone. Never blocks, and runs nothing
    /// of the client's on this thread, so it may be called from within an operation.
    pub fn notify(&self, notice: Notice) -> bool {
        (self.0)(Some(notice))
    }

    /// Whether the client is still there.
    #[must_use]
    pub fn is_open(&self) -> bool {
        (self.0)(None)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

/// How the notices of a client travel at the moment.
#[derive(Debug, Default)]
pub(crate) struct CurrentDelivery(AtomicU8);

impl CurrentDelivery {
    pub(crate) fn set(&self, delivery: Delivery) {
        self.0.store(delivery as u8, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> Delivery {
        match self.0.load(Ordering::Relaxed) {
            2 => Delivery::Push,
            1 => Delivery::PubSub,
            _ => Delivery::Polling,
        }
    }
}
