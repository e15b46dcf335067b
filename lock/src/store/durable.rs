//! What a store is asked about durable calls.

use std::{sync::Arc, time::Duration};

use crate::Token;

/// The durable calls of one function: the keys of its book, and what is wanted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DurableRequest {
    /// The keys.
    pub book: DurableBook,
    /// What is wanted.
    pub step: DurableStep,
}

impl DurableRequest {
    /// One step in this book.
    #[must_use]
    pub fn new(book: DurableBook, step: DurableStep) -> Self {
        Self { book, step }
    }
}

/// The keys under which a store keeps the durable calls of one function. All of them expire a
/// month after the last call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DurableBook {
    /// When each id is to be looked at.
    pub due: Arc<str>,
    /// The last call of each id.
    pub calls: Arc<str>,
    /// The calls that have failed for good.
    pub aside: Arc<str>,
}

impl DurableBook {
    /// A book under these keys.
    #[must_use]
    pub fn new(
        due: impl Into<Arc<str>>,
        calls: impl Into<Arc<str>>,
        aside: impl Into<Arc<str>>,
    ) -> Self {
        Self { due: due.into(), calls: calls.into(), aside: aside.into() }
    }
}

/// What is wanted of the durable calls of one function.
#[derive(Clone, Debug)]
pub enum DurableStep {
    /// Keep this call; answers [`DurableReply::Called`].
    Call {
        /// What is debounced.
        id: Arc<str>,
        /// The arguments, as text.
        arguments: Arc<str>,
        /// Due so long after the last call; whole milliseconds.
        wait: Duration,
        /// And at the latest so long after the first that was not run.
        max_wait: Option<Duration>,
        /// So many tries there are in all, if its runs fail.
        attempts: u32,
        /// The pause before the second, doubled for each that follows, an hour at most.
        pause: Duration,
    },
    /// Which ids are due, so many at most? Answers [`DurableReply::Due`].
    Due {
        /// How many.
        limit: usize,
    },
    /// Run this one, if it is due and no other run goes on; answers [`DurableReply::Claimed`].
    Claim {
        /// What is debounced.
        id: Arc<str>,
        /// The key of the lock that is held during the run.
        run: Arc<str>,
        /// The token of this run.
        token: Token,
        /// How long the run's lock lasts unless it is renewed; whole milliseconds.
        lease: Duration,
    },
    /// A run has ended, and its lock is still held; answers [`DurableReply::Finished`].
    Finish {
        /// What is debounced.
        id: Arc<str>,
        /// The key of the lock that is held during the run.
        run: Arc<str>,
        /// The token of this run.
        token: Token,
        /// The number of the call that was run.
        call: u64,
        /// The generation of the run.
        generation: u64,
        /// Why it has failed, if it has.
        error: Option<Arc<str>>,
    },
    /// Which calls have failed for good? Answers [`DurableReply::Aside`].
    Aside,
    /// Take a call from among those; answers [`DurableReply::Taken`].
    TakeBack {
        /// What is debounced.
        id: Arc<str>,
        /// Run it again, unless it was called anew since; else forget it.
        again: bool,
    },
}

/// The answer to a [`DurableStep`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurableReply {
    /// It is kept.
    Called {
        /// Its number; grows with every call of the id.
        call: u64,
        /// How long it is until it is due.
        due_in: Duration,
    },
    /// What is due.
    Due {
        /// The ids.
        ids: Vec<String>,
        /// How long it is until another one is, if there is one.
        next: Option<Duration>,
    },
    /// What became of a claim.
    Claimed(DurableClaim),
    /// What became of a call whose run has ended.
    Finished(DurableFinish),
    /// Those that have failed for good.
    Aside(Vec<SetAside>),
    /// Was it there?
    Taken(bool),
}

/// What became of a [`DurableStep::Claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurableClaim {
    /// There is no call any more.
    Gone,
    /// It is due in so long.
    NotYet(Duration),
    /// Another run goes on, under a lock that lasts so long unless it is renewed.
    Running(Duration),
    /// It may run; the run's lock is held by the token.
    Granted {
        /// The fence of the run.
        fence: u64,
        /// The number of the call.
        call: u64,
        /// Which try it is; the first is 1.
        attempt: u32,
        /// The arguments of the last call.
        arguments: String,
    },
}

/// What became of a [`DurableStep::Finish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurableFinish {
    /// The run's lock was lost before: the call is run once more.
    Lost,
    /// It is done.
    Done,
    /// It was called again meanwhile.
    Again,
    /// It is tried once more, in so long.
    Retry(Duration),
    /// It was set aside.
    SetAside,
}

/// A durable call that has failed as often as it may.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetAside {
    /// What was debounced.
    pub id: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The generation of its last run.
    pub generation: u64,
    /// Why that has failed.
    pub error: String,
    /// The arguments, as JSON.
    pub arguments: String,
}
