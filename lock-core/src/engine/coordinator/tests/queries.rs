//! Queries of callers, and what becomes of the answers.

use super::*;
use crate::{
    Token,
    contract::{DurableBook, WindowEnd},
};

const ASKS: u64 = 100;

fn query(engine: &mut Engine<u64>, query: Query, now: Moment) {
    engine.command(Command::Query(Box::new(query), ASKS), now);
}

fn outcome(engine: &mut Engine<u64>) -> Outcome {
    let answers = std::iter::from_fn(|| engine.poll()).filter_map(|output| match output {
        Output::Answered(ASKS, answer) => Some(answer),
        _ => None,
    });
    let mut answers: Vec<_> = answers.collect();
    assert_eq!(answers.len(), 1, "it is answered once");
    answers.remove(0).unwrap_or_else(|_| panic!("it is answered"))
}

#[test]
fn those_who_wait_here_behind_the_one_that_the_store_knows_are_counted() {
    let holder = Holder::new(Token::from("x:1".to_owned()), Some(LEASE));
    // Callers in line, the store's answer to the first of them, and how many wait in all if the
    // store knows of five.
    let known = || Acquisition::held(Some(LEASE)).waiting(7, true);
    let unknown = || Acquisition::held(Some(LEASE));
    for (callers, said, waiters) in
        [(0, None, 5), (1, Some(known()), 5), (3, Some(known()), 7), (3, Some(unknown()), 8)]
    {
        let mut engine = engine();
        for caller in 1..=callers {
            engine.command(acquire(2 * caller, "a", LEASE), at(0));
        }
        if let Some(said) = said {
            let sent = asked(&mut engine, at(0));
            engine.answered(Answer::Acquired(sent, vec![Ok(said)]), at(1));
        }
        query(&mut engine, Query::Holder("a".into()), at(2));
        let Some(Call::Holder(batch)) = engine.poll_call(at(2)) else { panic!("it asks") };
        let answer = Ok(Some(holder.clone().waiters(5)));
        engine.answered(Answer::Holder(batch.sent, vec![answer]), at(3));
        let Outcome::Holder(Some(found)) = outcome(&mut engine) else { panic!("there is one") };
        assert_eq!(found.waiters, waiters, "{callers} callers, {said:?}");
    }
}

#[test]
fn a_caller_that_left_the_line_is_not_counted() {
    let mut engine = engine();
    (1..=4).for_each(|caller| engine.command(acquire(2 * caller, "a", LEASE), at(0)));
    let sent = asked(&mut engine, at(0));
    engine.command(Command::Cancel(4), at(1));
    engine.answered(Answer::Acquired(sent, vec![granted(7)]), at(2));
    // The first has it, the second is gone, so two wait; the third has it next, and one waits.
    engine.command(release(2, 2, false), at(3));
    assert_eq!(told(&mut engine), ["2 has 7", "6 has 7"]);
    query(&mut engine, Query::Holder("a".into()), at(4));
    let Some(Call::Holder(batch)) = engine.poll_call(at(4)) else { panic!("it asks") };
    let holder = Holder::new(Token::from("x:1".to_owned()), Some(LEASE));
    engine.answered(Answer::Holder(batch.sent, vec![Ok(Some(holder))]), at(5));
    let Outcome::Holder(Some(found)) = outcome(&mut engine) else { panic!("there is one") };
    assert_eq!(found.waiters, 1);
}

#[test]
fn a_window_had_callers_if_there_were_some_here_or_elsewhere() {
    for (here, elsewhere) in [(false, false), (false, true), (true, false)] {
        let mut engine = engine();
        if here {
            debounce(&mut engine, 2, "run", at(0));
        }
        let (window, run) = ("window".into(), "run".into());
        let end = WindowEnd::Cancel;
        query(&mut engine, Query::EndWindow { window, run, end, waited: false }, at(1));
        let calls: Vec<_> = std::iter::from_fn(|| engine.poll_call(at(1))).collect();
        let Some(Call::EndWindow(batch)) = calls.into_iter().next_back() else { panic!("it asks") };
        engine.answered(Answer::WindowEnded(batch.sent, vec![Ok(elsewhere)]), at(2));
        let truth = outcome(&mut engine);
        assert!(matches!(truth, Outcome::Truth(waited) if waited == (here || elsewhere)));
    }
}

#[test]
fn anything_that_is_to_be_sent_or_told_wants_a_turn() {
    type Begin = fn(&mut Engine<u64>);
    let begin: [(&str, Begin); 6] = [
        ("an acquire", |engine| engine.command(acquire(2, "a", LEASE), at(0))),
        ("a debounced call", |engine| debounce(engine, 2, "run", at(0))),
        ("a question", |engine| query(engine, Query::Holder("a".into()), at(0))),
        ("a set of calls", |engine| {
            query(engine, Query::SetAside(DurableBook::new("a", "a", "a")), at(0));
        }),
        ("a flush", |engine| engine.command(Command::Flush(ASKS), at(0))),
        ("the end", |engine| engine.command(Command::Shutdown(ASKS), at(0))),
    ];
    for (what, begin) in begin {
        let mut engine = engine();
        assert!(!engine.wants_turn(), "there is nothing to do");
        begin(&mut engine);
        assert!(engine.wants_turn(), "{what}");
    }
    let mut engine = holding();
    engine.command(release(1, 1, false), at(2));
    assert!(engine.wants_turn(), "a release");
    let Some(Call::Release(batch)) = engine.poll_call(at(2)) else { panic!("it is sent") };
    assert!(!engine.wants_turn());
    engine.command(Command::Flush(ASKS), at(3));
    assert!(engine.poll_call(at(3)).is_none() && engine.wants_turn(), "a flush that waits");
    engine.answered(Answer::Released(batch.sent, vec![Ok(Release::freed())]), at(4));
    assert!(engine.poll_call(at(4)).is_none());
    assert!(matches!(outcome(&mut engine), Outcome::Done) && !engine.wants_turn());
}
