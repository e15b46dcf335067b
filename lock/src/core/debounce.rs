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

use std::{collections::BTreeMap, time::Duration};

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

/// Who calls: a client, and the number of its call. Numbers of one client grow.
pub(crate) type Caller<'a> = (&'a str, u64);

/// How many clients a window remembers before it forgets those that were not heard of lately.
const MANY: usize = 100;

/// How long a client is remembered then, in microseconds: longer than any request is repeated.
const LATELY: u64 = 60_000_000;

/// The window of one id; survives its run as a tombstone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    newest_call: u64,
    newest_caller: Option<(String, u64)>,
    /// The last call of each client: its own number for it, and this window's.
    clients: BTreeMap<String, (u64, u64)>,
    /// The highest call that a run has covered, and who ran.
    ran: u64,
    ran_by: Option<(String, u64)>,
    first_at: Moment,
    due: Moment,
}

impl Window {
    /// Registers a call; asked twice by one caller, it answers as once.
    pub(crate) fn register(
        &mut self,
        (client, number): Caller<'_>,
        wait: Duration,
        max_wait: Option<Duration>,
        server_micros: u64,
        now: Moment,
    ) -> Registered {
        // The answer to an earlier request was lost. If the client has made a newer call since,
        // that one stands for both.
        if let Some(&(known, call)) = self.clients.get(client)
            && number <= known
        {
            return Registered { call, due_in: self.due.after(now) };
        }
        if self.newest_call <= self.ran {
            self.first_at = now;
            if self.clients.len() > MANY {
                self.clients.retain(|_, (_, call)| *call + LATELY > server_micros);
            }
        }
        self.newest_call = server_micros.max(self.newest_call + 1);
        self.newest_caller = Some((client.to_owned(), number));
        self.clients.insert(client.to_owned(), (number, self.newest_call));
        let latest = max_wait.map_or(Moment::NEVER, |limit| self.first_at + limit);
        self.due = (now + wait).min(latest);
        Registered { call: self.newest_call, due_in: self.due.after(now) }
    }

    /// May the call of this number run now?
    pub(crate) fn claim(&self, caller: Caller<'_>, call: u64, now: Moment) -> Claim {
        if call <= self.ran {
            // It was granted the run, and has not heard of it.
            let granted = is(self.ran_by.as_ref(), caller);
            return if granted { Claim::Due } else { Claim::Superseded };
        }
        // An empty window means that the store lost its data: this call is then all there is.
        if self.newest_call == 0 {
            return Claim::Due;
        }
        let newest = is(self.newest_caller.as_ref(), caller);
        let due = if newest { self.due } else { self.due + GRACE };
        if now < due { Claim::NotYet(due.after(now)) } else { Claim::Due }
    }

    /// The call is due, and has to wait for a run that goes on. If it is the newest, the window is
    /// due no earlier than now: an older caller must not run in its place once the run is over,
    /// merely because it asks first. While the newest asks, it is alive.
    pub(crate) fn wait_for_run(&mut self, caller: Caller<'_>, now: Moment) {
        if is(self.newest_caller.as_ref(), caller) {
            self.due = self.due.max(now);
        }
    }

    /// A run has begun that covers every call up to now, and this one.
    pub(crate) fn begin(&mut self, (client, number): Caller<'_>, call: u64) {
        self.newest_call = self.newest_call.max(call);
        self.ran = self.newest_call;
        self.ran_by = Some((client.to_owned(), number));
    }
}

fn is(known: Option<&(String, u64)>, (client, number): Caller<'_>) -> bool {
    known.is_some_and(|known| known.0 == client && known.1 == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    const A: Caller<'static> = ("a", 1);
    const B: Caller<'static> = ("b", 1);

    fn register(window: &mut Window, caller: Caller<'_>, millis: u64) -> Registered {
        window.register(caller, WAIT, None, millis * 1000 + 1, at(millis))
    }

    #[test]
    fn the_last_call_runs_once_the_wait_after_it_is_over() {
        let mut window = Window::default();
        let first = register(&mut window, A, 0);
        let second = register(&mut window, B, 60);
        assert!(second.call > first.call);
        assert_eq!(window.claim(B, second.call, at(159)), Claim::NotYet(Duration::from_millis(1)));
        assert_eq!(window.claim(B, second.call, at(160)), Claim::Due);
        window.begin(B, second.call);
        assert_eq!(window.claim(A, first.call, at(5000)), Claim::Superseded);
    }

    #[test]
    fn an_earlier_caller_takes_over_only_when_the_newest_is_late() {
        let mut window = Window::default();
        let first = register(&mut window, A, 0);
        register(&mut window, B, 0);
        assert!(matches!(window.claim(A, first.call, at(1099)), Claim::NotYet(_)));
        assert_eq!(window.claim(A, first.call, at(1100)), Claim::Due);
    }

    #[test]
    fn max_wait_bounds_a_stream_of_calls() {
        let mut window = Window::default();
        let limit = Some(Duration::from_millis(250));
        for millis in (0..250).step_by(50) {
            window.register(("a", millis), WAIT, limit, millis + 1, at(millis));
            window.register(("b", millis), WAIT, limit, millis + 1, at(millis));
        }
        let last = window.register(("c", 1), WAIT, limit, 300, at(249));
        assert_eq!(window.claim(("c", 1), last.call, at(250)), Claim::Due);
    }

    #[test]
    fn registering_twice_is_registering_once() {
        let mut window = Window::default();
        let once = register(&mut window, A, 0);
        let twice = window.register(A, WAIT, None, 50_000, at(50));
        assert_eq!(twice, Registered { call: once.call, due_in: Duration::from_millis(50) });
    }

    #[test]
    fn registering_again_after_somebody_else_does_not_make_it_the_newest() {
        let mut window = Window::default();
        let once = register(&mut window, A, 0);
        let newer = register(&mut window, B, 50);
        assert_eq!(register(&mut window, A, 60).call, once.call);
        assert_eq!(window.claim(B, newer.call, at(150)), Claim::Due);
        // Nor does the request of a call that its own client has replaced.
        let third = window.register(("a", 2), WAIT, None, 70_000, at(70));
        assert_eq!(register(&mut window, A, 80).call, third.call);
    }

    #[test]
    fn a_claim_whose_answer_was_lost_is_granted_again() {
        let mut window = Window::default();
        let first = register(&mut window, A, 0);
        let second = register(&mut window, B, 10);
        window.begin(B, second.call);
        assert_eq!(window.claim(B, second.call, at(200)), Claim::Due);
        assert_eq!(window.claim(A, first.call, at(200)), Claim::Superseded);
    }

    #[test]
    fn the_newest_keeps_its_turn_while_it_waits_for_a_run() {
        let mut window = Window::default();
        let older = register(&mut window, A, 0);
        let newest = register(&mut window, B, 10);
        window.wait_for_run(B, at(5000));
        window.wait_for_run(A, at(5500));
        assert!(matches!(window.claim(A, older.call, at(5999)), Claim::NotYet(_)));
        assert_eq!(window.claim(B, newest.call, at(5999)), Claim::Due);
        assert_eq!(
            window.claim(A, older.call, at(6000)),
            Claim::Due,
            "the newest is heard no more"
        );
    }

    #[test]
    fn clients_that_are_gone_are_forgotten() {
        let mut window = Window::default();
        for number in 0..500 {
            let micros = number * 1_000_000;
            let client = format!("client {number}");
            let call = window.register((&client, 1), WAIT, None, micros + 1, at(number * 1000));
            window.begin((&client, 1), call.call);
        }
        assert!(window.clients.len() <= MANY + 1, "{}", window.clients.len());
    }

    #[test]
    fn after_a_loss_of_data_neither_call_is_lost_nor_run_twice() {
        let mut before = Window::default();
        let lost = register(&mut before, A, 0);
        let mut after = Window::default();
        assert_eq!(after.claim(A, lost.call, at(100)), Claim::Due, "nobody else knows it");
        let newer = register(&mut after, B, 50);
        assert!(newer.call > lost.call, "numbers grow across the loss");
        after.begin(B, newer.call);
        assert_eq!(after.claim(A, lost.call, at(200)), Claim::Superseded);
    }

    #[test]
    fn a_call_during_a_run_opens_the_next_window() {
        let mut window = Window::default();
        let first = register(&mut window, A, 0);
        window.begin(A, first.call);
        let next = register(&mut window, ("a", 2), 150);
        assert_eq!(next.due_in, WAIT);
        assert_eq!(window.claim(("a", 2), next.call, at(250)), Claim::Due);
    }
}
