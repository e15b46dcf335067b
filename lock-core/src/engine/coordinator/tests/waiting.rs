//! Callers that wait in line, and notices that are lost.

use super::*;
use crate::contract::Delivery;

/// An engine whose caller 2 waits for the lock `a`, which another client keeps for `remaining`.
fn waiting(remaining: Duration) -> Engine<u64> {
    let mut engine = engine();
    engine.notice(Notice::Connected(Delivery::Push), at(0));
    engine.command(acquire(2, "a", LEASE), at(0));
    let sent = asked(&mut engine, at(0));
    let held = Acquisition::held(Some(remaining)).waiting(1, true);
    engine.answered(Answer::Acquired(sent, vec![Ok(held)]), at(0));
    assert!(engine.poll_call(at(0)).is_none());
    engine
}

/// Cancels the caller, and answers the release of its token, which holds nothing.
fn withdraw(engine: &mut Engine<u64>, now: Moment) {
    engine.command(Command::Cancel(2), now);
    let Some(Call::Release(batch)) = engine.poll_call(now) else { panic!("it withdraws") };
    let answer = Release::not_ours();
    engine.answered(Answer::Released(batch.sent, vec![Ok(answer)]), now);
}

#[test]
fn a_waiter_that_hears_of_others_behind_it_looks_for_its_own_grant() {
    let mut engine = waiting(LEASE);
    engine.notice(Notice::Contended { number: 2 }, at(100));
    assert_eq!(asked(&mut engine, at(100)).asked[0].1, 2);
}

#[test]
fn a_waiter_that_leaves_shortly_before_a_lock_may_be_free_looks_once_more() {
    // Its own look may have handed the lock over to a waiter that did not receive the notice.
    let mut engine = waiting(RESERVATION);
    withdraw(&mut engine, at(100));
    let look_at = engine.next_timeout().expect("it looks");
    assert!(look_at > at(1_000) && look_at < at(1_100), "{look_at:?}");
    engine.timeout(look_at);
    let Some(Call::Release(batch)) = engine.poll_call(look_at) else { panic!("it passes it on") };
    assert_eq!(batch.sent.asked, [2]);
}

#[test]
fn a_waiter_that_leaves_a_lock_in_the_middle_of_its_lease_does_not_look_again() {
    let mut engine = waiting(LEASE);
    withdraw(&mut engine, at(100));
    assert_eq!(engine.next_timeout(), None);
}
