//! The bounds within which the locks are walked through.

use crate::{
    checker::{Seen, check, is_larger},
    locks::Locks,
    play::Bound,
    scene::Scene,
};

pub(crate) fn scene(acquisitions: [u8; 3], bound: Bound) -> Scene<Locks> {
    let processes = acquisitions.iter().filter(|count| **count > 0).count();
    let play = Locks { acquisitions: acquisitions.to_vec(), seen: Seen::default() };
    Scene::new(play, processes, bound)
}

#[test]
fn late_requests_answers_and_keepers() {
    let bound = Bound { late: 1, lasting: 1, ..Bound::default() };
    check("late", scene([2, 1, 1], bound), 1_200_000);
}

#[test]
fn a_late_holder_and_a_late_answer() {
    let bound = Bound { late: 2, lasting: 1, ..Bound::default() };
    check("late twice", scene([2, 1, 0], bound), 1_200_000);
}

#[test]
fn cuts_crashes_withdrawals_and_lost_notices() {
    let bound = Bound { lasting: 1, faults: 1, ..Bound::default() };
    check("faults", scene([2, 1, 1], bound), 1_000_000);
}

#[test]
fn a_fault_and_a_delay() {
    let bound = Bound { late: 1, faults: 1, ..Bound::default() };
    check("a fault and a delay", scene([1, 1, 1], bound), 2_200_000);
}

#[test]
fn fences_grow_across_a_loss_of_all_data() {
    let bound = Bound { lasting: 1, wipes: 1, late: 1, ..Bound::default() };
    check("loss of data", scene([2, 1, 0], bound), 170_000);
}

#[test]
fn larger_bounds() {
    if !is_larger() {
        return;
    }
    let both = Bound { late: 1, faults: 1, ..Bound::default() };
    check("larger: a fault and a delay", scene([2, 1, 1], both), 7_000_000);
    let late = Bound { late: 2, ..Bound::default() };
    check("larger: late twice", scene([1, 1, 1], late), 1_000_000);
    let faults = Bound { faults: 2, ..Bound::default() };
    check("larger: two faults", scene([2, 1, 1], faults), 1_000_000);
    let wiped = Bound { late: 1, wipes: 1, ..Bound::default() };
    check("larger: loss of data", scene([2, 1, 1], wiped), 900_000);
}
