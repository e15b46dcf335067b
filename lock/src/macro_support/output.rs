//! Return types, and how errors leave through them.

use std::marker::PhantomData;

use crate::{Error, ErrorKind};

/// Is this the error of a lock that somebody else holds?
#[must_use]
pub fn is_busy(error: &Error) -> bool {
    error.kind() == ErrorKind::Busy
}

/// Gives the closure of `or_else` the type of its argument and of its result.
pub fn or_else<T, F: FnOnce(Error) -> T>(closure: F) -> F {
    closure
}

/// The same for a result whose type the user has not named: it is what the body returns.
pub fn or_else_of<T, F: FnOnce(Error) -> T>(_: PhantomData<T>, closure: F) -> F {
    closure
}

/// The type of what a body returns.
#[must_use]
pub fn output_of<T, E>(_: &Result<T, E>) -> PhantomData<T> {
    PhantomData
}

/// What an argument must be for `or_else` to use it.
#[diagnostic::on_unimplemented(
    message = "`or_else` cannot use an argument of type `{Self}`",
    label = "this is dropped before `or_else` runs",
    note = "the body takes all arguments, and they are dropped before the release; only those that \
            are `Copy`, such as shared references and numbers, are still available"
)]
pub trait Copied {
    /// Does nothing: a call of it says that the argument is used.
    fn copied(&self);
}

#[diagnostic::do_not_recommend]
impl<T: Copy> Copied for T {
    fn copied(&self) {}
}

/// A return type through which a lock error can leave.
// The implementations are not recommended, or the message would only say that some error type
// is not `From<lock::Error>`, and name neither way out.
#[diagnostic::on_unimplemented(
    message = "`#[locked]` cannot report a lock error through `{Self}`",
    label = "a lock error cannot be returned as this type",
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
    label = "a lock error cannot be returned as this type",
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
    message = "`skip` has no empty value for `{Self}`",
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
