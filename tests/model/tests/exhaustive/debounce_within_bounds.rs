//! The bounds within which debounced calls are walked through.

use crate::{
    checker::{Seen, check, first_failure, is_larger},
    debounce::Debounce,
    play::Bound,
    scene::Scene,
};

pub(crate) fn scene(calls: [u8; 3], bound: Bound) -> Scene<Debounce> {
    let processes = calls.iter().filter(|count| **count > 0).count();
    let seen = Seen::default();
    let play = Debounce { calls: calls.to_vec(), leading: false, strict: false, seen };
    Scene::new(play, processes, bound)
}

#[test]
fn late_questions_answers_and_keepers() {
    let bound = Bound { late: 1, lasting: 1, ..Bound::default() };
    check("late calls", scene([1, 1, 1], bound), 200_000);
}

#[test]
fn cuts_crashes_and_callers_that_go_away() {
    let bound = Bound { lasting: 1, faults: 1, ..Bound::default() };
    check("faults of calls", scene([1, 1, 1], bound), 220_000);
    check("faults of bursts", scene([2, 1, 0], bound), 130_000);
}

#[test]
fn a_late_runner_and_calls_during_its_run() {
    let bound = Bound { late: 1, lasting: 1, calling: 1, ..Bound::default() };
    check("late runs", scene([2, 1, 0], bound), 220_000);
}

#[test]
fn the_first_call_of_a_burst_runs_at_once() {
    let bound = Bound { late: 1, lasting: 1, ..Bound::default() };
    let mut leading = scene([1, 1, 1], bound);
    leading.play.leading = true;
    check("leading", leading, 95_000);
}

#[test]
fn larger_bounds() {
    if !is_larger() {
        return;
    }
    let faults = Bound { lasting: 1, faults: 1, ..Bound::default() };
    check("larger: faults of calls", scene([2, 1, 1], faults), 2_800_000);
    let late = Bound { late: 1, lasting: 1, calling: 1, ..Bound::default() };
    check("larger: late calls", scene([2, 1, 1], late), 4_000_000);
    let later = Bound { late: 2, lasting: 1, ..Bound::default() };
    check("larger: late twice", scene([2, 1, 0], later), 2_000_000);
    let both = Bound { late: 1, faults: 1, ..Bound::default() };
    check("larger: a fault and a delay", scene([1, 1, 1], both), 3_000_000);
}

/// The server does not know how long a call was on its way. The call counts from its arrival, and
/// so do later calls of its process, whatever age they state (`Window::register`). So a call may
/// run after a call of another process that was made later, but later by at most the time of a
/// request. The other tests hold it to that: for them a call counts as made no earlier than an
/// earlier one of its process arrived.
#[test]
fn calls_of_different_processes_are_in_order_but_for_the_time_of_a_request() {
    let bound = Bound { late: 2, ..Bound::default() };
    let mut strict = scene([2, 1, 0], bound);
    (strict.play.strict, strict.ticking) = (true, true);
    let failure = first_failure(strict);
    let name = failure.map(|(name, ..)| name);
    assert_eq!(name, Some("no older call runs after a newer one"), "{failure:?}");
}
