//! How much goes to the store at once.

use super::*;

#[test]
fn acquires_go_in_batches_up_to_a_bound_on_what_is_on_its_way() {
    let mut engine = engine();
    let tries = |engine: &mut Engine<u64>, numbers: std::ops::Range<u64>| {
        for number in numbers {
            engine.command(acquire(2 * number, &format!("{number}"), Duration::ZERO), at(0));
        }
    };
    tries(&mut engine, 1..51);
    assert_eq!(asked(&mut engine, at(0)).asked.len(), 50);
    tries(&mut engine, 51..10_151);
    let sent: Vec<_> = std::iter::from_fn(|| engine.poll_call(at(0)))
        .map(|call| match call {
            Call::Acquire(batch) => batch.sent,
            _ => panic!("nothing else is asked"),
        })
        .collect();
    let sizes: Vec<_> = sent.iter().map(|sent| sent.asked.len()).collect();
    let bound = [[100; 99].as_slice(), &[50]].concat();
    assert_eq!(sizes, bound, "a renewal finds 10,000 ahead of it, and not more");
    assert!(!engine.wants_turn());
    let held = |count| (0..count).map(|_| Ok(Acquisition::held(None))).collect();
    let mut sent = sent.into_iter();
    for (now, left) in [(1, 100), (2, 50)] {
        engine.answered(Answer::Acquired(sent.next().unwrap(), held(100)), at(now));
        assert_eq!(asked(&mut engine, at(now)).asked.len(), left, "an answer makes room");
    }
    engine.answered(Answer::Acquired(sent.next().unwrap(), held(100)), at(3));
    assert!(engine.poll_call(at(3)).is_none());
}

#[test]
fn questions_about_bursts_go_in_batches() {
    let mut engine = engine();
    (1..=250_u64).for_each(|number| debounce(&mut engine, 2 * number, &format!("{number}"), at(0)));
    let sizes: Vec<_> = std::iter::from_fn(|| engine.poll_call(at(0)))
        .map(|call| match call {
            Call::Register(batch) => batch.requests.len(),
            _ => panic!("nothing else is asked"),
        })
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
}
