//! What is held: for how long at least and at most, and by whom next.

use super::*;

const AT_LEAST: Duration = Duration::from_secs(2);

/// An engine whose caller 2 holds the lock `a`, for two seconds at least; 4 waits behind it.
fn kept() -> Engine<u64> {
    let mut engine = engine();
    let Command::Acquire(mut first) = acquire(2, "a", LEASE) else { unreachable!() };
    first.acquirer.terms.hold_at_least = AT_LEAST;
    engine.command(Command::Acquire(first), at(0));
    let sent = asked(&mut engine, at(0));
    engine.answered(Answer::Acquired(sent, vec![granted(7)]), at(0));
    engine.command(acquire(4, "a", LEASE), at(0));
    assert_eq!(told(&mut engine), ["2 has 7"]);
    engine
}

/// For how long the store has to keep what is released at this time; `None` if it is passed on
/// here.
fn kept_for(undelivered: bool, millis: u64) -> Option<Duration> {
    let mut engine = kept();
    engine.command(release(2, 2, undelivered), at(millis));
    match engine.poll_call(at(millis)) {
        Some(Call::Release(batch)) => Some(batch.requests[0].keep),
        _ => {
            assert_eq!(told(&mut engine), ["4 has 7"]);
            None
        }
    }
}

#[test]
fn a_lock_that_is_held_for_some_time_at_least_is_nobodys_before() {
    assert_eq!(kept_for(false, 500), Some(Duration::from_millis(1500)));
    assert_eq!(kept_for(false, 1999), Some(Duration::from_millis(1)));
    assert_eq!(kept_for(false, 2000), None, "its time is over");
    assert_eq!(kept_for(true, 500), None, "nobody has held it");
}

#[test]
fn an_extension_may_reach_the_longest_lease_and_the_end_of_the_hold() {
    let longest = crate::limits::LONGEST_LEASE;
    let begin = |at_most: Option<Duration>| {
        let mut engine = engine();
        let Command::Acquire(mut acquire) = acquire(2, "a", LEASE) else { unreachable!() };
        acquire.acquirer.terms.hold_at_most = at_most;
        engine.command(Command::Acquire(acquire), at(0));
        let sent = asked(&mut engine, at(0));
        engine.answered(Answer::Acquired(sent, vec![granted(7)]), at(0));
        told(&mut engine);
        engine
    };
    let margin = LEASE / 100;
    let extends = |at_most: Option<Duration>, by: Duration| {
        let mut engine = begin(at_most);
        let hold = HoldName { ownership: 2, caller: 2 };
        engine.command(Command::Extend(hold, by, 4), at(0));
        matches!(engine.poll_call(at(0)), Some(Call::Extend(_)))
    };
    let rest = longest - (LEASE - margin);
    assert!(extends(None, rest));
    assert!(!extends(None, rest + Duration::from_millis(1)));
    let minute = Duration::from_secs(60);
    assert!(extends(Some(minute), minute - (LEASE - margin)));
    assert!(!extends(Some(minute), minute - (LEASE - margin) + Duration::from_millis(1)));
}

#[test]
fn what_a_token_that_goes_on_may_hold_is_undone_if_the_store_refuses() {
    let mut engine = engine();
    engine.command(acquire(2, "a", LEASE), at(0));
    let sent = asked(&mut engine, at(0));
    engine.answered(Answer::Acquired(sent, vec![granted(7)]), at(1));
    // The next one wants it for longer, so the store is asked with the same token.
    let Command::Acquire(mut next) = acquire(4, "a", LEASE) else { unreachable!() };
    next.acquirer.terms.lease = 3 * LEASE;
    engine.command(Command::Acquire(next), at(2));
    engine.command(release(2, 2, false), at(3));
    let sent = asked(&mut engine, at(3));
    assert_eq!(sent.asked[0].1, 2);
    let refused = Err(StoreError::rejected("read only"));
    engine.answered(Answer::Acquired(sent, vec![refused]), at(4));
    assert_eq!(told(&mut engine), ["2 has 7", "4 refused"]);
    let Some(Call::Release(batch)) = engine.poll_call(at(4)) else { panic!("it is undone") };
    assert_eq!(batch.sent.asked, [2]);
}

#[test]
fn what_was_asked_without_an_answer_is_undone_if_the_store_refuses_at_last() {
    let silence = || Err(StoreError::unavailable("no answer"));
    let held = || Acquisition::held(Some(LEASE));
    for (first, is_undone) in [
        (Some(silence()), true),
        // It is in the store's queue.
        (Some(Ok(held().waiting(7, true))), true),
        (Some(Ok(held())), false),
        (None, false),
    ] {
        let mut engine = engine();
        engine.command(acquire(2, "a", LEASE), at(0));
        let mut sent = asked(&mut engine, at(0));
        let mut now = at(1);
        if let Some(first) = first {
            engine.answered(Answer::Acquired(sent, vec![first]), now);
            now = engine.next_timeout().unwrap();
            engine.timeout(now);
            sent = asked(&mut engine, now);
        }
        let refused = Err(StoreError::rejected("read only"));
        engine.answered(Answer::Acquired(sent, vec![refused]), now);
        assert_eq!(told(&mut engine), ["2 refused"]);
        let undone = matches!(engine.poll_call(now), Some(Call::Release(_)));
        assert_eq!(undone, is_undone);
    }
}
