//! The functions whose durable calls this process runs.

use std::{
    any::{TypeId, type_name},
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lock_core::contract::DurableBook;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::Instant,
};

use crate::{Error, LockGuard};

/// One run of a durable call, as its function sees it.
#[derive(Debug)]
pub struct DurableRun {
    pub(super) id: Arc<str>,
    pub(super) guard: Arc<LockGuard>,
    pub(super) attempt: u32,
}

impl DurableRun {
    /// The id that was called.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A number that is larger than that of every run of this id before: what a run has changed
    /// must not be changed by an older one. It is the [fencing token](LockGuard::fencing_token) of
    /// the run's lock.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.guard.fencing_token()
    }

    /// Which try of this call it is; the first is 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The lock that is held during the run; the run is stopped at its next `.await` when it is
    /// lost.
    pub fn guard(&self) -> &LockGuard {
        &self.guard
    }
}

/// What a durable function may return: whether it has failed, and why.
#[diagnostic::on_unimplemented(
    message = "a durable function cannot return `{Self}`",
    label = "says neither that it is done nor that it has failed",
    note = "return `()` or a `Result<_, E>` where `E: Display`"
)]
pub trait DurableOutput {
    /// The reason, if it has failed.
    fn failure(self) -> Option<String>;
}

impl DurableOutput for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<T, E: fmt::Display> DurableOutput for Result<T, E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

pub(super) type Outcome = Pin<Box<dyn Future<Output = Option<String>> + Send>>;
pub(super) type Handler = Box<dyn Fn(&str, DurableRun) -> Outcome + Send + Sync>;

/// A function that was registered, and its worker's state.
pub(crate) struct Registered {
    pub(super) name: Arc<str>,
    pub(super) book: DurableBook,
    pub(super) handler: Handler,
    /// The types of the arguments and of the handler, and how the first is called.
    pub(super) types: (TypeId, TypeId),
    pub(super) arguments: &'static str,
    /// How long a run may take.
    pub(super) hold_at_most: Option<Duration>,
    /// When the calls of this process are due: the last one of each id.
    pub(super) due: Mutex<HashMap<Arc<str>, Instant>>,
    /// When the worker looks next.
    pub(super) looks_at: Mutex<Instant>,
    pub(super) called: Notify,
    pub(super) runs: Arc<Semaphore>,
    /// It goes with the runtime that it was registered on.
    pub(super) worker: Mutex<Option<JoinHandle<()>>>,
}

/// The functions that a process has registered, by their names.
#[derive(Default)]
pub(crate) struct Registry(pub(super) Mutex<HashMap<Arc<str>, Arc<Registered>>>);

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is changed in single steps, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registered {
    /// A name means one function.
    pub(super) fn another<A>(&self, arguments: TypeId) -> Error {
        let (name, known, new) = (&self.name, self.arguments, type_name::<A>());
        Error::invalid(if arguments == self.types.0 {
            format!(
                "the durable function `{name}` is registered already, with another handler: give \
                 each function a name of its own"
            )
        } else {
            format!(
                "the durable function `{name}` is registered already, with arguments of the type \
                 `{known}` and not `{new}`: give each function a name of its own"
            )
        })
    }

    /// When the first of this process's calls is due; a part of a millisecond later, for a store
    /// counts whole ones.
    pub(super) fn next_due(&self) -> Option<Instant> {
        locked(&self.due).values().min().map(|due| *due + Duration::from_millis(1))
    }
}
