//! When a client writes its record to the store.

use super::*;
use crate::contract::Delivery;

/// A client that has written its record, and holds the lock `a`.
fn introduced() -> Engine<u64> {
    let record = ClientRecord::unknown().name(Some("billing-7".into()));
    let mut engine = engine().introducing("~client:client", record);
    assert!(!engine.wants_turn(), "not before there is a connection");
    engine.notice(Notice::Connected(Delivery::Push), at(0));
    assert!(engine.wants_turn());
    assert_eq!(introduces(&mut engine, at(0)), Some(Duration::from_secs(600)));
    engine.command(acquire(1, "a", LEASE), at(0));
    let sent = asked(&mut engine, at(0));
    engine.answered(Answer::Acquired(sent, vec![granted(7)]), at(1));
    grants(&mut engine);
    assert_eq!(introduces(&mut engine, at(1)), None, "an acquire costs no further request");
    engine
}

/// Does it write its record now, and for how long? The answer is lost.
fn introduces(engine: &mut Engine<u64>, now: Moment) -> Option<Duration> {
    match engine.poll_call(now)? {
        Call::Introduce(batch) => {
            let keep = batch.requests[0].keep;
            assert_eq!(batch.requests[0].record.name.as_deref(), Some("billing-7"));
            let silence = Err(StoreError::unavailable("no answer"));
            engine.answered(Answer::Introduced(batch.sent, vec![silence]), now);
            Some(keep)
        }
        _ => panic!("it asks for something else"),
    }
}

/// Does what is due; answers a renewal, which may first wait for others.
fn renew_if_due(engine: &mut Engine<u64>, now: Moment) {
    engine.timeout(now);
    match engine.poll_call(now) {
        Some(Call::Renew(batch)) => {
            engine.answered(Answer::Renewed(batch.sent, vec![Ok(Renewal::renewed())]), now);
        }
        None => {}
        Some(_) => panic!("it renews"),
    }
}

#[test]
fn a_record_is_refreshed_with_a_renewal_once_a_minute() {
    let mut engine = introduced();
    let mut written = Vec::new();
    while let Some(next) = engine.next_timeout().filter(|next| *next < at(200_000)) {
        renew_if_due(&mut engine, next);
        written.extend(introduces(&mut engine, next).map(|_| next));
    }
    assert_eq!(written.len(), 3, "{written:?}");
    assert!(written.windows(2).all(|two| two[1] >= two[0] + Duration::from_secs(60)));
}

#[test]
fn a_record_is_written_again_after_a_connect() {
    let mut engine = introduced();
    // A connection that breaks at once must not be taken for one that has served.
    engine.notice(Notice::Connected(Delivery::Push), at(5_000));
    assert!(!engine.wants_turn());
    let mut written = Vec::new();
    while let Some(next) = engine.next_timeout().filter(|next| *next < at(20_000)) {
        renew_if_due(&mut engine, next);
        written.extend(introduces(&mut engine, next).map(|_| next));
    }
    assert!(written.len() == 1 && written[0] >= at(10_000), "with a renewal: {written:?}");
    while let Some(next) = engine.next_timeout().filter(|next| *next < at(30_000)) {
        renew_if_due(&mut engine, next);
    }
    engine.notice(Notice::Connected(Delivery::Push), at(30_000));
    assert!(introduces(&mut engine, at(30_000)).is_some(), "the store may have lost its data");
    assert_eq!(introduces(&mut engine, at(30_000)), None);
}

#[test]
fn a_grant_writes_a_record_that_would_be_gone_soon() {
    let mut engine = introduced();
    engine.command(release(1, 1, false), at(2));
    let Some(Call::Release(batch)) = engine.poll_call(at(2)) else { panic!("it releases") };
    engine.answered(Answer::Released(batch.sent, vec![Ok(Release::freed())]), at(2));
    let mut take = |number: u64, lease: u64, now: u64| {
        let Command::Acquire(mut take) = acquire(number, "a", LEASE) else { unreachable!() };
        take.acquirer.terms.lease = Duration::from_secs(lease);
        take.acquirer.key = format!("{number}").into();
        engine.command(Command::Acquire(take), at(now));
        let sent = asked(&mut engine, at(now));
        engine.answered(Answer::Acquired(sent, vec![granted(7)]), at(now));
        grants(&mut engine);
        introduces(&mut engine, at(now))
    };
    assert_eq!(
        take(2, 100_000, 200_000),
        Some(Duration::from_secs(200_000)),
        "twice as long as the lease"
    );
    assert_eq!(take(4, 100_000, 201_000), None);
    assert_eq!(take(6, 10, 499_000), None, "it stays for some more minutes");
    assert_eq!(take(8, 10, 500_000), Some(Duration::from_secs(200_000)));
}

#[test]
fn a_client_that_was_told_of_no_record_says_nothing() {
    let mut engine = engine();
    engine.notice(Notice::Connected(Delivery::Push), at(0));
    assert!(!engine.wants_turn() && engine.poll_call(at(0)).is_none());
}
