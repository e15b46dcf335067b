//! The runtime half of the attributes. Not public API: it changes without notice.

use std::{
    fmt::{self, Display},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::OnceLock,
    task::Poll,
    time::Duration,
};

pub use std::string::String;

use crate::{Debounce, Error, ErrorKind, Lock, LockGuard, Locks, locks};

/// What becomes of a body whose lock is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLost {
    /// It is dropped at its next `.await`.
    Stop,
    /// It goes on to its end.
    Continue,
}

/// Polls a body under a lock.
///
/// Every poll looks at the lock before it lets the body go on: after a stall of any length the
/// body does not take a single step under a lock that may be somebody else's.
pub(crate) async fn run_under<F: Future>(
    guard: &LockGuard,
    on_lost: OnLost,
    mut body: Pin<&mut F>,
) -> Result<F::Output, Error> {
    if on_lost == OnLost::Continue {
        return Ok(body.await);
    }
    let mut lost = pin!(guard.lost());
    poll_fn(|context| {
        if lost.as_mut().poll(context).is_ready() {
            let error =
                Error::lost("the lock was lost while the body ran, so the body was stopped");
            return Poll::Ready(Err(error.on(guard.shared_id())));
        }
        body.as_mut().poll(context).map(Ok)
    })
    .await
}

/// Where the guard of one call of a `#[locked]` function is, once there is one.
///
/// The body is made before the lock is acquired, so that no argument lives in the function's
/// future a second time; it finds the guard through this.
#[derive(Debug, Default)]
pub struct Held(OnceLock<LockGuard>);

impl Held {
    /// No guard yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The guard, for the body.
    pub fn guard(&self) -> &LockGuard {
        self.0.get().expect("BUG: a body runs only while the lock is held")
    }
}

/// Acquires the lock of a `#[locked]` function and runs its body, which the caller drops before
/// it calls [`finish`].
pub async fn run<F: Future>(
    held: &Held,
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Lock) -> Lock,
    on_lost: OnLost,
    body: Pin<&mut F>,
) -> Result<F::Output, Error> {
    let guard = configure(locks?.lock(id)).acquire().await?;
    run_under(held.0.get_or_init(|| guard), on_lost, body).await
}

/// Releases what is held, if anything; the result stands whatever becomes of that.
pub async fn finish<T>(held: Held, result: Result<T, Error>) -> Result<T, Error> {
    if let Some(guard) = held.0.into_inner() {
        let _ = guard.release().await;
    }
    result
}

/// The Redis store by itself, for the tests that compare the engines.
#[cfg(feature = "redis")]
pub async fn redis_store(client: redis::Client) -> Result<impl crate::Store, Error> {
    crate::store::redis::RedisStore::connect(client, Default::default()).await
}

/// The `Locks` that the attribute names.
pub fn given(locks: &Locks) -> Result<Locks, Error> {
    Ok(locks.clone())
}

/// The task's `Locks`, else the process's.
pub fn ambient() -> Result<Locks, Error> {
    locks::ambient().ok_or_else(|| {
        Error::new(
            ErrorKind::NotInstalled,
            "no `Locks` to use: add `locks.install()` at the start of `main`, or wrap the call in \
             `locks.scope(..)`, or name one with `locks = ..` in the attribute",
        )
    })
}

/// Calls a `#[debounced]` function.
pub async fn debounce<F: Future>(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
    body: Pin<&mut F>,
) -> Result<Option<F::Output>, Error> {
    configure(locks?.debounce(id)).call(move || body).await
}

/// A duration of an attribute's argument.
#[must_use]
pub const fn milliseconds(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The id that an expression gives, taken as it is.
pub fn display<T: Display + ?Sized>(id: &T) -> String {
    id.to_string()
}

/// Is it the error of a lock that somebody holds?
#[must_use]
pub fn is_busy(error: &Error) -> bool {
    error.kind() == ErrorKind::Busy
}

/// Gives the closure of `or_else` the type of its argument and of its result.
pub fn or_else<T, F: FnOnce(Error) -> T>(closure: F) -> F {
    closure
}

/// An id made of a template.
#[derive(Debug, Default)]
pub struct Id(String);

impl Id {
    /// An empty id.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Text of the template, as it is.
    pub fn literal(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// A value, escaped: every character but alphanumerics, `-`, `_` and `.` becomes the `%XX` of
    /// its bytes, so that no value can look like text of the template, or like two values.
    pub fn value<T: Display + ?Sized>(&mut self, value: &T) {
        use fmt::Write;

        // A `String` takes everything; a `Display` that fails by itself has written what it could.
        let _ = write!(Escaped(&mut self.0), "{value}");
    }

    /// The id.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_alphanumeric() || matches!(character, '-' | '_' | '.') {
                self.0.push(character);
            } else {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    write!(self.0, "%{byte:02X}")?;
                }
            }
        }
        Ok(())
    }
}

/// A return type through which a lock error can leave.
// The implementations are not recommended, or the message would only say that some error type
// is not `From<lock::Error>`, and name neither way out.
#[diagnostic::on_unimplemented(
    message = "`#[locked]` cannot report a lock error through `{Self}`",
    label = "a lock error cannot leave through this type",
    note = "return a `Result<_, E>` where `E: From<lock::Error>`",
    note = "or make the value yourself: add `or_else = |error| ..` to the attribute"
)]
pub trait LockedOutput {
    /// The value that carries the error.
    fn from_lock_error(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<Error>> LockedOutput for Result<T, E> {
    fn from_lock_error(error: Error) -> Self {
        Err(error.into())
    }
}

/// The same for `#[debounced]`, whose output has an `Option` in it.
#[diagnostic::on_unimplemented(
    message = "`#[debounced]` cannot report a lock error through `{Self}`",
    label = "a lock error cannot leave through this type",
    note = "return a `Result<_, E>` where `E: From<lock::Error>`",
    note = "or make the value yourself: add `or_else = |error| ..` to the attribute"
)]
pub trait DebouncedOutput {
    /// The value that carries the error.
    fn from_lock_error(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<Error>> DebouncedOutput for Result<Option<T>, E> {
    fn from_lock_error(error: Error) -> Self {
        Err(error.into())
    }
}

/// A return type that has an empty value, for `skip`.
#[diagnostic::on_unimplemented(
    message = "`skip` has no empty value of `{Self}`",
    label = "this type has no empty value",
    note = "when the lock is busy, `skip` returns the empty value of `()`, `Option<T>`, `Result<(), E>` or `Result<Option<T>, E>`"
)]
pub trait Skipped {
    /// The empty value.
    fn skipped() -> Self;
}

#[diagnostic::do_not_recommend]
impl Skipped for () {
    fn skipped() -> Self {}
}

#[diagnostic::do_not_recommend]
impl<T> Skipped for Option<T> {
    fn skipped() -> Self {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<E> Skipped for Result<(), E> {
    fn skipped() -> Self {
        Ok(())
    }
}

#[diagnostic::do_not_recommend]
impl<T, E> Skipped for Result<Option<T>, E> {
    fn skipped() -> Self {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(values: &[&str]) -> String {
        let mut id = Id::new();
        for value in values {
            id.literal(":");
            id.value(*value);
        }
        id.finish()
    }

    #[test]
    fn plain_values_stay_readable() {
        assert_eq!(id(&["42", "a-b_c.d", "Ärger"]), ":42:a-b_c.d:Ärger");
    }

    #[test]
    fn values_cannot_look_like_the_template_or_like_each_other() {
        assert_eq!(id(&["a:b", "c"]), ":a%3Ab:c");
        assert_ne!(id(&["a:b", "c"]), id(&["a", "b:c"]));
        assert_ne!(id(&["a%3Ab"]), id(&["a:b"]));
        assert_eq!(id(&["~{x}\n", "€"]), ":%7E%7Bx%7D%0A:%E2%82%AC");
    }
}
