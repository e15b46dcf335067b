//! Durable calls: a request and an answer for each step.

use std::{sync::Arc, time::Duration};

use crate::Token;

/// The keys under which a store keeps the durable calls of one function. All of them expire a
/// month after the last call.
#[derive(Clone, Debug, Hash)]
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

/// One call to be kept.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct KeepRequest {
    /// The keys of the function's calls.
    pub book: DurableBook,
    /// What is debounced.
    pub id: Arc<str>,
    /// The arguments, as text.
    pub arguments: Arc<str>,
    /// How long after the last call it is due; whole milliseconds.
    pub wait: Duration,
    /// How long after the first call that was not run it is due at the latest.
    pub max_wait: Option<Duration>,
    /// How many tries there are in all, if its runs fail.
    pub attempts: u32,
    /// The pause before the second try, doubled for each that follows, an hour at most.
    pub pause: Duration,
}

impl KeepRequest {
    /// A request to keep a call with these arguments, due `wait` after the last; one try.
    #[must_use]
    pub fn new(
        book: DurableBook,
        id: impl Into<Arc<str>>,
        arguments: impl Into<Arc<str>>,
        wait: Duration,
    ) -> Self {
        Self {
            book,
            id: id.into(),
            arguments: arguments.into(),
            wait,
            max_wait: None,
            attempts: 1,
            pause: Duration::ZERO,
        }
    }

    /// Sets how long after the first call that was not run it is due at the latest.
    #[must_use]
    pub fn max_wait(mut self, limit: Option<Duration>) -> Self {
        self.max_wait = limit;
        self
    }

    /// Sets how many tries there are, and the pause before the second.
    #[must_use]
    pub fn retry(mut self, attempts: u32, pause: Duration) -> Self {
        (self.attempts, self.pause) = (attempts, pause);
        self
    }
}

/// The answer to a [`KeepRequest`]: the call is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Kept {
    /// Its number; grows with every call of the id.
    pub call: u64,
    /// How long it is until it is due.
    pub due_in: Duration,
}

impl Kept {
    /// The call has this number, and is due in that time.
    #[must_use]
    pub fn new(call: u64, due_in: Duration) -> Self {
        Self { call, due_in }
    }
}

/// Which ids are due?
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct DueRequest {
    /// The keys of the function's calls.
    pub book: DurableBook,
    /// How many ids there may be in the answer.
    pub limit: usize,
}

impl DueRequest {
    /// A request for at most this many ids that are due.
    #[must_use]
    pub fn new(book: DurableBook, limit: usize) -> Self {
        Self { book, limit }
    }
}

/// The answer to a [`DueRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DueCalls {
    /// The ids that are due.
    pub ids: Vec<String>,
    /// How long it is until another one is, if there is one.
    pub next: Option<Duration>,
    /// How many calls are kept, due or not, if the store says it.
    pub kept: Option<u64>,
}

impl DueCalls {
    /// These ids are due, and another one in that time.
    #[must_use]
    pub fn new(ids: Vec<String>, next: Option<Duration>) -> Self {
        Self { ids, next, kept: None }
    }

    /// Says how many calls are kept.
    #[must_use]
    pub fn of(mut self, kept: u64) -> Self {
        self.kept = Some(kept);
        self
    }
}

/// Which calls of a function are kept and have not failed for good, for operators: the answer to a
/// [`DueRequest`] that asks for all and not only for those that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WaitingCalls {
    /// How many there are.
    pub count: usize,
    /// The ids of those that are due first, each with the time until then; zero if it is due.
    pub calls: Vec<(String, Duration)>,
}

impl WaitingCalls {
    /// So many calls, of which these are due first.
    #[must_use]
    pub fn new(count: usize, calls: Vec<(String, Duration)>) -> Self {
        Self { count, calls }
    }
}

/// One call to be run, if it is due and no other run goes on.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct ClaimRequest {
    /// The keys of the function's calls.
    pub book: DurableBook,
    /// What is debounced.
    pub id: Arc<str>,
    /// The key of the lock that is held during the run.
    pub run: Arc<str>,
    /// The token of this run.
    pub token: Token,
    /// How long the run's lock lasts unless it is renewed; whole milliseconds.
    pub lease: Duration,
}

impl ClaimRequest {
    /// A request to run the call of this id, under the lock of the key `run`.
    #[must_use]
    pub fn new(
        book: DurableBook,
        id: impl Into<Arc<str>>,
        run: impl Into<Arc<str>>,
        token: Token,
        lease: Duration,
    ) -> Self {
        Self { book, id: id.into(), run: run.into(), token, lease }
    }
}

/// The answer to a [`ClaimRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DurableClaim {
    /// There is no call any more.
    Gone,
    /// It is due in that time.
    NotYet(Duration),
    /// Another run goes on, under a lock that lasts this long unless it is renewed.
    Running(Duration),
    /// It may run; the run's lock is held by the token.
    #[non_exhaustive]
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

impl DurableClaim {
    /// The call of this number may run, with these arguments; the token holds the run's lock.
    #[must_use]
    pub fn granted(fence: u64, call: u64, attempt: u32, arguments: String) -> Self {
        Self::Granted { fence, call, attempt, arguments }
    }
}

/// A run that has ended, while its lock is still held.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct FinishRequest {
    /// The keys of the function's calls.
    pub book: DurableBook,
    /// What is debounced.
    pub id: Arc<str>,
    /// The key of the lock that is held during the run.
    pub run: Arc<str>,
    /// The token of this run.
    pub token: Token,
    /// The number of the call that was run.
    pub call: u64,
    /// The generation of the run.
    pub generation: u64,
    /// Why it has failed, if it has.
    pub error: Option<Arc<str>>,
}

impl FinishRequest {
    /// The end of a run of the call of this number, which has not failed.
    #[must_use]
    pub fn new(
        book: DurableBook,
        id: impl Into<Arc<str>>,
        run: impl Into<Arc<str>>,
        token: Token,
        (call, generation): (u64, u64),
    ) -> Self {
        Self { book, id: id.into(), run: run.into(), token, call, generation, error: None }
    }

    /// Sets why the run has failed, if it has.
    #[must_use]
    pub fn failed(mut self, error: Option<Arc<str>>) -> Self {
        self.error = error;
        self
    }
}

/// The answer to a [`FinishRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DurableFinish {
    /// The token does not hold the run's lock: it was lost before, and the call is run once more; or
    /// this run was finished by a request before this one.
    Lost,
    /// It is done.
    Done,
    /// It was called again meanwhile.
    Again,
    /// It is tried once more, in that time.
    Retry(Duration),
    /// It was set aside.
    SetAside,
}

/// One call to be taken from among those that have failed for good.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct TakeBackRequest {
    /// The keys of the function's calls.
    pub book: DurableBook,
    /// What is debounced.
    pub id: Arc<str>,
    /// Run it again, unless it was called anew since; else forget it.
    pub again: bool,
}

impl TakeBackRequest {
    /// A request to run the call of this id again.
    #[must_use]
    pub fn run_again(book: DurableBook, id: impl Into<Arc<str>>) -> Self {
        Self { book, id: id.into(), again: true }
    }

    /// A request to forget the call of this id.
    #[must_use]
    pub fn forget(book: DurableBook, id: impl Into<Arc<str>>) -> Self {
        Self { book, id: id.into(), again: false }
    }
}

/// A durable call that has failed as often as it may.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

impl SetAside {
    /// A call of this id that was tried this often.
    #[must_use]
    pub fn new(
        id: String,
        attempts: u32,
        generation: u64,
        error: String,
        arguments: String,
    ) -> Self {
        Self { id, attempts, generation, error, arguments }
    }
}
