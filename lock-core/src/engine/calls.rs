//! Calls to the store, and its answers.

use std::{sync::Arc, time::Duration};

use super::io::{Acquirer, HoldName};
use crate::{
    Token,
    contract::{
        AcquireRequest, Acquisition, ClaimRequest, ClientRecord, DebounceReply, DebounceRequest,
        DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish, EndWindowRequest,
        ExtendRequest, FinishRequest, ForceReleaseRequest, Holder, IntroduceRequest, KeepRequest,
        Kept, Release, ReleaseRequest, RenewRequest, Renewal, ScanPage, ScanRequest, SetAside,
        StoreError, TakeBackRequest, WaitingCalls,
    },
    time::Moment,
};

/// How many items go into one call to the store: scripts with more would keep a Redis server from
/// its other clients for longer than a third of a millisecond.
pub(super) const BATCH: usize = 100;

/// Requests that go to the store together.
#[derive(Clone, Hash)]
pub struct Batch<Q, T> {
    pub requests: Vec<Q>,
    pub sent: Sent<T>,
}

/// What the engine has to know about each request of a batch when it is answered; it travels with
/// the batch.
#[derive(Clone, Hash)]
pub struct Sent<T> {
    pub(super) asked: Vec<T>,
    /// The part of the store that it was sent to.
    pub(super) shard: usize,
    pub(super) sent_at: Moment,
}

impl<T> Sent<T> {
    /// What was asked, in the order of the answers.
    pub fn asked(&self) -> &[T] {
        &self.asked
    }

    /// When the batch was sent.
    pub fn sent_at(&self) -> Moment {
        self.sent_at
    }
}

/// The store's answer to one request.
pub(super) type Said<A> = Result<A, StoreError>;

/// A call to the store. Calls begin in the order in which they come out.
#[derive(Clone, Hash)]
pub enum Call<C> {
    Acquire(Batch<AcquireRequest, (Asker, u64)>),
    Renew(Batch<RenewRequest, (u64, Duration)>),
    Release(Batch<ReleaseRequest, u64>),
    Extend(Batch<ExtendRequest, (HoldName, C)>),
    Holder(Batch<Arc<str>, (Arc<str>, C)>),
    Client(Batch<Arc<str>, ((), C)>),
    Scan(Batch<ScanRequest, ((), C)>),
    ForceRelease(Batch<ForceReleaseRequest, (Arc<str>, C)>),
    Introduce(Batch<IntroduceRequest, ()>),
    DueIn(Batch<Arc<str>, ((), C)>),
    Register(Batch<DebounceRequest, (Arc<str>, u64)>),
    EndWindow(Batch<EndWindowRequest, (bool, C)>),
    Claim(Batch<ClaimRequest, (Acquirer<()>, C)>),
    Keep(Batch<KeepRequest, ((), C)>),
    Due(Batch<DueRequest, ((), C)>),
    Waiting(Batch<DueRequest, ((), C)>),
    Finish(Batch<FinishRequest, ((), C)>),
    SetAside(Batch<DurableBook, ((), C)>),
    TakeBack(Batch<TakeBackRequest, ((), C)>),
}

/// The store's answer to a [`Call`]: one answer for each request.
#[derive(Clone, Hash)]
pub enum Answer<C> {
    Acquired(Sent<(Asker, u64)>, Vec<Said<Acquisition>>),
    Renewed(Sent<(u64, Duration)>, Vec<Said<Renewal>>),
    Released(Sent<u64>, Vec<Said<Release>>),
    Extended(Sent<(HoldName, C)>, Vec<Said<Option<Duration>>>),
    Holder(Sent<(Arc<str>, C)>, Vec<Said<Option<Holder>>>),
    Client(Sent<((), C)>, Vec<Said<Option<ClientRecord>>>),
    Scanned(Sent<((), C)>, Vec<Said<ScanPage>>),
    ForceReleased(Sent<(Arc<str>, C)>, Vec<Said<Release>>),
    Introduced(Sent<()>, Vec<Said<()>>),
    DueIn(Sent<((), C)>, Vec<Said<Option<Duration>>>),
    Registered(Sent<(Arc<str>, u64)>, Vec<Said<DebounceReply>>),
    WindowEnded(Sent<(bool, C)>, Vec<Said<bool>>),
    Claimed(Sent<(Acquirer<()>, C)>, Vec<Said<DurableClaim>>),
    Kept(Sent<((), C)>, Vec<Said<Kept>>),
    Due(Sent<((), C)>, Vec<Said<DueCalls>>),
    Waiting(Sent<((), C)>, Vec<Said<WaitingCalls>>),
    Finished(Sent<((), C)>, Vec<Said<DurableFinish>>),
    SetAside(Sent<((), C)>, Vec<Said<Vec<SetAside>>>),
    TakenBack(Sent<((), C)>, Vec<Said<bool>>),
}

impl<C> Answer<C> {
    /// The first failure among the answers.
    pub fn failure(&self) -> Option<&StoreError> {
        fn first<A>(answers: &[Said<A>]) -> Option<&StoreError> {
            answers.iter().find_map(|answer| answer.as_ref().err())
        }

        match self {
            Self::Acquired(_, answers) => first(answers),
            Self::Renewed(_, answers) => first(answers),
            Self::Released(_, answers) | Self::ForceReleased(_, answers) => first(answers),
            Self::Extended(_, answers) => first(answers),
            Self::Holder(_, answers) => first(answers),
            Self::Client(_, answers) => first(answers),
            Self::Scanned(_, answers) => first(answers),
            Self::Introduced(_, answers) => first(answers),
            Self::DueIn(_, answers) => first(answers),
            Self::Registered(_, answers) => first(answers),
            Self::WindowEnded(_, answers) | Self::TakenBack(_, answers) => first(answers),
            Self::Claimed(_, answers) => first(answers),
            Self::Kept(_, answers) => first(answers),
            Self::Due(_, answers) => first(answers),
            Self::Waiting(_, answers) => first(answers),
            Self::Finished(_, answers) => first(answers),
            Self::SetAside(_, answers) => first(answers),
        }
    }
}

/// A lock that the store has granted.
#[derive(Clone, Hash)]
pub(super) struct Granted {
    /// The number in the token.
    pub(super) ownership: u64,
    pub(super) token: Token,
    /// When it was asked for; the lease counts from there.
    pub(super) sent_at: Moment,
    pub(super) lease: Duration,
    pub(super) fence: u64,
    /// Others wait for it.
    pub(super) contended: bool,
}

/// On whose behalf the store is asked for a lock.
#[derive(Clone, Hash)]
pub enum Asker {
    /// The callers that wait in line for the lock of this key.
    Queued(Arc<str>),
    /// The caller with this number, which asks on its own behalf.
    Polled(u64),
}
