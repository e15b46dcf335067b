//! Requests about the windows of debounced calls, and the answers to them.

use std::{sync::Arc, time::Duration};

use crate::Token;

/// A request to run the newest call of a process.
///
/// The window and the lock of the run are two keys of one operation: a grant marks the window as
/// run and takes the lock at the same time. The clients of the other calls that waited in the
/// window are notified.
///
/// If the process of the newest call does not claim the run, another process that has a call in the
/// window is granted it, a second after the newest call was due.
///
/// ```
/// # mod lock { pub use lock_core::Token; pub mod store { pub use lock_core::contract::*; } }
/// use std::time::Duration;
/// use lock::{Token, store::DebounceRequest};
///
/// let (second, token) = (Duration::from_secs(1), Token::from("client:1".to_owned()));
/// let (window, run) = ("lock:~debounce:report", "lock:~run:report");
/// let request = DebounceRequest::new(window, run, token, second, second * 10);
/// assert_eq!((request.wait, request.lease), (second, second * 10));
/// let request = request.made_ago(second / 2).max_wait(Some(second * 5)).leading(true);
/// assert_eq!((request.age, request.max_wait), (second / 2, Some(second * 5)));
/// assert!(request.leading);
/// ```
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct DebounceRequest {
    /// The key of the window.
    pub window: Arc<str>,
    /// The key of the lock that is held during the run.
    pub run: Arc<str>,
    /// The token of the call; the numbers in a client's tokens grow from call to call.
    pub token: Token,
    /// How long ago the call was made; whole milliseconds.
    pub age: Duration,
    /// How long after the newest call the window is due; whole milliseconds.
    pub wait: Duration,
    /// The longest time until the window is due, counted from its first call or, if calls keep
    /// coming, from the previous run.
    pub max_wait: Option<Duration>,
    /// Whether the first call of a burst runs immediately.
    pub leading: bool,
    /// How long the run's lock lasts unless it is renewed; whole milliseconds.
    pub lease: Duration,
    /// How long the window, and its record of the calls that have run, are kept after the window is
    /// due.
    pub keep: Duration,
}

impl DebounceRequest {
    /// Creates a request for a call that was made just now, with the keys of its window and of the
    /// run's lock; trailing edge only.
    #[must_use]
    pub fn new(
        window: impl Into<Arc<str>>,
        run: impl Into<Arc<str>>,
        token: Token,
        wait: Duration,
        lease: Duration,
    ) -> Self {
        Self {
            window: window.into(),
            run: run.into(),
            token,
            age: Duration::ZERO,
            wait,
            max_wait: None,
            leading: false,
            lease,
            keep: lease,
        }
    }

    /// Sets how long ago the call was made.
    #[must_use]
    pub fn made_ago(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Sets the longest time until the window is due, counted from its first call.
    #[must_use]
    pub fn max_wait(mut self, limit: Option<Duration>) -> Self {
        self.max_wait = limit;
        self
    }

    /// Sets whether the first call of a burst runs immediately.
    #[must_use]
    pub fn leading(mut self, leading: bool) -> Self {
        self.leading = leading;
        self
    }
}

/// The answer to a [`DebounceRequest`].
///
/// ```
/// # mod lock { pub mod store { pub use lock_core::contract::*; } }
/// use std::time::Duration;
/// use lock::store::DebounceReply;
///
/// let reply = DebounceReply::not_yet(Duration::from_secs(1), true);
/// assert!(matches!(reply, DebounceReply::NotYet { newest: true, .. }));
/// let reply = DebounceReply::granted(7);
/// assert!(matches!(reply, DebounceReply::Granted { fence: 7, .. }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DebounceReply {
    /// The call is not due yet.
    #[non_exhaustive]
    NotYet {
        /// How long until the window is due for this call.
        left: Duration,
        /// Whether this call is the newest. If not, a newer call will run, and this one runs only
        /// if the caller of the newer one has disappeared.
        newest: bool,
    },
    /// The call is due, but another run is in progress, whose lock lasts this long unless it is
    /// renewed.
    Running(Duration),
    /// A run has covered the call, or its burst was cancelled.
    Superseded,
    /// The call may run; its token holds the run's lock.
    #[non_exhaustive]
    Granted {
        /// The fence of the run.
        fence: u64,
    },
}

impl DebounceReply {
    /// Creates the answer for a call whose window is due in `left`; `newest` says whether it is the
    /// newest call.
    #[must_use]
    pub fn not_yet(left: Duration, newest: bool) -> Self {
        Self::NotYet { left, newest }
    }

    /// Creates the answer for a call that may run; its token holds the run's lock, with this fence.
    #[must_use]
    pub fn granted(fence: u64) -> Self {
        Self::Granted { fence }
    }
}

/// How a window is ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WindowEnd {
    /// The window is due now, and the newest caller is notified by
    /// [`Notice::Flushed`](super::Notice::Flushed).
    Flush,
    /// The calls of the window count as covered, without a run.
    Cancel,
}

/// A request to end one window before its time.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct EndWindowRequest {
    /// The key of the window.
    pub window: Arc<str>,
    /// How it ends.
    pub end: WindowEnd,
}

impl EndWindowRequest {
    /// Creates a request to end the window of this key.
    #[must_use]
    pub fn new(window: impl Into<Arc<str>>, end: WindowEnd) -> Self {
        Self { window: window.into(), end }
    }
}
