//! Notices: how a store tells a client what happened to a lock that it waits for, or holds.

use std::fmt;

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
/// `Debug` of `Locks` shows it, and each connect says it in an event (`tracing`,
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
