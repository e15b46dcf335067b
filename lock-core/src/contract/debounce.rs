//! Debounced calls: what is asked about a window, and what the answer is.

use std::{sync::Arc, time::Duration};

use crate::Token;

/// The newest call of a process, which wants to run.
///
/// The window and the lock of the run are two keys of one operation: a claim marks the window as
/// run and takes the lock at once. Others that waited in it are notified.
///
/// The call of a process that is not heard of any longer is claimed by another that took part, a
/// second after it was due.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct DebounceRequest {
    /// The key of the window.
    pub window: Arc<str>,
    /// The key of the lock that is held during the run.
    pub run: Arc<str>,
    /// The token of the call; the numbers of one client grow from call to call.
    pub token: Token,
    /// How long ago the call was made; whole milliseconds.
    pub age: Duration,
    /// How long after its newest call the window is due; whole milliseconds.
    pub wait: Duration,
    /// How long after the first one it is due at the latest, or after the run before if calls go on
    /// coming.
    pub max_wait: Option<Duration>,
    /// The first call of a burst runs at once.
    pub leading: bool,
    /// How long the run's lock lasts unless it is renewed; whole milliseconds.
    pub lease: Duration,
    /// How long the window and what it leaves behind are kept beyond its due time.
    pub keep: Duration,
}

impl DebounceRequest {
    /// The call with this token, made just now, in the window and under the run's lock of these
    /// keys; trailing edge only.
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

    /// Sets how long after the window's first call it is due at the latest.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DebounceReply {
    /// It is not due yet.
    #[non_exhaustive]
    NotYet {
        /// Until the window is due for this call.
        left: Duration,
        /// This call is the newest. Otherwise a newer one will run, and this one only if the caller
        /// of that one has disappeared.
        newest: bool,
    },
    /// It is due, but another run goes on, under a lock that lasts this long unless it is renewed.
    Running(Duration),
    /// A run has covered it, or its burst was cancelled.
    Superseded,
    /// It may run; the run's lock is held by its token.
    #[non_exhaustive]
    Granted {
        /// The fence of the run.
        fence: u64,
    },
}

impl DebounceReply {
    /// The window is due for this call in `left`; `newest` says whether it is the newest of all.
    #[must_use]
    pub fn not_yet(left: Duration, newest: bool) -> Self {
        Self::NotYet { left, newest }
    }

    /// The call may run; its token holds the run's lock, with this fence.
    #[must_use]
    pub fn granted(fence: u64) -> Self {
        Self::Granted { fence }
    }
}

/// How a window ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WindowEnd {
    /// It is due now, and the newest caller is told by [`Notice::Flushed`](super::Notice::Flushed).
    Flush,
    /// Its calls count as covered without a run.
    Cancel,
}

/// One window to be ended.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct EndWindowRequest {
    /// The key of the window.
    pub window: Arc<str>,
    /// How it ends.
    pub end: WindowEnd,
}

impl EndWindowRequest {
    /// A request to end the window of this key.
    #[must_use]
    pub fn new(window: impl Into<Arc<str>>, end: WindowEnd) -> Self {
        Self { window: window.into(), end }
    }
}
