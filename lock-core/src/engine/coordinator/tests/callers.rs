//! Callers and runs that go away.

use super::*;

#[test]
fn a_try_whose_caller_went_away_in_a_pause_is_not_made() {
    let mut engine = engine();
    let Command::Acquire(mut tries) = acquire(2, "a", LEASE) else { unreachable!() };
    tries.patience = Patience::Attempts { attempts: 3, delay: Duration::from_millis(50) };
    engine.command(Command::Acquire(tries), at(0));
    let sent = asked(&mut engine, at(0));
    engine.answered(Answer::Acquired(sent, vec![Ok(Acquisition::held(Some(LEASE)))]), at(1));
    assert_eq!(engine.next_timeout(), Some(at(51)));
    engine.command(Command::Cancel(2), at(10));
    assert_eq!(engine.next_timeout(), None);
    engine.timeout(at(51));
    assert!(engine.poll_call(at(51)).is_none());
}

/// Three calls of one burst, whose run is granted: the newest has it, the others wait for it to be
/// taken.
fn burst() -> (Engine<u64>, HoldName) {
    let mut engine = engine();
    (1..=3).for_each(|caller| debounce(&mut engine, 2 * caller, "run", at(0)));
    let Some(Call::Register(batch)) = engine.poll_call(at(0)) else { panic!("it asks") };
    let ownership = batch.sent.asked[0].1;
    let granted = vec![Ok(DebounceReply::Granted { fence: 7 })];
    engine.answered(Answer::Registered(batch.sent, granted), at(1));
    assert_eq!(told(&mut engine), ["6 has 7"]);
    (engine, HoldName { ownership, caller: 6 })
}

#[test]
fn the_older_calls_of_a_burst_hear_of_it_once_its_run_is_taken() {
    let (mut engine, hold) = burst();
    engine.command(Command::RunTaken(hold), at(2));
    let superseded = std::iter::from_fn(|| engine.poll()).map(|output| match output {
        Output::Answered(caller, Ok(Outcome::Superseded)) => caller,
        _ => panic!("there is no other output"),
    });
    assert!(superseded.eq([2, 4]));
}

#[test]
fn the_older_calls_of_a_burst_are_told_if_its_run_is_lost_before_it_was_taken() {
    let (mut engine, hold) = burst();
    engine.notice(Notice::Revoked { number: hold.ownership }, at(2));
    assert_eq!(
        told(&mut engine),
        [format!("{} lost", hold.ownership), "2 refused".into(), "4 refused".into()]
    );
}

#[test]
fn a_run_that_its_caller_does_not_take_is_the_next_ones_and_undone_if_there_is_none() {
    let (mut engine, hold) = burst();
    for next in [4, 2] {
        let hold = HoldName { caller: next + 2, ..hold };
        engine.command(Command::Release { hold, undelivered: true, to: None }, at(2));
        assert_eq!(told(&mut engine), [format!("{next} has 7")]);
    }
    let last = HoldName { caller: 2, ..hold };
    // A call that comes before that is not superseded by the run that nobody did.
    debounce(&mut engine, 8, "run", at(2));
    engine.command(Command::Release { hold: last, undelivered: true, to: None }, at(3));
    let calls: Vec<_> = std::iter::from_fn(|| engine.poll_call(at(3))).collect();
    let [Call::Release(released), Call::Register(question)] = &calls[..] else {
        panic!("the run is undone, and the new call asks")
    };
    assert_eq!(released.sent.asked, [hold.ownership]);
    let sent = question.sent.clone();
    engine.answered(Answer::Registered(sent, vec![Ok(DebounceReply::Superseded)]), at(4));
    assert!(told(&mut engine).is_empty(), "it is not known by which run");
    assert!(matches!(engine.poll_call(at(4)), Some(Call::Register(_))), "it asks as a new one");
}

#[test]
fn a_burst_that_is_flushed_is_asked_about_at_once() {
    let mut engine = engine();
    let terms = WindowTerms { wait: LEASE, max_wait: None, leading: false };
    let call = DebouncedCall { acquirer: acquirer(2, "run"), window: "window".into(), terms };
    engine.command(Command::Debounce(Box::new(call)), at(0));
    let Some(Call::Register(batch)) = engine.poll_call(at(0)) else { panic!("it asks") };
    let not_yet = DebounceReply::not_yet(LEASE, true);
    engine.answered(Answer::Registered(batch.sent, vec![Ok(not_yet)]), at(1));
    assert!(engine.poll_call(at(1)).is_none());
    let (window, run) = ("window".into(), "run".into());
    let end = crate::contract::WindowEnd::Flush;
    let flush = Query::EndWindow { window, run, end, waited: false };
    engine.command(Command::Query(Box::new(flush), 100), at(2));
    let Some(Call::Register(batch)) = engine.poll_call(at(2)) else { panic!("it asks") };
    assert_eq!(batch.requests[0].wait, Duration::ZERO);
}
