//! Debounce: turns a burst of calls into one run.

mod status;

use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{self, Poll, Waker},
    time::Duration,
};

use lock_core::{
    contract::WindowEnd,
    engine::io::{Terms, WindowTerms},
};
use tokio::{runtime::Handle, task::JoinHandle};

pub use self::status::DebounceStatus;
pub(crate) use self::status::status;

use crate::{
    Error, ErrorKind, LockGuard,
    context::Context,
    default,
    error::Subject,
    guarded::{OnLost, release_after, run_under},
    id::Named,
    limits::{self, LONGEST_LEASE},
    observe::{self, Mode},
    reentrancy,
};

/// Turns a burst of calls with one id, from any number of processes, into one run.
///
/// The last call of a burst runs `wait` after it reached the store, by the store's clock (trailing
/// edge). The other calls wait until it runs, and then return: it runs in their place. Like
/// [`Lock`](crate::Lock), a debounce has no state of its own.
///
/// A run holds a lock of its own, so two runs of one id never overlap. A call that is made during a
/// run opens the next window.
///
/// # Callers that go away
///
/// If the future of the last call is dropped (for example, because an HTTP client hangs up), or its
/// process dies, another call that still waits runs in its place, with its own body: the newest one
/// of its process. If no other call waits, the burst is not run.
///
/// A call that is dropped before the store knows of it leaves no trace. If the store knows of the
/// last call, dropping it delays the burst: a waiting call of another process runs one second after
/// the burst was due; if there is none, an older call of the same process runs a quarter of a
/// second after that.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// use std::time::Duration;
/// use lock::Locks;
///
/// let locks = Locks::in_memory();
/// let reindex = locks.debounce("reindex:7").wait(Duration::from_millis(200));
/// let (first, last) = tokio::join!(
///     reindex.call(|| async { "first" }),
///     reindex.call(|| async { "last" }),
/// );
/// assert_eq!((first?, last?), (None, Some("last")));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a debounce does nothing until it is called"]
pub struct Debounce {
    context: Context,
    id: Arc<str>,
    wait: Duration,
    max_wait: Option<Duration>,
    leading: bool,
    hold_at_most: Option<Duration>,
}

impl Debounce {
    pub(crate) fn new(context: &Context, id: Arc<str>) -> Self {
        Self {
            context: context.clone(),
            id,
            wait: Duration::from_secs(1),
            max_wait: None,
            leading: false,
            hold_at_most: None,
        }
    }

    /// Sets how long after its last call a burst runs. Default: 1 s. From 1 ms to 24 h.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use std::time::Duration;
    ///
    /// let save = locks.debounce("save:7").wait(Duration::from_secs(5));
    /// let called = tokio::time::Instant::now();
    /// assert_eq!(save.call(|| async { "saved" }).await?, Some("saved"));
    /// assert!(called.elapsed() >= Duration::from_secs(5));
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets the longest time from the first call of a burst to its run, even if calls keep coming.
    /// Default: no bound. At least `wait`, at most 24 h.
    ///
    /// While calls keep coming, each run is at most this long after the previous run.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use std::time::Duration;
    /// use tokio::time::{Instant, sleep};
    ///
    /// let save = locks.debounce("save:7").wait(Duration::from_secs(2));
    /// let save = save.max_wait(Duration::from_secs(10));
    /// let (began, mut calls) = (Instant::now(), Vec::new());
    /// for _ in 0..30 {
    ///     calls.push(save.spawn(|| async { Instant::now() }));
    ///     sleep(Duration::from_secs(1)).await; // never the two seconds that end a burst
    /// }
    /// let mut runs = Vec::new();
    /// for call in calls {
    ///     runs.extend(call.await.unwrap()?);
    /// }
    /// assert!(runs[0] - began < Duration::from_secs(11));
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_wait(mut self, limit: Duration) -> Self {
        self.max_wait = Some(limit);
        self
    }

    /// Sets whether the first call of a burst runs immediately. If other calls follow, the last one
    /// also runs. Default: false; only the last call runs.
    ///
    /// A call is the first of a burst if the call before it was made at least `wait` earlier.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let save = locks.debounce("save:7").leading(true);
    /// let began = tokio::time::Instant::now();
    /// assert_eq!(save.call(|| async { "saved" }).await?, Some("saved"));
    /// assert!(began.elapsed().as_millis() < 100, "without waiting");
    /// # Ok(())
    /// # }
    /// ```
    pub fn leading(mut self, leading: bool) -> Self {
        self.leading = leading;
        self
    }

    /// Stops a run that takes longer than this, at its next `.await`. Its caller gets `Lost`, and
    /// its id is free for the next run. Default: no bound.
    ///
    /// Keeps a run that hangs from blocking its id for ever. At least the lease of the
    /// [`Locks`](crate::Locks).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use std::time::Duration;
    /// use lock::ErrorKind;
    ///
    /// # let locks = lock::Locks::in_memory();
    /// let save = locks.debounce("save:7").hold_at_most(Duration::from_secs(60));
    /// let error = save.call(|| std::future::pending::<()>()).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Lost);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hold_at_most(mut self, limit: Duration) -> Self {
        self.hold_at_most = Some(limit);
        self
    }

    /// Runs the body once its burst is over, unless a newer call runs in its place.
    ///
    /// The body runs in the caller's task, under a lock whose lease is that of the
    /// [`Locks`](crate::Locks). The body is dropped if that lock is lost.
    ///
    /// Returns `Some` with the output of the body if this call ran, and `None` if another call runs
    /// in its place or if the burst was [cancelled](Self::cancel).
    ///
    /// When `None` means that another call runs: if that call is in this process, its run has
    /// begun; if it is in another process, it has been granted the run. Whether that run completes
    /// is not known: it may fail, be stopped with its caller, or die with its process, even at the
    /// moment of the grant. In that case, durable calls (feature `durable`) are run again, and
    /// others are not.
    ///
    /// # Errors
    ///
    /// - `Unsupported` if the store does not support debounced calls.
    /// - `Unavailable` if the store did not answer for two seconds.
    /// - `Rejected`, `Invalid`, `Closed` as for [`Lock::acquire`](crate::Lock::acquire).
    /// - `Deadlock` if the caller is itself a run of the same id.
    /// - `Lost` if the lock of the run was lost: the body was dropped, or never began. If it never
    ///   began, the calls that the run would have covered also fail with `Lost`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the call, and stops its run if it has begun. Nothing is left
    /// behind. Another call that still waits in the burst runs in its place: see [Callers that go
    /// away](Debounce#callers-that-go-away).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # use std::time::Duration;
    /// # let locks = lock::Locks::in_memory();
    /// let save = locks.debounce("save:7").wait(Duration::from_millis(10));
    /// match save.call(|| async { "saved" }).await? {
    ///     Some(outcome) => println!("this call ran: {outcome}"),
    ///     None => println!("a newer call runs in its place"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn call<F, Fut, T>(
        &self,
        body: F,
    ) -> impl Future<Output = Result<Option<T>, Error>> + use<F, Fut, T>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = T>,
    {
        self.call_with(|_| body())
    }

    /// Runs the body like [`call`](Self::call), and passes it the guard of its run.
    ///
    /// The guard's [fencing token](LockGuard::fencing_token) is the generation of the run, which is
    /// larger than that of every earlier run. Send it with effects that an older run must not
    /// overwrite.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call).
    ///
    /// # Cancel safety
    ///
    /// As for [`call`](Self::call).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let index = locks.debounce("index:7");
    /// let first = index.call_with(|run| async move { run.fencing_token() }).await?;
    /// let second = index.call_with(|run| async move { run.fencing_token() }).await?;
    /// assert!(second > first);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call_with<F, Fut, T>(
        &self,
        body: F,
    ) -> impl Future<Output = Result<Option<T>, Error>> + use<F, Fut, T>
    where
        F: FnOnce(Arc<LockGuard>) -> Fut,
        Fut: Future<Output = T>,
    {
        // As in `Lock::acquire`, the future owns what it needs.
        let debounce = self.clone();
        async move {
            let Some(guard) = debounce.claim().await? else { return Ok(None) };
            let guard = Arc::new(guard);
            let outcome = {
                let body = pin!(body(Arc::clone(&guard)));
                run_under(&guard, OnLost::Stop, body).await
            };
            release_after(guard).await;
            outcome.map(Some)
        }
    }

    /// Makes the call in a separate task, which continues if the caller is dropped.
    ///
    /// For callers that may be dropped, such as the handler of an HTTP request whose client hangs
    /// up: the call stays in its burst, and runs if it is the last one. The call is made before
    /// `spawn` returns, so calls count in the order in which they were made. The task is spawned on
    /// the current Tokio runtime, and runs in the current [scope](crate::Locks::scope) and tracing
    /// span.
    ///
    /// The handle resolves to what [`call`](Self::call) would have returned, with the same errors.
    /// Dropping the handle changes nothing; [`abort`](JoinHandle::abort) withdraws the call, and
    /// stops its run if it has begun. If the body panics, the handle resolves to a
    /// [`JoinError`](tokio::task::JoinError) with the panic.
    ///
    /// # Panics
    ///
    /// Panics if called outside of a Tokio runtime, as `tokio::spawn` does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let run = locks.debounce("save:7").spawn(|| async { "saved" });
    /// // ... answer the request; the call does not need this handle
    /// assert_eq!(run.await.unwrap()?, Some("saved"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn<F, Fut, T>(&self, body: F) -> JoinHandle<Result<Option<T>, Error>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let runtime = Handle::current();
        let begun = self.begin(self.context.prefix().debounce(&self.id));
        default::spawn_on(&runtime, async move {
            let Some(guard) = begun.await? else { return Ok(None) };
            let outcome = {
                let body = pin!(body());
                run_under(&guard, OnLost::Stop, body).await
            };
            release_after(Arc::new(guard)).await;
            outcome.map(Some)
        })
    }

    /// Registers a function whose calls are kept in the store, so that they are run even if this
    /// process dies: see [`Durable`](crate::Durable). Arguments are stored as JSON, through serde.
    ///
    /// The handler runs due calls in this process, on the current Tokio runtime, for as long as
    /// this `Locks` is in use: register it in each process that should run calls. Other processes
    /// know the function only by its name, so a name must mean the same function everywhere. While
    /// a new version is rolled out, old and new processes must be able to read each other's
    /// arguments. The first handler of a name stays until [`shutdown`](crate::Locks::shutdown),
    /// even if the same function is registered again. A handler that contains a `Locks` keeps it
    /// alive until then.
    ///
    /// A run that takes longer than [`hold_at_most`](Self::hold_at_most) counts as failed, like a
    /// run that returns an error. That bound belongs to the function, not to a call: every
    /// registration of the name must give the same bound.
    ///
    /// # Errors
    ///
    /// - `Invalid` for a name that is not allowed (as for an id), or that is already registered
    ///   with other arguments, another handler or another `hold_at_most`; for times that are not
    ///   allowed; with [`leading`](Self::leading), because a durable call runs when its burst is
    ///   over; outside of a Tokio runtime, or on a runtime without timers.
    /// - `Unsupported` if the store does not support durable calls.
    /// - `Closed` after [`Locks::shutdown`](crate::Locks::shutdown).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let (sent, mut outbox) = tokio::sync::mpsc::unbounded_channel();
    /// let mail = locks.debounce("mail").durable("mail", move |to: String, _run| {
    ///     let sent = sent.clone();
    ///     async move { sent.send(to) } // an error is a failure, and the call is tried again
    /// })?;
    /// mail.id("mail:7").call(&"ann@example.org".to_owned()).await?;
    /// assert_eq!(outbox.recv().await.as_deref(), Some("ann@example.org"));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "durable")]
    pub fn durable<A, F, Fut>(
        &self,
        name: impl AsRef<str>,
        handler: F,
    ) -> Result<crate::Durable<A>, Error>
    where
        A: serde::de::DeserializeOwned + 'static,
        F: Fn(A, crate::DurableRun) -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: crate::DurableOutput,
    {
        self.check().map_err(|error| error.about(Subject::Debounce, &self.id))?;
        if self.leading {
            let message = "a durable call runs when its burst is over: leave `leading` out";
            return Err(Error::invalid(message).about(Subject::Debounce, &self.id));
        }
        let wait = limits::whole_millis(self.wait);
        let terms = (Arc::clone(&self.id), wait, self.max_wait.map(limits::whole_millis));
        crate::Durable::register(&self.context, terms, self.hold_at_most, name.as_ref(), handler)
    }

    /// Makes the burst of this id due now, whichever process its newest call is in; returns false
    /// if no call waits.
    ///
    /// This returns when the burst is due, not when it has run: only the call that runs knows when
    /// it has run.
    ///
    /// # Errors
    ///
    /// `Unsupported`, `Unavailable`, `Rejected`, `Invalid`, `Closed`, as for [`call`](Self::call).
    ///
    /// # Cancel safety
    ///
    /// The burst may or may not be made due if the future is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # use std::time::Duration;
    /// # let locks = lock::Locks::in_memory();
    /// let save = locks.debounce("save:7").wait(Duration::from_secs(3600));
    /// let call = tokio::spawn(save.call(|| async { "saved" }));
    /// # tokio::task::yield_now().await;
    /// assert!(save.flush().await?);
    /// assert_eq!(call.await.unwrap()?, Some("saved"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) -> Result<bool, Error> {
        let keys = self.context.prefix().debounce(&self.id)?;
        self.context.client().end_window(keys, WindowEnd::Flush).await
    }

    /// Cancels the burst of this id: its calls return `None`, and none of them runs. Returns false
    /// if no call waits. A run that has begun is not affected.
    ///
    /// # Errors
    ///
    /// `Unsupported`, `Unavailable`, `Rejected`, `Invalid`, `Closed`, as for [`call`](Self::call).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the calls of this process are cancelled; those of other processes
    /// may or may not be.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let save = locks.debounce("save:7");
    /// let call = tokio::spawn(save.call(|| async { "saved" }));
    /// # tokio::task::yield_now().await;
    /// assert!(save.cancel().await?);
    /// assert_eq!(call.await.unwrap()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn cancel(&self) -> Result<bool, Error> {
        let keys = self.context.prefix().debounce(&self.id)?;
        self.context.client().end_window(keys, WindowEnd::Cancel).await
    }

    /// Ends the current run of this id, whichever process it is in; returns false if there is none.
    ///
    /// For an operator, to end a run that hangs. Its process is notified, and drops the body at its
    /// next `.await`; the next run may begin immediately. Waiting calls are not affected: see
    /// [`cancel`](Self::cancel). To bound every run, use [`hold_at_most`](Self::hold_at_most).
    ///
    /// # Errors
    ///
    /// `Unsupported`, `Unavailable`, `Rejected`, `Invalid`, `Closed`, as for [`call`](Self::call).
    ///
    /// # Cancel safety
    ///
    /// The run may or may not be ended if the future is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let save = locks.debounce("save:7").leading(true);
    /// let hangs = tokio::spawn(save.call(|| std::future::pending::<()>()));
    /// # tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    /// assert!(save.end_run().await?);
    /// assert_eq!(hangs.await.unwrap().unwrap_err().kind(), lock::ErrorKind::Lost);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn end_run(&self) -> Result<bool, Error> {
        let (_, run) = self.context.prefix().debounce(&self.id)?;
        self.context.client().force_release(run, None).await
    }

    /// The guard of the run, once it is the turn of this call; `None` if another call runs in its
    /// place.
    pub(crate) async fn claim(&self) -> Result<Option<LockGuard>, Error> {
        let keys = self.keys_outside_of_own_run()?;
        self.claim_with(keys).await
    }

    /// Like [`claim`](Self::claim), for a call that a task of its own waits for. The call is made
    /// here; the task only waits.
    pub(crate) fn begin(
        &self,
        keys: Result<(Named, Named), Error>,
    ) -> impl Future<Output = Result<Option<LockGuard>, Error>> + Send + 'static + use<> {
        let debounce = self.clone();
        let mut claim = Box::pin(async move { debounce.claim_with(keys?).await });
        // The first poll sends the call; the next one, by the task, registers the waker that
        // counts.
        let answer = match claim.as_mut().poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        };
        async move {
            match answer {
                Some(answer) => answer,
                None => claim.await,
            }
        }
    }

    /// The keys of the window and of the run. A run that waits for its own debounce would wait for
    /// its own end, and is refused.
    pub(crate) fn keys_outside_of_own_run(&self) -> Result<(Named, Named), Error> {
        let keys = self.context.prefix().debounce(&self.id);
        let keys =
            keys.inspect_err(|error| observe::refused_at_once(&self.id, Mode::Run, error))?;
        if reentrancy::held(self.context.client(), &keys.1.key).is_none() {
            return Ok(keys);
        }
        let message = "a run that waits for another run of its own id would wait for its own end: \
                       make the call after the run, or use `spawn` and do not wait for it";
        let error = Error::new(ErrorKind::Deadlock, message).about(Subject::Debounce, &self.id);
        observe::refused_at_once(&self.id, Mode::Run, &error);
        Err(error)
    }

    async fn claim_with(&self, keys: (Named, Named)) -> Result<Option<LockGuard>, Error> {
        let checked = self.check().map_err(|error| error.about(Subject::Debounce, &self.id));
        checked.inspect_err(|error| observe::refused_at_once(&self.id, Mode::Run, error))?;
        let terms = Terms::of_run(limits::lease(self.context.lease())?, self.hold_at_most);
        let window_terms = WindowTerms {
            wait: limits::whole_millis(self.wait),
            max_wait: self.max_wait.map(limits::whole_millis),
            leading: self.leading,
        };
        let held = self.context.client().call(keys, (window_terms, terms)).await?;
        Ok(held.map(LockGuard::new))
    }

    fn check(&self) -> Result<(), Error> {
        let possible = Duration::from_millis(1)..=LONGEST_LEASE;
        if !possible.contains(&self.wait) {
            return Err(Error::invalid(format!(
                "a debounce cannot have a `wait` of {:?}: choose from 1ms to {LONGEST_LEASE:?}",
                self.wait
            )));
        }
        let lease = self.context.lease();
        if let Some(limit) = self.hold_at_most.filter(|limit| *limit < lease) {
            return Err(Error::invalid(format!(
                "`hold_at_most` of {limit:?} is shorter than the lease of {lease:?}: raise it, or \
                 shorten the lease of this `Locks`"
            )));
        }
        match self.max_wait {
            Some(limit) if limit < self.wait || limit > LONGEST_LEASE => {
                Err(Error::invalid(format!(
                    "`max_wait` of {limit:?} must be at least `wait` ({:?}) and at most {LONGEST_LEASE:?}",
                    self.wait
                )))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Debounce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debounce")
            .field("id", &self.id)
            .field("wait", &self.wait)
            .field("max_wait", &self.max_wait)
            .field("leading", &self.leading)
            .field("hold_at_most", &self.hold_at_most)
            .finish_non_exhaustive()
    }
}
