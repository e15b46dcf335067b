//! What is reported about callers and locks besides the answers.

use super::*;

/// A caller that wants to be told that it waits.
#[derive(Clone, Default, Hash)]
struct Watched(Option<Arc<str>>);

impl Caller for Watched {
    fn is_gone(&self) -> bool {
        false
    }

    fn told_as(&self) -> Option<Arc<str>> {
        self.0.clone()
    }
}

fn wants(number: u64, called: Option<&str>) -> Command<Watched> {
    let acquirer = Acquirer {
        number,
        key: "a".into(),
        terms: Terms::of_run(LEASE, None),
        to: Watched(called.map(Into::into)),
    };
    let patience = Patience::For(LEASE);
    Command::Acquire(Box::new(Acquire { acquirer, patience, adopt: None }))
}

fn told_to_wait(engine: &mut Engine<Watched>) -> Vec<Arc<str>> {
    let outputs = std::iter::from_fn(|| engine.poll());
    let waiting = outputs.filter_map(|output| match output {
        Output::Waiting(called) => Some(called),
        _ => None,
    });
    waiting.collect()
}

#[test]
fn who_waits_is_told_once_and_only_if_it_wants_to_hear_of_it() {
    let mut engine = Engine::<Watched>::new("client", Arc::new(|_| 0));
    engine.command(wants(2, Some("first")), at(0));
    assert_eq!(told_to_wait(&mut engine), [], "the lock may be free");
    engine.command(wants(4, Some("second")), at(0));
    engine.command(wants(6, None), at(0));
    assert_eq!(told_to_wait(&mut engine), ["second".into()], "it is behind another here");
    for (time, told) in [(1, &["first"][..]), (2, &[])] {
        let Some(Call::Acquire(batch)) = engine.poll_call(at(time)) else { panic!("it asks") };
        let held = Ok(Acquisition::held(Some(LEASE)));
        engine.answered(Answer::Acquired(batch.sent, vec![held]), at(time));
        assert_eq!(
            told_to_wait(&mut engine),
            told.iter().map(|it| Arc::from(*it)).collect::<Vec<_>>()
        );
        engine.notice(Notice::Granted { number: 2 }, at(time));
    }
}

#[test]
fn a_loss_is_told_with_its_reason() {
    let losses = |what: &dyn Fn(&mut Engine<u64>)| -> Vec<Loss> {
        let mut engine = holding();
        what(&mut engine);
        let outputs = std::iter::from_fn(|| engine.poll());
        let lost = outputs.filter_map(|output| match output {
            Output::Lost(1, loss) => Some(loss),
            _ => None,
        });
        lost.collect()
    };
    let forced = |engine: &mut Engine<u64>| engine.notice(Notice::Revoked { number: 1 }, at(1));
    assert_eq!(losses(&forced), [Loss::Forced]);
    assert_eq!(losses(&|engine| engine.timeout(at(0) + LEASE)), [Loss::Expired]);
    assert_eq!(losses(&|engine| engine.command(Command::Abandon, at(1))), [Loss::Closed]);
    let not_ours = |engine: &mut Engine<u64>| {
        engine.notice(Notice::Replaced, at(1));
        let Some(Call::Renew(batch)) = engine.poll_call(at(1)) else { panic!("it is renewed") };
        engine.answered(Answer::Renewed(batch.sent, vec![Ok(Renewal::NotOurs)]), at(2));
    };
    assert_eq!(losses(&not_ours), [Loss::NotOurs]);
}
