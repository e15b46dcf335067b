//! What a store knows about one debounce.

use std::{sync::Arc, time::Duration};

use super::Debounce;
use crate::{Error, Holder, context::Context};

/// What goes on in a debounce, as [`Debounce::status`] found it.
///
/// It was so when the store was asked; it may be otherwise by the time it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DebounceStatus {
    /// How long it is until the call is due that waits; `None` if none does, zero if it waits for a run
    /// to end.
    pub waiting: Option<Duration>,
    /// Who runs it; `None` if nobody does.
    pub running: Option<Holder>,
    /// What remains of the lease of the run; [`Duration::MAX`] if it never expires.
    pub remaining: Option<Duration>,
}

impl Debounce {
    /// Says whether a call waits, and who runs it. A lock of the same id has nothing to do with it.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the store cannot tell; `Unavailable`, `Rejected`, `Invalid`, `Closed`, as
    /// [`call`](Self::call).
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
    let holder = client.holder(Arc::clone(&run.key)).await.map_err(|error| error.on(id))?;
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
