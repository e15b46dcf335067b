//! The engine on its own: the tests write its input, and look at its output.

mod bounds;
mod callers;
mod holds;
mod presence;
mod queries;
mod told;
mod waiting;

use super::*;
use crate::engine::io::{Acquire, DebouncedCall, Terms, WindowTerms};

const LEASE: Duration = Duration::from_secs(10);

impl Caller for u64 {
    fn is_gone(&self) -> bool {
        false
    }
}

fn at(millis: u64) -> Moment {
    Moment::default() + Duration::from_millis(millis)
}

fn engine() -> Engine<u64> {
    Engine::new("client", Arc::new(|_| 0))
}

fn acquirer(number: u64, key: &str) -> Acquirer<u64> {
    let terms = Terms::of_run(LEASE, None);
    Acquirer { number, key: key.into(), terms, to: number }
}

/// A caller, known by its number, that waits in line, or tries once.
fn acquire(number: u64, key: &str, wait: Duration) -> Command<u64> {
    let (acquirer, patience) = (acquirer(number, key), Patience::For(wait));
    Command::Acquire(Box::new(Acquire { acquirer, patience, adopt: None }))
}

/// A caller makes a debounced call, which runs at once if it is the first.
fn debounce(engine: &mut Engine<u64>, number: u64, run: &str, now: Moment) {
    let terms = WindowTerms { wait: LEASE, max_wait: None, leading: true };
    let window = format!("window of {run}").into();
    let call = DebouncedCall { acquirer: acquirer(number, run), window, terms };
    engine.command(Command::Debounce(Box::new(call)), now);
}

fn release(ownership: u64, caller: u64, undelivered: bool) -> Command<u64> {
    Command::Release { hold: HoldName { ownership, caller }, undelivered, to: None }
}

fn granted(fence: u64) -> Said<Acquisition> {
    Ok(Acquisition::granted(fence))
}

/// What the store is asked now, which has to be an acquire.
fn asked(engine: &mut Engine<u64>, now: Moment) -> Sent<(Asker, u64)> {
    match engine.poll_call(now) {
        Some(Call::Acquire(batch)) => batch.sent,
        _ => panic!("it asks for a lock"),
    }
}

/// The callers that were granted a lock since, with the fencing tokens.
fn grants(engine: &mut Engine<u64>) -> Vec<(u64, u64)> {
    let outputs = std::iter::from_fn(|| engine.poll());
    let grants = outputs.filter_map(|output| match output {
        Output::Granted(to, grant) => Some((to, grant.fencing_token)),
        _ => None,
    });
    grants.collect()
}

/// An engine whose caller 1 holds the lock `a`.
fn holding() -> Engine<u64> {
    let mut engine = engine();
    engine.command(acquire(1, "a", LEASE), at(0));
    let sent = asked(&mut engine, at(0));
    engine.answered(Answer::Acquired(sent, vec![granted(7)]), at(1));
    assert_eq!(grants(&mut engine), [(1, 7 << 10)]);
    engine
}

#[test]
fn a_release_goes_ahead_of_what_was_asked_before_it() {
    let mut engine = holding();
    engine.command(acquire(2, "b", Duration::ZERO), at(2));
    engine.command(release(1, 1, false), at(2));
    assert!(engine.wants_turn());
    assert!(
        matches!(engine.poll_call(at(2)), Some(Call::Release(batch)) if batch.sent.asked == [1])
    );
    asked(&mut engine, at(2));
    assert!(engine.poll_call(at(2)).is_none());
}

#[test]
fn a_lock_whose_caller_is_gone_is_the_next_ones_without_a_word_to_the_store() {
    let mut engine = holding();
    engine.command(acquire(2, "a", LEASE), at(2));
    engine.command(release(1, 1, true), at(2));
    assert_eq!(grants(&mut engine), [(2, (7 << 10) + 1)]);
    assert!(engine.poll_call(at(2)).is_none());
    // The guard of the caller that is gone has nothing to release any more.
    engine.command(release(1, 1, false), at(3));
    assert!(engine.poll_call(at(3)).is_none());
}

#[test]
fn a_run_that_is_revoked_before_its_grant_is_heard_of_is_not_believed() {
    let mut engine = engine();
    let terms = WindowTerms { wait: LEASE, max_wait: None, leading: true };
    let call = DebouncedCall { acquirer: acquirer(1, "run"), window: "window".into(), terms };
    engine.command(Command::Debounce(Box::new(call)), at(0));
    let Some(Call::Register(batch)) = engine.poll_call(at(0)) else { panic!("it asks") };
    let number = batch.sent.asked[0].1;
    engine.notice(Notice::Revoked { number }, at(1));
    let granted = || vec![Ok(DebounceReply::Granted { fence: 7 })];
    engine.answered(Answer::Registered(batch.sent, granted()), at(1));
    assert_eq!(grants(&mut engine), []);
    // The same call asks again, and is then granted the run.
    let again_at = engine.next_timeout().unwrap();
    engine.timeout(again_at);
    let Some(Call::Register(batch)) = engine.poll_call(again_at) else { panic!("it asks again") };
    assert_eq!(batch.sent.asked[0].1, number);
    engine.answered(Answer::Registered(batch.sent, granted()), again_at);
    assert_eq!(grants(&mut engine), [(1, 7 << 10)]);
}

#[test]
fn a_flush_waits_for_a_grant_that_nobody_waits_for() {
    const FLUSH: u64 = 9;
    let mut engine = engine();
    engine.command(acquire(1, "a", Duration::ZERO), at(0));
    let sent = asked(&mut engine, at(0));
    engine.command(Command::Cancel(1), at(1));
    engine.command(Command::Flush(FLUSH), at(1));
    let flushed = |engine: &mut Engine<u64>, now| {
        let idle = engine.poll_call(now).is_none();
        let answered = std::iter::from_fn(|| engine.poll())
            .any(|output| matches!(output, Output::Answered(FLUSH, Ok(Outcome::Done))));
        (idle, answered)
    };
    assert_eq!(flushed(&mut engine, at(1)), (true, false));
    engine.answered(Answer::Acquired(sent, vec![granted(7)]), at(2));
    let Some(Call::Release(batch)) = engine.poll_call(at(2)) else { panic!("it is undone") };
    assert_eq!(flushed(&mut engine, at(2)), (true, false));
    engine.answered(Answer::Released(batch.sent, vec![Ok(Release::freed())]), at(3));
    assert_eq!(flushed(&mut engine, at(3)), (true, true));
}

#[test]
fn a_deadline_is_declared_before_an_answer_that_came_meanwhile() {
    let mut engine = holding();
    let renew_at = engine.next_timeout().unwrap();
    engine.timeout(renew_at);
    let by = engine.next_timeout().unwrap();
    let Some(Call::Renew(batch)) = engine.poll_call(by) else { panic!("it is renewed") };
    let late = at(0) + LEASE;
    engine.timeout(late);
    engine.answered(Answer::Renewed(batch.sent, vec![Ok(Renewal::renewed())]), late);
    let outputs: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
    assert!(matches!(outputs[..], [Output::Lost(1, Loss::Expired)]), "and nothing else");
    assert!(matches!(engine.poll_call(late), Some(Call::Release(_))), "the key may still be ours");
}

#[test]
fn an_engine_that_ends_undoes_and_refuses() {
    const END: u64 = 9;
    let mut engine = holding();
    engine.command(Command::Shutdown(END), at(2));
    engine.command(acquire(2, "b", LEASE), at(2));
    let outputs: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
    assert!(matches!(
        outputs[..],
        [Output::Lost(1, Loss::Closed), Output::Answered(2, Err(Refusal::Closed))]
    ));
    let Some(Call::Release(batch)) = engine.poll_call(at(2)) else { panic!("it is released") };
    assert!(engine.poll_call(at(2)).is_none() && !engine.has_ended());
    engine.answered(Answer::Released(batch.sent, vec![Ok(Release::freed())]), at(3));
    assert!(engine.poll_call(at(3)).is_none() && engine.has_ended());
    assert!(matches!(engine.poll(), Some(Output::Answered(END, Ok(Outcome::Done)))));
}

/// What callers were told, in order: that they hold a lock, that a lock is lost, that they are
/// refused.
fn told(engine: &mut Engine<u64>) -> Vec<String> {
    let outputs = std::iter::from_fn(|| engine.poll());
    let told = outputs.filter_map(|output| match output {
        Output::Granted(to, grant) => Some(format!("{to} has {}", grant.fencing_token >> 10)),
        Output::Lost(ownership, _) => Some(format!("{ownership} lost")),
        Output::Answered(to, Err(_)) => Some(format!("{to} refused")),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_lock_that_is_taken_by_force_before_its_grant_is_heard_of_is_asked_for_again() {
    let mut engine = engine();
    engine.command(acquire(2, "a", LEASE), at(0));
    let sent = asked(&mut engine, at(0));
    engine.notice(Notice::Revoked { number: 2 }, at(1));
    engine.answered(Answer::Acquired(sent, vec![granted(7)]), at(2));
    assert!(told(&mut engine).is_empty(), "the grant may be over");
    let again = asked(&mut engine, at(2));
    assert_eq!(again.asked[0].1, 2, "with the same token, so that nothing has to be undone");
    engine.answered(Answer::Acquired(again, vec![granted(8)]), at(3));
    assert_eq!(told(&mut engine), ["2 has 8"]);
    // After the grant, the notice ends the hold.
    engine.notice(Notice::Revoked { number: 2 }, at(4));
    assert_eq!(told(&mut engine), ["2 lost"]);
}

#[test]
fn a_grant_that_is_heard_of_after_a_later_one_is_not_believed() {
    // The caller that waits in line asks first, and is answered last.
    let mut engine = engine();
    engine.command(acquire(2, "a", LEASE), at(0));
    let first = asked(&mut engine, at(0));
    engine.command(acquire(4, "a", Duration::ZERO), at(100));
    let second = asked(&mut engine, at(100));
    engine.answered(Answer::Acquired(second, vec![granted(9)]), at(101));
    assert_eq!(told(&mut engine), ["4 has 9"]);
    engine.answered(Answer::Acquired(first, vec![granted(7)]), at(150));
    assert!(told(&mut engine).is_empty(), "the later hold continues");
    assert_eq!(asked(&mut engine, at(150)).asked[0].1, 2, "and the earlier one waits for it");
    // The same for a caller that does not wait in line: its grant is undone, and it is told.
    engine.command(acquire(6, "a", Duration::ZERO), at(200));
    let third = asked(&mut engine, at(200));
    engine.answered(Answer::Acquired(third, vec![granted(8)]), at(201));
    assert_eq!(told(&mut engine), ["6 refused"]);
    assert!(
        matches!(engine.poll_call(at(201)), Some(Call::Release(batch)) if batch.sent.asked == [6])
    );
}

#[test]
fn an_extension_of_a_hold_before_says_nothing_of_the_next_one_with_its_token() {
    let mut engine = engine();
    engine.command(acquire(2, "a", LEASE), at(0));
    // The next in line wants a much longer lease, for which the store has to be asked.
    let Command::Acquire(mut next) = acquire(4, "a", LEASE) else { unreachable!() };
    next.acquirer.terms.lease = 3 * LEASE;
    let sent = asked(&mut engine, at(0));
    engine.answered(Answer::Acquired(sent, vec![granted(7)]), at(1));
    engine.command(Command::Acquire(next), at(2));
    let hold = HoldName { ownership: 2, caller: 2 };
    engine.command(Command::Extend(hold, 6 * LEASE, 2), at(3));
    let Some(Call::Extend(extension)) = engine.poll_call(at(3)) else { panic!("an extension") };
    engine.command(release(2, 2, false), at(4));
    let again = asked(&mut engine, at(4));
    engine.answered(Answer::Acquired(again, vec![granted(8)]), at(5));
    assert_eq!(told(&mut engine), ["2 has 7", "4 has 8"]);
    for answer in [Some(7 * LEASE), None] {
        let sent = extension.sent.clone();
        engine.answered(Answer::Extended(sent, vec![Ok(answer)]), at(6));
        let told: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
        let is_refusal =
            |output: &Output<u64>| matches!(output, Output::Answered(2, Err(Refusal::Lost(_))));
        assert!(told.iter().all(is_refusal) && told.len() == 1, "its guard holds nothing any more");
    }
}
