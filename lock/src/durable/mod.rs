//! Durable debounce: calls that are kept in the store, and run even if their caller has died.
//!
//! A process that has registered a function has a worker for it: a task that asks the store for due
//! calls, claims them, and runs them under a lock. The worker looks for calls of its own process
//! when they are due, and polls for those of other processes.

mod calls;
pub(crate) mod registry;
mod worker;

use std::{
    any::{TypeId, type_name},
    fmt,
    future::Future,
    marker::PhantomData,
    sync::{Arc, Mutex},
    time::Duration,
};

use lock_core::{
    contract::{DurableBook, KeepRequest, SetAside, TakeBackRequest},
    table::book::LONGEST_PAUSE,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::Instant,
};

pub use self::{
    calls::{DurableCalls, Waiting, WaitingCall},
    registry::{DurableOutput, DurableRun},
};
use self::{
    registry::{Outcome, Registered, locked},
    worker::{insist, work},
};
use crate::{Error, context::Context, error::Subject, runtime};

/// How many runs of one function may go on in one process.
const RUNS: usize = 64;

/// A call may run this much later without the worker being woken for it.
const SOON: Duration = Duration::from_millis(2);

/// The longest arguments, in bytes of JSON.
const LONGEST_ARGUMENTS: usize = 1 << 20;

/// How often a call is tried, and the pause before the second try; each pause is twice the one
/// before.
const RETRY: (u32, Duration) = (5, Duration::from_secs(1));

/// A debounced function whose calls are kept in the store; created by
/// [`Debounce::durable`](crate::Debounce::durable).
///
/// A call is safe once [`call`](Self::call) has returned: if this process dies, another process
/// that has registered the function runs it. A call is run **at least once**: a run whose process
/// died, or whose lock was lost, is repeated, so the receiver of its effects should check the run's
/// [generation](DurableRun::generation). A call whose run fails is tried again. Once it has failed
/// as often as [`retry`](Self::retry) allows, it is set aside, not dropped.
///
/// Calls are as durable as the store: in Redis, that depends on its persistence and its replicas;
/// in memory, they last until the process ends. The calls of a function are kept for thirty days
/// after its last call.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// use std::time::Duration;
/// use lock::{DurableRun, Locks};
///
/// async fn reindex(document: u64, run: DurableRun) -> Result<(), String> {
///     println!("document {document}, generation {}", run.generation());
///     Ok(())
/// }
///
/// let locks = Locks::in_memory();
/// // In each process that should run it, even in those that never call it.
/// let reindex = locks.debounce("document").wait(Duration::from_secs(1)).durable("reindex", reindex)?;
/// let receipt = reindex.id("document:7").call(&7).await?;
/// println!("runs in {:?}", receipt.due_in());
/// # Ok(())
/// # }
/// ```
#[must_use = "registering a durable function starts its worker, but runs nothing until it is called"]
pub struct Durable<A> {
    context: Context,
    registered: Arc<Registered>,
    id: Arc<str>,
    wait: Duration,
    max_wait: Option<Duration>,
    retry: (u32, Duration),
    arguments: PhantomData<fn(&A)>,
}

/// The proof that a call is kept.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// # let locks = lock::Locks::in_memory();
/// use std::time::Duration;
/// use lock::Receipt;
///
/// let save = locks.debounce("save:7").wait(Duration::from_secs(5));
/// let save = save.durable("save", |_draft: String, _run| async {})?;
/// let first: Receipt = save.call(&"Dear Ann".to_owned()).await?;
/// assert_eq!(first.due_in(), Duration::from_secs(5));
///
/// let second = save.call(&"Dear Ann, thank you".to_owned()).await?;
/// assert!(second.call() > first.call(), "it takes the place of the first");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    call: u64,
    due_in: Duration,
}

impl Receipt {
    /// Returns the number of the call, which is larger than that of every earlier call of its id.
    #[must_use]
    pub fn call(&self) -> u64 {
        self.call
    }

    /// Returns the time until the call is due, unless a newer call takes its place.
    #[must_use]
    pub fn due_in(&self) -> Duration {
        self.due_in
    }
}

impl<A> Durable<A> {
    pub(crate) fn register<F, Fut>(
        context: &Context,
        (id, wait, max_wait): (Arc<str>, Duration, Option<Duration>),
        hold_at_most: Option<Duration>,
        name: &str,
        handler: F,
    ) -> Result<Self, Error>
    where
        A: DeserializeOwned + 'static,
        F: Fn(A, DurableRun) -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: DurableOutput,
    {
        let book = context.prefix().book(name)?;
        if context.client().has_ended() {
            // Nothing would ever run it.
            return Err(Error::closed());
        }
        if !context.client().keeps_durable_calls() {
            return Err(Error::unsupported("durable calls").about(Subject::DurableCall, &id));
        }
        let runtime = Handle::try_current().map_err(|_| {
            Error::invalid(
                "a durable function runs on the Tokio runtime on which it is registered, and there \
                 is none here: register it in a task",
            )
        })?;
        if !runtime::has_timers() {
            return Err(Error::invalid(
                "a durable function needs the timers of the Tokio runtime on which it is \
                 registered: build it with `enable_time` or `enable_all`",
            ));
        }
        let types = (TypeId::of::<A>(), TypeId::of::<F>());
        let handler = move |arguments: &str, run: DurableRun| -> Outcome {
            match serde_json::from_str(arguments) {
                Ok(arguments) => {
                    let body = handler(arguments, run);
                    Box::pin(async move { body.await.failure() })
                }
                Err(error) => {
                    let failure =
                        format!("the arguments cannot be deserialized in this process: {error}");
                    Box::pin(std::future::ready(Some(failure)))
                }
            }
        };
        let mut registry = locked(&context.registry().0);
        let registered = registry.entry(name.into()).or_insert_with(|| {
            Arc::new(Registered {
                name: name.into(),
                book,
                handler: Box::new(handler),
                types,
                arguments: type_name::<A>(),
                hold_at_most,
                due: Mutex::default(),
                looks_at: Mutex::new(Instant::now()),
                called: Notify::new(),
                runs: Arc::new(Semaphore::new(RUNS)),
                worker: Mutex::default(),
            })
        });
        let registered = Arc::clone(registered);
        drop(registry);
        if registered.types != types {
            return Err(registered.another::<A>(types.0));
        }
        if registered.hold_at_most != hold_at_most {
            return Err(Error::invalid(format!(
                "the durable function `{name}` is already registered with another `hold_at_most` \
                 ({:?}, now {hold_at_most:?}): all registrations must give the same bound",
                registered.hold_at_most
            )));
        }
        let mut worker = locked(&registered.worker);
        if worker.as_ref().is_none_or(JoinHandle::is_finished) {
            let work = work(context.downgrade(), Arc::clone(&registered));
            *worker = Some(runtime.spawn(work));
        }
        drop(worker);
        let (context, retry, arguments) = (context.clone(), RETRY, PhantomData);
        Ok(Self { context, registered, id, wait, max_wait, retry, arguments })
    }

    /// Returns the same function for another id.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let reindex = locks.debounce("document").durable("reindex", |_id: u64, _run| async {})?;
    /// reindex.id("document:7").call(&7).await?;
    /// reindex.id("document:8").call(&8).await?;
    /// let waiting = locks.durable_calls("reindex").waiting(0).await?;
    /// assert_eq!(waiting.count, 2, "neither takes the place of the other");
    /// # Ok(())
    /// # }
    /// ```
    pub fn id(&self, id: impl Into<String>) -> Self {
        Self { id: id.into().into(), ..self.clone() }
    }

    /// Sets how often a call is tried in total, and the pause before the second try. Each further
    /// pause is twice as long as the previous one, up to an hour. Default: 5 times, 1 s.
    ///
    /// The setting is stored with each call that is made through this value. Other values of the
    /// same function have their own setting, and a process that runs a call of another process uses
    /// the setting of the caller.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # use std::time::Duration;
    /// # let locks = lock::Locks::in_memory();
    /// let mail = locks.debounce("mail").wait(Duration::from_millis(10)).durable(
    ///     "mail",
    ///     |_to: String, _run| async { Err::<(), _>("the server is down") },
    /// )?;
    /// let once = mail.clone().retry(1, Duration::ZERO);
    /// once.call(&"ann@example.org".to_owned()).await?;
    /// tokio::time::sleep(Duration::from_secs(1)).await;
    /// assert_eq!(once.set_aside().await?[0].attempts, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry(mut self, attempts: u32, pause: Duration) -> Self {
        self.retry = (attempts.max(1), pause.min(LONGEST_PAUSE));
        self
    }

    /// Stores the call: once this has returned, the call will run `wait` later, unless a newer call
    /// takes its place.
    ///
    /// # Errors
    ///
    /// - `Unavailable` if the store did not answer for two seconds: the call may or may not be
    ///   stored, and can be made again.
    /// - `Rejected`, `Closed` as for a lock.
    /// - `Invalid` for an id that is not allowed, for arguments of more than 1 MiB of JSON, or for
    ///   arguments that do not deserialize to what was serialized: such a call would never run, or
    ///   would run with other arguments.
    ///
    /// # What reads back
    ///
    /// Arguments are serialized to JSON, deserialized, and serialized again; both texts must be
    /// equal, except for the order of items and fields. So a float that is not finite, or a map
    /// whose keys are not text or numbers, is refused. Different values that have the same JSON are
    /// not detected: `Some(None)` of an `Option<Option<_>>` runs as `None`, an `Option<f64>` of NaN
    /// as `None`, and a field with `#[serde(skip)]` has its default value in the run.
    ///
    /// # Cancel safety
    ///
    /// The call may or may not be stored if the future is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let mail = locks.debounce("mail").durable("mail", |to: String, _| async move {
    ///     println!("a mail to {to}");
    /// })?;
    /// let receipt = mail.id("mail:7").call(&"ann@example.org".to_owned()).await?;
    /// assert!(receipt.due_in().as_secs() <= 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call(&self, arguments: &A) -> Result<Receipt, Error>
    where
        A: Serialize + DeserializeOwned,
    {
        self.keep(encode(arguments).map_err(|error| self.about(error))?).await
    }

    /// Adds the id of this call to an error.
    pub(crate) fn about(&self, error: Error) -> Error {
        error.about(Subject::DurableCall, &self.id)
    }

    /// Keeps a call whose arguments were already written as JSON.
    pub(crate) async fn keep(&self, arguments: String) -> Result<Receipt, Error> {
        self.context.prefix().check_id(&self.id)?;
        if arguments.len() > LONGEST_ARGUMENTS {
            let message = format!(
                "the arguments have {} bytes of JSON, and at most {LONGEST_ARGUMENTS} are allowed: \
                 store them elsewhere, and pass a reference",
                arguments.len()
            );
            return Err(Error::invalid(message).about(Subject::DurableCall, &self.id));
        }
        let book = self.registered.book.clone();
        let request = KeepRequest::new(book, Arc::clone(&self.id), arguments, self.wait)
            .max_wait(self.max_wait)
            .retry(self.retry.0, self.retry.1);
        let client = self.context.client();
        let kept = insist(|| client.keep(request.clone())).await;
        let kept = kept.map_err(|error| error.about(Subject::DurableCall, &self.id))?;
        let due = Instant::now() + kept.due_in;
        locked(&self.registered.due).insert(Arc::clone(&self.id), due);
        // Otherwise the worker looks in time anyway, or so little later that waking it for each
        // call of a burst is not worth it.
        if due + SOON < *locked(&self.registered.looks_at) {
            self.registered.called.notify_one();
        }
        Ok(Receipt { call: kept.call, due_in: kept.due_in })
    }

    /// Lists the calls of this function that were set aside, whatever their ids.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Rejected`, `Closed`, as for a lock.
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use std::time::Duration;
    /// use lock::SetAside;
    ///
    /// let mail = locks.debounce("mail:7").durable("mail", |_to: String, _run| async {
    ///     Err::<(), _>("the server is down")
    /// })?;
    /// let mail = mail.retry(1, Duration::ZERO);
    /// mail.call(&"ann@example.org".to_owned()).await?;
    /// tokio::time::sleep(Duration::from_secs(5)).await;
    /// let aside: Vec<SetAside> = mail.set_aside().await?;
    /// assert_eq!(aside[0].error, "the server is down");
    /// assert_eq!(aside[0].arguments, r#""ann@example.org""#);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_aside(&self) -> Result<Vec<SetAside>, Error> {
        let client = self.context.client();
        let aside = insist(|| client.set_aside(self.registered.book.clone())).await;
        aside.map_err(|error| error.about(Subject::DurableCall, &self.id))
    }

    /// Runs the set-aside call of this id again, with its full number of tries. Returns false if
    /// none was set aside.
    ///
    /// If the id was called again in the meantime and that call is still kept, only the newer call
    /// runs.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Rejected`, `Closed`, as for a lock.
    ///
    /// # Cancel safety
    ///
    /// The call may or may not be run again if the future is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// # use std::time::Duration;
    /// # let mail = locks.debounce("mail:7").durable("mail", |_to: String, _run| async {
    /// #     Err::<(), _>("the server is down")
    /// # })?;
    /// # let mail = mail.retry(1, Duration::ZERO);
    /// # mail.call(&"ann@example.org".to_owned()).await?;
    /// # tokio::time::sleep(Duration::from_secs(5)).await;
    /// // The call has failed on all of its tries, and the cause of that has been repaired.
    /// assert!(mail.run_again().await?);
    /// assert!(mail.set_aside().await?.is_empty(), "it waits for its run");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run_again(&self) -> Result<bool, Error> {
        self.take_back(TakeBackRequest::run_again).await
    }

    /// Deletes the set-aside call of this id. Returns false if none was set aside.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Rejected`, `Closed`, as for a lock.
    ///
    /// # Cancel safety
    ///
    /// The call may or may not be deleted if the future is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// # use std::time::Duration;
    /// # let mail = locks.debounce("mail:7").durable("mail", |_to: String, _run| async {
    /// #     Err::<(), _>("the server is down")
    /// # })?;
    /// # let mail = mail.retry(1, Duration::ZERO);
    /// # mail.call(&"ann@example.org".to_owned()).await?;
    /// # tokio::time::sleep(Duration::from_secs(5)).await;
    /// // The call has failed on all of its tries, and its mail is not wanted any longer.
    /// assert!(mail.forget().await?);
    /// assert!(mail.set_aside().await?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn forget(&self) -> Result<bool, Error> {
        self.take_back(TakeBackRequest::forget).await
    }

    async fn take_back(
        &self,
        request: impl FnOnce(DurableBook, Arc<str>) -> TakeBackRequest,
    ) -> Result<bool, Error> {
        let request = request(self.registered.book.clone(), Arc::clone(&self.id));
        // Asked only once: after a lost answer, a second try would not find the call.
        let taken = self.context.client().take_back(request).await;
        let taken = taken.map_err(|error| error.about(Subject::DurableCall, &self.id))?;
        self.registered.called.notify_one();
        Ok(taken)
    }
}

/// Writes the arguments as JSON, and checks that they read back as they were written.
pub(crate) fn encode<A: Serialize + DeserializeOwned>(arguments: &A) -> Result<String, Error> {
    let write = |arguments: &A| {
        serde_json::to_string(arguments).map_err(|error| {
            Error::invalid(format!("the arguments could not be serialized to JSON: {error}"))
        })
    };
    let written = write(arguments)?;
    let read: A = serde_json::from_str(&written).map_err(|error| {
        Error::invalid(format!(
            "the arguments cannot be deserialized from their JSON, so the call would never run: \
             {error}. Floats must be finite, and each field that is serialized must also be \
             deserializable"
        ))
    })?;
    if says_the_same(&written, &write(&read)?) {
        return Ok(written);
    }
    Err(Error::invalid(
        "the arguments that were deserialized from JSON differ from those that were serialized: \
         each field must deserialize to the same value",
    ))
}

/// Do two JSON texts say the same? Order does not count, because sets and maps have none of their
/// own.
fn says_the_same(one: &str, other: &str) -> bool {
    fn in_order(value: &mut Value) {
        match value {
            Value::Array(items) => {
                items.iter_mut().for_each(in_order);
                items.sort_by_cached_key(Value::to_string);
            }
            Value::Object(fields) => {
                let mut sorted: Vec<_> = std::mem::take(fields).into_iter().collect();
                sorted.iter_mut().for_each(|(_, value)| in_order(value));
                sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
                fields.extend(sorted);
            }
            _ => {}
        }
    }
    let read = |text| {
        let mut value = serde_json::from_str(text).ok()?;
        in_order(&mut value);
        Some(value)
    };
    one == other || read(one).is_some_and(|one| Some(one) == read(other))
}

impl<A> Clone for Durable<A> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            registered: Arc::clone(&self.registered),
            id: Arc::clone(&self.id),
            wait: self.wait,
            max_wait: self.max_wait,
            retry: self.retry,
            arguments: PhantomData,
        }
    }
}

impl<A> fmt::Debug for Durable<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable")
            .field("name", &self.registered.name)
            .field("id", &self.id)
            .field("wait", &self.wait)
            .field("max_wait", &self.max_wait)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
