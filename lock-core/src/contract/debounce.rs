//! Requests about the windows of debounced calls, and the answers to them.

use std::{sync::Arc, time::Duration};

use crate::Token;

/// A request to run the newest call of a process.
///
/// The window and the lock of the run are two keys of one operation: a claim marks the window as
/// run and takes the lock at the same time. Others that waited in the window are notified.
///
/// If a process falls silent, another process that took part claims the run, a second after the
/// call was due.
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
    /// The token of the call; the numbers in one client's tokens grow from call to call.
    pub token: Token,
    /// How long ago the call was made; whole milliseconds.
    pub age: Duration,
    /// How long after its newest call the window is due; whole milliseconds.
    pub wait: Duration,
    /// The latest time at which the window is due, counted from its first call or, if calls keep
    /// coming, from the previous run.
    pub max_wait: Option<Duration>,
    /// Whether the first call of a burst runs at once.
    pub leading: bool,
    /// How long the run's lock lasts unless it is renewed; whole milliseconds.
    pub lease: Duration,
    /// How long the window, and its record of the calls that were run, are kept beyond the due
    /// time.
    pub keep: Duration,
}

impl DebounceRequest {
    /// Creates a request for a call made just now, in the window and under the run's lock with
    /// these keys; trailing edge only.
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

    /// Sets the latest time at which the window is due, counted from its first call.
    #[must_use]
    pub fn max_wait(mut self, limit: Option<Duration>) -> Self {
        self.max_wait = limit;
        self
    }

    /// Sets whether the first call of a burst runs at once.
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
        /// Whether this call is the newest. If not, a newer one will run, and this one only if the
        /// caller of the newer one has disappeared.
        newest: bool,
    },
    /// The call is due, but another run is in progress, under a lock that lasts this long unless it
    /// is renewed.
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
