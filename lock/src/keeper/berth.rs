//! Where a keeper lives.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot},
};

use super::{Command, clock::Clock, task::Task};
use crate::{
    error::{Error, ErrorKind},
    store::Store,
};

/// The place where a keeper runs.
pub(super) enum Berth {
    /// A thread of its own: no work of the callers can keep leases from being renewed.
    OwnThread,
    /// The runtime of a caller, as a task. A runtime may end before the keeper does (each
    /// `#[tokio::test]` has its own): the keeper then waits here until a caller comes with
    /// another one, with its queue and all it knows.
    Callers(Arc<Quay>),
}

pub(super) struct Quay(Mutex<Place>);

enum Place {
    Waiting(Box<Task>),
    Running,
    /// Shut down.
    Gone,
}

impl Berth {
    pub(super) fn of_callers(task: Task) -> Self {
        Self::Callers(Arc::new(Quay(Mutex::new(Place::Waiting(Box::new(task))))))
    }

    /// Starts the thread, connects on it, and returns once that has succeeded. The thread ends
    /// when all clients are gone, or when this future is dropped.
    pub(super) async fn own_thread<F, Fut>(
        id: String,
        clock: Arc<dyn Clock>,
        queue: mpsc::UnboundedReceiver<Command>,
        connect: F,
    ) -> Result<Self, Error>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Arc<dyn Store>, Error>>,
    {
        let (started, outcome) = oneshot::channel();
        let body = move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(no_thread(error)));
                    return;
                }
            };
            runtime.block_on(async move {
                match connect().await {
                    Ok(store) => {
                        if started.send(Ok(())).is_ok() {
                            Task::new(id, store, clock, queue).run().await;
                        }
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            });
        };
        thread::Builder::new().name("lock-keeper".into()).spawn(body).map_err(no_thread)?;
        outcome.await.map_err(|_| Self::OwnThread.gone())??;
        Ok(Self::OwnThread)
    }

    /// Sees to it that the keeper runs, if it lives on its callers' runtimes.
    pub(super) fn ensure_running(&self) -> Result<(), Error> {
        let Self::Callers(quay) = self else { return Ok(()) };
        let mut place = quay.place();
        match &*place {
            Place::Running => return Ok(()),
            Place::Gone => return Err(Error::closed()),
            Place::Waiting(_) => {}
        }
        let runtime = Handle::try_current().map_err(|_| {
            Error::invalid(
                "an embedded store is served by the caller's Tokio runtime, and this is outside \
                 of one: call from a task, or use a Redis store",
            )
        })?;
        let Place::Waiting(task) = std::mem::replace(&mut *place, Place::Running) else {
            return Ok(());
        };
        // Not under the lock: a runtime that is shut down drops the task right here, and that
        // takes the lock to bring the keeper back.
        drop(place);
        let mut moored = Moored { task: Some(task), quay: Arc::downgrade(quay) };
        runtime.spawn(async move { moored.run().await });
        match &*quay.place() {
            Place::Waiting(_) => Err(self.gone()),
            Place::Running | Place::Gone => Ok(()),
        }
    }

    /// What to say when the keeper went away without an answer.
    pub(super) fn gone(&self) -> Error {
        match self {
            Self::OwnThread => Error::closed(),
            Self::Callers(_) => Error::new(
                ErrorKind::Unavailable,
                "the Tokio runtime that served the embedded store was shut down meanwhile: call again",
            ),
        }
    }
}

impl fmt::Debug for Berth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnThread => "own thread",
            Self::Callers(_) => "callers' runtime",
        })
    }
}

impl Quay {
    fn place(&self) -> std::sync::MutexGuard<'_, Place> {
        // The place is replaced in one step, so a panic elsewhere cannot leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A keeper's task on a caller's runtime; brings the keeper back when that runtime ends.
struct Moored {
    task: Option<Box<Task>>,
    quay: Weak<Quay>,
}

impl Moored {
    async fn run(&mut self) {
        if let Some(task) = &mut self.task {
            task.run().await;
        }
        // It has ended by itself, and not because its runtime was dropped under it.
        self.task = None;
    }
}

impl Drop for Moored {
    fn drop(&mut self) {
        let Some(quay) = self.quay.upgrade() else { return };
        let place = match self.task.take() {
            Some(mut task) => {
                task.abandon();
                Place::Waiting(task)
            }
            None => Place::Gone,
        };
        *quay.place() = place;
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "the keeper's thread could not be started ({error}): check the limits of this process"
        ),
    )
    .caused_by(Some(Arc::new(error)))
}
