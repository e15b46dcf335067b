//! Error texts for what the engine refuses: what happened, what to change, and what becomes of a
//! request without an answer.

use std::sync::Arc;

use lock_core::{
    contract::{Failure, StoreError},
    engine::io::{Aftermath, Refusal},
};

use crate::error::{Error, ErrorKind};

/// Not an `impl From`: the compiler would mention it to users whose error does not fit.
pub(super) fn error(refusal: Refusal) -> Error {
    match refusal {
        Refusal::BusyFor(waited) => Error::busy_for(waited),
        Refusal::BusyAtEach(tries, took) => Error::busy_at_each(tries, took),
        Refusal::Lost(why) => Error::lost(why),
        Refusal::Invalid(message) => Error::invalid(message),
        Refusal::Failed(failure, aftermath) => failed(&failure, aftermath),
        Refusal::Closed => Error::closed(),
    }
}

fn words(aftermath: Aftermath) -> &'static str {
    match aftermath {
        Aftermath::Undone => "any effect of the request is undone in the background",
        Aftermath::Repeated => "the request is repeated in the background",
        Aftermath::Unknown => "the request may or may not have taken effect",
        Aftermath::Nothing => "nothing was changed",
        Aftermath::NotSent => "the request was not sent",
    }
}

/// What the server or the system said becomes the source, and is no part of the text.
fn failed(error: &StoreError, aftermath: Aftermath) -> Error {
    use StoreError::{Rejected, Unavailable, Unsupported};

    let without_answer = words(aftermath);
    let (kind, source) = match error {
        Unavailable(source) => (ErrorKind::Unavailable, source),
        Rejected(source) => (ErrorKind::Rejected, source),
        Unsupported(what) => return Error::unsupported(what),
        other => return Error::new(ErrorKind::Unavailable, format!("{other}; {without_answer}")),
    };
    if let Some(failure) = source.downcast_ref::<Failure>() {
        let text = match kind {
            ErrorKind::Unavailable => format!("{failure}; {without_answer}"),
            _ => failure.to_string(),
        };
        let error = Error::new(kind, text);
        return match failure.cause() {
            Some(cause) => error.caused_by(Arc::clone(cause)),
            None => error,
        };
    }
    let text = match kind {
        ErrorKind::Unavailable => format!(
            "the store did not answer, so the outcome is not known: check that it is running and \
             can be reached; {without_answer}"
        ),
        _ => "the store refused the request, and nothing was changed: see the source of this error"
            .to_owned(),
    };
    Error::new(kind, text).caused_by(Arc::clone(source))
}
