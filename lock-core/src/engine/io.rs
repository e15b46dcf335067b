//! What goes into the engine, and what comes out of it.

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
    /// So many tries, so far apart, without standing in line: what @upstash/lock does.
    Attempts { attempts: u32, delay: Duration },
}

/// What a lock is acquired with; every field has been checked.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Terms {
    pub lease: Duration,
    pub hold_at_most: Option<Duration>,
    pub hold_at_least: Duration,
}

impl Terms {
    /// Of the lock of a run.
    pub fn of_run(lease: Duration, hold_at_most: Option<Duration>) -> Self {
        Self { lease, hold_at_most, hold_at_least: Duration::ZERO }
    }
}

/// Somebody who asks for a lock. `to` is what its owner knows it by.
#[derive(Clone, Hash)]
pub struct Acquirer<C> {
    pub number: u64,
    pub key: Arc<str>,
    pub terms: Terms,
    pub to: C,
}

/// A lock is asked for.
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

/// The run of a durable call, which somebody wants to do.
#[derive(Clone, Hash)]
pub struct RunClaim<C> {
    pub acquirer: Acquirer<C>,
    pub book: DurableBook,
    pub id: Arc<str>,
}

/// Which hold a guard is about: an ownership passes from caller to caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HoldName {
    /// The number in the token.
    pub ownership: u64,
    pub caller: u64,
}

/// What callers ask.
#[derive(Clone)]
pub enum Command<C> {
    Acquire(Box<Acquire<C>>),
    Debounce(Box<DebouncedCall<C>>),
    Claim(Box<RunClaim<C>>),
    /// Nobody waits any more for what has this number.
    Cancel(u64),
    Release {
        hold: HoldName,
        /// Its guard never reached its caller: nobody has held the lock.
        undelivered: bool,
        to: Option<C>,
    },
    /// The caller of a run has it, and other calls wait for that.
    RunTaken(HoldName),
    Extend(HoldName, Duration, C),
    Leak(HoldName),
    /// Its holder has found the deadline passed, and believes in it no longer.
    Expired(HoldName),
    Query(Box<Query>, C),
    Flush(C),
    Shutdown(C),
    /// Nobody can ask for anything any more: what is left is undone.
    Abandon,
}

impl<C> Command<C> {
    /// The command if it undoes something, or waits for that; or who asks for something new.
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
    /// What is held with the token of this number is to be believed in until then.
    Deadline(u64, Moment),
    /// It is not to be believed in any longer.
    Lost(u64, Loss),
    /// Whoever is called that waits in line from now on. Only of those that
    /// [want it told](Caller::told_as).
    Waiting(Arc<str>),
}

/// Why a lock is not to be believed in any longer.
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

/// A lock that a caller has got.
#[derive(Clone)]
pub struct Grant {
    pub hold: HoldName,
    pub token: Token,
    pub fencing_token: u64,
    pub deadline: Moment,
    pub work: Work,
}

/// Has the caller with this fencing token got the lock from another one of its process, and not from
/// the store?
pub fn is_handed_over(fencing_token: u64) -> bool {
    hand_overs_of(fencing_token) > 0
}

/// What it was got for.
#[derive(Clone)]
pub enum Work {
    Own,
    /// The run of a burst. `followed`: other calls wait for this one to take it.
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
    /// How long it is until a debounced call is due, if one waits.
    DueIn(Option<Duration>),
    Waiting(WaitingCalls),
}

/// Why a caller does not get what it asked for.
#[derive(Clone)]
pub enum Refusal {
    /// Somebody else held the lock for all of this time.
    BusyFor(Duration),
    /// Somebody else held it at each of so many tries, from the first to the last of which so long
    /// went by.
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

/// What callers ask that changes nothing in the engine.
#[derive(Clone, Hash)]
pub enum Query {
    Holder(Arc<str>),
    /// The record of a client, by its key.
    Client(Arc<str>),
    Scan(ScanRequest),
    ForceRelease(ForceReleaseRequest),
    /// When the call is due that waits in this window; the run's key tells where that is.
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
    /// All that wait, and not only those that are due.
    Waiting(DueRequest),
    Finish(FinishRequest),
    SetAside(DurableBook),
    TakeBack(TakeBackRequest),
}

impl Query {
    /// A key of what is asked about: all of it is in one part of the store.
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

/// How one asks: is anybody there to hear the answer? By default, nobody.
pub trait Caller: Default {
    /// Does nobody wait for the answer any longer?
    fn is_gone(&self) -> bool;

    /// What it is called where it is told that it waits; `None` if nobody wants to hear of that.
    fn told_as(&self) -> Option<Arc<str>> {
        None
    }
}
