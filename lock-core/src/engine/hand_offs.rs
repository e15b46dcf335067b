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

/// How long after the reservation a lock is looked at: the reservation runs from when the store got
/// the release, and ends in the server's own time.
pub(crate) const MARGIN: Duration = Duration::from_millis(20);

/// A lock that was handed over is passed on if nobody takes it up in time: a waiter that hangs, or
/// whose notice was lost, delays the others by the reservation and no more. The client that released
/// it is the one that knows that it was handed over, so it is the one that looks.
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
    /// Somebody has to have taken up this lock by then.
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

    /// Somebody has taken it up, or another has seen to it since.
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

    /// Does one end that will not have ended by itself for long?
    pub(super) fn are_due_soon(&self, now: Moment) -> bool {
        let soon = now + RESERVATION + MARGIN;
        self.by_key.any(|hand_off| hand_off.timer.at() <= soon)
    }

    /// Nobody may have taken it up: the same release again changes nothing if somebody has.
    pub(super) fn timer<C>(&mut self, number: u64, shared: &mut Shared<C>) {
        let Some(key) = self.keys.remove(&number) else { return };
        if let Some(hand_off) = self.by_key.remove(&key) {
            shared.undo(number, &key, &hand_off.token);
        }
    }
}
