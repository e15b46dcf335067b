//! Durable calls: a request and an answer for each step.

use std::{sync::Arc, time::Duration};

use crate::Token;

/// The keys under which a store keeps the durable calls of one function. All of them expire a
/// month after the last call.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct DurableBook {
    /// The key for the time at which to look at each id next.
    pub due: Arc<str>,
    /// The key for the last call of each id.
    pub calls: Arc<str>,
    /// The key for the calls that were set aside.
    pub aside: Arc<str>,
}

impl DurableBook {
    /// Creates a book with these keys.
    #[must_use]
    pub fn new(
        due: impl Into<Arc<str>>,
        calls: impl Into<Arc<str>>,
        aside: impl Into<Arc<str>>,
    ) -> Self {
        Self { due: due.into(), calls: calls.into(), aside: aside.into() }
    }
}

/// A request to keep one call.
///
/// ```
/// # mod lock { pub mod store { pub use lock_core::contract::*; } }
/// use std::time::Duration;
/// use lock::store::{DurableBook, KeepRequest};
///
/// let book = DurableBook::new("lock:~due:mail", "lock:~calls:mail", "lock:~aside:mail");
/// let second = Duration::from_secs(1);
/// let request = KeepRequest::new(book, "invoice:7", "[7]", second);
/// assert_eq!((request.max_wait, request.attempts), (None, 1));
/// let request = request.max_wait(Some(second * 5)).retry(3, second * 10);
/// assert_eq!((request.max_wait, request.attempts), (Some(second * 5), 3));
/// ```
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct KeepRequest {
    /// The keys of the function's durable calls.
    pub book: DurableBook,
    /// The id that is debounced.
    pub id: Arc<str>,
    /// The arguments, as text.
    pub arguments: Arc<str>,
    /// How long after the last call of the id the run is due; whole milliseconds.
    pub wait: Duration,
    /// The longest time until the run is due, counted from the first call that no run has covered.
    pub max_wait: Option<Duration>,
    /// The total number of attempts, if runs fail.
    pub attempts: u32,
    /// The pause before the second attempt, which doubles before each further attempt, up to an
    /// hour.
    pub pause: Duration,
}

impl KeepRequest {
    /// Creates a request to keep a call with these arguments, due `wait` after the id's last call;
    /// one attempt.
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

    /// Sets the longest time until the run is due, counted from the first call that no run has
    /// covered.
    #[must_use]
    pub fn max_wait(mut self, limit: Option<Duration>) -> Self {
        self.max_wait = limit;
        self
    }

    /// Sets the number of attempts, and the pause before the second.
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
    /// The number of the call, which grows with every call of the id.
    pub call: u64,
    /// How long until the call is due.
    pub due_in: Duration,
}

impl Kept {
    /// Creates the answer for a call that has this number and is due in this time.
    #[must_use]
    pub fn new(call: u64, due_in: Duration) -> Self {
        Self { call, due_in }
    }
}

/// A request for the ids that are due, or for all that are kept.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct DueRequest {
    /// The keys of the function's durable calls.
    pub book: DurableBook,
    /// The maximum number of ids in the answer.
    pub limit: usize,
}

impl DueRequest {
    /// Creates a request for at most this many ids.
    #[must_use]
    pub fn new(book: DurableBook, limit: usize) -> Self {
        Self { book, limit }
    }
}

/// The answer to a [`DueRequest`].
///
/// ```
/// # mod lock { pub mod store { pub use lock_core::contract::*; } }
/// use std::time::Duration;
/// use lock::store::DueCalls;
///
/// // Two ids are due, a third one is due in two seconds, and no others are kept.
/// let ids = vec!["invoice:7".to_owned(), "invoice:8".to_owned()];
/// let due = DueCalls::new(ids, Some(Duration::from_secs(2))).of(3);
/// assert_eq!(due.kept, Some(3));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DueCalls {
    /// The ids that are due.
    pub ids: Vec<String>,
    /// How long until the next id is due, if there is one.
    pub next: Option<Duration>,
    /// How many calls are kept, due or not, if the store reports it.
    pub kept: Option<u64>,
}

impl DueCalls {
    /// Creates the answer with these due ids, and with the time until the next one is due.
    #[must_use]
    pub fn new(ids: Vec<String>, next: Option<Duration>) -> Self {
        Self { ids, next, kept: None }
    }

    /// Sets how many calls are kept.
    #[must_use]
    pub fn of(mut self, kept: u64) -> Self {
        self.kept = Some(kept);
        self
    }
}

/// The calls of a function that are kept and were not set aside, for operators: the answer to a
/// [`DueRequest`] for all calls, and not only for those that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WaitingCalls {
    /// The number of calls.
    pub count: usize,
    /// The ids that are due first, each with the time until it is due; zero if it is due now.
    pub calls: Vec<(String, Duration)>,
}

impl WaitingCalls {
    /// Creates the answer for `count` calls, of which `calls` are due first.
    #[must_use]
    pub fn new(count: usize, calls: Vec<(String, Duration)>) -> Self {
        Self { count, calls }
    }
}

/// A request to run one call, if it is due and no other run of its id is in progress.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct ClaimRequest {
    /// The keys of the function's durable calls.
    pub book: DurableBook,
    /// The id that is debounced.
    pub id: Arc<str>,
    /// The key of the lock that is held during the run.
    pub run: Arc<str>,
    /// The token of this run.
    pub token: Token,
    /// How long the run's lock lasts unless it is renewed; whole milliseconds.
    pub lease: Duration,
}

impl ClaimRequest {
    /// Creates a request to run the call of this id, under the lock of the key `run`.
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
///
/// ```
/// # mod lock { pub mod store { pub use lock_core::contract::*; } }
/// use lock::store::DurableClaim;
///
/// // The fence, the number of the call, the attempt, the arguments.
/// let claim = DurableClaim::granted(7, 1_790_000_000_000_000, 1, "[7]".to_owned());
/// assert!(matches!(claim, DurableClaim::Granted { fence: 7, attempt: 1, .. }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DurableClaim {
    /// The call no longer exists.
    Gone,
    /// The call is due in this time.
    NotYet(Duration),
    /// Another run is in progress, whose lock lasts this long unless it is renewed.
    Running(Duration),
    /// The call may run; the token holds the run's lock.
    #[non_exhaustive]
    Granted {
        /// The fence of the run.
        fence: u64,
        /// The number of the call.
        call: u64,
        /// The number of this attempt, counted from 1.
        attempt: u32,
        /// The arguments of the last call.
        arguments: String,
    },
}

impl DurableClaim {
    /// Creates the answer for a call that may run, with these arguments; the token holds the run's
    /// lock.
    #[must_use]
    pub fn granted(fence: u64, call: u64, attempt: u32, arguments: String) -> Self {
        Self::Granted { fence, call, attempt, arguments }
    }
}

/// A request to finish a run that has ended, while its lock is still held.
///
/// ```
/// # mod lock { pub use lock_core::Token; pub mod store { pub use lock_core::contract::*; } }
/// use lock::{Token, store::{DurableBook, FinishRequest}};
///
/// let book = DurableBook::new("lock:~due:mail", "lock:~calls:mail", "lock:~aside:mail");
/// let (run, token) = ("lock:~durable:4:mail:invoice:7", Token::from("client:1".to_owned()));
/// // Call 5 was run, with the generation 9.
/// let request = FinishRequest::new(book, "invoice:7", run, token, (5, 9));
/// assert_eq!(request.error, None);
/// let request = request.failed(Some("the mail server is down".into()));
/// assert_eq!(request.error.as_deref(), Some("the mail server is down"));
/// ```
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct FinishRequest {
    /// The keys of the function's durable calls.
    pub book: DurableBook,
    /// The id that is debounced.
    pub id: Arc<str>,
    /// The key of the lock that is held during the run.
    pub run: Arc<str>,
    /// The token of this run.
    pub token: Token,
    /// The number of the call that was run.
    pub call: u64,
    /// The generation of the run.
    pub generation: u64,
    /// Why the run failed, if it did.
    pub error: Option<Arc<str>>,
}

impl FinishRequest {
    /// Creates a request to finish a run that did not fail, with the number of its call and its
    /// generation.
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

    /// Sets why the run failed, if it did.
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
    /// The token does not hold the run's lock: either the lock was lost, and the call will be run
    /// again; or an earlier request has already finished this run.
    Lost,
    /// The call is done.
    Done,
    /// The id was called again in the meantime: only the newer call will run.
    Again,
    /// The run has failed, and the call is tried again after this time.
    Retry(Duration),
    /// The run has failed, and the call was set aside.
    SetAside,
}

/// A request to take back one of the calls that were set aside.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct TakeBackRequest {
    /// The keys of the function's durable calls.
    pub book: DurableBook,
    /// The id that is debounced.
    pub id: Arc<str>,
    /// If true, the call is run again, unless a newer call of its id is kept; if false, it is
    /// deleted.
    pub again: bool,
}

impl TakeBackRequest {
    /// Creates a request to run the call of this id again.
    #[must_use]
    pub fn run_again(book: DurableBook, id: impl Into<Arc<str>>) -> Self {
        Self { book, id: id.into(), again: true }
    }

    /// Creates a request to delete the call of this id.
    #[must_use]
    pub fn forget(book: DurableBook, id: impl Into<Arc<str>>) -> Self {
        Self { book, id: id.into(), again: false }
    }
}

/// A durable call that was set aside, because it has failed as often as it is allowed to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SetAside {
    /// The id that was debounced.
    pub id: String,
    /// How many times the call was tried.
    pub attempts: u32,
    /// The generation of its last run.
    pub generation: u64,
    /// Why that run failed.
    pub error: String,
    /// The arguments, as JSON.
    pub arguments: String,
}

impl SetAside {
    /// Creates the record of a call of this id that was tried `attempts` times.
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
