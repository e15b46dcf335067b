use super::*;

const WAIT: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(2);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Moment {
    Moment::default() + ms(10_000 + millis)
}

fn burst() -> Burst {
    Burst::new(LIMIT, Jitter::new(512))
}

fn call(number: u64, millis: u64) -> Call {
    Call { number, made_at: at(millis), wait: WAIT, max_wait: None, leading: false }
}

/// The number and the age that the store is asked with.
fn asked(burst: &mut Burst, millis: u64) -> (u64, Duration) {
    let (undo, question) = burst.question(at(millis)).expect("there is something to ask");
    assert_eq!(undo, None);
    (question.call.number, question.age)
}

fn not_yet(left: u64, newest: bool) -> Answer {
    Answer::NotYet { left: ms(left), newest }
}

fn superseded(number: u64) -> Option<(u64, End)> {
    Some((number, End::Superseded))
}

#[test]
fn a_thousand_calls_are_told_once_at_the_beginning_and_once_at_the_end() {
    let mut burst = burst();
    assert_eq!(burst.join(call(1, 0)).next, Next::Ask);
    assert_eq!(asked(&mut burst, 0), (1, Duration::ZERO));
    assert_eq!(burst.answered(not_yet(100, true), at(1)).next, Next::AskAt(at(101)));
    for number in 2..1001 {
        let step = burst.join(call(number, 50));
        assert_eq!((step.ended, step.next), (superseded(number - 1), Next::AskAt(at(101))));
    }
    assert_eq!(burst.look(), Next::Ask);
    assert_eq!(asked(&mut burst, 101), (1000, ms(51)));
    assert_eq!(burst.answered(not_yet(49, true), at(102)).next, Next::AskAt(at(151)));
    assert_eq!(asked(&mut burst, 151), (1000, ms(101)));
    let step = burst.answered(Answer::Granted, at(152));
    assert_eq!((step.ended, step.next), (Some((1000, End::Runs)), Next::Gone));
}

#[test]
fn the_call_that_is_asked_about_waits_for_the_answer() {
    let mut burst = burst();
    burst.join(call(1, 0));
    asked(&mut burst, 100);
    let step = burst.join(call(2, 101));
    assert_eq!((step.ended, step.next), (None, Next::Wait));
    assert_eq!(burst.join(call(3, 102)).ended, superseded(2), "but not those in between");
    let step = burst.answered(Answer::Granted, at(103));
    assert_eq!(
        (step.ended, step.next),
        (Some((1, End::Runs)), Next::Ask),
        "3 has a window of its own"
    );
    assert_eq!(asked(&mut burst, 103).0, 3);
    burst.join(call(4, 104));
    let step = burst.answered(not_yet(90, true), at(105));
    assert_eq!((step.ended, step.next), (superseded(3), Next::AskAt(at(195))));
}

#[test]
fn whoever_is_not_the_newest_tells_of_a_newer_call_at_once() {
    let mut burst = burst();
    burst.join(call(1, 0));
    asked(&mut burst, 0);
    assert_eq!(burst.answered(not_yet(1100, false), at(1)).next, Next::AskAt(at(1101)));
    let step = burst.join(call(2, 10));
    assert_eq!((step.ended, step.next), (superseded(1), Next::Ask));
}

#[test]
fn a_shorter_wait_is_asked_for_sooner() {
    let mut burst = burst();
    burst.join(call(1, 0));
    asked(&mut burst, 0);
    burst.answered(not_yet(100, true), at(0));
    let short = Call { wait: ms(20), ..call(2, 30) };
    assert_eq!(burst.join(short).next, Next::AskAt(at(50)));
}

#[test]
fn a_caller_that_leaves_ends_the_burst_and_a_grant_to_it_is_undone() {
    let mut burst = burst();
    burst.join(call(1, 0));
    assert_eq!(burst.leave(1), Step { next: Next::Gone, ..Step::default() });

    burst.join(call(2, 0));
    asked(&mut burst, 0);
    assert_eq!(burst.leave(2), Step::default());
    let step = burst.answered(Answer::Granted, at(1));
    assert_eq!(step, Step { undo: Some(2), next: Next::Gone, ..Step::default() });

    burst.join(call(3, 0));
    asked(&mut burst, 0);
    burst.leave(3);
    burst.join(call(4, 1));
    let step = burst.answered(not_yet(50, true), at(2));
    assert_eq!((step.ended, burst.is_pending()), (None, true), "4 goes on");
    assert_eq!(step.next, Next::AskAt(at(52)));
}

#[test]
fn an_unknown_outcome_is_asked_again_and_undone_for_another_call() {
    let mut burst = burst();
    burst.join(call(1, 0));
    asked(&mut burst, 0);
    let step = burst.answered(Answer::Unknown, at(500));
    assert!(
        matches!(step.next, Next::AskAt(then) if then > at(500) && then <= at(520)),
        "{step:?}"
    );
    assert_eq!(asked(&mut burst, 520), (1, ms(520)), "the same again");
    burst.join(call(2, 600));
    let step = burst.answered(Answer::Unknown, at(1000));
    assert_eq!(step.ended, superseded(1));
    let (undo, question) = burst.question(at(1040)).unwrap();
    assert_eq!((undo, question.call.number), (Some(1), 2), "the run may be the other's");
    let step = burst.answered(Answer::Unknown, at(2000));
    assert_eq!((step.undo, step.ended), (Some(2), Some((2, End::Unavailable))));
    assert_eq!(step.next, Next::Gone);
}

#[test]
fn silence_is_reported_to_all_and_what_is_unknown_is_undone() {
    let mut burst = burst();
    burst.join(call(1, 0));
    asked(&mut burst, 0);
    burst.join(call(2, 10));
    let step = burst.answered(Answer::Unknown, at(2000));
    assert_eq!(step.undo, Some(1));
    assert_eq!((step.ended, step.also), (Some((1, End::Unavailable)), Some((2, End::Unavailable))));
}

#[test]
fn a_refusal_is_for_the_call_that_was_asked_about() {
    let mut burst = burst();
    burst.join(call(1, 0));
    asked(&mut burst, 0);
    burst.join(call(2, 10));
    let step = burst.answered(Answer::Refused, at(20));
    assert_eq!((step.undo, step.ended, step.next), (None, Some((1, End::Refused)), Next::Ask));
}

#[test]
fn a_run_that_goes_on_is_looked_at_ever_more_rarely() {
    let mut burst = burst();
    burst.join(call(1, 0));
    let mut pauses = Vec::new();
    for _ in 0..7 {
        asked(&mut burst, 0);
        match burst.answered(Answer::Running(ms(60_000)), at(0)).next {
            Next::AskAt(then) => pauses.push(then.after(at(0)).as_millis()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 250, 250]);
    asked(&mut burst, 0);
    assert_eq!(burst.look(), Next::Wait);
    let step = burst.answered(Answer::Running(ms(60_000)), at(0));
    assert_eq!(step.next, Next::Ask, "it has ended meanwhile");
}

#[test]
fn a_flush_hurries_the_calls_there_are_and_no_later_one() {
    let mut burst = burst();
    burst.join(call(1, 0));
    asked(&mut burst, 0);
    burst.answered(not_yet(100, true), at(0));
    assert_eq!(burst.hurry(), Next::Ask);
    let (_, question) = burst.question(at(10)).unwrap();
    assert_eq!(question.call.wait, Duration::ZERO);
    burst.join(call(2, 11));
    let step = burst.answered(Answer::Granted, at(12));
    assert_eq!(step.ended, Some((1, End::Runs)));
    let (_, question) = burst.question(at(12)).unwrap();
    assert_eq!(question.call.wait, WAIT);
}

#[test]
fn a_cancel_tells_all_and_undoes_a_grant_on_its_way() {
    let mut burst = burst();
    burst.join(call(1, 0));
    asked(&mut burst, 0);
    burst.join(call(2, 1));
    let step = burst.cancel();
    assert_eq!((step.ended, step.also, step.next), (superseded(2), superseded(1), Next::Wait));
    let step = burst.answered(Answer::Granted, at(2));
    assert_eq!((step.undo, step.ended, step.next), (Some(1), None, Next::Gone));

    burst.join(call(3, 5));
    let step = burst.cancel();
    assert_eq!((step.ended, step.next), (superseded(3), Next::Gone));
}

#[test]
fn of_two_calls_that_overtake_each_other_the_larger_number_is_the_newer() {
    let mut burst = burst();
    burst.join(call(2, 0));
    asked(&mut burst, 0);
    burst.answered(not_yet(100, true), at(1));
    let step = burst.join(call(1, 1));
    assert_eq!((step.ended, step.next), (superseded(1), Next::AskAt(at(101))));
    assert_eq!(asked(&mut burst, 101).0, 2);
}

#[test]
fn a_newer_call_that_leaves_gives_its_place_back_to_the_one_that_is_asked_about() {
    for answer in [not_yet(50, true), Answer::Running(ms(50))] {
        let mut burst = burst();
        burst.join(call(1, 0));
        asked(&mut burst, 0);
        burst.join(call(2, 1));
        assert_eq!(burst.leave(2), Step::default());
        let step = burst.answered(answer, at(2));
        assert!(step.ended.is_none() && matches!(step.next, Next::AskAt(_)), "{step:?}");
        assert_eq!(asked(&mut burst, 52).0, 1, "it is the last one, and is still there");
    }
}
