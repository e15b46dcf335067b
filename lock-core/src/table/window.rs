//! The window of one debounce id, as the store keeps it: which call runs, and when.
//!
//! A burst is one *window*. A call is identified by the time at which it was made, on the store's
//! clock: a process says how old its newest call is, not when it was made, so that no client's
//! clock is ever compared with another. The newest call of the window is the one that runs, `wait`
//! after it was made and at the latest `max_wait` after the window's first (trailing edge, as in
//! lodash's `debounce`). Its run covers every call before it, and what was covered stays marked: an
//! older call that arrives late finds its time among those that ran. That mark is the tombstone; it
//! outlives the window.
//!
//! There is only one question: "this is my newest call; may it run?" Asking registers the call,
//! keeps the window, and claims the run if it is due. Asking twice has the same effect as asking
//! once.
//!
//! This is the reference: the memory store runs it, the Redis script follows it line by line, and
//! a differential test compares the two. Times are microseconds of the store's clock.

use std::{collections::BTreeMap, time::Duration};

use crate::{contract::GRACE, mutant::Mutant};

/// The caller: a client, and the number of its call. The numbers of one client grow.
pub(crate) type Caller<'a> = (&'a str, u64);

/// How many clients a window remembers before it forgets those that have not called lately.
const MANY: usize = 100;

/// How long ago, in microseconds, a client may have made its last call and still be remembered
/// then: longer than any request is repeated.
const LATELY: u64 = 60_000_000;

/// The newest call of a process.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Call<'a> {
    pub(crate) caller: Caller<'a>,
    /// How long ago it was made.
    pub(crate) age: Duration,
    pub(crate) wait: Duration,
    pub(crate) max_wait: Option<Duration>,
    /// Whether the call runs at once if no burst is in progress.
    pub(crate) leading: bool,
}

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// The window is not due for this call yet.
    NotYet {
        left: Duration,
        /// Whether the call is the newest of all.
        newest: bool,
    },
    /// A run has already covered this call, or a newer call of its own client stands for it.
    Superseded,
    /// The call may run, if no other run is in progress: the store decides that in the same
    /// operation.
    Due,
}

/// The window of one id; survives its run as a tombstone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    /// The time of the newest call, and who made it.
    newest: u64,
    newest_caller: Option<(String, u64)>,
    /// The last call of each client: its own number for it, and its time.
    clients: BTreeMap<String, (u64, u64)>,
    /// The time of the newest call that a run has covered, who ran, and when that run began.
    ran: u64,
    ran_by: Option<(String, u64)>,
    ran_at: u64,
    /// What `max_wait` counts from.
    first: u64,
    due: u64,
    /// The latest time that the store's clock has shown here.
    clock: u64,
}

impl Window {
    /// Registers a call, and says whether it may run.
    pub(crate) fn ask(&mut self, call: &Call<'_>, now: u64) -> Verdict {
        let (client, number) = call.caller;
        self.follow_clock(now);
        let made = match self.clients.get(client).copied() {
            // Nobody waits for an answer to this request any more.
            Some((known, _)) if number < known => return Verdict::Superseded,
            Some((known, made)) if number == known => made,
            known => self.register(call, known.map_or(0, |(_, made)| made), now),
        };
        if made <= self.ran && !Mutant::NoTombstone.is_on() {
            // Unless it was granted this very run, and the answer was lost.
            let granted = is(self.ran_by.as_ref(), call.caller);
            return if granted { Verdict::Due } else { Verdict::Superseded };
        }
        let newest = is(self.newest_caller.as_ref(), call.caller);
        if newest {
            // A shorter wait of the same call, or one that was flushed.
            self.due = self.due.min(now + micros(call.wait));
        }
        let due = if newest { self.due } else { self.due + micros(GRACE) };
        if now < due {
            Verdict::NotYet { left: Duration::from_micros(due - now), newest }
        } else {
            Verdict::Due
        }
    }

    /// Registers a call that was not known; returns the time at which it was made.
    fn register(&mut self, call: &Call<'_>, before: u64, now: u64) -> u64 {
        let age = micros(call.age);
        let mut made = now.saturating_sub(age).max(before + 1);
        if age == 0 || made == self.newest {
            made = made.max(self.newest + 1);
        }
        if made > self.newest && made > self.ran {
            if self.newest <= self.ran {
                // The first call of its window. If calls keep coming, the window has begun with the
                // previous run, so that `max_wait` is the time from run to run.
                let goes_on = self.ran > 0 && made - self.ran <= micros(call.wait);
                self.first = if goes_on && self.ran_at > 0 { self.ran_at } else { made };
                self.forget_clients(now);
                self.due = if call.leading && !goes_on { now } else { made + micros(call.wait) };
            } else {
                self.due = made + micros(call.wait);
            }
            if let Some(limit) = call.max_wait {
                self.due = self.due.min(self.first + micros(limit));
            }
            self.newest = made;
            self.newest_caller = Some((call.caller.0.to_owned(), call.caller.1));
        }
        self.clients.insert(call.caller.0.to_owned(), (call.caller.1, made));
        made
    }

    /// If the clock was set back, moves all known times back with it, so that a call made a second
    /// ago stays a second old.
    fn follow_clock(&mut self, now: u64) {
        let back = self.clock.saturating_sub(now);
        self.clock = now;
        if back == 0 {
            return;
        }
        let clients = self.clients.values_mut().map(|(_, made)| made);
        let own =
            [&mut self.newest, &mut self.ran, &mut self.ran_at, &mut self.first, &mut self.due];
        for time in own.into_iter().chain(clients) {
            *time = time.saturating_sub(back);
        }
    }

    fn forget_clients(&mut self, now: u64) {
        if self.clients.len() > MANY {
            self.clients.retain(|_, (_, made)| *made + LATELY > now);
        }
    }

    /// The call is due, but has to wait for a run in progress. If it is the newest, the window is
    /// due no earlier than now: once the run is over, an older caller must not run in its place
    /// merely because it asks first. As long as the newest caller asks, it is alive.
    pub(crate) fn wait_for_run(&mut self, caller: Caller<'_>, now: u64) {
        if is(self.newest_caller.as_ref(), caller) {
            self.due = self.due.max(now);
        }
    }

    /// A run has begun that covers every call up to now. Returns the covered calls of other
    /// clients, which wait to be notified.
    ///
    /// If the run is granted again, because its answer was lost, it covers what it covered before:
    /// a call that came in the meantime may be newer than the one that runs.
    pub(crate) fn begin(&mut self, (client, number): Caller<'_>, now: u64) -> Vec<(String, u64)> {
        if is(self.ran_by.as_ref(), (client, number)) {
            return Vec::new();
        }
        let covered = self.newest.max(self.clients.get(client).map_or(0, |(_, made)| *made));
        let waiting = self.waiting(client, covered);
        self.newest = covered;
        self.ran_at = now;
        self.ran = covered;
        self.ran_by = Some((client.to_owned(), number));
        waiting
    }

    /// Makes a pending window due at once; returns the caller to notify.
    pub(crate) fn flush(&mut self, now: u64) -> Option<(String, u64)> {
        self.follow_clock(now);
        if self.newest <= self.ran {
            return None;
        }
        self.due = now;
        self.newest_caller.clone()
    }

    /// Covers a pending window without a run, including the calls up to now of which the store was
    /// not told; returns the callers to notify, if there was such a window.
    pub(crate) fn cancel(&mut self, now: u64) -> Option<Vec<(String, u64)>> {
        self.follow_clock(now);
        if self.newest <= self.ran {
            return None;
        }
        let waiting = self.waiting("", self.newest);
        self.newest = self.newest.max(now);
        self.ran = self.newest;
        self.ran_by = None;
        self.ran_at = 0;
        Some(waiting)
    }

    /// The last calls of other clients that were made after the last run and up to `until`.
    fn waiting(&self, but: &str, until: u64) -> Vec<(String, u64)> {
        let clients = self.clients.iter().filter(|(client, (_, made))| {
            client.as_str() != but && *made > self.ran && *made <= until
        });
        clients.map(|(client, (number, _))| (client.clone(), *number)).collect()
    }

    /// Does a call wait in it?
    pub(crate) fn is_waited_in(&self) -> bool {
        self.newest > self.ran
    }

    /// How long until the call that waits in the window is due; zero if none waits.
    pub(crate) fn due_in(&self, now: u64) -> Duration {
        let due = if self.newest > self.ran { self.due } else { 0 };
        Duration::from_micros(due.saturating_sub(now))
    }
}

fn is(known: Option<&(String, u64)>, (client, number): Caller<'_>) -> bool {
    known.is_some_and(|known| known.0 == client && known.1 == number)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(100);

    /// The time at which the tests begin, in microseconds.
    const START: u64 = 1_000_000_000;

    const A: Caller<'static> = ("a", 1);
    const B: Caller<'static> = ("b", 1);

    fn at(millis: u64) -> u64 {
        START + millis * 1000
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn call(caller: Caller<'_>) -> Call<'_> {
        Call { caller, age: Duration::ZERO, wait: WAIT, max_wait: None, leading: false }
    }

    fn ask(window: &mut Window, caller: Caller<'_>, millis: u64) -> Verdict {
        window.ask(&call(caller), at(millis))
    }

    fn not_yet(left: u64, newest: bool) -> Verdict {
        Verdict::NotYet { left: ms(left), newest }
    }

    /// The `left` of a "not yet".
    fn left(verdict: Verdict) -> Duration {
        match verdict {
            Verdict::NotYet { left, .. } => left,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_call_runs_once_the_wait_after_it_is_over() {
        let mut window = Window::default();
        assert_eq!(ask(&mut window, A, 0), not_yet(100, true));
        assert_eq!(ask(&mut window, B, 60), not_yet(100, true));
        assert_eq!(ask(&mut window, B, 159), not_yet(1, true));
        assert_eq!(ask(&mut window, B, 160), Verdict::Due);
        assert_eq!(window.begin(B, at(160)), [("a".to_owned(), 1)], "the other is told");
        assert_eq!(ask(&mut window, A, 5000), Verdict::Superseded);
    }

    #[test]
    fn a_call_that_is_told_late_counts_from_when_it_was_made() {
        let mut window = Window::default();
        ask(&mut window, A, 0);
        let late = Call { age: ms(30), ..call(("a", 2)) };
        assert_eq!(window.ask(&late, at(100)), not_yet(70, true));
        // Another client's call was made after it, though the store was told of that one first.
        ask(&mut window, B, 110);
        let older = Call { age: ms(15), ..call(("a", 3)) };
        assert_eq!(window.ask(&older, at(120)), not_yet(90 + 1000, false));
        assert_eq!(ask(&mut window, B, 210), Verdict::Due);
    }

    #[test]
    fn the_tombstone_stops_an_older_call_and_no_newer_one() {
        let mut window = Window::default();
        ask(&mut window, A, 0);
        ask(&mut window, B, 50);
        assert_eq!(ask(&mut window, B, 150), Verdict::Due);
        window.begin(B, at(150));
        let before = Call { age: ms(150), ..call(("a", 2)) };
        assert_eq!(window.ask(&before, at(190)), Verdict::Superseded, "made at 40");
        let after = Call { age: ms(95), ..call(("c", 1)) };
        assert_eq!(window.ask(&after, at(195)), not_yet(5, true), "made at 100");
    }

    #[test]
    fn an_earlier_caller_takes_over_only_when_the_newest_is_late() {
        let mut window = Window::default();
        ask(&mut window, A, 0);
        ask(&mut window, B, 0);
        assert_eq!(ask(&mut window, A, 1099), not_yet(1, false));
        assert_eq!(ask(&mut window, A, 1100), Verdict::Due);
    }

    #[test]
    fn max_wait_bounds_a_stream_of_calls_from_run_to_run() {
        let mut window = Window::default();
        let limit = Some(ms(250));
        let mut runs = Vec::new();
        for millis in (0..2000).step_by(20) {
            let call = Call { max_wait: limit, ..call(("a", millis + 1)) };
            let verdict = window.ask(&call, at(millis));
            if verdict == Verdict::Due || left(verdict) < ms(20) {
                let at = millis
                    + if verdict == Verdict::Due { 0 } else { left(verdict).as_millis() as u64 };
                let asked = window.ask(&call, START + at * 1000);
                assert_eq!(asked, Verdict::Due);
                window.begin(call.caller, START + at * 1000);
                runs.push(at);
            }
        }
        assert_eq!(runs, [250, 500, 750, 1000, 1250, 1500, 1750]);
    }

    #[test]
    fn a_pause_of_the_stream_begins_a_new_count() {
        let mut window = Window::default();
        let limited = |number| Call { max_wait: Some(ms(150)), ..call(("a", number)) };
        window.ask(&limited(1), at(0));
        window.begin(("a", 1), at(100));
        assert_eq!(window.ask(&limited(2), at(300)), not_yet(100, true));
        assert_eq!(window.ask(&limited(3), at(390)), not_yet(60, true), "150 after the first");
    }

    #[test]
    fn leading_runs_the_first_call_at_once_and_the_last_after_the_wait() {
        let mut window = Window::default();
        let leading = |number| Call { leading: true, ..call(("a", number)) };
        assert_eq!(window.ask(&leading(1), at(0)), Verdict::Due);
        window.begin(("a", 1), at(0));
        assert_eq!(window.ask(&leading(2), at(50)), not_yet(100, true));
        assert_eq!(window.ask(&leading(3), at(120)), not_yet(100, true));
        assert_eq!(window.ask(&leading(3), at(220)), Verdict::Due);
        window.begin(("a", 3), at(220));
        // After a wait without a call, the next burst begins, as it does in lodash.
        assert_eq!(window.ask(&leading(4), at(221)), Verdict::Due);
    }

    #[test]
    fn asking_twice_is_asking_once() {
        let mut window = Window::default();
        ask(&mut window, A, 0);
        assert_eq!(ask(&mut window, A, 50), not_yet(50, true));
        ask(&mut window, B, 60);
        assert_eq!(ask(&mut window, A, 70), not_yet(90 + 1000, false), "it does not become newer");
        assert_eq!(ask(&mut window, B, 160), Verdict::Due);
        // Nor does the request of a call that its own client has replaced.
        ask(&mut window, ("a", 2), 170);
        assert_eq!(ask(&mut window, A, 180), Verdict::Superseded);
    }

    #[test]
    fn a_claim_whose_answer_was_lost_is_granted_again() {
        let mut window = Window::default();
        ask(&mut window, A, 0);
        ask(&mut window, B, 10);
        window.begin(B, at(110));
        assert_eq!(ask(&mut window, B, 200), Verdict::Due);
        assert_eq!(ask(&mut window, A, 200), Verdict::Superseded);
    }

    #[test]
    fn a_run_that_is_granted_again_covers_no_call_that_came_meanwhile() {
        let mut window = Window::default();
        ask(&mut window, A, 0);
        window.begin(A, at(100));
        ask(&mut window, B, 150);
        assert_eq!(ask(&mut window, A, 160), Verdict::Due);
        assert!(window.begin(A, at(160)).is_empty());
        assert_eq!(ask(&mut window, B, 249), not_yet(1, true));
        assert_eq!(ask(&mut window, B, 250), Verdict::Due, "it is newer than what runs");
    }

    #[test]
    fn the_newest_keeps_its_turn_while_it_waits_for_a_run() {
        let mut window = Window::default();
        ask(&mut window, A, 0);
        ask(&mut window, B, 10);
        window.wait_for_run(B, at(5000));
        window.wait_for_run(A, at(5500));
        assert_eq!(ask(&mut window, A, 5999), not_yet(1, false));
        assert_eq!(ask(&mut window, B, 5999), Verdict::Due);
        assert_eq!(ask(&mut window, A, 6000), Verdict::Due, "the newest has fallen silent");
    }

    #[test]
    fn a_flush_makes_it_due_and_a_cancel_covers_it() {
        let mut window = Window::default();
        assert_eq!(window.flush(at(0)), None);
        assert_eq!(window.cancel(at(0)), None);
        ask(&mut window, A, 0);
        ask(&mut window, B, 1);
        assert_eq!(window.flush(at(10)), Some(("b".to_owned(), 1)));
        assert_eq!(ask(&mut window, B, 10), Verdict::Due);
        assert_eq!(window.cancel(at(15)).map(|told| told.len()), Some(2));
        let untold = Call { age: ms(8), ..call(("b", 2)) };
        assert_eq!(window.ask(&untold, at(20)), Verdict::Superseded, "it was made before that");
        assert_eq!(ask(&mut window, A, 20), Verdict::Superseded);
        assert_eq!(ask(&mut window, B, 20), Verdict::Superseded);
        assert_eq!(ask(&mut window, ("a", 2), 30), not_yet(100, true));
    }

    #[test]
    fn clients_that_are_gone_are_forgotten() {
        let mut window = Window::default();
        let name = |number| format!("client {number}");
        for number in 0..500_u64 {
            ask(&mut window, (&name(number), 1), number * 1000);
            window.begin((&name(number), 1), at(number * 1000 + 100));
            // Clients that called within the last minute are known.
            let mut lately = number.saturating_sub(58)..=number;
            assert!(lately.all(|number| window.clients.contains_key(&name(number))), "{number}");
        }
        assert!(window.clients.len() <= MANY + 1, "{}", window.clients.len());
    }

    #[test]
    fn a_few_clients_are_remembered_for_good() {
        let mut window = Window::default();
        ask(&mut window, ("a", 5), 0);
        window.begin(("a", 5), at(100));
        ask(&mut window, B, 3_600_000);
        assert_eq!(ask(&mut window, ("a", 4), 3_600_001), Verdict::Superseded, "an old request");
    }

    #[test]
    fn of_two_calls_of_one_time_the_one_that_is_told_later_is_the_newer() {
        let mut window = Window::default();
        ask(&mut window, A, 0);
        let same = Call { age: ms(10), ..call(B) };
        assert!(matches!(window.ask(&same, at(10)), Verdict::NotYet { newest: true, .. }));
        assert!(matches!(ask(&mut window, A, 10), Verdict::NotYet { newest: false, .. }));
        // Even if the clock does not advance.
        assert!(matches!(ask(&mut window, ("c", 1), 10), Verdict::NotYet { newest: true, .. }));
        assert!(matches!(ask(&mut window, ("d", 1), 10), Verdict::NotYet { newest: true, .. }));
    }

    #[test]
    fn a_run_tells_those_that_it_covers_and_not_the_one_that_ran_before() {
        let mut window = Window::default();
        ask(&mut window, A, 0);
        window.begin(A, at(100));
        ask(&mut window, B, 200);
        assert!(window.begin(B, at(300)).is_empty());
    }

    #[test]
    fn after_a_loss_of_data_neither_call_is_lost_nor_run_twice() {
        let mut after = Window::default();
        let lost = Call { age: ms(100), ..call(A) };
        assert_eq!(after.clone().ask(&lost, at(100)), Verdict::Due, "nobody else knows it");
        ask(&mut after, B, 50);
        after.begin(B, at(150));
        let lost = Call { age: ms(200), ..call(A) };
        assert_eq!(after.ask(&lost, at(200)), Verdict::Superseded);
    }

    #[test]
    fn a_clock_that_is_set_back_neither_loses_a_call_nor_delays_it() {
        let mut window = Window::default();
        ask(&mut window, A, 3_600_000);
        let next = Call { age: ms(40), ..call(("a", 2)) };
        // An hour back.
        assert!(left(window.ask(&next, at(0))) <= ms(100));
        assert_eq!(window.ask(&next, at(100)), Verdict::Due);
        window.begin(("a", 2), at(100));
        assert!(left(ask(&mut window, ("a", 3), 200)) <= ms(100), "and the next window is right");
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_max_wait_and_the_leading_edge() {
        let mut window = Window::default();
        ask(&mut window, A, 3_600_000);
        window.begin(A, at(3_600_100));
        ask(&mut window, ("a", 2), 3_600_150);
        // An hour back, in the middle of a stream.
        let mut runs = 0;
        for millis in (0..2000).step_by(20) {
            let number = 10 + millis;
            let call = Call { max_wait: Some(ms(250)), ..call(("a", number)) };
            if window.ask(&call, at(millis)) == Verdict::Due {
                window.begin(("a", number), at(millis));
                runs += 1;
            }
        }
        assert!((6..=8).contains(&runs), "{runs} runs in two seconds");
        window.begin(("a", 10 + 1980), at(2100));
        let leading = Call { leading: true, ..call(("a", 9000)) };
        assert_eq!(window.ask(&leading, at(5000)), Verdict::Due);
    }

    #[test]
    fn a_call_during_a_run_opens_the_next_window() {
        let mut window = Window::default();
        ask(&mut window, A, 0);
        window.begin(A, at(100));
        assert_eq!(ask(&mut window, ("a", 2), 150), not_yet(100, true));
        assert_eq!(ask(&mut window, ("a", 2), 250), Verdict::Due);
    }
}
