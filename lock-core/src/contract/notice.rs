//! Notices: how a store tells a client what happened to a lock that the client waits for or holds.

use std::fmt;

/// A notice from a store to a client. A notice about a lock or a call contains the number in one of
/// the client's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice {
    /// The lock was handed to this waiter, or the state of the lock has changed and the waiter
    /// should repeat its request. Also sent for a debounced call whose burst has run.
    Granted {
        /// The number in the token.
        number: u64,
    },
    /// Another token waits for the lock that this token holds.
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
    /// From now on, notices arrive in this way; earlier notices may have been lost.
    Connected(Delivery),
    /// From now on, a different server answers, which may not have the data of the previous one:
    /// every held lock must be checked.
    Replaced,
}

/// How notices travel from the store to a client.
///
/// The `Debug` output of `Locks` shows it, and an event reports it at each connect (`tracing`,
/// target `lock`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Delivery {
    /// No notices: waiters poll, backing off to four times a second.
    Polling = 0,
    /// On a separate connection.
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
