//! The one error type of the crate, and what its kinds mean for a caller.

use std::{fmt, sync::Arc, time::Duration};

/// What went wrong, in the terms a caller can act on.
///
/// Kinds are told apart without reading text. New kinds may be added.
///
/// ```
/// use lock::{Error, ErrorKind};
///
/// fn status_code(error: &Error) -> u16 {
///     match error.kind() {
///         ErrorKind::Busy => 423,
///         ErrorKind::Unavailable => 503,
///         _ => 500,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Somebody held the lock for all of `wait`, or at every attempt. Try again later.
    Busy,
    /// The lock is ours no more: its lease ran out, or somebody took or deleted it.
    Lost,
    /// The store could not be reached, or did not answer in time. What was asked may or may not
    /// have happened; the library undoes it in the background.
    Unavailable,
    /// The store answered with an error: authentication, a key of another type, a read-only
    /// replica, out of memory.
    Rejected,
    /// The code that asks for the lock runs under it already, and would wait for itself. Pass the
    /// guard on instead, or write `reentrant` in the attribute.
    Deadlock,
    /// [`Locks::shutdown`](crate::Locks::shutdown) was called, or the process was forked since.
    Closed,
    /// A bad argument or URL; the message says what is allowed.
    Invalid,
    /// An attribute found no [`Locks`](crate::Locks) to use.
    NotInstalled,
    /// This [store](crate::store::Store) cannot do that, ever; the message names what is missing.
    Unsupported,
}

/// The error of every fallible operation of this crate.
///
/// [`kind`](Error::kind) says what a program can do about it, the message tells a person what
/// happened, to which id, and what to change. Passwords and lock tokens are never part of it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use lock::{ErrorKind, Locks};
///
/// let locks = Locks::in_memory();
/// let error = locks.lock("").acquire().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// # }
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    id: Option<Arc<str>>,
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// What went wrong, for a program to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The id of the lock or debounce it happened to, if it happened to one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, id: None, message: message.into(), source: None }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn on(mut self, id: &Arc<str>) -> Self {
        self.0.id = Some(Arc::clone(id));
        self
    }

    pub(crate) fn caused_by(mut self, source: Arc<dyn std::error::Error + Send + Sync>) -> Self {
        self.0.source = Some(source);
        self
    }

    pub(crate) fn busy(waited: Duration, tries: u32) -> Self {
        Self::new(
            ErrorKind::Busy,
            if waited.is_zero() {
                format!(
                    "held by somebody else at {tries} of {tries} tries: call again later, or use `wait`"
                )
            } else {
                format!(
                    "held by somebody else for all of the {waited:?} waited: call again later, or raise `wait`"
                )
            },
        )
    }

    pub(crate) fn lost(why: &str) -> Self {
        Self::new(
            ErrorKind::Lost,
            format!("{why}: stop the work it protected and acquire it again"),
        )
    }

    pub(crate) fn deadlock() -> Self {
        Self::new(
            ErrorKind::Deadlock,
            "the code that asks for it runs under it already and would wait for itself: \
             pass the guard on instead of acquiring it again, or add `reentrant` to the `#[locked]`",
        )
    }

    pub(crate) fn closed() -> Self {
        Self::new(
            ErrorKind::Closed,
            "this `Locks` was shut down: connect a new one, or call `shutdown` later",
        )
    }

    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(
            ErrorKind::Unsupported,
            format!("this store does not support {what}: do without, or use a store that does"),
        )
    }

    pub(crate) fn forked() -> Self {
        Self::new(
            ErrorKind::Closed,
            "this process was forked from the one that made this `Locks`, and the thread that \
             serves it did not come along: make another `Locks` after the fork",
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.id() {
            write!(f, "lock `{id}`: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("id", &self.0.id)
            .field("message", &self.0.message)
            .field("source", &self.0.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// [`Locks::install`](crate::Locks::install) was called a second time in this process.
///
/// The process default stays what it was. Use [`Locks::scope`](crate::Locks::scope) to override
/// it for a task.
#[derive(Debug)]
pub struct AlreadyInstalled(pub(crate) ());

impl fmt::Display for AlreadyInstalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this process has a default `Locks` already: install one, once, at its start; \
             for one task or test use `locks.scope(..)`",
        )
    }
}

impl std::error::Error for AlreadyInstalled {}
