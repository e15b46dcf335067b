use super::*;

const WAIT: Duration = Duration::from_millis(100);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Moment {
    Moment::default() + ms(10_000 + millis)
}

fn call(millis: u64) -> Call {
    Call { made_at: at(millis), wait: WAIT, max_wait: None, leading: false }
}

fn not_yet(left: u64, newest: bool) -> Answer {
    Answer::NotYet { left: ms(left), newest }
}

fn superseded(callers: &[u64]) -> Option<(End, Vec<u64>)> {
    Some((End::Superseded, callers.to_vec()))
}

fn runs(callers: &[u64]) -> Option<(End, Vec<u64>)> {
    Some((End::Runs, callers.to_vec()))
}

/// A burst, and the numbers that its questions draw, from 101 on.
struct Calls {
    burst: Burst,
    drawn: u64,
}

impl Calls {
    fn new() -> Self {
        Self { burst: Burst::new(Jitter::new(512)), drawn: 100 }
    }

    /// The first caller has the place 1, and so on, so these tests use one number for both.
    fn join(&mut self, caller: u64, millis: u64) -> Next {
        let (place, next) = self.burst.join(caller, call(millis));
        assert_eq!(place, caller);
        next
    }

    fn question(&mut self, millis: u64) -> (Option<u64>, Question) {
        let draw = || {
            self.drawn += 1;
            self.drawn
        };
        self.burst.question(at(millis), draw).expect("there is something to ask")
    }

    /// The number and the age in the question to the store.
    fn asked(&mut self, millis: u64) -> (u64, Duration) {
        let (undo, question) = self.question(millis);
        assert_eq!(undo, None);
        (question.number, question.age)
    }

    fn answered(&mut self, answer: Answer, millis: u64) -> Step {
        self.burst.answered(answer, at(millis))
    }
}

#[test]
fn a_thousand_calls_are_told_once_at_the_beginning_and_once_at_the_end() {
    let mut calls = Calls::new();
    assert_eq!(calls.join(1, 0), Next::Ask);
    assert_eq!(calls.asked(0), (101, Duration::ZERO));
    assert_eq!(calls.answered(not_yet(100, true), 1).next, Next::AskAt(at(101)));
    for number in 2..1001 {
        assert_eq!(calls.join(number, 50), Next::AskAt(at(101)));
    }
    assert_eq!(calls.burst.recheck(), Next::Ask);
    assert_eq!(calls.asked(101), (102, ms(51)));
    assert_eq!(calls.answered(not_yet(49, true), 102).next, Next::AskAt(at(151)));
    assert_eq!(calls.asked(151), (102, ms(101)), "the same call, by the same number");
    let step = calls.answered(Answer::Granted, 152);
    assert_eq!(step.ended, runs(&(1..1001).collect::<Vec<_>>()));
    assert_eq!(step.next, Next::Gone);
}

#[test]
fn a_call_that_comes_while_another_is_asked_about_has_a_window_of_its_own() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(100);
    assert_eq!(calls.join(2, 101), Next::Wait);
    assert_eq!(calls.join(3, 102), Next::Wait);
    let step = calls.answered(Answer::Granted, 103);
    assert_eq!((step.ended, step.next), (runs(&[1]), Next::Ask));
    assert_eq!(calls.asked(103), (102, ms(1)), "3 stands for 2");
    calls.join(4, 104);
    let step = calls.answered(not_yet(90, true), 105);
    assert_eq!((step.ended, step.next), (None, Next::AskAt(at(195))));
}

#[test]
fn whoever_is_not_the_newest_tells_of_a_newer_call_at_once() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    assert_eq!(calls.answered(not_yet(1100, false), 1).next, Next::AskAt(at(1101)));
    assert_eq!(calls.join(2, 10), Next::Ask);
}

#[test]
fn a_shorter_wait_is_asked_for_sooner() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    calls.answered(not_yet(100, true), 0);
    let short = Call { wait: ms(20), ..call(30) };
    assert_eq!(calls.burst.join(2, short).1, Next::AskAt(at(50)));
}

#[test]
fn the_last_caller_that_leaves_ends_the_burst_and_a_grant_to_it_is_undone() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    assert_eq!(calls.burst.leave(1), Step { next: Next::Gone, ..Step::default() });
    assert_eq!(calls.burst.leave(1), Step::default(), "it is gone already");

    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    assert_eq!(calls.burst.abandoned(), None);
    assert_eq!(calls.burst.leave(1), Step::default());
    assert_eq!(calls.burst.abandoned(), Some(101));
    let step = calls.answered(Answer::Granted, 1);
    assert_eq!(step, Step { undo: Some(101), next: Next::Gone, ..Step::default() });

    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    calls.burst.leave(1);
    calls.join(2, 1);
    let step = calls.answered(not_yet(50, true), 2);
    assert_eq!((step.ended, calls.burst.is_pending()), (None, true), "2 goes on");
    assert_eq!(step.next, Next::AskAt(at(52)));
}

#[test]
fn the_run_is_for_the_newest_caller_that_is_left() {
    let mut calls = Calls::new();
    for caller in 1..=4 {
        calls.join(caller, caller);
    }
    calls.asked(5);
    // The last of those asked about, and one in the middle.
    assert_eq!(calls.burst.leave(4), Step::default());
    assert_eq!(calls.burst.leave(2), Step::default());
    calls.join(5, 6);
    let step = calls.answered(Answer::Granted, 7);
    assert_eq!((step.undo, step.ended, step.next), (None, runs(&[1, 3]), Next::Ask));
}

#[test]
fn a_call_that_the_store_has_not_heard_of_can_be_taken_back() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    calls.answered(not_yet(100, true), 0);
    calls.join(2, 50);
    assert_eq!(calls.burst.leave(2), Step::default());
    assert_eq!(calls.asked(100), (101, ms(100)), "it is about the first, as if it were alone");
    assert_eq!(calls.answered(Answer::Granted, 100).ended, runs(&[1]));
}

/// Another process may have a call that is newer than the one left here.
#[test]
fn a_call_that_the_store_has_heard_of_leaves_its_place_to_other_processes_first() {
    let late = GRACE + AFTER_OTHERS;
    // It leaves while it waits for its time.
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.join(2, 0);
    calls.asked(0);
    calls.answered(not_yet(100, true), 0);
    // A newer one, which the store does not hear of, changes nothing.
    calls.join(3, 10);
    assert_eq!(calls.burst.leave(2), Step::default());
    assert_eq!(calls.burst.leave(3).next, Next::AskAt(at(100) + late));
    assert_eq!(calls.burst.run_ended(), Next::Wait);
    assert_eq!(calls.asked(1350).0, 101);
    assert_eq!(calls.answered(Answer::Granted, 1350).ended, runs(&[1]));

    // Or while it is asked about; if another process has the newest call, its grace is not waited
    // for twice.
    for (newest, expected) in [(true, at(50) + late), (false, at(50) + AFTER_OTHERS)] {
        let mut calls = Calls::new();
        calls.join(1, 0);
        calls.join(2, 0);
        calls.asked(0);
        assert_eq!(calls.burst.leave(2), Step::default());
        let step = calls.answered(not_yet(50, newest), 0);
        assert_eq!((step.ended, step.next), (None, Next::AskAt(expected)));
    }

    // A flush does not ask for patience, and a new call is the newest.
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.join(2, 0);
    calls.asked(0);
    calls.answered(not_yet(100, true), 0);
    calls.burst.leave(2);
    assert_eq!(calls.join(3, 20), Next::AskAt(at(120)));
    assert_eq!(calls.burst.flush(), Next::Ask);
    assert_eq!(calls.asked(21), (102, ms(1)));
}

#[test]
fn an_unknown_outcome_is_asked_about_again_before_any_newer_call() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    let step = calls.answered(Answer::Unknown, 500);
    assert!(
        matches!(step.next, Next::AskAt(then) if then > at(500) && then <= at(520)),
        "{step:?}"
    );
    calls.join(2, 510);
    assert_eq!(calls.asked(520), (101, ms(520)), "the run may be its own");
    let step = calls.answered(Answer::Granted, 521);
    assert_eq!((step.undo, step.ended, step.next), (None, runs(&[1]), Next::Ask));
    assert_eq!(calls.asked(521), (102, ms(11)));
}

#[test]
fn an_unknown_outcome_is_undone_when_nobody_is_left_for_it() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    calls.answered(Answer::Unknown, 500);
    calls.join(2, 510);
    calls.burst.leave(1);
    let (undo, question) = calls.question(540);
    assert_eq!((undo, question.number), (Some(101), 102));
    // As far as is known, by the run that was undone, which supersedes nobody.
    let step = calls.answered(Answer::Superseded, 541);
    assert_eq!((step.ended, step.next), (None, Next::Ask));
    assert_eq!(calls.asked(541), (103, Duration::ZERO), "as a call that was made just now");
    let step = calls.answered(Answer::Superseded, 542);
    assert_eq!((step.ended, step.next), (superseded(&[2]), Next::Gone));
}

#[test]
fn a_run_that_was_undone_supersedes_nobody() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    calls.burst.leave(1);
    calls.join(2, 1);
    let step = calls.answered(Answer::Granted, 2);
    assert_eq!((step.undo, step.ended, step.next), (Some(101), None, Next::Ask));
    calls.asked(2);
    assert_eq!(calls.answered(Answer::Superseded, 3).ended, None);
    assert_eq!(calls.asked(3), (103, Duration::ZERO));
    // Once it is known to wait, what supersedes it is another run.
    calls.answered(not_yet(100, true), 4);
    calls.asked(104);
    assert_eq!(calls.answered(Answer::Superseded, 105).ended, superseded(&[2]));
}

#[test]
fn silence_is_reported_to_all_and_what_is_unknown_is_undone() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    calls.join(2, 10);
    let step = calls.answered(Answer::Unknown, 2000);
    assert_eq!((step.undo, step.next), (Some(101), Next::Gone));
    assert_eq!(step.ended, Some((End::Unavailable, vec![1, 2])));
}

#[test]
fn a_refusal_is_for_the_calls_that_were_asked_about() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.join(2, 0);
    calls.asked(0);
    calls.join(3, 10);
    let step = calls.answered(Answer::Refused, 20);
    assert_eq!((step.undo, step.next), (None, Next::Ask));
    assert_eq!(step.ended, Some((End::Refused, vec![1, 2])));
    calls.asked(20);
    calls.answered(Answer::Unknown, 30);
    calls.asked(50);
    let step = calls.answered(Answer::Refused, 60);
    assert_eq!(step.undo, Some(102), "the first may have been granted");
}

#[test]
fn a_run_that_goes_on_is_looked_at_ever_more_rarely() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        calls.asked(0);
        match calls.answered(Answer::Running(ms(60_000)), 0).next {
            Next::AskAt(then) => pauses.push(then.after(at(0)).as_millis()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 250, 250]);
    calls.asked(0);
    assert_eq!(calls.burst.recheck(), Next::Wait);
    let step = calls.answered(Answer::Running(ms(60_000)), 0);
    assert_eq!(step.next, Next::Ask, "it has ended meanwhile");
}

#[test]
fn a_flush_hurries_the_calls_there_are_and_no_later_one() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    calls.answered(not_yet(100, true), 0);
    assert_eq!(calls.burst.flush(), Next::Ask);
    let (_, question) = calls.question(10);
    assert_eq!(question.call.wait, Duration::ZERO);
    calls.join(2, 11);
    assert_eq!(calls.answered(Answer::Granted, 12).ended, runs(&[1]));
    let (_, question) = calls.question(12);
    assert_eq!(question.call.wait, WAIT);
}

#[test]
fn a_cancel_tells_all_and_undoes_a_grant_on_its_way() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    calls.join(2, 1);
    let step = calls.burst.cancel();
    assert_eq!((step.ended, step.next), (superseded(&[1, 2]), Next::Wait));
    let step = calls.answered(Answer::Granted, 2);
    assert_eq!((step.undo, step.ended, step.next), (Some(101), None, Next::Gone));

    let mut calls = Calls::new();
    calls.join(1, 5);
    let step = calls.burst.cancel();
    assert_eq!((step.ended, step.next), (superseded(&[1]), Next::Gone));
}

#[test]
fn the_last_caller_that_leaves_has_an_unknown_claim_undone() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    let (number, _) = calls.asked(0);
    assert_eq!(calls.burst.answered(Answer::Unknown, at(10)).undo, None);
    let left = calls.burst.leave(1);
    assert_eq!((left.undo, left.next), (Some(number), Next::Gone));
}

#[test]
fn a_burst_whose_callers_left_while_it_was_asked_about_is_gone() {
    let mut calls = Calls::new();
    calls.join(1, 0);
    calls.asked(0);
    assert_eq!(calls.burst.leave(1), Step::default(), "its answer is still to come");
    assert_eq!(calls.burst.answered(not_yet(100, true), at(10)).next, Next::Gone);
}
