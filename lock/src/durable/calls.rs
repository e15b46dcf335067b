//! The durable calls of a function, for operators.

use std::{fmt, sync::Arc, time::Duration};

use lock_core::contract::{DueRequest, SetAside, TakeBackRequest};

use crate::{Error, context::Context, error::Subject};

/// The durable calls of one function, for operators. The methods need neither the code of the
/// function nor a process that runs its calls. Created by
/// [`Locks::durable_calls`](crate::Locks::durable_calls).
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
/// // The call of `mail:7` has failed on all of its tries.
/// let mail = locks.durable_calls("mail");
/// for call in mail.set_aside().await? {
///     println!("{} has failed {} times: {}", call.id, call.attempts, call.error);
///     assert!(mail.run_again(&call.id).await?);
/// }
/// assert_eq!(mail.waiting(0).await?.count, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it does nothing until one of its methods is called"]
pub struct DurableCalls {
    context: Context,
    name: Arc<str>,
}

/// The waiting calls of a function; see [`DurableCalls::waiting`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// How many calls wait or run.
    pub count: usize,
    /// The calls that are due first, at most as many as were requested.
    pub calls: Vec<WaitingCall>,
}

/// A waiting call.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// # use std::time::Duration;
/// # let store = lock::store::MemoryStore::new();
/// # let caller = lock::Locks::builder().store(store.clone()).build().await?;
/// # let operator = lock::Locks::builder().store(store).build().await?;
/// use lock::WaitingCall;
///
/// let reindex = caller.debounce("document:7").durable("reindex", |_id: u64, _run| async {})?;
/// reindex.call(&7).await?;
/// caller.shutdown().await; // no other process has registered `reindex`
/// tokio::time::sleep(Duration::from_secs(60)).await;
/// let calls: Vec<WaitingCall> = operator.durable_calls("reindex").waiting(10).await?.calls;
/// assert!(calls[0].due_in.is_zero(), "due, but nobody runs it");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingCall {
    /// The id of the call.
    pub id: String,
    /// The time until a worker looks at the call: zero if it is due; while it runs, the time until
    /// the lease of its run ends.
    pub due_in: Duration,
}

impl DurableCalls {
    pub(crate) fn new(context: &Context, name: String) -> Self {
        Self { context: context.clone(), name: name.into() }
    }

    /// Returns how many calls wait or run, and lists at most `limit` of them: those that are due
    /// first.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store cannot report it; `Invalid` for a name that is not allowed;
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
    /// use lock::Waiting;
    ///
    /// let reindex = locks.debounce("document").durable("reindex", |_id: u64, _run| async {})?;
    /// reindex.id("document:7").call(&7).await?;
    /// tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    /// reindex.id("document:8").call(&8).await?;
    /// let Waiting { count, calls, .. } = locks.durable_calls("reindex").waiting(1).await?;
    /// assert_eq!((count, calls.len()), (2, 1));
    /// assert_eq!(calls[0].id, "document:7", "it is due first");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn waiting(&self, limit: usize) -> Result<Waiting, Error> {
        let request = DueRequest::new(self.book()?, limit);
        let waiting = self.context.client().waiting(request).await;
        let waiting = waiting.map_err(|error| error.about(Subject::DurableFunction, &self.name))?;
        let calls = waiting.calls.into_iter();
        let calls = calls.map(|(id, due_in)| WaitingCall { id, due_in }).collect();
        Ok(Waiting { count: waiting.count, calls })
    }

    /// Lists the calls that were set aside because all of their tries have failed.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store does not support durable calls; `Invalid` for a name that is not
    /// allowed; `Unavailable`, `Rejected`, `Closed`, as for a lock.
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
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
    /// // The call of `mail:7` has failed on all of its tries.
    /// let aside = locks.durable_calls("mail").set_aside().await?;
    /// assert_eq!((&*aside[0].id, &*aside[0].error), ("mail:7", "the server is down"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_aside(&self) -> Result<Vec<SetAside>, Error> {
        let aside = self.context.client().set_aside(self.book()?).await;
        aside.map_err(|error| error.about(Subject::DurableFunction, &self.name))
    }

    /// Runs a set-aside call again, with its full number of tries. Returns false if no call of this
    /// id was set aside.
    ///
    /// If the id was called again in the meantime and that call is still kept, only the newer call
    /// runs. A process that has registered the function finds the call within a few seconds.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store does not support durable calls; `Invalid` for a name that is not
    /// allowed; `Unavailable`, `Rejected`, `Closed`, as for a lock.
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
    /// // The call of `mail:7` has failed on all of its tries.
    /// let mail = locks.durable_calls("mail");
    /// assert!(mail.run_again("mail:7").await?);
    /// assert!(!mail.run_again("mail:7").await?, "it is not set aside any longer");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run_again(&self, id: &str) -> Result<bool, Error> {
        self.take_back(TakeBackRequest::run_again(self.book()?, id)).await
    }

    /// Deletes a set-aside call. Returns false if no call of this id was set aside.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store does not support durable calls; `Invalid` for a name that is not
    /// allowed; `Unavailable`, `Rejected`, `Closed`, as for a lock.
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
    /// // The call of `mail:7` has failed on all of its tries.
    /// let mail = locks.durable_calls("mail");
    /// assert!(mail.forget("mail:7").await?);
    /// assert!(mail.set_aside().await?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn forget(&self, id: &str) -> Result<bool, Error> {
        self.take_back(TakeBackRequest::forget(self.book()?, id)).await
    }

    async fn take_back(&self, request: TakeBackRequest) -> Result<bool, Error> {
        let taken = self.context.client().take_back(request).await;
        taken.map_err(|error| error.about(Subject::DurableFunction, &self.name))
    }

    fn book(&self) -> Result<lock_core::contract::DurableBook, Error> {
        self.context.prefix().book(&self.name)
    }
}

impl fmt::Debug for DurableCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableCalls").field("name", &self.name).finish_non_exhaustive()
    }
}
