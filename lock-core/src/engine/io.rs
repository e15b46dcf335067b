//! The input and the output of the engine.

use std::{sync::Arc, time::Duration};

use super::lock_state::hand_overs_of;
use crate::{
    Token,
    contract::{
        ClientRecord, DueCalls, DueRequest, DurableBook, DurableFinish, FinishRequest,
        ForceReleaseRequest, Holder, KeepRequest, Kept, ScanPage, ScanRequest, SetAside,
        StoreError, TakeBackRequest, WaitingCalls, WindowEnd,
    },
    time::Moment,
};

/// How long a caller is willing to wait for a held lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Patience {
    /// In line, for this long; zero is one try.
    For(Duration),
    /// This many tries, with this delay between two of them, without waiting in line: what
    /// @upstash/lock does.
    Attempts { attempts: u32, delay: Duration },
}

/// The terms on which a lock is acquired; every field has been checked.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Terms {
    pub lease: Duration,
    pub hold_at_most: Option<Duration>,
    pub hold_at_least: Duration,
}

impl Terms {
    /// The terms for the lock of a run.
    pub fn of_run(lease: Duration, hold_at_most: Option<Duration>) -> Self {
        Self { lease, hold_at_most, hold_at_least: Duration::ZERO }
    }
}

/// A caller that asks for a lock. `to` is how its owner identifies it.
#[derive(Clone, Hash)]
pub struct Acquirer<C> {
    pub number: u64,
    pub key: Arc<str>,
    pub terms: Terms,
    pub to: C,
}

/// A request for a lock.
#[derive(Clone, Hash)]
pub struct Acquire<C> {
    pub acquirer: Acquirer<C>,
    pub patience: Patience,
    /// Take the lock over from this token instead of waiting for it.
    pub adopt: Option<Token>,
}

/// When a debounced call runs; every field has been checked.
#[derive(Clone, Copy, Debug, Hash)]
pub struct WindowTerms {
    pub wait: Duration,
    pub max_wait: Option<Duration>,
    pub leading: bool,
}

/// A debounced call, which asks for the lock of its run.
#[derive(Clone, Hash)]
pub struct DebouncedCall<C> {
    pub acquirer: Acquirer<C>,
    pub window: Arc<str>,
    pub terms: WindowTerms,
}

/// A request to run a durable call.
#[derive(Clone, Hash)]
pub struct RunClaim<C> {
    pub acquirer: Acquirer<C>,
    pub book: DurableBook,
    pub id: Arc<str>,
}

/// The hold that a guard is about: an ownership passes from caller to caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HoldName {
    /// The number in the token.
    pub ownership: u64,
    pub caller: u64,
}

/// What callers ask for.
#[derive(Clone)]
pub enum Command<C> {
    Acquire(Box<Acquire<C>>),
    Debounce(Box<DebouncedCall<C>>),
    Claim(Box<RunClaim<C>>),
    /// Nobody waits any more for the request with this number.
    Cancel(u64),
    Release {
        hold: HoldName,
        /// The guard never reached its caller: nobody has held the lock.
        undelivered: bool,
        to: Option<C>,
    },
    /// The caller of a run has it; other calls wait for that.
    RunTaken(HoldName),
    Extend(HoldName, Duration, C),
    Leak(HoldName),
    /// The holder has found the deadline passed, and no longer relies on the lock.
    Expired(HoldName),
    Query(Box<Query>, C),
    Flush(C),
    Shutdown(C),
    /// Nobody can ask for anything any more: what is left is undone.
    Abandon,
}

impl<C> Command<C> {
    /// The command if it undoes something, or waits for that; otherwise the caller that asks for
    /// something new.
    pub(super) fn if_it_undoes(self) -> Result<Self, C> {
        match self {
            Self::Acquire(acquire) => Err(acquire.acquirer.to),
            Self::Debounce(call) => Err(call.acquirer.to),
            Self::Claim(claim) => Err(claim.acquirer.to),
            Self::Query(_, to) | Self::Extend(_, _, to) => Err(to),
            other => Ok(other),
        }
    }
}

/// What comes out for callers, in this order.
#[derive(Clone)]
pub enum Output<C> {
    Granted(C, Grant),
    Answered(C, Result<Outcome, Refusal>),
    /// What the token with this number holds may be relied on until this moment.
    Deadline(u64, Moment),
    /// It may no longer be relied on.
    Lost(u64, Loss),
    /// The caller of this name waits in line from now on. Only for callers that
    /// [want this reported](Caller::told_as).
    Waiting(Arc<str>),
}

/// Why a lock may no longer be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its lease ran out before it was renewed.
    Expired,
    /// It was held for as long as `hold_at_most` allows.
    HeldAtMost,
    /// The store says that it is not ours, or has given it to somebody else.
    NotOurs,
    /// It was released by force.
    Forced,
    /// The client was shut down.
    Closed,
}

/// A lock that was granted to a caller.
#[derive(Clone)]
pub struct Grant {
    pub hold: HoldName,
    pub token: Token,
    pub fencing_token: u64,
    pub deadline: Moment,
    pub work: Work,
}

/// Did the caller with this fencing token get the lock from another caller of its process, and not
/// from the store?
pub fn is_handed_over(fencing_token: u64) -> bool {
    hand_overs_of(fencing_token) > 0
}

/// What the lock is for.
#[derive(Clone)]
pub enum Work {
    Own,
    /// The run of a burst. `followed`: other calls wait for its caller to take it.
    Burst {
        followed: bool,
    },
    Durable {
        call: u64,
        attempt: u32,
        arguments: String,
    },
}

/// What else a caller may be told.
#[derive(Clone)]
pub enum Outcome {
    Done,
    /// Another call runs in the place of this one.
    Superseded,
    /// `waiters` includes those of this process that the store does not count.
    Holder(Option<Holder>),
    Truth(bool),
    NothingDue,
    Kept(Kept),
    Due(DueCalls),
    Finished(DurableFinish),
    SetAside(Vec<SetAside>),
    Client(Option<ClientRecord>),
    Page(ScanPage),
    /// How long until a debounced call is due, if one waits.
    DueIn(Option<Duration>),
    Waiting(WaitingCalls),
}

/// Why a caller does not get what it asked for.
#[derive(Clone)]
pub enum Refusal {
    /// Somebody else held the lock for all of this time.
    BusyFor(Duration),
    /// Somebody else held it at each of this many tries; this is the time from the first to the
    /// last of them.
    BusyAtEach(u32, Duration),
    Lost(&'static str),
    Invalid(String),
    Failed(StoreError, Aftermath),
    Closed,
}

/// What becomes of a request that the store has not answered.
#[derive(Clone, Copy)]
pub enum Aftermath {
    Undone,
    Repeated,
    Unknown,
    Nothing,
    NotSent,
}

/// Requests of callers that change nothing in the engine.
#[derive(Clone, Hash)]
pub enum Query {
    Holder(Arc<str>),
    /// The record of a client, by its key.
    Client(Arc<str>),
    Scan(ScanRequest),
    ForceRelease(ForceReleaseRequest),
    /// When the call that waits in this window is due; the run's key determines the part of the
    /// store.
    DueIn {
        window: Arc<str>,
        run: Arc<str>,
    },
    /// `waited`: calls of this process waited for it.
    EndWindow {
        window: Arc<str>,
        run: Arc<str>,
        end: WindowEnd,
        waited: bool,
    },
    Keep(KeepRequest),
    Due(DueRequest),
    /// All that wait, not only those that are due.
    Waiting(DueRequest),
    Finish(FinishRequest),
    SetAside(DurableBook),
    TakeBack(TakeBackRequest),
}

impl Query {
    /// A key that the query is about: all of its keys are in one part of the store.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Holder(key)
            | Self::Client(key)
            | Self::ForceRelease(ForceReleaseRequest { key, .. }) => key,
            // In all parts, one after the other.
            Self::Scan(ScanRequest { prefix, .. }) => prefix,
            Self::EndWindow { run, .. } | Self::DueIn { run, .. } => run,
            Self::Keep(KeepRequest { book, .. })
            | Self::Due(DueRequest { book, .. })
            | Self::Waiting(DueRequest { book, .. })
            | Self::Finish(FinishRequest { book, .. })
            | Self::SetAside(book)
            | Self::TakeBack(TakeBackRequest { book, .. }) => &book.due,
        }
    }
}

/// The one who asks. By default, nobody waits for the answer.
pub trait Caller: Default {
    /// Does nobody wait for the answer any longer?
    fn is_gone(&self) -> bool;

    /// The name under which it is reported that the caller waits; `None` if nobody wants that
    /// report.
    fn told_as(&self) -> Option<Arc<str>> {
        None
    }
}
