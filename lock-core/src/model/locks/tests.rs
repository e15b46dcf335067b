use super::*;
use crate::model::{assert_breaks, check, is_larger};

fn model(acquisitions: [u8; 3], bound: Bound, mistake: Option<Mistake>) -> Locks {
    Locks { acquisitions: acquisitions.to_vec(), bound, mistake, seen: Seen::default() }
}

const NOTHING: Bound = Bound { late: 0, holding: 0, faults: 0, wipes: 0 };

#[test]
fn late_requests_replies_and_keepers() {
    let bound = Bound { late: 1, holding: 1, ..NOTHING };
    check("late", model([2, 1, 1], bound, None), 600_000);
}

#[test]
fn a_late_holder_and_a_late_reply() {
    let bound = Bound { late: 2, holding: 1, ..NOTHING };
    check("late twice", model([2, 1, 0], bound, None), 700_000);
}

#[test]
fn cuts_crashes_withdrawals_and_lost_wake_ups() {
    let bound = Bound { holding: 1, faults: 1, ..NOTHING };
    check("faults", model([2, 1, 1], bound, None), 350_000);
}

#[test]
fn a_fault_and_a_delay() {
    let bound = Bound { late: 1, faults: 1, ..NOTHING };
    check("a fault and a delay", model([1, 1, 1], bound, None), 800_000);
}

#[test]
fn fences_grow_across_a_loss_of_all_data() {
    let bound = Bound { holding: 1, wipes: 1, late: 1, ..NOTHING };
    check("loss of data", model([2, 1, 0], bound, None), 50_000);
}

#[test]
fn larger_bounds() {
    if !is_larger() {
        return;
    }
    let both = Bound { late: 1, faults: 1, ..NOTHING };
    check("larger: a fault and a delay", model([2, 1, 1], both, None), 7_000_000);
    let late = Bound { late: 2, ..NOTHING };
    check("larger: late twice", model([1, 1, 1], late, None), 1_000_000);
    let faults = Bound { faults: 2, ..NOTHING };
    check("larger: two faults", model([2, 1, 1], faults, None), 1_000_000);
    let wiped = Bound { late: 1, wipes: 1, ..NOTHING };
    check("larger: loss of data", model([2, 1, 1], wiped, None), 900_000);
}

#[test]
fn each_mistake_is_found() {
    const EXCLUSION: &str = "at most one guard is valid";
    const TOKENS: &str = "fencing tokens grow from guard to guard";
    const FENCES: &str = "each fence is larger than all before";
    const RENEWALS: &str = "only the newest grant is renewed";
    const END: &str = "in the end all is done, and the lock is free";
    const WAITERS: &str = "a release leaves no waiter behind";
    const UNDONE: &str = "nothing is left of who went away";

    let late = Bound { late: 2, holding: 1, ..NOTHING };
    let faults = Bound { holding: 1, faults: 1, ..NOTHING };
    let wiped = Bound { wipes: 1, ..NOTHING };
    let mistakes = [
        (Mistake::DeadlineFromReply, [2, 1, 0], late, EXCLUSION),
        (Mistake::LateGrantCounts, [2, 1, 0], late, TOKENS),
        (Mistake::ReleaseWithoutOwnerCheck, [2, 1, 1], faults, EXCLUSION),
        (Mistake::TokenPerProcess, [2, 1, 1], faults, EXCLUSION),
        (Mistake::CounterOnlyToken, [2, 1, 1], wiped, FENCES),
        (Mistake::RenewRecreates, [2, 1, 1], faults, RENEWALS),
        (Mistake::NoFallbackLook, [2, 1, 1], faults, END),
        (Mistake::NothingIsUndone, [2, 1, 1], faults, UNDONE),
        (Mistake::HandOverWithoutExpiry, [2, 1, 1], faults, END),
        (Mistake::HandOverByFreeing, [2, 1, 1], faults, WAITERS),
    ];
    for (mistake, acquisitions, bound, property) in mistakes {
        let model = model(acquisitions, bound, Some(mistake));
        assert_breaks(&format!("{mistake:?}"), model, property);
    }
}
