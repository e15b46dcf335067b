use super::*;
use crate::model::{assert_breaks, check, is_larger};

const NOTHING: Bound = Bound { late: 0, running: 0, calling: 0, faults: 0 };

fn model(calls: [u8; 3], bound: Bound, mistake: Option<Mistake>) -> Debounce {
    let (leading, strict) = (false, false);
    Debounce { calls: calls.to_vec(), leading, bound, strict, mistake, seen: Seen::default() }
}

#[test]
fn late_questions_answers_and_keepers() {
    let bound = Bound { late: 1, running: 1, ..NOTHING };
    check("late calls", model([1, 1, 1], bound, None), 150_000);
}

#[test]
fn cuts_crashes_and_callers_that_go_away() {
    let bound = Bound { running: 1, faults: 1, ..NOTHING };
    check("faults of calls", model([2, 1, 1], bound, None), 800_000);
}

#[test]
fn a_late_runner_and_calls_during_its_run() {
    let bound = Bound { late: 1, running: 1, calling: 1, ..NOTHING };
    check("late runs", model([2, 1, 0], bound, None), 100_000);
}

#[test]
fn the_first_call_of_a_burst_runs_at_once() {
    let bound = Bound { late: 1, running: 1, ..NOTHING };
    let leading = Debounce { leading: true, ..model([1, 1, 1], bound, None) };
    check("leading", leading, 50_000);
}

#[test]
fn larger_bounds() {
    if !is_larger() {
        return;
    }
    let late = Bound { late: 1, running: 1, calling: 1, ..NOTHING };
    check("larger: late calls", model([2, 1, 1], late, None), 4_000_000);
    let later = Bound { late: 2, running: 1, ..NOTHING };
    check("larger: late twice", model([2, 1, 0], later, None), 2_000_000);
    let both = Bound { late: 1, faults: 1, ..NOTHING };
    check("larger: a fault and a delay", model([1, 1, 1], both, None), 3_000_000);
}

/// What the store cannot know: how long a call was on its way. It counts from when it comes, and so
/// do later calls of its process, whatever age they say (`Window::register`). So a call may run
/// after a call of another process that was made later; later by no more than a request takes,
/// which the other tests hold it to: for them no call is made before an earlier one of its process
/// has come.
#[test]
fn calls_of_different_processes_are_in_order_but_for_the_time_of_a_request() {
    let bound = Bound { late: 2, ..NOTHING };
    let strict = Debounce { strict: true, ..model([2, 1, 0], bound, None) };
    assert_breaks("strict", strict, "no older call runs after a newer one");
}

#[test]
fn each_mistake_is_found() {
    let faults = Bound { running: 1, faults: 1, ..NOTHING };
    let late = Bound { late: 1, running: 1, ..NOTHING };
    let mistakes = [
        (Mistake::ClaimWithoutLease, late, "runs do not overlap"),
        (Mistake::NoTombstone, late, "no older call runs after a newer one"),
        (Mistake::SupersededByACall, faults, "a call is superseded by a run"),
        (Mistake::NoneBeforeTheRun, faults, "a call is superseded by a run"),
    ];
    for (mistake, bound, property) in mistakes {
        let model = model([2, 1, 1], bound, Some(mistake));
        assert_breaks(&format!("{mistake:?}"), model, property);
    }
}
