//! What a store knows about one debounce.

use std::{sync::Arc, time::Duration};

use super::Debounce;
use crate::{Error, Holder, context::Context, error::Subject};

/// The state of a debounce, as [`Debounce::status`] found it.
///
/// It is a snapshot, which may be out of date by the time it is read.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// use std::time::Duration;
/// use lock::{DebounceStatus, Locks};
///
/// let locks = Locks::in_memory();
/// let save = locks.debounce("save:7").wait(Duration::from_secs(1));
/// let _hangs = save.spawn(|| std::future::pending::<()>());
/// tokio::time::sleep(Duration::from_secs(60)).await;
/// let DebounceStatus { waiting, running, .. } = save.status().await?;
/// assert!(waiting.is_none());
/// assert_eq!(running.expect("a run hangs").pid, Some(std::process::id()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DebounceStatus {
    /// The time until the waiting call is due; `None` if no call waits, zero if the call is due,
    /// for example while it waits for a run to end.
    pub waiting: Option<Duration>,
    /// The holder of the current run; `None` if there is none.
    pub running: Option<Holder>,
    /// What remains of the lease of that run; `None` if there is no run, [`Duration::MAX`] if the
    /// lease never expires.
    pub remaining: Option<Duration>,
}

impl Debounce {
    /// Returns whether a call waits, and who runs a call. A lock with the same id plays no part in
    /// this.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store cannot report it; `Unavailable`, `Rejected`, `Invalid`, `Closed`,
    /// as for [`call`](Self::call).
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lock::Error> {
    /// # use std::time::Duration;
    /// # let locks = lock::Locks::in_memory();
    /// let save = locks.debounce("save:7").wait(Duration::from_secs(60));
    /// let call = save.spawn(|| async { "saved" });
    /// let status = save.status().await?;
    /// assert!(status.waiting.is_some() && status.running.is_none());
    /// # call.abort();
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status(&self) -> Result<DebounceStatus, Error> {
        status(&self.context, &self.id).await
    }
}

pub(crate) async fn status(context: &Context, id: &Arc<str>) -> Result<DebounceStatus, Error> {
    let ((window, run), client) = (context.prefix().debounce(id)?, context.client());
    let holder = client.holder(Arc::clone(&run.key)).await;
    let holder = holder.map_err(|error| error.about(Subject::Debounce, id))?;
    let waiting = client.due_in(window, run).await?;
    Ok(match holder {
        Some(holder) => DebounceStatus {
            waiting,
            remaining: Some(holder.remaining.unwrap_or(Duration::MAX)),
            running: Some(Holder::of(holder, client).await),
        },
        None => DebounceStatus { waiting, running: None, remaining: None },
    })
}
