//! `#[debounced(detached)]`: a call in a task of its own.

use std::{future::Future, panic::resume_unwind, pin::Pin};

use tokio::{runtime::Handle, task::JoinHandle};

use crate::{Error, ErrorKind, default::spawn_on};

/// The call of a detached function, its arguments included.
// The attribute turns its future into one of these, so that what the compiler says about the future
// points to the user's code. Otherwise it would name the bound of a function here, and show this
// file.
pub type DetachedCall<T> = Pin<Box<dyn Future<Output = Result<Option<T>, Error>> + Send>>;

/// What a detached function must return.
#[diagnostic::on_unimplemented(
    message = "a detached call cannot return a value of type `{Self}`",
    label = "this is not `Send`, so it cannot leave the task of the call",
    note = "a detached call runs in a separate task, so its output must be `Send`, such as \
            `Box<dyn Error + Send + Sync>` instead of `Box<dyn Error>`"
)]
pub trait DetachedOutput: Sized {
    /// Runs a call in a task of its own, which goes on if the caller goes away.
    fn detached(call: DetachedCall<Self>) -> DetachedTask<Self>;

    /// The same for a call that takes locks.
    fn detached_under(call: DetachedCall<Under<Self>>) -> DetachedTask<Under<Self>>;
}

#[diagnostic::do_not_recommend]
impl<T: Send + 'static> DetachedOutput for T {
    fn detached(call: DetachedCall<T>) -> DetachedTask<T> {
        detach(call)
    }

    fn detached_under(call: DetachedCall<Under<T>>) -> DetachedTask<Under<T>> {
        detach(call)
    }
}

/// What a body that takes locks returns. An error comes with the number of its lock.
pub(super) type Under<T> = Result<T, (usize, Error)>;

/// The task of a detached call.
#[must_use]
#[derive(Debug)]
pub struct DetachedTask<T>(Result<JoinHandle<Result<Option<T>, Error>>, Error>);

fn detach<T: Send + 'static>(call: DetachedCall<T>) -> DetachedTask<T> {
    DetachedTask(match Handle::try_current() {
        Ok(runtime) => Ok(spawn_on(&runtime, call)),
        Err(_) => Err(Error::invalid(
            "a detached call runs on the Tokio runtime of its caller, and there is none here: make \
             the call in a task",
        )),
    })
}

impl<T> DetachedTask<T> {
    /// Waits for the call. A panic of the body becomes a panic of the caller that waits.
    pub async fn join(self) -> Result<Option<T>, Error> {
        match self.0?.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => Err(Error::new(
                    ErrorKind::Closed,
                    "the runtime that ran this detached call was shut down",
                )),
            },
        }
    }
}
