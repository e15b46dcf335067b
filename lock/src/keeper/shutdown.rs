//! The end of a keeper, and waiting for what is on its way to being undone.

use std::{mem, time::Duration};

use super::{reply::Reply, task::Task};
use crate::core::Moment;

/// A shutdown that waits for the last releases, but not for ever.
pub(super) struct Stopping {
    pub(super) by: Moment,
    pub(super) replies: Vec<Reply<()>>,
}

/// A flush, and the numbers of what it waits for.
pub(super) struct Flush {
    pub(super) undone: Vec<u64>,
    pub(super) reply: Reply<()>,
}

impl Task {
    /// Releases what is held, tells who waits, and ends once that is done.
    pub(super) fn stop(&mut self, limit: Duration, reply: Option<Reply<()>>) {
        let by = self.now + limit;
        let stopping = self.stopping.get_or_insert_with(|| Stopping { by, replies: Vec::new() });
        stopping.replies.extend(reply);
        self.close_callers();
        self.close_attempts();
        self.shards.iter_mut().for_each(|shard| shard.to_acquire.clear());
        self.close_calls();
        self.close_bulk();
        self.release_all();
    }

    #[cfg(feature = "durable")]
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whoever waits for the end is told once everything is released. The keeper itself stays for
    /// the locks that it has handed over, until they have been claimed: whoever was next may hang.
    pub(super) fn has_stopped(&mut self) -> bool {
        let now = self.now;
        let undone =
            !self.releases.is_empty() || !self.attempts.is_empty() || !self.bursts.is_empty();
        #[cfg(feature = "durable")]
        let undone = undone || self.claiming > 0 || self.claims_wait();
        let unclaimed = self.is_claim_due_soon();
        let Some(stopping) = &mut self.stopping else { return true };
        let over = now >= stopping.by;
        if undone && !over {
            return false;
        }
        for reply in stopping.replies.drain(..) {
            let _ = reply.send(());
        }
        over || !unclaimed
    }

    /// Waits for all that is on its way to being released: releases, and acquires and questions
    /// that nobody waits for any more, which end in one (under their own number).
    pub(super) fn flush(&mut self, reply: Reply<()>) {
        let attempts = self.attempts.iter().filter(|(_, attempt)| attempt.is_abandoned());
        let undone = self.releases.keys().copied();
        let undone = undone.chain(attempts.map(|(number, _)| *number));
        let undone = undone.chain(self.abandoned_questions()).collect();
        self.flushes.push(Flush { undone, reply });
    }

    pub(super) fn answer_flushes(&mut self) {
        for mut flush in mem::take(&mut self.flushes) {
            flush.undone.retain(|number| {
                self.releases.contains_key(number)
                    || self.attempts.contains_key(number)
                    || self.is_abandoned_question(*number)
            });
            if flush.undone.is_empty() {
                let _ = flush.reply.send(());
            } else {
                self.flushes.push(flush);
            }
        }
    }
}
