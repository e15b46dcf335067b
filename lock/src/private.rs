//! The runtime half of the attributes. Not public API: it changes without notice.

use std::{
    fmt::{self, Display},
    future::{Future, poll_fn},
    pin::{Pin, pin},
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

/// Runs a body under a lock.
///
/// Every poll looks at the lock before it lets the body go on: after a stall of any length the
/// body does not take a single step under a lock that may be somebody else's.
pub async fn run<F: Future>(
    guard: &LockGuard,
    mut body: Pin<&mut F>,
    on_lost: OnLost,
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

/// Acquires the lock of a `#[locked]` function.
pub async fn acquire(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Lock) -> Lock,
) -> Result<LockGuard, Error> {
    configure(locks?.lock(id)).acquire().await
}

/// Releases the lock of a `#[locked]` function; its result stands whatever becomes of that.
pub async fn finish(guard: LockGuard) {
    let _ = guard.release().await;
}

/// Calls a `#[debounced]` function.
pub async fn debounce<F, Fut, T>(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
    body: F,
) -> Result<Option<T>, Error>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = T>,
{
    configure(locks?.debounce(id)).call(body).await
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

/// A return type through which a lock's error can leave.
#[diagnostic::on_unimplemented(
    message = "`#[locked]` cannot report a lock error through `{Self}`",
    label = "a lock may be busy, lost or out of reach, and this type has no place for that",
    note = "return a `Result<_, E>` where `E: From<lock::Error>`",
    note = "or add `or_else = |error| ..` to the attribute, to make a value of the error"
)]
pub trait LockedOutput {
    /// The value that carries the error.
    fn from_lock_error(error: Error) -> Self;
}

impl<T, E: From<Error>> LockedOutput for Result<T, E> {
    fn from_lock_error(error: Error) -> Self {
        Err(error.into())
    }
}

/// A return type that has an empty value, for `skip`.
#[diagnostic::on_unimplemented(
    message = "`skip` has no empty value of `{Self}`",
    label = "not a type that can be empty",
    note = "`skip` works for `()`, `Option<T>`, `Result<(), E>` and `Result<Option<T>, E>`; \
            for others use `or_else = |error| ..`"
)]
pub trait Skipped {
    /// The empty value.
    fn skipped() -> Self;
}

impl Skipped for () {
    fn skipped() -> Self {}
}

impl<T> Skipped for Option<T> {
    fn skipped() -> Self {
        None
    }
}

impl<E> Skipped for Result<(), E> {
    fn skipped() -> Self {
        Ok(())
    }
}

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
