//! What callers ask of the keeper, and on which terms.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "durable")]
use super::durable::{Claiming, Step};
use super::{
    Client,
    held::{Held, HoldName},
    reply::Reply,
};
use crate::{
    Error, Status, Token,
    contract::{Notice, WindowEnd},
    core::wait::Patience,
    id::Named,
};

/// One message to the keeper.
pub(super) enum Command {
    Acquire(Box<Acquire>),
    /// Nobody waits any more for what has this number.
    Cancel(u64),
    Release {
        hold: HoldName,
        /// Its guard never reached its caller: nobody has held the lock.
        undelivered: bool,
        reply: Option<Reply<Result<(), Error>>>,
    },
    Extend {
        hold: HoldName,
        by: Duration,
        reply: Reply<Result<(), Error>>,
    },
    Leak {
        hold: HoldName,
    },
    /// The store has something to say.
    Notice(Notice),
    Status {
        lock: Named,
        reply: Reply<Result<Status, Error>>,
    },
    ForceRelease {
        lock: Named,
        reply: Reply<Result<bool, Error>>,
    },
    Call(Box<Call>),
    /// The caller of a run has it, and other calls wait for that.
    RunTaken(HoldName),
    #[cfg(feature = "durable")]
    Durable(Box<Step>),
    #[cfg(feature = "durable")]
    Claim(Box<Claiming>),
    EndWindow {
        keys: (Named, Named),
        end: WindowEnd,
        reply: Reply<Result<bool, Error>>,
    },
    Flush(Reply<()>),
    Shutdown(Reply<()>),
}

/// What a lock is acquired with; every field has been checked.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) lease: Duration,
    pub(crate) patience: Patience,
    pub(crate) hold_at_most: Option<Duration>,
    pub(crate) hold_at_least: Duration,
}

impl Terms {
    /// Of the lock of a run.
    pub(super) fn of_run(lease: Duration, hold_at_most: Option<Duration>) -> Self {
        let patience = Patience::For(Duration::ZERO);
        Self { lease, patience, hold_at_most, hold_at_least: Duration::ZERO }
    }
}

pub(super) struct Acquire {
    pub(super) number: u64,
    pub(super) lock: Named,
    pub(super) token: Token,
    /// Take the lock over from this token instead of waiting for it.
    pub(super) adopt: Option<Token>,
    pub(super) terms: Terms,
    pub(super) client: Arc<Client>,
    pub(super) reply: Reply<Result<Held, Error>>,
}

/// When a debounced call runs; every field has been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowTerms {
    pub(crate) wait: Duration,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) leading: bool,
    /// How long its run may take.
    pub(crate) hold_at_most: Option<Duration>,
}

/// A debounced call, on its way to a run.
pub(super) struct Call {
    pub(super) number: u64,
    pub(super) window: Named,
    pub(super) run: Named,
    pub(super) terms: WindowTerms,
    pub(super) lease: Duration,
    pub(super) client: Arc<Client>,
    /// `None`: another call runs in its place.
    pub(super) reply: Reply<Result<Option<Turn>, Error>>,
}

/// The run that a call was given.
pub(super) struct Turn {
    pub(super) held: Held,
    /// Other calls wait for this one to take it.
    pub(super) followed: bool,
}
