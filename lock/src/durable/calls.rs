//! The durable calls of a function, for operators.

use std::{fmt, sync::Arc, time::Duration};

use lock_core::contract::{DueRequest, SetAside, TakeBackRequest};

use crate::{Error, context::Context};

/// The durable calls of one function, for operators: without its code, and without a worker that runs
/// them. Made by [`Locks::durable_calls`](crate::Locks::durable_calls).
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// # let locks = lock::Locks::in_memory();
/// let reindex = locks.durable_calls("reindex");
/// println!("{} calls wait", reindex.waiting(0).await?.count);
/// for call in reindex.set_aside().await? {
///     println!("{} has failed {} times: {}", call.id, call.attempts, call.error);
///     reindex.run_again(&call.id).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it does nothing until it is asked for something"]
pub struct DurableCalls {
    context: Context,
    name: Arc<str>,
}

/// The calls of a function that wait; see [`DurableCalls::waiting`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// How many there are.
    pub count: usize,
    /// Those that are due first.
    pub calls: Vec<WaitingCall>,
}

/// A call that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingCall {
    /// Its id.
    pub id: String,
    /// How long it is until somebody looks at it: zero if it is due; while it runs, until the lease of
    /// its run ends.
    pub due_in: Duration,
}

impl DurableCalls {
    pub(crate) fn new(context: &Context, name: String) -> Self {
        Self { context: context.clone(), name: name.into() }
    }

    /// Says how many calls wait, or run, and which are due first: at most `limit` of them.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store cannot tell; `Invalid` for a name that is not allowed;
    /// `Unavailable`, `Rejected`, `Closed`, as for a lock.
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    pub async fn waiting(&self, limit: usize) -> Result<Waiting, Error> {
        let request = DueRequest::new(self.book()?, limit);
        let waiting = self.context.client().waiting(request).await;
        let waiting = waiting.map_err(|error| error.on(&self.name))?;
        let calls = waiting.calls.into_iter();
        let calls = calls.map(|(id, due_in)| WaitingCall { id, due_in }).collect();
        Ok(Waiting { count: waiting.count, calls })
    }

    /// Lists the calls that have failed as often as they may.
    ///
    /// # Errors
    ///
    /// `Invalid` for a name that is not allowed; `Unavailable`, `Rejected`, `Closed`, as for a lock.
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    pub async fn set_aside(&self) -> Result<Vec<SetAside>, Error> {
        let aside = self.context.client().set_aside(self.book()?).await;
        aside.map_err(|error| error.on(&self.name))
    }

    /// Runs a call that was set aside again, with all its tries; if its id was called anew since, that
    /// call counts. False if none of this id was set aside.
    ///
    /// A process that has registered the function looks for it within a few seconds.
    ///
    /// # Errors
    ///
    /// `Invalid` for a name that is not allowed; `Unavailable`, `Rejected`, `Closed`, as for a lock.
    ///
    /// # Cancel safety
    ///
    /// It may or may not be run again if the future is dropped.
    pub async fn run_again(&self, id: &str) -> Result<bool, Error> {
        self.take_back(TakeBackRequest::run_again(self.book()?, id)).await
    }

    /// Forgets a call that was set aside. False if none of this id was.
    ///
    /// # Errors
    ///
    /// `Invalid` for a name that is not allowed; `Unavailable`, `Rejected`, `Closed`, as for a lock.
    ///
    /// # Cancel safety
    ///
    /// It may or may not be forgotten if the future is dropped.
    pub async fn forget(&self, id: &str) -> Result<bool, Error> {
        self.take_back(TakeBackRequest::forget(self.book()?, id)).await
    }

    async fn take_back(&self, request: TakeBackRequest) -> Result<bool, Error> {
        let taken = self.context.client().take_back(request).await;
        taken.map_err(|error| error.on(&self.name))
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
