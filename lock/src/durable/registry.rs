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
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// # let locks = lock::Locks::in_memory();
/// use lock::DurableRun;
///
/// async fn reindex(document: u64, run: DurableRun) {
///     // The index refuses a write with a smaller generation than the one that it has.
///     println!("{}: write {document} with generation {}", run.id(), run.generation());
/// }
///
/// let reindex = locks.debounce("document").durable("reindex", reindex)?;
/// reindex.id("document:7").call(&7).await?;
/// # tokio::time::sleep(std::time::Duration::from_secs(60)).await;
/// # assert_eq!(locks.durable_calls("reindex").waiting(0).await?.count, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DurableRun {
    pub(super) id: Arc<str>,
    pub(super) guard: Arc<LockGuard>,
    pub(super) attempt: u32,
}

impl DurableRun {
    /// Returns the id that was called.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use lock::DurableRun;
    ///
    /// let (ran, mut runs) = tokio::sync::mpsc::unbounded_channel();
    /// let reindex = locks.debounce("document").durable("reindex", move |_: u64, run: DurableRun| {
    ///     let sent = ran.send(run.id().to_owned());
    ///     async move { sent }
    /// })?;
    /// reindex.id("document:7").call(&7).await?;
    /// assert_eq!(runs.recv().await.as_deref(), Some("document:7"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns a number that is larger than that of every earlier run of this id, so that a
    /// resource can refuse the writes of an older run after those of a newer one. It is the
    /// [fencing token](LockGuard::fencing_token) of the run's lock.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use lock::DurableRun;
    ///
    /// let (ran, mut runs) = tokio::sync::mpsc::unbounded_channel();
    /// let index = locks.debounce("index:7").durable("index", move |_: u64, run: DurableRun| {
    ///     let sent = ran.send(run.generation());
    ///     async move { sent }
    /// })?;
    /// index.call(&7).await?;
    /// let first = runs.recv().await;
    /// index.call(&7).await?;
    /// assert!(runs.recv().await > first);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.guard.fencing_token()
    }

    /// Returns the number of this try of the call, counted from 1.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use lock::DurableRun;
    ///
    /// async fn send(_to: String, run: DurableRun) -> Result<(), &'static str> {
    ///     if run.attempt() == 1 { Err("the server is down") } else { Ok(()) }
    /// }
    ///
    /// let mail = locks.debounce("mail:7").durable("mail", send)?;
    /// mail.call(&"ann@example.org".to_owned()).await?;
    /// tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    /// # assert_eq!(locks.durable_calls("mail").waiting(0).await?.count, 0);
    /// assert!(mail.set_aside().await?.is_empty(), "the second try has succeeded");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the guard of the lock that is held during the run. When the lock is lost, the run is
    /// stopped at its next `.await`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use lock::DurableRun;
    ///
    /// async fn copy(rows: Vec<u64>, run: DurableRun) -> Result<(), &'static str> {
    ///     for row in rows {
    ///         if !run.guard().is_held() {
    ///             return Err("another run may be writing by now");
    ///         }
    ///         println!("write row {row}");
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let copy = locks.debounce("copy").durable("copy", copy)?;
    /// copy.call(&vec![1, 2, 3]).await?;
    /// # tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    /// # assert!(copy.set_aside().await?.is_empty());
    /// # assert_eq!(locks.durable_calls("copy").waiting(0).await?.count, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn guard(&self) -> &LockGuard {
        &self.guard
    }
}

/// The output of a durable function: whether the run has failed, and why.
///
/// ```
/// use lock::DurableOutput;
///
/// enum Delivery {
///     Sent,
///     Bounced(String),
/// }
///
/// impl DurableOutput for Delivery {
///     fn failure(self) -> Option<String> {
///         match self {
///             Self::Sent => None,
///             Self::Bounced(why) => Some(why),
///         }
///     }
/// }
/// # assert!(Delivery::Sent.failure().is_none());
/// # assert!(Delivery::Bounced("no such mailbox".to_owned()).failure().is_some());
/// ```
#[diagnostic::on_unimplemented(
    message = "a durable function cannot return `{Self}`",
    label = "does not say whether the run has failed",
    note = "return `()` or a `Result<_, E>` where `E: Display`"
)]
pub trait DurableOutput {
    /// Returns the reason if the run has failed.
    ///
    /// ```
    /// use lock::DurableOutput;
    ///
    /// assert_eq!(().failure(), None);
    /// assert_eq!(Ok::<u64, &str>(7).failure(), None);
    /// assert_eq!(Err::<u64, _>("it is down").failure().as_deref(), Some("it is down"));
    /// ```
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
