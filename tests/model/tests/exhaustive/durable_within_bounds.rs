//! The bounds within which durable calls are walked through.

use crate::{
    checker::{Seen, check, is_larger},
    durable::Durable,
    play::Bound,
    scene::Scene,
};

/// Each process has a worker, even if it makes no call.
pub(crate) fn scene(calls: &[u8], bound: Bound) -> Scene<Durable> {
    let play = Durable { calls: calls.to_vec(), fails: false, seen: Seen::default() };
    Scene::new(play, calls.len(), bound)
}

#[test]
fn late_calls_looks_and_runs() {
    let bound = Bound { late: 1, lasting: 1, ..Bound::default() };
    check("late durable calls", scene(&[1, 1], bound), 430_000);
}

#[test]
fn cuts_crashes_and_runs_that_are_aborted() {
    let bound = Bound { lasting: 1, faults: 1, ..Bound::default() };
    check("faults of durable calls", scene(&[1, 1], bound), 210_000);
}

#[test]
fn runs_that_fail() {
    let bound = Bound { lasting: 1, late: 1, ..Bound::default() };
    let mut failing = scene(&[1, 0], bound);
    failing.play.fails = true;
    check("failing durable calls", failing, 65_000);
}

#[test]
fn larger_bounds() {
    if !is_larger() {
        return;
    }
    let both = Bound { late: 1, lasting: 1, faults: 1, ..Bound::default() };
    check("larger: durable calls", scene(&[1, 1], both), 100_000);
    let three = Bound { lasting: 1, faults: 1, ..Bound::default() };
    check("larger: three workers", scene(&[1, 1, 0], three), 100_000);
}
