//! The end of an engine, and waiting for what is on its way to being undone.

use std::{collections::BTreeSet, mem};

use super::{io::Outcome, turn::Turn};
use crate::core::Moment;

#[derive(Default)]
pub(super) struct Shutdown<C> {
    stopping: Option<Stopping<C>>,
    flushes: Vec<Flush<C>>,
    has_ended: bool,
}

/// A shutdown that waits for the last releases, but not for ever.
struct Stopping<C> {
    by: Moment,
    callers: Vec<C>,
}

/// A flush, and the numbers of what it waits for.
struct Flush<C> {
    undone: Vec<u64>,
    to: C,
}

impl<C> Shutdown<C> {
    pub(super) fn begin(&mut self, by: Moment, to: Option<C>) {
        let stopping = self.stopping.get_or_insert_with(|| Stopping { by, callers: Vec::new() });
        stopping.callers.extend(to);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.stopping.is_some()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// When it ends, whatever is undone by then.
    pub(super) fn ends_by(&self) -> Option<Moment> {
        self.stopping.as_ref().map(|stopping| stopping.by)
    }

    /// Tells `to` when all of these are done: what is on its way to being released.
    pub(super) fn flush(&mut self, undone: Vec<u64>, to: C) {
        self.flushes.push(Flush { undone, to });
    }

    pub(super) fn are_flushes_waiting(&self) -> bool {
        !self.flushes.is_empty()
    }

    pub(super) fn answer_flushes(&mut self, undone: &BTreeSet<u64>, turn: &mut Turn<C>) {
        for mut flush in mem::take(&mut self.flushes) {
            flush.undone.retain(|number| undone.contains(number));
            if flush.undone.is_empty() {
                turn.answer(flush.to, Ok(Outcome::Done));
            } else {
                self.flushes.push(flush);
            }
        }
    }

    /// Those who wait for the end are told once everything is released. The engine itself stays for
    /// the locks that it has handed over, until they have been taken up: the next holder may hang.
    pub(super) fn end_if_done(&mut self, undone: bool, handed_over: bool, turn: &mut Turn<C>) {
        let Some(stopping) = &mut self.stopping else { return };
        let over = turn.now >= stopping.by;
        if undone && !over {
            return;
        }
        self.has_ended = over || !handed_over;
        let flushes = if self.has_ended { mem::take(&mut self.flushes) } else { Vec::new() };
        let flushes = flushes.into_iter().map(|flush| flush.to);
        for to in stopping.callers.drain(..).chain(flushes) {
            turn.answer(to, Ok(Outcome::Done));
        }
    }
}
