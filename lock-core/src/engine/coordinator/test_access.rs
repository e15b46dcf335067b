//! Access to an engine for tests (`--cfg lock_mutants`), which changes nothing.

use super::Engine;
use crate::engine::io::Caller;

impl<C: Caller> Engine<C> {
    /// Does this client take care of what the token with this number may hold, or wait for, in the
    /// store? Either the token is in use, or it is being released.
    pub fn takes_care_of(&self, number: u64) -> bool {
        self.is_in_use(number) || self.releases.contains(number)
    }

    /// Does a caller hold, wait or ask with the token of this number?
    pub fn is_in_use(&self, number: u64) -> bool {
        self.holds.key(number).is_some()
            || self.queued.is_entry(number)
            || self.polled.contains(number)
            || self.bursts.is_registered(number)
    }

    /// Is there nothing to do, and nothing to wait for?
    pub fn is_idle(&self) -> bool {
        !self.is_unfinished()
            && self.queued.is_empty()
            && self.holds.numbers().is_empty()
            && self.hand_offs.is_empty()
    }
}
