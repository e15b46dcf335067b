//! Locks that were handed over to another client, which has to take them up.

use std::{sync::Arc, time::Duration};

use super::{
    shared::Shared,
    timers::{Scheduled, Timer},
};
use crate::{
    Token,
    contract::RESERVATION,
    maps::{ByKey, ByNumber},
    time::Moment,
};

/// How long after the reservation a lock is checked: the reservation counts from when the store
/// received the release, and ends by the server's own clock.
pub(crate) const MARGIN: Duration = Duration::from_millis(20);

/// A lock that was handed over is passed on if nobody takes it up in time: a waiter that hangs, or
/// whose notice was lost, delays the others by no more than the reservation. Only the client that
/// released the lock knows that it was handed over, so that client checks.
#[derive(Clone, Default, Hash)]
pub(super) struct HandOffs {
    by_key: ByKey<HandOff>,
    keys: ByNumber<Arc<str>>,
}

#[derive(Clone, Hash)]
struct HandOff {
    number: u64,
    token: Token,
    timer: Scheduled,
}

impl HandOffs {
    /// Watches a lock that somebody has to have taken up by this time.
    pub(super) fn watch<C>(
        &mut self,
        number: u64,
        (key, token): (Arc<str>, Token),
        by: Moment,
        shared: &mut Shared<C>,
    ) {
        self.forget(&key, shared);
        let mut hand_off = HandOff { number, token, timer: Scheduled::default() };
        shared.timers.reset(Timer::HandOff(number), &mut hand_off.timer, by + MARGIN);
        self.keys.insert(number, Arc::clone(&key));
        self.by_key.insert(key, hand_off);
    }

    /// Stops watching a lock: it was taken up, or a later hand-over of it is watched instead.
    pub(super) fn forget<C>(&mut self, key: &str, shared: &mut Shared<C>) {
        if let Some(mut hand_off) = self.by_key.remove(key) {
            shared.timers.cancel(Timer::HandOff(hand_off.number), &mut hand_off.timer);
            self.keys.remove(&hand_off.number);
        }
    }

    #[cfg(lock_mutants)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Is any of them due within the length of a reservation?
    pub(super) fn are_due_soon(&self, now: Moment) -> bool {
        let soon = now + RESERVATION + MARGIN;
        self.by_key.any(|hand_off| hand_off.timer.at() <= soon)
    }

    /// Perhaps nobody has taken the lock up. Repeats the release, which changes nothing if somebody
    /// has.
    pub(super) fn timer<C>(&mut self, number: u64, shared: &mut Shared<C>) {
        let Some(key) = self.keys.remove(&number) else { return };
        if let Some(hand_off) = self.by_key.remove(&key) {
            shared.undo(number, &key, &hand_off.token);
        }
    }
}
