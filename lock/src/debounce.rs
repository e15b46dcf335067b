//! Debounce: a burst of calls, one run.

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use crate::{
    Error, LockGuard, Locks, limits,
    private::{OnLost, run_under},
};

/// The longest `wait`: as for leases.
const LONGEST_WAIT: Duration = limits::LONGEST_LEASE;

/// Turns a burst of calls of one id, from any number of processes, into one run.
///
/// The last call of a burst runs, `wait` after it reached the store, by the store's clock
/// (trailing edge). The others learn that a newer one took their place. Like
/// [`Lock`](crate::Lock) it has no state of its own.
///
/// A run holds a lock of its own, so two runs of one id never overlap; a call that is made during
/// a run opens the next window. If the process of the last call dies, an earlier call of another
/// process that is still waiting runs in its place, a second later. If there is none, or the last
/// call's future is dropped, the burst is not run.
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
    locks: Locks,
    id: Arc<str>,
    wait: Duration,
    max_wait: Option<Duration>,
}

impl Debounce {
    pub(crate) fn new(locks: &Locks, id: Arc<str>) -> Self {
        Self { locks: locks.clone(), id, wait: Duration::from_secs(1), max_wait: None }
    }

    /// How long after the last call of a burst it is run. Default: 1 s. From 1 ms to 24 h.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// A burst is run at the latest so long after its first call, even if calls go on coming.
    /// Default: no bound. At least `wait`, at most 24 h.
    pub fn max_wait(mut self, limit: Duration) -> Self {
        self.max_wait = Some(limit);
        self
    }

    /// Runs the first call of a burst at once, too. Default: no.
    pub fn leading(self, leading: bool) -> Self {
        let _ = leading;
        self
    }

    /// Runs the body once its burst is over, if no newer call has taken its place by then.
    ///
    /// `Some` of what the body returned if this call ran; `None` if a newer one took its place.
    /// The body runs in the caller's task, under a lock whose lease is that of the [`Locks`]; it
    /// is dropped if that lock is lost.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the store did not answer for two seconds; `Rejected`, `Invalid`, `Closed`
    /// as [`Lock::acquire`](crate::Lock::acquire); `Lost` if the body was dropped because the
    /// lock of the run was lost.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the call, and stops its run if it had begun. Nothing is left
    /// behind; a burst whose last call is withdrawn is not run, unless a call of another process
    /// still waits.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # use std::time::Duration;
    /// # let locks = lock::Locks::in_memory();
    /// let save = locks.debounce("save:7").wait(Duration::from_millis(10));
    /// match save.call(|| async { "saved" }).await? {
    ///     Some(outcome) => println!("this call ran: {outcome}"),
    ///     None => println!("a newer call took its place"),
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
        // As for a lock: the future owns what it needs.
        let debounce = self.clone();
        async move {
            let Some(guard) = debounce.claim().await? else { return Ok(None) };
            let outcome = {
                let body = pin!(body());
                run_under(&guard, OnLost::Stop, body).await
            };
            // The run's result stands, whether or not the release could be confirmed.
            let _ = guard.release().await;
            outcome.map(Some)
        }
    }

    /// The guard of the run, once this call has its turn; `None` if a newer one took its place.
    async fn claim(&self) -> Result<Option<LockGuard>, Error> {
        let keys = self.locks.prefix().debounce(&self.id)?;
        self.check().map_err(|error| error.on(&self.id))?;
        let lease = limits::lease(self.locks.default_lease())?;
        let wait = limits::whole_millis(self.wait);
        let max_wait = self.max_wait.map(limits::whole_millis);
        self.locks.client().call(keys, wait, max_wait, lease).await
    }

    fn check(&self) -> Result<(), Error> {
        let possible = Duration::from_millis(1)..=LONGEST_WAIT;
        if !possible.contains(&self.wait) {
            return Err(Error::invalid(format!(
                "a debounce cannot wait {:?}: choose from 1ms to {LONGEST_WAIT:?}",
                self.wait
            )));
        }
        match self.max_wait {
            Some(limit) if limit < self.wait || limit > LONGEST_WAIT => {
                Err(Error::invalid(format!(
                    "`max_wait` of {limit:?} must be at least `wait` ({:?}) and at most {LONGEST_WAIT:?}",
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
            .finish_non_exhaustive()
    }
}
