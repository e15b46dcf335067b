//! Tracks until when a holder may believe its lock to be valid.

use std::ops::Deref;

use lock::LockGuard;
use lock_tests::now;

use crate::say;

/// A guard, and its validity as of the holder's last look.
pub(crate) struct Watch<G> {
    pub(crate) id: String,
    pub(crate) guard: G,
    /// By the machine's clock; 0 if the lock was never believed valid.
    pub(crate) valid_until: u64,
    /// By how many millionths this process's clocks are faster than the machine's.
    rate: i64,
}

impl<G: Deref<Target = LockGuard>> Watch<G> {
    pub(crate) fn new(id: &str, guard: G, rate: i64) -> Self {
        Self { id: id.to_owned(), guard, valid_until: 0, rate }
    }

    /// Looks at the guard. A deadline that was renewed since the last look moves `valid_until`; one
    /// that has passed does not.
    pub(crate) fn look(&mut self) -> bool {
        let at = now();
        let remaining = self.guard.remaining();
        if !remaining.is_zero() {
            let own = i64::try_from(remaining.as_nanos()).unwrap_or(i64::MAX / 1_000_000);
            // On a slow clock, the same reading means a longer time.
            let machines = own * 1_000_000 / (1_000_000 + self.rate);
            self.valid_until = at.saturating_add_signed(machines);
            return true;
        }
        let is_signalled = !self.guard.is_held() && self.guard.lost_token().is_cancelled();
        if !is_signalled {
            self.say_late();
        }
        self.valid_until = self.valid_until.min(at);
        false
    }

    /// Reports the loss, if it was signalled, of a lock that was asked for at this time.
    pub(crate) fn say_if_lost(&self, asked: u64) {
        if self.guard.lost_token().is_cancelled() {
            let how = if self.guard.__overdue().is_zero() { "told" } else { "late" };
            let (id, token) = (&self.id, self.guard.fencing_token());
            say(&format!("lost {id} {token} {asked} {} {how}", now()));
        }
    }

    pub(crate) fn say_late(&self) {
        say(&format!("late {} {}", self.id, self.guard.fencing_token()));
    }
}
