//! The window of one debounce id: which call runs, and when.
//!
//! A burst is one *window*. Every call that reaches the store is registered with a growing
//! number and moves the window's due time to `wait` later, at most to `max_wait` after its first
//! call (trailing edge, as in lodash's `debounce`). When the window is due, its newest call
//! claims it; what the window held is then marked as run, so an older call that comes late finds
//! its number among those that ran. That mark is the tombstone: it outlives the window.
//!
//! This is the reference: the memory store runs it, the Redis script follows it line by line,
//! and a differential test compares the two.

use std::time::Duration;

use super::Moment;

/// How long the newest caller may be late before another process that took part claims the
/// window in its place: the newest one may have died.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// The registration of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registered {
    /// The number of the call; grows with every call of the id, also across a loss of data.
    pub(crate) call: u64,
    /// How long it is until the window is due.
    pub(crate) due_in: Duration,
}

/// What a call that wants to run is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The window is not due for this call for so long.
    NotYet(Duration),
    /// A run covers this call already.
    Superseded,
    /// It may run, if no other run is going on: the store decides that in the same operation.
    Due,
}

/// The window of one id; survives its run as a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window<Caller> {
    newest_call: u64,
    newest_caller: Option<Caller>,
    /// The highest call that a run has covered.
    ran: u64,
    first_at: Moment,
    due: Moment,
}

impl<Caller> Default for Window<Caller> {
    fn default() -> Self {
        Self {
            newest_call: 0,
            newest_caller: None,
            ran: 0,
            first_at: Moment::default(),
            due: Moment::default(),
        }
    }
}

impl<Caller: PartialEq> Window<Caller> {
    /// Registers a call; asked twice by one caller, it answers as once.
    pub(crate) fn register(
        &mut self,
        caller: Caller,
        wait: Duration,
        max_wait: Option<Duration>,
        server_micros: u64,
        now: Moment,
    ) -> Registered {
        let open = self.newest_call > self.ran;
        if !(open && self.newest_caller.as_ref() == Some(&caller)) {
            if !open {
                self.first_at = now;
            }
            self.newest_call = server_micros.max(self.newest_call + 1);
            self.newest_caller = Some(caller);
            let latest = max_wait.map_or(Moment::NEVER, |limit| self.first_at + limit);
            self.due = (now + wait).min(latest);
        }
        Registered { call: self.newest_call, due_in: self.due.after(now) }
    }

    /// May the call of this number run now?
    pub(crate) fn claim(&self, caller: &Caller, call: u64, now: Moment) -> Claim {
        if call <= self.ran {
            return Claim::Superseded;
        }
        // An empty window means that the store lost its data: this call is then all there is.
        if self.newest_call == 0 {
            return Claim::Due;
        }
        let due =
            if self.newest_caller.as_ref() == Some(caller) { self.due } else { self.due + GRACE };
        if now < due { Claim::NotYet(due.after(now)) } else { Claim::Due }
    }

    /// A run has begun that covers every call up to now, and this one.
    pub(crate) fn begin(&mut self, call: u64) {
        self.newest_call = self.newest_call.max(call);
        self.ran = self.newest_call;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    fn register(
        window: &mut Window<&'static str>,
        caller: &'static str,
        millis: u64,
    ) -> Registered {
        window.register(caller, WAIT, None, millis * 1000 + 1, at(millis))
    }

    #[test]
    fn the_last_call_runs_once_the_wait_after_it_is_over() {
        let mut window = Window::default();
        let first = register(&mut window, "a", 0);
        let second = register(&mut window, "b", 60);
        assert!(second.call > first.call);
        assert_eq!(
            window.claim(&"b", second.call, at(159)),
            Claim::NotYet(Duration::from_millis(1))
        );
        assert_eq!(window.claim(&"b", second.call, at(160)), Claim::Due);
        window.begin(second.call);
        assert_eq!(window.claim(&"a", first.call, at(5000)), Claim::Superseded);
    }

    #[test]
    fn an_earlier_caller_takes_over_only_when_the_newest_is_late() {
        let mut window = Window::default();
        let first = register(&mut window, "a", 0);
        register(&mut window, "b", 0);
        assert!(matches!(window.claim(&"a", first.call, at(1099)), Claim::NotYet(_)));
        assert_eq!(window.claim(&"a", first.call, at(1100)), Claim::Due);
    }

    #[test]
    fn max_wait_bounds_a_stream_of_calls() {
        let mut window = Window::default();
        let limit = Some(Duration::from_millis(250));
        for millis in (0..250).step_by(50) {
            window.register("a", WAIT, limit, millis + 1, at(millis));
            window.register("b", WAIT, limit, millis + 1, at(millis));
        }
        let last = window.register("c", WAIT, limit, 300, at(249));
        assert_eq!(window.claim(&"c", last.call, at(250)), Claim::Due);
    }

    #[test]
    fn registering_twice_is_registering_once() {
        let mut window = Window::default();
        let once = register(&mut window, "a", 0);
        let twice = window.register("a", WAIT, None, 50_000, at(50));
        assert_eq!(twice, Registered { call: once.call, due_in: Duration::from_millis(50) });
    }

    #[test]
    fn after_a_loss_of_data_neither_call_is_lost_nor_run_twice() {
        let mut before = Window::default();
        let lost = register(&mut before, "a", 0);
        let mut after = Window::default();
        assert_eq!(after.claim(&"a", lost.call, at(100)), Claim::Due, "nobody else knows it");
        let newer = register(&mut after, "b", 50);
        assert!(newer.call > lost.call, "numbers grow across the loss");
        after.begin(newer.call);
        assert_eq!(after.claim(&"a", lost.call, at(200)), Claim::Superseded);
    }

    #[test]
    fn a_call_during_a_run_opens_the_next_window() {
        let mut window = Window::default();
        let first = register(&mut window, "a", 0);
        window.begin(first.call);
        let next = register(&mut window, "a", 150);
        assert_eq!(next.due_in, WAIT);
        assert_eq!(window.claim(&"a", next.call, at(250)), Claim::Due);
    }
}
