//! The entry point: one `Locks` a process.

use std::{fmt, future::Future};

#[cfg(feature = "durable")]
use crate::DurableCalls;
use crate::{
    AlreadyInstalled, Debounce, Error, Listed, ListedDebounce, Lock, context::Context, default,
    listing,
};

/// The locks and debounces of one store: the entry point of this crate.
///
/// Make one per process and clone it: clones are the same. It owns the connection and the keeper,
/// which renews and releases; both live until the last clone, [`Lock`], [`Debounce`] and
/// [`LockGuard`](crate::LockGuard) is gone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::Locks;
///
/// let locks = Locks::in_memory(); // or Locks::connect("redis://127.0.0.1/").await?
/// let guard = locks.lock("invoice:7").acquire().await?;
/// // ... the lock is held, and renewed, until here
/// drop(guard);
/// locks.flush().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Locks(Context);

impl Locks {
    pub(crate) fn new(context: Context) -> Self {
        Self(context)
    }

    /// The lock of this id. Does nothing yet, and cannot fail: an id that is not allowed (empty, over
    /// 1 KiB, or beginning with `~`) is reported when the lock is acquired.
    pub fn lock(&self, id: impl Into<String>) -> Lock {
        Lock::new(&self.0, id.into().into())
    }

    /// The debounce of this id. Does nothing yet, and cannot fail, as [`lock`](Self::lock). A
    /// lock and a debounce of one id have nothing to do with each other.
    pub fn debounce(&self, id: impl Into<String>) -> Debounce {
        Debounce::new(&self.0, id.into().into())
    }

    /// Makes this the process's default, for the attributes.
    ///
    /// A process that was forked from one with a default has none yet.
    ///
    /// # Errors
    ///
    /// If there is one already; it stays.
    ///
    /// ```
    /// # fn main() -> Result<(), lock::AlreadyInstalled> {
    /// lock::Locks::in_memory().install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn install(&self) -> Result<(), AlreadyInstalled> {
        if default::install(&self.0) { Ok(()) } else { Err(AlreadyInstalled(())) }
    }

    /// Runs a future with this as its task's default, for the attributes; it wins over the
    /// process's. Tasks that the future spawns do not inherit it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use lock::{Locks, locked};
    ///
    /// #[locked(id = "invoice:{invoice_id}")]
    /// async fn charge(invoice_id: u64) -> Result<u64, lock::Error> {
    ///     Ok(invoice_id)
    /// }
    ///
    /// let charged = Locks::in_memory().scope(charge(7)).await;
    /// assert_eq!(charged.unwrap(), 7);
    /// # }
    /// ```
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        default::scope(self.0.clone(), future)
    }

    /// The `Locks` that the attributes would use here: that of the task's [`scope`](Self::scope), else
    /// the one that was [installed](Self::install), if there is one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use lock::Locks;
    ///
    /// assert!(Locks::current().is_none());
    /// Locks::in_memory()
    ///     .scope(async {
    ///         let locks = Locks::current().expect("this task has a scope");
    ///         // A task that is spawned does not inherit it.
    ///         tokio::spawn(locks.scope(async {})).await.unwrap();
    ///     })
    ///     .await;
    /// # }
    /// ```
    #[must_use]
    pub fn current() -> Option<Self> {
        default::current().map(Self)
    }

    /// Lists the locks that are held and whose ids begin with `prefix`, in the order of their ids; the
    /// empty prefix is all of this `Locks`, under its own prefix. At most `limit` of them: those that the
    /// store names first, in no order.
    ///
    /// For operators: the store looks at all of its keys, page by page (Redis: `SCAN`), which does not
    /// keep it from its other clients. Locks that are taken or released meanwhile may be in the list or
    /// not; in a Redis Cluster whose slots move, or that fails over, while this runs, also others may be
    /// missing. Where this `Locks` has an empty [prefix](crate::LocksBuilder::prefix), only locks of this
    /// library are listed: any other key of the database might be one.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store has no such listing; `Unavailable`, `Rejected` (the user may not
    /// `SCAN`), `Closed`.
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let _guard = locks.lock("invoice:7").acquire().await?;
    /// for lock in locks.list("invoice:", 100).await? {
    ///     println!("{} is held, and {} wait for it", lock.id, lock.waiters);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list(&self, prefix: &str, limit: usize) -> Result<Vec<Listed>, Error> {
        listing::locks(&self.0, prefix, limit).await
    }

    /// Lists the debounces whose ids begin with `prefix` and that have a call waiting, or a run; as
    /// [`list`](Self::list).
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// for debounce in locks.list_debounces("", 100).await? {
    ///     println!("{}: {:?}", debounce.id, debounce.status);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list_debounces(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<ListedDebounce>, Error> {
        listing::debounces(&self.0, prefix, limit).await
    }

    /// Lists the names of the functions that have durable calls, at most `limit` of them; as
    /// [`list`](Self::list).
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    #[cfg(feature = "durable")]
    pub async fn list_durable(&self, limit: usize) -> Result<Vec<String>, Error> {
        listing::functions(&self.0, limit).await
    }

    /// The durable calls of the function of this name, for operators: without its code. Does nothing
    /// yet; a name that is not allowed is reported by the first call.
    #[cfg(feature = "durable")]
    pub fn durable_calls(&self, name: impl Into<String>) -> DurableCalls {
        DurableCalls::new(&self.0, name.into())
    }

    /// Waits until every release that a drop has begun was answered, or given up after half a
    /// minute without an answer.
    ///
    /// A dropped guard is released in the background, and a process that exits right away may end
    /// before that. Call this before it exits. Guards that are alive are left alone.
    ///
    /// # Cancel safety
    ///
    /// Safe: the releases go on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// let locks = lock::Locks::in_memory();
    /// drop(locks.lock("report").acquire().await?);
    /// locks.flush().await; // the lock is free: the process may exit
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) {
        self.0.client().flush().await;
    }

    /// Releases every lock that is held, ends every wait, and stops the keeper.
    ///
    /// Guards that are alive count as lost. Callers that wait, and later calls, fail with kind
    /// `Closed`. It takes two seconds at most, if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is carried out even if the future is dropped.
    pub async fn shutdown(&self) {
        self.0.client().shutdown().await;
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks")
            .field("client", self.0.client())
            .field("prefix", self.0.prefix())
            .field("lease", &self.0.lease())
            .field("wait", &self.0.wait())
            .finish()
    }
}
