//! The one error type of the crate, and what its kinds mean for a caller.

use std::{fmt, sync::Arc, time::Duration};

/// The kind of an error: what went wrong, in terms that a caller can act on.
///
/// Match on it instead of reading the message. New kinds may be added.
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
    /// The lock stayed held for all of `wait`, or at every attempt. Try again later.
    Busy,
    /// The lock is no longer held: its lease ran out, or somebody took, freed or deleted it.
    Lost,
    /// The store could not be reached, or did not answer in time. The operation may or may not have
    /// taken effect; a lock that was granted nevertheless is released in the background.
    Unavailable,
    /// The store answered with an error, such as a wrong password, a key of another type, a
    /// read-only replica, or a full memory.
    Rejected,
    /// The caller already runs under this lock, and would wait for itself. Pass the guard on
    /// instead, or write `reentrant` in the attribute.
    Deadlock,
    /// [`Locks::shutdown`](crate::Locks::shutdown) was called, the process was forked after it had
    /// made the `Locks`, or the runtime of a detached call was shut down.
    Closed,
    /// An argument or a URL is not allowed; the message says what is.
    Invalid,
    /// An attribute found no [`Locks`](crate::Locks) to use.
    NotInstalled,
    /// This [store](crate::store::Store) does not support the operation; the message names what is
    /// missing.
    Unsupported,
}

impl ErrorKind {
    /// Returns the name in snake case, such as `"not_installed"`: for labels of metrics, log fields
    /// and JSON.
    ///
    /// The names do not change between versions.
    ///
    /// ```
    /// use lock::ErrorKind;
    ///
    /// assert_eq!(ErrorKind::Busy.as_str(), "busy");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Lost => "lost",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::Deadlock => "deadlock",
            Self::Closed => "closed",
            Self::Invalid => "invalid",
            Self::NotInstalled => "not_installed",
            Self::Unsupported => "unsupported",
        }
    }
}

/// The least and the most that a caller is told to wait before it asks for a busy lock again.
const BUSY_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The library tries to reconnect at least once per second.
const UNAVAILABLE_AGAIN: Duration = Duration::from_secs(1);

/// The error of every fallible operation of this crate.
///
/// [`kind`](Error::kind) tells a program what it can do about the error. The message tells a person
/// what happened, to which id, and what to change; it never contains a password or a lock token.
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

/// What the id of an error names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Lock,
    Debounce,
    DurableCall,
    #[cfg(feature = "durable")]
    DurableFunction,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "lock",
            Self::Debounce => "debounce",
            Self::DurableCall => "durable call",
            #[cfg(feature = "durable")]
            Self::DurableFunction => "durable function",
        })
    }
}

struct Inner {
    kind: ErrorKind,
    about: Option<(Subject, Arc<str>)>,
    message: String,
    /// How long the caller has seen the lock held.
    waited: Duration,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Returns what went wrong, for a program to match on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use lock::ErrorKind;
    ///
    /// let guard = locks.lock("report").acquire().await?;
    /// let error = locks.lock("report").acquire().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Busy);
    ///
    /// locks.lock("report").force_release().await?; // by an operator
    /// let error = guard.release().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Lost);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the id of the lock or debounce concerned, or the name of the durable function, if
    /// there is one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use lock::Locks;
    ///
    /// let locks = Locks::in_memory();
    /// let error = locks.lock("~report").acquire().await.unwrap_err();
    /// assert_eq!(error.id(), Some("~report"));
    ///
    /// let error = Locks::connect("mysql://127.0.0.1/").await.unwrap_err();
    /// assert_eq!(error.id(), None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.0.about.as_ref().map(|(_, id)| &**id)
    }

    /// Returns how long to wait before another try, if another try may succeed without any other
    /// change.
    ///
    /// - `Busy`: as long as this caller has waited, but at least a second and at most a minute. A
    ///   lock that was held for all of that time is likely to be held for as long again.
    /// - `Unavailable`: a second; the library keeps reconnecting in the meantime.
    /// - `None` for all other kinds.
    ///
    /// It is a hint, for a `Retry-After` header or the next run of a job. Callers that want the
    /// lock as soon as it is free should wait in line with a longer [`wait`](crate::Lock::wait)
    /// instead.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use std::time::Duration;
    ///
    /// # let locks = lock::Locks::in_memory();
    /// let guard = locks.lock("report").acquire().await?;
    /// let busy = locks.lock("report").wait(Duration::from_secs(5)).acquire().await.unwrap_err();
    /// assert_eq!(busy.retry_after(), Some(Duration::from_secs(5)));
    /// # drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.0.kind {
            ErrorKind::Busy => Some(self.0.waited.clamp(BUSY_AGAIN.0, BUSY_AGAIN.1)),
            ErrorKind::Unavailable => Some(UNAVAILABLE_AGAIN),
            // The lock may be free, but what its holder left half done must be looked at before it
            // is repeated.
            ErrorKind::Lost
            // The server, the code or its arguments have to change first.
            | ErrorKind::Rejected
            | ErrorKind::Deadlock
            | ErrorKind::Invalid
            | ErrorKind::NotInstalled
            | ErrorKind::Unsupported
            // Another process can do it, at once.
            | ErrorKind::Closed => None,
        }
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let (message, waited) = (message.into(), Duration::ZERO);
        Self(Box::new(Inner { kind, about: None, message, waited, source: None }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn on(self, lock: &Arc<str>) -> Self {
        self.about(Subject::Lock, lock)
    }

    pub(crate) fn about(mut self, subject: Subject, id: &Arc<str>) -> Self {
        self.0.about = Some((subject, Arc::clone(id)));
        self
    }

    pub(crate) fn caused_by(mut self, source: Arc<dyn std::error::Error + Send + Sync>) -> Self {
        self.0.source = Some(source);
        self
    }

    /// The lock was held for all of its caller's `wait`.
    pub(crate) fn busy_for(waited: Duration) -> Self {
        let message = format!(
            "still held by somebody else after a wait of {waited:?}: try again later, or raise \
             `wait`"
        );
        Self::busy(message, waited)
    }

    /// The lock was held at each of the tries; `took` is the time from the first to the last of
    /// them.
    pub(crate) fn busy_at_each(tries: u32, took: Duration) -> Self {
        let message = format!(
            "held by somebody else on {tries} of {tries} attempts: try again later, or use `wait`"
        );
        Self::busy(message, took)
    }

    fn busy(message: String, waited: Duration) -> Self {
        let mut error = Self::new(ErrorKind::Busy, message);
        error.0.waited = waited;
        error
    }

    pub(crate) fn lost(why: &str) -> Self {
        Self::new(
            ErrorKind::Lost,
            format!("{why}: stop the work under the lock, and acquire the lock again"),
        )
    }

    pub(crate) fn deadlock() -> Self {
        Self::new(
            ErrorKind::Deadlock,
            "the caller already runs under this lock and would wait for itself: pass the guard on \
             instead of acquiring the lock again, or add `reentrant` to the `#[locked]`",
        )
    }

    pub(crate) fn closed() -> Self {
        Self::new(
            ErrorKind::Closed,
            "this `Locks` was shut down: connect a new one, or call `shutdown` later",
        )
    }

    pub(crate) fn panicked() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "the keeper has panicked and stopped: see the panic message on standard error, and \
             connect again",
        )
    }

    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(
            ErrorKind::Unsupported,
            format!("this store does not support {what}: do without it, or use a store that does"),
        )
    }

    pub(crate) fn forked() -> Self {
        Self::new(
            ErrorKind::Closed,
            "this process was forked from the one that made this `Locks`, and does not have the \
             thread that serves it: make another `Locks` after the fork",
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((subject, id)) = &self.0.about {
            write!(f, "{subject} `{id}`: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("id", &self.id())
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
/// The previous default of the process stays in place. Use [`Locks::scope`](crate::Locks::scope) to
/// override it for a task.
///
/// ```
/// # fn main() -> Result<(), lock::AlreadyInstalled> {
/// use lock::{AlreadyInstalled, Locks};
///
/// Locks::in_memory().install()?;
/// let error: AlreadyInstalled = Locks::in_memory().install().unwrap_err();
/// assert!(error.to_string().contains("already has a default"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AlreadyInstalled(pub(crate) ());

impl fmt::Display for AlreadyInstalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this process already has a default `Locks`: install one only once, at the start of \
             the process; for a single task or test, use `locks.scope(..)`",
        )
    }
}

impl std::error::Error for AlreadyInstalled {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Locks;

    const KINDS: [(ErrorKind, &str); 9] = [
        (ErrorKind::Busy, "busy"),
        (ErrorKind::Lost, "lost"),
        (ErrorKind::Unavailable, "unavailable"),
        (ErrorKind::Rejected, "rejected"),
        (ErrorKind::Deadlock, "deadlock"),
        (ErrorKind::Closed, "closed"),
        (ErrorKind::Invalid, "invalid"),
        (ErrorKind::NotInstalled, "not_installed"),
        (ErrorKind::Unsupported, "unsupported"),
    ];

    #[test]
    fn each_kind_has_a_name() {
        for (kind, name) in KINDS {
            assert_eq!(kind.as_str(), name);
        }
    }

    #[tokio::test]
    async fn an_error_says_what_its_id_names() {
        let locks = Locks::in_memory();
        let mut errors = vec![
            ("lock `~a`: ", locks.lock("~a").acquire().await.unwrap_err()),
            ("debounce `~a`: ", locks.debounce("~a").call(async || {}).await.unwrap_err()),
        ];
        #[cfg(feature = "durable")]
        {
            let refused = locks.durable_calls("~a").waiting(0).await.unwrap_err();
            errors.push(("durable function `~a`: ", refused));
            let function = locks.debounce("a").durable("a", |_: u64, _| async {}).unwrap();
            errors.push(("durable call `~a`: ", function.id("~a").call(&7).await.unwrap_err()));
        }
        locks.shutdown().await;
        errors.extend([
            ("lock `a`: ", locks.lock("a").acquire().await.unwrap_err()),
            ("debounce `a`: ", locks.debounce("a").call(async || {}).await.unwrap_err()),
            ("debounce `a`: ", locks.debounce("a").flush().await.unwrap_err()),
        ]);
        for (about, error) in errors {
            assert!(error.to_string().starts_with(about), "{error}");
        }
    }

    #[test]
    fn only_what_may_pass_by_itself_is_worth_another_try() {
        for (kind, _) in KINDS {
            let worth_it = matches!(kind, ErrorKind::Busy | ErrorKind::Unavailable);
            let again = Error::new(kind, "").retry_after();
            assert_eq!(again, worth_it.then_some(Duration::from_secs(1)), "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_lock_is_worth_another_try_after_as_long_as_was_waited() {
        let again_after = async |wait: Duration| {
            let locks = Locks::in_memory();
            let _guard = locks.lock("a").acquire().await.unwrap();
            locks.lock("a").wait(wait).acquire().await.unwrap_err().retry_after().unwrap()
        };
        let seconds = Duration::from_secs;
        assert_eq!(again_after(Duration::ZERO).await, seconds(1));
        assert_eq!(again_after(Duration::from_millis(300)).await, seconds(1));
        assert_eq!(again_after(Duration::from_millis(2500)).await, Duration::from_millis(2500));
        assert_eq!(again_after(seconds(3600)).await, seconds(60));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_count_for_as_long_as_they_took() {
        let locks = Locks::in_memory();
        let _guard = locks.lock("a").acquire().await.unwrap();
        let polling = locks.lock("a").retry(4, Duration::from_secs(2));
        let error = polling.acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("4 of 4 attempts"), "{error}");
        // Three pauses between four attempts.
        assert_eq!(error.retry_after(), Some(Duration::from_secs(6)));
    }
}
