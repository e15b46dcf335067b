//! Who lets a keeper take its turns.
//!
//! Every caller that sends the keeper a message also lets it take a turn, right there, so that a
//! lock passes from one caller to the next without a third thread. What is due later is left to a
//! runner, which sleeps until then:
//!
//! - one [on a thread of its own](super::thread), where the store is reached through a connection;
//! - one [on each runtime of its callers](super::inline), where the store is embedded.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{held::Owner, inline::InlineRunner, thread::ThreadRunner, turns::Message};
use crate::Error;

pub(super) enum Runner<O: Owner> {
    Thread(ThreadRunner<O>),
    Inline(Arc<InlineRunner<O>>),
}

impl<O: Owner> Runner<O> {
    /// Gives the keeper a message: directly if no other thread is in a turn, otherwise through its
    /// queue. `None` if the keeper has ended.
    pub(super) fn tell(
        &self,
        queue: &mpsc::UnboundedSender<Message<O>>,
        message: Message<O>,
    ) -> Option<()> {
        let mut own = Some(message);
        self.turn(&mut own);
        if let Some(message) = own {
            queue.send(message).ok()?;
            self.turn(&mut None);
        }
        Some(())
    }

    fn turn(&self, own: &mut Option<Message<O>>) {
        match self {
            Self::Thread(runner) => runner.turn(own),
            Self::Inline(runner) => _ = runner.turn(own, None),
        }
    }

    /// See [`InlineRunner::ensure_timers`].
    pub(super) fn ensure_timers(&self) -> Result<(), Error> {
        match self {
            Self::Thread(_) => Ok(()),
            Self::Inline(runner) => runner.ensure_timers(),
        }
    }

    /// See [`InlineRunner::offer_timers`].
    pub(super) fn offer_timers(&self) {
        if let Self::Inline(runner) = self {
            runner.offer_timers();
        }
    }

    /// The error for a caller whose keeper went away without an answer.
    pub(super) fn gone(&self) -> Error {
        match self {
            Self::Thread(runner) => runner.gone(),
            Self::Inline(runner) => runner.gone(),
        }
    }
}
