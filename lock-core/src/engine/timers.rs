//! One queue for all the timers of an engine.

use std::{collections::BTreeSet, mem};

use crate::time::Moment;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// A deadline or a renewal of a held lock.
    Hold(u64),
    /// The next try of a caller that asks on its own behalf.
    Polled(u64),
    /// The end of the patience of a caller in line.
    Queued(u64),
    /// The next recheck of a lock by the callers in line, under the number of their entry.
    Recheck(u64),
    /// The end of the time in which the next holder of a lock has to take it up.
    HandOff(u64),
    /// The next try of a release that was not answered.
    Release(u64),
    /// The next question about a burst of debounced calls.
    Burst(u64),
}

/// When the timer of one entry is due, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scheduled(Moment);

impl Default for Scheduled {
    fn default() -> Self {
        Self(Moment::NEVER)
    }
}

impl Scheduled {
    pub(crate) fn at(self) -> Moment {
        self.0
    }

    /// Notes that the timer has just been taken out of its [`Timers`].
    pub(crate) fn fired(&mut self) {
        *self = Self::default();
    }
}

/// Timers in the order in which they are due.
///
/// An entry remembers the moment it asked for, so that its timer can be moved or withdrawn. A set
/// keeps no stale entries, as a heap would.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Timers(BTreeSet<(Moment, Timer)>);

impl Timers {
    /// Moves a timer to `at`, from wherever it was, if it was set at all.
    pub(crate) fn reset(&mut self, timer: Timer, entry: &mut Scheduled, at: Moment) {
        let was = mem::replace(&mut entry.0, at);
        if was != at {
            if was != Moment::NEVER {
                self.0.remove(&(was, timer));
            }
            if at != Moment::NEVER {
                self.0.insert((at, timer));
            }
        }
    }

    pub(crate) fn cancel(&mut self, timer: Timer, entry: &mut Scheduled) {
        self.reset(timer, entry, Moment::NEVER);
    }

    /// Takes out the earliest timer, if it is due.
    pub(crate) fn pop_due(&mut self, now: Moment) -> Option<Timer> {
        let &(at, timer) = self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some(timer)
    }

    pub(crate) fn next(&self) -> Option<Moment> {
        self.0.first().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_out_in_order_and_can_be_moved_and_withdrawn() {
        let mut timers = Timers::default();
        let [mut a, mut b, mut c] = [Scheduled::default(); 3];
        timers.reset(Timer::Hold(1), &mut a, Moment::from_nanos(30));
        timers.reset(Timer::Queued(2), &mut b, Moment::from_nanos(20));
        timers.reset(Timer::Release(3), &mut c, Moment::from_nanos(10));
        timers.reset(Timer::Hold(1), &mut a, Moment::from_nanos(5));
        timers.cancel(Timer::Release(3), &mut c);
        assert_eq!(timers.next(), Some(Moment::from_nanos(5)));
        assert_eq!(timers.pop_due(Moment::from_nanos(19)), Some(Timer::Hold(1)));
        assert_eq!(timers.pop_due(Moment::from_nanos(19)), None);
        assert_eq!(timers.pop_due(Moment::from_nanos(20)), Some(Timer::Queued(2)));
        assert_eq!(timers.next(), None);
    }
}
