//! The entry point: one `Locks` per process.

use std::{fmt, future::Future};

#[cfg(feature = "durable")]
use crate::DurableCalls;
use crate::{
    AlreadyInstalled, Debounce, Error, Listed, ListedDebounce, Lock, context::Context, default,
    listing,
};

/// The locks and debounces of one store: the entry point of this crate.
///
/// Create one per process and clone it: clones share the connection and the keeper, which renews
/// and releases the locks in the background. Both live until the last clone, [`Lock`], [`Debounce`]
/// and [`LockGuard`](crate::LockGuard) is dropped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::Locks;
///
/// let locks = Locks::in_memory(); // or Locks::connect("redis://127.0.0.1/").await?
/// let guard = locks.lock("invoice:7").acquire().await?;
/// // ... the lock is held, and its lease renewed, until here
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

    /// Returns the lock with this id, without asking the store.
    ///
    /// This cannot fail: an id that is not allowed (empty, over 1 KiB, or beginning with `~`) is
    /// reported when the lock is acquired.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let _seven = locks.lock("invoice:7").acquire().await?;
    /// assert!(locks.lock("invoice:7").try_acquire().await?.is_none());
    /// assert!(locks.lock("invoice:8").try_acquire().await?.is_some(), "another id, another lock");
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock(&self, id: impl Into<String>) -> Lock {
        Lock::new(&self.0, id.into().into())
    }

    /// Returns the debounce with this id, without asking the store.
    ///
    /// Like [`lock`](Self::lock), this cannot fail. A lock and a debounce with the same id do not
    /// affect each other.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let _guard = locks.lock("document:7").acquire().await?;
    /// let ran = locks.debounce("document:7").call(|| async { "indexed" }).await?;
    /// assert_eq!(ran, Some("indexed"), "it did not wait for the lock");
    /// # Ok(())
    /// # }
    /// ```
    pub fn debounce(&self, id: impl Into<String>) -> Debounce {
        Debounce::new(&self.0, id.into().into())
    }

    /// Makes this the default `Locks` of the process, for the attributes.
    ///
    /// In a forked process, the parent's default fails with `Closed` until the child installs its
    /// own.
    ///
    /// # Errors
    ///
    /// [`AlreadyInstalled`] if the process already has a default, which stays in place.
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

    /// Runs a future with this as the default `Locks` of its task, for the attributes. This default
    /// takes precedence over that of the process. Tasks that the future spawns do not inherit it.
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

    /// Returns the `Locks` that the attributes would use here: that of the task's
    /// [`scope`](Self::scope), or else the [installed](Self::install) one, if there is one.
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

    /// Lists at most `limit` held locks whose ids begin with `prefix`, in the order of their ids.
    ///
    /// An empty `prefix` lists all held locks under the key prefix of this `Locks`. If there are
    /// more than `limit`, the store decides which of them are in the list.
    ///
    /// For operators: the store looks at all of its keys, page by page (Redis: `SCAN`), without
    /// blocking its other clients. Locks that are acquired or released in the meantime may or may
    /// not be in the list. If slots of a Redis Cluster move or a node fails over in the meantime,
    /// other locks may also be missing. If this `Locks` has an empty
    /// [prefix](crate::LocksBuilder::prefix), only locks held by clients of this library are
    /// listed, because nothing shows whether another key of the database is a lock.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store cannot list its locks; `Unavailable`, `Rejected` (the user may
    /// not `SCAN`), `Closed`.
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let _invoice = locks.lock("invoice:7").acquire().await?;
    /// let _report = locks.lock("report").acquire().await?;
    /// for lock in locks.list("", 100).await? {
    ///     println!("{} is held, with {} waiting", lock.id, lock.waiters);
    /// }
    /// assert_eq!(locks.list("invoice:", 100).await?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list(&self, prefix: &str, limit: usize) -> Result<Vec<Listed>, Error> {
        listing::locks(&self.0, prefix, limit).await
    }

    /// Lists the debounces that have a waiting call or a run in progress, and whose ids begin with
    /// `prefix`, like [`list`](Self::list).
    ///
    /// # Errors
    ///
    /// As for [`list`](Self::list).
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let save = locks.debounce("save:7").spawn(|| async { "saved" });
    /// assert_eq!(locks.list_debounces("save:", 100).await?.len(), 1);
    /// assert_eq!(save.await.unwrap()?, Some("saved"));
    /// assert!(locks.list_debounces("save:", 100).await?.is_empty(), "it has run");
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

    /// Lists the names of at most `limit` functions that have durable calls, like
    /// [`list`](Self::list).
    ///
    /// # Errors
    ///
    /// As for [`list`](Self::list).
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let reindex = locks.debounce("document").durable("reindex", |_id: u64, _run| async {})?;
    /// reindex.id("document:7").call(&7).await?;
    /// assert_eq!(locks.list_durable(100).await?, ["reindex"]);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "durable")]
    pub async fn list_durable(&self, limit: usize) -> Result<Vec<String>, Error> {
        listing::functions(&self.0, limit).await
    }

    /// Returns the durable calls of the function with this name, for operators, without asking the
    /// store.
    ///
    /// The code of the function is not needed. A name that is not allowed is reported by the
    /// methods of the returned value.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let locks = lock::Locks::in_memory();
    /// let reindex = locks.debounce("document").durable("reindex", |_id: u64, _run| async {})?;
    /// reindex.id("document:7").call(&7).await?;
    /// // An operator's process knows nothing but the name.
    /// assert_eq!(locks.durable_calls("reindex").waiting(0).await?.count, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "durable")]
    pub fn durable_calls(&self, name: impl Into<String>) -> DurableCalls {
        DurableCalls::new(&self.0, name.into())
    }

    /// Waits until every release that a drop has started is answered, or is abandoned after half a
    /// minute without an answer.
    ///
    /// A dropped guard is released in the background, so a process that exits immediately may end
    /// before the release: call this before it exits. Guards that are alive are not affected.
    ///
    /// # Cancel safety
    ///
    /// Safe: the releases continue.
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
    /// The locks of guards that are alive count as lost. Waiting callers, and later calls, fail
    /// with kind `Closed`. This takes at most two seconds, even if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the shutdown completes even if the future is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # let store = lock::store::MemoryStore::new();
    /// # let locks = lock::Locks::builder().store(store.clone()).build().await?;
    /// # let other = lock::Locks::builder().store(store).build().await?;
    /// use lock::ErrorKind;
    ///
    /// let guard = locks.lock("report").acquire().await?;
    /// locks.shutdown().await;
    /// assert!(!guard.is_held());
    /// assert!(other.lock("report").try_acquire().await?.is_some(), "free for other processes");
    /// let error = locks.lock("report").acquire().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Closed);
    /// # Ok(())
    /// # }
    /// ```
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
