//! The end of an engine, and flushes: both wait for what is being undone.

use std::mem;

use super::{io::Outcome, shared::Shared};
use crate::time::Moment;

#[derive(Clone, Default, Hash)]
pub(super) struct Shutdown<C> {
    /// When the engine ends at the latest, and the callers that wait for that.
    stopping: Option<(Moment, Vec<C>)>,
    /// Flushes, each with the numbers that it waits for.
    flushes: Vec<(Vec<u64>, C)>,
    has_ended: bool,
}

impl<C> Shutdown<C> {
    pub(super) fn begin(&mut self, by: Moment, to: Option<C>) {
        let (_, callers) = self.stopping.get_or_insert_with(|| (by, Vec::new()));
        callers.extend(to);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.stopping.is_some()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// When the engine ends, even if not everything is undone by then.
    pub(super) fn ends_by(&self) -> Option<Moment> {
        self.stopping.as_ref().map(|(by, _)| *by)
    }

    /// Answers `to` once everything with one of these numbers is released.
    pub(super) fn flush(&mut self, undone: Vec<u64>, to: C) {
        self.flushes.push((undone, to));
    }

    pub(super) fn are_flushes_waiting(&self) -> bool {
        !self.flushes.is_empty()
    }

    pub(super) fn answer_flushes(
        &mut self,
        is_unreleased: impl Fn(u64) -> bool,
        shared: &mut Shared<C>,
    ) {
        for (mut waits_for, to) in mem::take(&mut self.flushes) {
            waits_for.retain(|number| is_unreleased(*number));
            if waits_for.is_empty() {
                shared.answer(to, Ok(Outcome::Done));
            } else {
                self.flushes.push((waits_for, to));
            }
        }
    }

    /// The callers that wait for the end are answered once everything is released. The engine
    /// itself stays until the locks that it has handed over have been taken up: the next holder may
    /// hang.
    pub(super) fn end_if_done(&mut self, undone: bool, handed_over: bool, shared: &mut Shared<C>) {
        let Some((by, callers)) = &mut self.stopping else { return };
        let over = shared.now >= *by;
        if undone && !over {
            return;
        }
        self.has_ended = over || !handed_over;
        let flushes = if self.has_ended { mem::take(&mut self.flushes) } else { Vec::new() };
        for to in callers.drain(..).chain(flushes.into_iter().map(|(_, to)| to)) {
            shared.answer(to, Ok(Outcome::Done));
        }
    }
}
