//! Wake-ups: how a store tells a client what happened to a lock it waits for, or holds.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

/// What a store tells a client, by the number in one of the client's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The lock that this token waits for was given to it, or something is to be seen there. Also
    /// for a debounced call: its burst has been run.
    Granted {
        /// The number in the token.
        number: u64,
    },
    /// Others wait for the lock that this token holds.
    Wanted {
        /// The number in the token.
        number: u64,
    },
    /// The lock that this token held was released by force.
    Taken {
        /// The number in the token.
        number: u64,
    },
    /// The burst of the debounced call with this token was flushed.
    Due {
        /// The number in the token.
        number: u64,
    },
    /// Wake-ups come from now on, in this way; some may have been lost before.
    Connected(WakeUps),
}

/// How wake-ups travel from the store to a client.
///
/// `Debug` of [`Locks`](crate::Locks) shows it, and each connect says it in an event (`tracing`,
/// target `lock`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WakeUps {
    /// They do not: waiters look by themselves, ever more rarely, four times a second at last.
    Polling = 0,
    /// On a connection of their own.
    PubSub = 1,
    /// On the connection that carries the requests, or inside this process.
    Push = 2,
}

impl fmt::Display for WakeUps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Polling => "polling",
            Self::PubSub => "pub/sub",
            Self::Push => "push",
        })
    }
}

/// The ear of one client: where a [`Store`](crate::Store) sends its wake-ups.
///
/// Clones are the same. It does not keep the client alive.
#[derive(Clone)]
pub struct Listener(Arc<Ear>);

/// Takes a wake-up, or nothing, and says whether the client is still there.
type Ear = dyn Fn(Option<Wake>) -> bool + Send + Sync;

impl Listener {
    pub(crate) fn new(ear: impl Fn(Option<Wake>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(ear))
    }

    /// Wakes the client. Never blocks, and runs nothing of the client's on this thread, so it may
    /// be called from within an operation. False if the client is gone.
    pub fn wake(&self, wake: Wake) -> bool {
        (self.0)(Some(wake))
    }

    /// Is the client still there?
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

/// How the wake-ups of a client travel at the moment.
#[derive(Debug, Default)]
pub(crate) struct CurrentWakeUps(AtomicU8);

impl CurrentWakeUps {
    pub(crate) fn set(&self, wake_ups: WakeUps) {
        self.0.store(wake_ups as u8, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> WakeUps {
        match self.0.load(Ordering::Relaxed) {
            2 => WakeUps::Push,
            1 => WakeUps::PubSub,
            _ => WakeUps::Polling,
        }
    }
}
