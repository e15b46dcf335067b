//! What the local queue decides, event by event.

use super::*;

const LEASE: Duration = Duration::from_secs(10);
const HALF: Duration = Duration::from_secs(7);

fn at(millis: u64) -> Moment {
    Moment::default() + Duration::from_millis(millis)
}

fn rechecks(woken: bool) -> Rechecks {
    Rechecks { woken, told: true, jitter: Jitter::new(300) }
}

fn token(fence: u64, hand_over: u64) -> u64 {
    fence * 1024 + hand_over
}

/// A queue whose first caller, number 1, holds the lock.
fn held(contended: bool) -> LockState {
    let mut queue = LockState::default();
    assert_eq!(queue.join(1, LEASE), Action::Ask);
    let request = queue.request(at(0)).unwrap();
    assert_eq!((request.number, request.if_held), (1, IfHeld::Wait));
    let action = queue.granted(1, 5, contended);
    assert_eq!(action, Action::Grant { caller: 1, fencing_token: token(5, 0) });
    queue
}

#[test]
fn one_asks_for_all_and_the_first_gets_it() {
    let mut queue = LockState::default();
    assert_eq!(queue.join(1, LEASE), Action::Ask);
    assert_eq!(queue.join(2, LEASE), Action::None);
    assert!(queue.request(at(0)).is_some());
    assert_eq!(queue.request(at(0)), None, "one request at a time");
    // The first leaves; what was asked for it goes to the second.
    assert_eq!(queue.leave(1), Action::None);
    let action = queue.granted(1, 5, false);
    assert_eq!(action, Action::Grant { caller: 2, fencing_token: token(5, 0) });
    assert_eq!(queue.ownership(), Some(1));
}

#[test]
fn the_last_one_to_leave_takes_the_seat_with_it() {
    let mut queue = LockState::default();
    queue.join(1, LEASE);
    assert_eq!(queue.leave(1), Action::None, "nothing was sent");
    assert!(queue.is_idle());
    queue.join(2, LEASE);
    queue.join(3, LEASE);
    queue.request(at(0)).unwrap();
    assert_eq!(queue.leave(3), Action::None);
    assert_eq!(queue.leave(2), Action::Withdraw { number: 2 });
    // The answer for it comes too late, and changes nothing.
    assert_eq!(queue.granted(2, 5, false), Action::None);
    assert!(queue.is_idle());
}

#[test]
fn a_lock_that_nobody_else_wants_passes_from_caller_to_caller() {
    let mut queue = held(false);
    let mut last = token(5, 0);
    for caller in 2..=1024 {
        queue.join(caller, LEASE);
        let Action::Grant { caller: next, fencing_token } = queue.released(HALF) else {
            panic!("{caller}")
        };
        assert_eq!((next, fencing_token), (caller, last + 1));
        last = fencing_token;
    }
    assert_eq!(last, token(5, 1023));
    // The hand-overs of one grant are used up: the store gives a new fence to the same token.
    queue.join(2000, LEASE);
    assert_eq!(queue.released(HALF), Action::Reacquire);
    let request = queue.request(at(0)).unwrap();
    assert_eq!((request.number, request.if_held), (1, IfHeld::KeepWaiting(None)));
    let action = queue.granted(1, 6, false);
    assert_eq!(action, Action::Grant { caller: 2000, fencing_token: token(6, 0) });
}

#[test]
fn a_lock_that_is_wanted_elsewhere_goes_to_the_store() {
    for told_with_the_grant in [true, false] {
        let mut queue = held(told_with_the_grant);
        if !told_with_the_grant {
            queue.contended(1);
        }
        queue.join(2, LEASE);
        assert_eq!(queue.released(HALF), Action::Release);
        // The next caller queues behind those that wait elsewhere.
        assert_eq!(queue.request(at(0)).unwrap().number, 2);
    }
    // Reported of another token, or of the grant that is on its way.
    let mut queue = held(false);
    queue.contended(7);
    queue.join(2, LEASE);
    assert!(matches!(queue.released(HALF), Action::Grant { .. }));
    let mut queue = LockState::default();
    queue.join(1, LEASE);
    queue.request(at(0)).unwrap();
    queue.contended(1);
    queue.granted(1, 5, false);
    queue.join(2, LEASE);
    assert_eq!(queue.released(HALF), Action::Release);
}

#[test]
fn what_does_not_fit_the_next_lease_is_asked_for_again() {
    for (remaining, next, passes) in [
        (HALF, LEASE, true),
        (LEASE, LEASE, true),
        (LEASE / 2 - Duration::from_millis(1), LEASE, false),
        (HALF, LEASE * 3, false),
        (HALF, LEASE / 2, false),
    ] {
        let mut queue = held(false);
        queue.join(2, next);
        let passed = matches!(queue.released(remaining), Action::Grant { .. });
        assert_eq!(passed, passes, "{remaining:?} for {next:?}");
    }
    // A lock that may not be passed on at all is released.
    let mut queue = held(false);
    queue.join(2, LEASE);
    assert_eq!(queue.released(Duration::ZERO), Action::Release);
}

#[test]
fn a_token_that_holds_the_lock_is_never_just_forgotten() {
    let mut queue = held(false);
    queue.join(2, LEASE * 3);
    assert_eq!(queue.released(HALF), Action::Reacquire);
    assert_eq!(queue.leave(2), Action::Withdraw { number: 1 });
}

#[test]
fn looks_are_rare_where_wake_ups_come_and_never_later_than_the_holders_time() {
    let look = |woken, remaining, ticket| {
        let mut queue = LockState::default();
        queue.join(1, LEASE);
        queue.request(at(0)).unwrap();
        match queue.held(1, remaining, ticket, rechecks(woken), at(0)) {
            Action::RecheckAt(at) => at.after(Moment::default()),
            other => panic!("{other:?}"),
        }
    };
    let ten = Some(Duration::from_secs(10));
    let heartbeat = HEARTBEAT * 14 / 15..=HEARTBEAT;
    assert!(heartbeat.contains(&look(true, ten, Some(7))));
    assert!(heartbeat.contains(&look(true, None, Some(7))));
    let short = Some(Duration::from_millis(30));
    assert_eq!(look(true, short, Some(7)), Duration::from_millis(31));
    assert!(look(false, ten, Some(7)) <= POLL.0, "without notices, it looks often at first");
    assert!(look(true, ten, None) <= POLL.0, "a store without a queue wakes nobody");
}

#[test]
fn a_wake_up_during_a_look_makes_another() {
    let mut queue = LockState::default();
    queue.join(1, LEASE);
    queue.request(at(0)).unwrap();
    assert_eq!(queue.recheck(), Action::None);
    assert_eq!(queue.held(1, None, Some(7), rechecks(true), at(1)), Action::Ask);
    let request = queue.request(at(1)).unwrap();
    assert_eq!(request.if_held, IfHeld::KeepWaiting(Some(7)));
    assert!(matches!(queue.held(1, None, Some(7), rechecks(true), at(2)), Action::RecheckAt(_)));
    assert_eq!(queue.recheck(), Action::Ask);
}

#[test]
fn silence_is_looked_into_ever_more_rarely_until_its_limit() {
    let mut queue = LockState::default();
    queue.join(1, LEASE);
    let (mut now, mut tries) = (at(0), 0);
    while now < at(2000) {
        queue.request(now).unwrap();
        let Action::RecheckAt(next) = queue.unanswered(1, rechecks(true), now) else {
            panic!("it rechecks again")
        };
        assert!(next > now && next <= at(2000));
        (now, tries) = (next, tries + 1);
    }
    assert!((5..20).contains(&tries), "{tries}");
    assert_eq!(queue.entry().unwrap().silent_since(), Some(at(0)));
    queue.request(now).unwrap();
    queue.held(1, None, None, rechecks(true), now);
    assert_eq!(queue.entry().unwrap().silent_since(), None);
}

#[test]
fn those_that_leave_from_the_middle_are_passed_over() {
    let mut queue = held(false);
    for caller in 2..200 {
        queue.join(caller, LEASE);
    }
    for caller in (2..200).filter(|caller| caller % 3 != 0) {
        queue.leave(caller);
    }
    assert_eq!(queue.waiters(), 66);
    let rest: Vec<_> = (2..200).filter(|caller| caller % 3 == 0).collect();
    assert_eq!(queue.callers().collect::<Vec<_>>(), rest);
    for expected in rest {
        let Action::Grant { caller, .. } = queue.released(HALF) else { panic!("{expected}") };
        assert_eq!(caller, expected);
    }
    assert_eq!(queue.released(HALF), Action::Release);
    assert!(queue.is_idle());
}

#[test]
fn a_lock_that_came_another_way_knows_of_the_seat() {
    let mut queue = LockState::default();
    queue.join(1, LEASE);
    queue.request(at(0)).unwrap();
    // A single attempt of this process was first: the entry is in the store's queue.
    assert_eq!(queue.taken_by(9, 5, false), token(5, 0));
    queue.held(1, None, Some(7), rechecks(true), at(1));
    assert_eq!(queue.released(HALF), Action::Release);
    assert_eq!(queue.entry().unwrap().number(), 1, "and goes on waiting there");
}

#[test]
fn after_a_loss_the_next_one_asks_with_a_token_of_its_own() {
    let mut queue = held(false);
    queue.join(2, LEASE);
    assert_eq!(queue.lost(), Action::Ask);
    let request = queue.request(at(0)).unwrap();
    assert_eq!((request.number, request.if_held), (2, IfHeld::Wait));
}
