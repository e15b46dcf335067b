//! Requests that wait until there is room for them: how many go at once, which come first, and what
//! becomes of them when the store is silent.

use std::time::Duration;

use super::*;
use crate::{
    contract::Holder,
    engine::io::{Output, Terms},
};

/// A caller, and whether it has gone away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asks(u64, bool);

impl Caller for Asks {
    fn is_gone(&self) -> bool {
        self.1
    }
}

fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

fn shared() -> Shared<Asks> {
    // Two parts of the store, by the first letter of a key.
    Shared::new("c".into(), Arc::new(|key: &str| usize::from(key.starts_with('b'))))
}

fn ask(bulk: &mut Bulk<Asks>, key: &str, number: u64, shared: &Shared<Asks>) {
    bulk.ask(Query::Holder(key.into()), Asks(number, false), shared);
}

type Holders = Batch<Arc<str>, (Arc<str>, Asks)>;

fn next_holders(bulk: &mut Bulk<Asks>, now: Moment) -> Option<Holders> {
    match bulk.next(now)? {
        Call::Holder(batch) => Some(batch),
        _ => panic!("holders are asked for"),
    }
}

fn answer(
    bulk: &mut Bulk<Asks>,
    batch: &Holders,
    said: &Said<Option<Holder>>,
    shared: &mut Shared<Asks>,
) -> bool {
    let answers = vec![said.clone(); batch.requests.len()];
    bulk.answered(&batch.sent, &answers, false, shared).is_some()
}

fn refused(shared: &mut Shared<Asks>) -> Vec<u64> {
    let told = std::iter::from_fn(|| shared.next_output());
    let refused = told.map(|output| match output {
        Output::Answered(Asks(number, _), Err(_)) => number,
        _ => panic!("somebody is refused"),
    });
    refused.collect()
}

#[test]
fn requests_go_in_batches_in_order_up_to_a_bound_on_what_is_on_its_way() {
    let (mut bulk, mut shared) = (Bulk::default(), shared());
    assert!(!bulk.is_due());
    (0..1150).for_each(|number| ask(&mut bulk, "a", number, &shared));
    assert!(bulk.is_due());
    let sent: Vec<_> = std::iter::from_fn(|| next_holders(&mut bulk, at(7))).collect();
    assert_eq!(sent.len(), MOST_ON_THEIR_WAY / BATCH);
    let numbers = sent.iter().flat_map(|batch| batch.sent.asked.iter().map(|(_, to)| to.0));
    assert!(numbers.eq(0..1000), "in the order in which they came");
    assert!(sent.iter().all(|batch| batch.requests.len() == BATCH && batch.sent.sent_at == at(7)));
    assert!(!bulk.is_due(), "there is no room");
    assert_eq!(bulk.room(0), 0);
    // Another part of the store has room of its own.
    ask(&mut bulk, "b", 5000, &shared);
    assert!(bulk.is_due());
    let other = next_holders(&mut bulk, at(7)).unwrap();
    assert_eq!((other.sent.shard, other.requests.len()), (1, 1));
    // An answer makes room for as many requests as were in its batch.
    assert!(!answer(&mut bulk, &sent[0], &Ok(None), &mut shared));
    assert_eq!(bulk.room(0), BATCH);
    assert_eq!(next_holders(&mut bulk, at(8)).unwrap().requests.len(), BATCH);
    assert!(next_holders(&mut bulk, at(8)).is_none());
    assert!(!answer(&mut bulk, &sent[1], &Ok(None), &mut shared));
    assert_eq!(next_holders(&mut bulk, at(8)).unwrap().requests.len(), 50, "what is left");
    assert!(!bulk.is_due());
}

#[test]
fn what_nobody_waits_for_any_more_is_not_asked() {
    let (mut bulk, shared) = (Bulk::default(), shared());
    bulk.ask(Query::ForceRelease(ForceReleaseRequest::new("a")), Asks(1, true), &shared);
    assert!(bulk.next(at(0)).is_none());
    assert!(!bulk.is_due(), "it is gone");
}

#[test]
fn each_kind_comes_first_in_its_turn() {
    let (mut bulk, shared) = (Bulk::default(), shared());
    (0..250).for_each(|number| ask(&mut bulk, "a", number, &shared));
    bulk.ask(Query::ForceRelease(ForceReleaseRequest::new("a")), Asks(1000, false), &shared);
    let book = DurableBook::new("a", "a", "a");
    bulk.ask(Query::SetAside(book.clone()), Asks(1001, false), &shared);
    let terms = Terms::of_run(Duration::from_secs(10), None);
    let acquirer = Acquirer { number: 2, key: "a".into(), terms, to: Asks(1002, false) };
    bulk.claim(RunClaim { acquirer, book, id: "i".into() }, &shared);
    assert!(bulk.claims_wait());
    let kinds: Vec<_> = std::iter::from_fn(|| bulk.next(at(0)))
        .map(|call| match call {
            Call::Holder(batch) => format!("{} holders", batch.requests.len()),
            Call::ForceRelease(_) => "forced".to_owned(),
            Call::SetAside(_) => "aside".to_owned(),
            Call::Claim(_) => "claim".to_owned(),
            _ => panic!("nothing else was asked"),
        })
        .collect();
    let in_turn = ["100 holders", "forced", "aside", "claim", "100 holders", "50 holders"];
    assert_eq!(kinds, in_turn, "a flood of one kind does not keep the others waiting");
    assert!(!bulk.claims_wait() && !bulk.is_due());
}

#[test]
fn extensions_go_by_themselves_and_have_their_share_of_the_room() {
    let (mut bulk, shared) = (Bulk::default(), shared());
    let hold = HoldName { ownership: 2, caller: 2 };
    for number in 0..150 {
        let (key, by) = ("a".into(), Duration::from_secs(1));
        let request = ExtendRequest { key, token: shared.token(2), by };
        bulk.extend(hold, request, Asks(number, false), &shared);
    }
    ask(&mut bulk, "a", 200, &shared);
    let sizes: Vec<_> = std::iter::from_fn(|| bulk.next_extensions(at(0)))
        .map(|call| match call {
            Call::Extend(batch) => batch.requests.len(),
            _ => panic!("extensions"),
        })
        .collect();
    assert_eq!(sizes, [100, 50]);
    assert!(bulk.is_due(), "the other one still waits");
    assert_eq!(next_holders(&mut bulk, at(0)).unwrap().requests.len(), 1);
    assert!(!bulk.is_due());
    // All of them are in flight, so there is room for that many fewer.
    (0..1000).for_each(|number| ask(&mut bulk, "a", number, &shared));
    let sent: usize = std::iter::from_fn(|| next_holders(&mut bulk, at(0)))
        .map(|batch| batch.requests.len())
        .sum();
    assert_eq!(sent, MOST_ON_THEIR_WAY - 151);
}

#[test]
fn who_waits_behind_a_silent_store_is_refused_in_time_and_not_before() {
    let (mut bulk, mut shared) = (Bulk::default(), shared());
    let silence = Err(StoreError::unavailable("no answer"));
    (0..2000).for_each(|number| ask(&mut bulk, "a", number, &shared));
    ask(&mut bulk, "b", 9000, &shared);
    let first: Vec<_> = std::iter::from_fn(|| next_holders(&mut bulk, at(0))).collect();
    shared.now = at(1000);
    for batch in first.iter().filter(|batch| batch.sent.shard == 0) {
        assert!(!answer(&mut bulk, batch, &silence, &mut shared), "a second is tolerated");
    }
    let second: Vec<_> = std::iter::from_fn(|| next_holders(&mut bulk, at(1000))).collect();
    assert_eq!(second.len(), 10);
    (2000..2100).for_each(|number| ask(&mut bulk, "a", number, &shared));
    // An answer of any kind ends the silence.
    shared.now = at(1999);
    let busy = Err(StoreError::rejected("busy"));
    assert!(!answer(&mut bulk, &second[0], &busy, &mut shared));
    shared.now = at(2500);
    assert!(!answer(&mut bulk, &second[1], &silence, &mut shared), "the silence has started again");
    assert!(refused(&mut shared).is_empty());
    shared.now = at(3000);
    assert!(
        answer(&mut bulk, &second[2], &silence, &mut shared),
        "two seconds since 1000 are over"
    );
    assert!(refused(&mut shared).into_iter().eq(2000..2100), "all that wait, and nobody else");
    assert!(!bulk.is_due());
}

#[test]
fn a_silence_that_keeps_nobody_waiting_counts_for_nothing() {
    let (mut bulk, mut shared) = (Bulk::default(), shared());
    let silence: Said<Option<Holder>> = Err(StoreError::unavailable("no answer"));
    for second in 0..5 {
        ask(&mut bulk, "a", second, &shared);
        let batch = next_holders(&mut bulk, at(second * 1000)).unwrap();
        shared.now = at(second * 1000 + 999);
        assert!(!answer(&mut bulk, &batch, &silence, &mut shared));
    }
    // But it counts if somebody else waits for the same part.
    let mut told = false;
    for second in 5..9 {
        ask(&mut bulk, "a", second, &shared);
        let batch = next_holders(&mut bulk, at(second * 1000)).unwrap();
        shared.now = at(second * 1000 + 999);
        let answers = vec![silence.clone(); batch.requests.len()];
        told |= bulk.answered(&batch.sent, &answers, true, &mut shared).is_some();
    }
    assert!(told);
}

#[test]
fn at_the_end_all_that_wait_are_refused() {
    let (mut bulk, mut shared) = (Bulk::default(), shared());
    ask(&mut bulk, "a", 1, &shared);
    ask(&mut bulk, "b", 2, &shared);
    let hold = HoldName { ownership: 2, caller: 2 };
    let request =
        ExtendRequest { key: "a".into(), token: shared.token(2), by: Duration::from_secs(1) };
    bulk.extend(hold, request, Asks(3, false), &shared);
    bulk.close(&mut shared);
    let mut all = refused(&mut shared);
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3]);
    assert!(!bulk.is_due() && bulk.next_extensions(at(0)).is_none());
}
