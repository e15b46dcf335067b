//! One lock: its id, its settings, and how it is acquired.

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use lock_core::{
    Token,
    engine::io::{Patience, Terms},
};

use crate::{
    Error, LockGuard, Status,
    context::Context,
    guarded::{OnLost, release_after, run_under},
    id::Named,
    keeper::{Client, Held},
    limits,
    observe::{self, Mode},
    reentrancy::{self, Reentry},
};

/// One lock of a [`Locks`](crate::Locks): an id, and how long to lease it, wait for it and hold it.
///
/// A `Lock` has no state: create it where it is used, keep it, or clone it. Invalid settings are
/// reported by the first call that uses them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use std::time::Duration;
/// use lock::Locks;
///
/// let locks = Locks::in_memory();
/// let lock = locks.lock("report").lease(Duration::from_secs(30)).wait(Duration::ZERO);
/// if let Some(guard) = lock.try_acquire().await? {
///     println!("writing with fencing token {}", guard.fencing_token());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a lock does nothing until it is acquired"]
pub struct Lock {
    context: Context,
    id: Arc<str>,
    lease: Duration,
    patience: Patience,
    hold_at_most: Option<Duration>,
    hold_at_least: Duration,
}

impl Lock {
    pub(crate) fn new(context: &Context, id: Arc<str>) -> Self {
        Self {
            lease: context.lease(),
            patience: Patience::For(context.wait()),
            context: context.clone(),
            id,
            hold_at_most: None,
            hold_at_least: Duration::ZERO,
        }
    }

    /// Sets how long the store keeps the lock after the last renewal. Default: 10 s.
    ///
    /// The lease is renewed every third of its length while the guard lives, so it does not bound
    /// the work. It bounds how long a crash keeps others out, and how long the store can be
    /// unreachable before the lock is lost. From 50 ms to 24 h, in whole milliseconds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use std::time::Duration;
    ///
    /// let guard = locks.lock("report").lease(Duration::from_secs(30)).acquire().await?;
    /// tokio::time::sleep(Duration::from_secs(3600)).await;
    /// assert!(guard.is_held(), "renewed all the time");
    /// # Ok(())
    /// # }
    /// ```
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how long [`acquire`](Self::acquire) waits for a lock that is held. Default: 10 s.
    ///
    /// Zero means one attempt, and [`Duration::MAX`] waits for ever. Waiters are served in order of
    /// arrival; those in different processes, in the order in which their requests reach the store.
    /// Replaces [`retry`](Self::retry).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use std::time::Duration;
    /// use lock::ErrorKind;
    ///
    /// let guard = locks.lock("report").acquire().await?;
    /// let impatient = locks.lock("report").wait(Duration::from_secs(2));
    /// assert_eq!(impatient.acquire().await.unwrap_err().kind(), ErrorKind::Busy);
    /// drop(guard);
    /// let _leader = locks.lock("report").wait(Duration::MAX).acquire().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(mut self, wait: Duration) -> Self {
        self.patience = Patience::For(wait);
        self
    }

    /// Makes `attempts` attempts, `delay` apart, instead of waiting in line.
    ///
    /// At least one attempt. There is no pause after the last one. @upstash/lock works in this way;
    /// its default is 3 attempts, 100 ms apart. Replaces [`wait`](Self::wait).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use std::time::Duration;
    ///
    /// let polling = locks.lock("report").retry(3, Duration::from_millis(100));
    /// let _guard = polling.acquire().await?;
    /// assert!(polling.acquire().await.is_err(), "tried three times");
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry(mut self, attempts: u32, delay: Duration) -> Self {
        self.patience = Patience::Attempts { attempts, delay };
        self
    }

    /// Gives up the lock this long after it was acquired. Default: no bound.
    ///
    /// Keeps a holder that hangs from blocking others. At least the lease.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use std::time::Duration;
    /// use lock::ErrorKind;
    ///
    /// let lock = locks.lock("report").hold_at_most(Duration::from_secs(60));
    /// let hung = lock.with(|_guard| std::future::pending::<()>()).await;
    /// assert_eq!(hung.unwrap_err().kind(), ErrorKind::Lost);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hold_at_most(mut self, limit: Duration) -> Self {
        self.hold_at_most = Some(limit);
        self
    }

    /// Keeps the lock held for at least this long after it was acquired, even if its guard releases
    /// it earlier. Default: zero.
    ///
    /// For work that should not be repeated too soon, such as a job that several machines start by
    /// their own clocks. It applies only to releases: after a crash, the lock is free when its
    /// lease ends. At most 24 h.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use std::time::Duration;
    ///
    /// let job = locks.lock("nightly").hold_at_least(Duration::from_secs(60));
    /// job.acquire().await?.release().await?;
    /// assert!(job.try_acquire().await?.is_none(), "done a moment ago");
    /// tokio::time::sleep(Duration::from_secs(61)).await;
    /// assert!(job.try_acquire().await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn hold_at_least(mut self, time: Duration) -> Self {
        self.hold_at_least = time;
        self
    }

    /// Waits for the lock and acquires it.
    ///
    /// # Errors
    ///
    /// - `Busy` if the lock stayed held for all of [`wait`](Self::wait), or at every attempt.
    /// - `Deadlock`, immediately, if the caller already runs under this lock (in the body of
    ///   `#[locked]`, of [`with`](Self::with) or of a debounced run) and would wait for itself.
    /// - `Unavailable` if the store did not answer for two seconds.
    /// - `Rejected` if the store refused, for example because the key has another type or the
    ///   server's memory is full.
    /// - `Invalid` for an id or a setting that is not allowed.
    /// - `Closed` after [`Locks::shutdown`](crate::Locks::shutdown).
    ///
    /// # Cancel safety
    ///
    /// Safe. If the future is dropped, its place in line is given up immediately, and a lock that
    /// was granted, or may have been granted, is released in the background.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use lock::{ErrorKind, Locks};
    ///
    /// let locks = Locks::in_memory();
    /// match locks.lock("report").acquire().await {
    ///     Ok(guard) => println!("held for {:?} at least", guard.remaining()),
    ///     Err(error) if error.kind() == ErrorKind::Busy => println!("{error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn acquire(
        &self,
    ) -> impl Future<Output = Result<LockGuard, Error>> + Send + 'static + use<> {
        // The future owns what it needs, so it can be spawned, and outlive a `Lock` that was made
        // for this one call.
        let request = self.request();
        async move {
            let request = request?;
            if request.waits() && request.outer().is_some() {
                return Err(request.deadlock());
            }
            let Request { lock, terms, patience, client } = request;
            client.acquire(lock, (terms, patience), None).await.map(LockGuard::new)
        }
    }

    /// Acquires the lock if it is free: makes one attempt, and returns `None` if somebody holds it.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire), but never `Busy` or `Deadlock`.
    ///
    /// # Cancel safety
    ///
    /// Safe, like [`acquire`](Self::acquire).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let guard = locks.lock("report").acquire().await?;
    /// assert!(locks.lock("report").try_acquire().await?.is_none());
    /// # drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_acquire(
        &self,
    ) -> impl Future<Output = Result<Option<LockGuard>, Error>> + Send + 'static + use<> {
        let acquire = self.clone().wait(Duration::ZERO).acquire();
        async move {
            match acquire.await {
                Ok(guard) => Ok(Some(guard)),
                Err(error) if error.kind() == crate::ErrorKind::Busy => Ok(None),
                Err(error) => Err(error),
            }
        }
    }

    /// Acquires the lock, runs the body under it, and releases it.
    ///
    /// When the lock is lost, the body is dropped at its next `.await`. The body can use its guard
    /// to read the fencing token or to extend the lease. The lock is released when the body ends
    /// or, if the body gave away a clone of the guard, when the last clone is dropped. The output
    /// of the body is returned even if the release fails. If the body returns a `Result`, the call
    /// returns one inside the other: `.await??`.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire), and `Lost` if the body was dropped.
    ///
    /// # Cancel safety
    ///
    /// The body is dropped with the future, and the lock is released in the background.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let written = locks
    ///     .lock("report")
    ///     .with(|guard| async move { format!("written with token {}", guard.fencing_token()) })
    ///     .await?;
    /// # assert!(written.starts_with("written"));
    ///
    /// // A body that can fail: the first `?` is for the lock, the second for the body.
    /// # async fn save() -> Result<(), lock::Error> { Ok(()) }
    /// locks.lock("report").with(|_guard| save()).await??;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with<F, Fut, T>(
        &self,
        body: F,
    ) -> impl Future<Output = Result<T, Error>> + use<F, Fut, T>
    where
        F: FnOnce(Arc<LockGuard>) -> Fut,
        Fut: Future<Output = T>,
    {
        let acquire = self.acquire();
        async move {
            let guard = Arc::new(acquire.await?);
            let outcome = {
                let body = pin!(body(Arc::clone(&guard)));
                run_under(&guard, OnLost::Stop, body).await
            };
            release_after(guard).await;
            outcome
        }
    }

    /// Returns the lock's key in the store: the prefix and the id.
    ///
    /// For tools that look at the store directly, and for `FaultyStore::steal` of `test_util`. The
    /// id is not checked.
    ///
    /// ```
    /// let locks = lock::Locks::in_memory();
    /// assert_eq!(locks.lock("invoice:7").key(), "lock:invoice:7");
    /// ```
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}{}", self.context.prefix().as_str(), self.id)
    }

    /// Asks the store who holds the lock, whichever process the holder is in.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store has no [`AdminStore`](crate::store::AdminStore); `Unavailable`,
    /// `Rejected`, `Invalid`, `Closed`, as for [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use lock::Status;
    ///
    /// let guard = locks.lock("report").acquire().await?;
    /// assert!(matches!(locks.lock("report").status().await?, Status::Held { by_us: true, .. }));
    /// guard.release().await?;
    /// assert_eq!(locks.lock("report").status().await?, Status::Free);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status(&self) -> Result<Status, Error> {
        let (lock, client) = (self.named()?, self.context.client());
        let holder = client.holder(lock.key).await.map_err(|error| error.on(&lock.id))?;
        Ok(Status::of(holder, client).await)
    }

    /// Takes the lock away from its holder; returns false if nobody held it.
    ///
    /// For an operator who has decided that the holder must lose the lock. Use it instead of a
    /// `DEL` of the key, which notifies neither the holder nor the waiters. The holder is notified
    /// immediately, or at its next renewal if the notice is lost. Until then, only a [fencing
    /// token](LockGuard::fencing_token) stops its writes. The lock passes to the first waiter.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store has no [`AdminStore`](crate::store::AdminStore); `Unavailable`,
    /// `Rejected`, `Invalid`, `Closed`, as for [`acquire`](Self::acquire). A key of another type is
    /// `Rejected`, not deleted.
    ///
    /// # Cancel safety
    ///
    /// The lock may or may not be freed if the future is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let guard = locks.lock("report").acquire().await?;
    /// assert!(locks.lock("report").force_release().await?);
    /// assert!(!guard.is_held());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn force_release(&self) -> Result<bool, Error> {
        self.context.client().force_release(self.named()?, None).await
    }

    /// Frees the lock if this token, such as one from [`status`](Self::status), still holds it;
    /// returns false if it does not.
    ///
    /// Unlike [`force_release`](Self::force_release), this does not free the lock if another holder
    /// has acquired it since the operator looked.
    ///
    /// # Errors
    ///
    /// As for [`force_release`](Self::force_release).
    ///
    /// # Cancel safety
    ///
    /// The lock may or may not be freed if the future is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use lock::Status;
    /// # let locks = lock::Locks::in_memory();
    /// # let _guard = locks.lock("report").acquire().await?;
    /// let report = locks.lock("report");
    /// if let Status::Held { holders, .. } = report.status().await? {
    ///     // ... an operator looks at the holder, and decides
    ///     assert!(report.force_release_holder(&holders[0].token).await?);
    ///     assert!(!report.force_release_holder(&holders[0].token).await?, "no longer held");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn force_release_holder(&self, holder: &Token) -> Result<bool, Error> {
        self.context.client().force_release(self.named()?, Some(holder.clone())).await
    }

    /// Takes over a lock that was [leaked](LockGuard::leak), perhaps by another process.
    ///
    /// The guard is a new grant: its lease begins now, and its fencing token is larger than the
    /// previous one.
    ///
    /// # Errors
    ///
    /// `Lost` if this token no longer holds the lock; otherwise as for [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lock is released if it was already adopted; otherwise it
    /// expires with its lease.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// use lock::Token;
    ///
    /// let token = locks.lock("report").acquire().await?.leak();
    /// // ... sent to another process as text, within the lease
    /// let token = Token::from(token.as_str().to_owned());
    /// let guard = locks.lock("report").adopt(token).await?;
    /// assert!(guard.is_held());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn adopt(&self, token: Token) -> Result<LockGuard, Error> {
        let (lock, terms) = self.checked()?;
        let once = Patience::For(Duration::ZERO);
        self.context.client().acquire(lock, (terms, once), Some(token)).await.map(LockGuard::new)
    }

    fn named(&self) -> Result<Named, Error> {
        self.context.prefix().lock(&self.id)
    }

    /// The request to the keeper, which owns all it needs.
    pub(crate) fn request(&self) -> Result<Request, Error> {
        let (lock, terms) = self.checked()?;
        let client = Arc::clone(self.context.client());
        Ok(Request { lock, terms, patience: self.patience, client })
    }

    /// The lock and its terms, if the id and the settings are allowed.
    fn checked(&self) -> Result<(Named, Terms), Error> {
        let refused = |error: Error| {
            let error = error.on(&self.id);
            observe::refused_at_once(&self.id, Mode::Exclusive, &error);
            error
        };
        let lock = self.named().map_err(refused)?;
        let terms = self.terms().map_err(refused)?;
        Ok((lock, terms))
    }

    fn terms(&self) -> Result<Terms, Error> {
        let lease = limits::lease(self.lease)?;
        if let Some(limit) = self.hold_at_most.filter(|limit| *limit < lease) {
            return Err(Error::invalid(format!(
                "`hold_at_most` of {limit:?} is shorter than the lease of {lease:?}: raise it, or \
                 shorten the lease"
            )));
        }
        if self.hold_at_least > limits::LONGEST_LEASE {
            return Err(Error::invalid(format!(
                "`hold_at_least` of {:?} is too long: choose at most {:?}",
                self.hold_at_least,
                limits::LONGEST_LEASE
            )));
        }
        if let Patience::Attempts { attempts: 0, .. } = self.patience {
            return Err(Error::invalid("`retry` needs at least one attempt"));
        }
        Ok(Terms { lease, hold_at_most: self.hold_at_most, hold_at_least: self.hold_at_least })
    }
}

/// A lock that is about to be acquired; its id and settings have been checked.
pub(crate) struct Request {
    lock: Named,
    terms: Terms,
    patience: Patience,
    client: Arc<Client>,
}

impl Request {
    pub(crate) fn key(&self) -> &str {
        &self.lock.key
    }

    /// Does the caller wait if somebody holds the lock?
    fn waits(&self) -> bool {
        match self.patience {
            Patience::For(wait) => !wait.is_zero(),
            Patience::Attempts { attempts, .. } => attempts > 1,
        }
    }

    /// A second guard of the lock, if the caller already runs under it.
    pub(crate) fn outer(&self) -> Option<LockGuard> {
        let hold = reentrancy::held(&self.client, &self.lock.key)?;
        Some(LockGuard::new(Held::alias(hold, Arc::clone(&self.client))))
    }

    /// A second guard of the lock, if `guard` is a guard of the same lock.
    pub(crate) fn same_as(&self, guard: &LockGuard) -> Option<LockGuard> {
        let hold = guard.hold();
        let same = *hold.lock.key == *self.lock.key && self.client.made(hold);
        same.then(|| LockGuard::new(Held::alias(Arc::clone(hold), Arc::clone(&self.client))))
    }

    pub(crate) fn deadlock(&self) -> Error {
        let error = Error::deadlock().on(&self.lock.id);
        observe::refused_at_once(&self.lock.id, Mode::Exclusive, &error);
        error
    }

    /// Returns the outer guard that the caller runs under, if there is one; refuses it where
    /// reentry is not allowed.
    pub(crate) fn enter(
        &self,
        outer: Option<LockGuard>,
        reentry: Reentry,
    ) -> Result<Option<LockGuard>, Error> {
        match reentry {
            Reentry::Refused if outer.is_some() => Err(self.deadlock()),
            _ => Ok(outer),
        }
    }

    pub(crate) async fn acquire(self) -> Result<LockGuard, Error> {
        let Self { lock, terms, patience, client } = self;
        client.acquire(lock, (terms, patience), None).await.map(LockGuard::new)
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("id", &self.id)
            .field("lease", &self.lease)
            .field("patience", &self.patience)
            .field("hold_at_most", &self.hold_at_most)
            .field("hold_at_least", &self.hold_at_least)
            .finish_non_exhaustive()
    }
}
