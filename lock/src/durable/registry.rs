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
    /// Returns the id that was called.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns a number larger than that of every run of this id before, so that an older run can
    /// be kept from changing what a newer one has changed. It is the [fencing
    /// token](LockGuard::fencing_token) of the run's lock.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.guard.fencing_token()
    }

    /// Returns the number of this try of the call; the first is 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the guard of the lock that is held during the run. When the lock is lost, the run is
    /// stopped at its next `.await`.
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
    /// Returns the reason if the run has failed.
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

/// A registered function, and the state of its worker.
pub(crate) struct Registered {
    pub(super) name: Arc<str>,
    pub(super) book: DurableBook,
    pub(super) handler: Handler,
    /// The types of the arguments and of the handler; `arguments` is the name of the first.
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
    /// It ends with the runtime that it was spawned on.
    pub(super) worker: Mutex<Option<JoinHandle<()>>>,
}

/// The functions that a process has registered, by their names.
#[derive(Default)]
pub(crate) struct Registry(pub(super) Mutex<HashMap<Arc<str>, Arc<Registered>>>);

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each value is changed in single steps, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registered {
    /// The error for a name that belongs to another function.
    pub(super) fn another<A>(&self, arguments: TypeId) -> Error {
        let (name, known, new) = (&self.name, self.arguments, type_name::<A>());
        Error::invalid(if arguments == self.types.0 {
            format!(
                "the durable function `{name}` is already registered with another handler: give \
                 each function a name of its own"
            )
        } else {
            format!(
                "the durable function `{name}` is already registered with arguments of the type \
                 `{known}`, not `{new}`: give each function a name of its own"
            )
        })
    }

    /// When the first call of this process is due, plus a millisecond, because a store counts whole
    /// ones.
    pub(super) fn next_due(&self) -> Option<Instant> {
        locked(&self.due).values().min().map(|due| *due + Duration::from_millis(1))
    }
}
