//! The checker finds each deliberate mistake in the engine or the table.
//!
//! A mistake is switched on for a whole process, so this test runs itself once for each.

use std::{
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use lock_core::mutant::Mutant::{self, *};
use lock_model::mistakes::BY_EXHAUSTION;

use crate::{
    checker::first_failure, debounce_within_bounds as debounce, durable_within_bounds as durable,
    locks_within_bounds as locks, play::Bound,
};

const LATE: Bound = Bound { late: 1, lasting: 1, calling: 0, faults: 0, wipes: 0 };
const LATE_TWICE: Bound = Bound { late: 2, ..LATE };
const FAULT: Bound = Bound { late: 0, faults: 1, ..LATE };
const LOSS: Bound = Bound { late: 0, lasting: 0, wipes: 1, ..LATE };

/// The scene in which a mistake is looked for.
#[derive(Clone, Copy)]
enum Where {
    Locks([u8; 3], Bound),
    Debounce([u8; 3], Bound),
    Durable([u8; 2], Bound),
}

use Where::{Debounce, Durable, Locks};

/// Each mistake, where it is found, and what fails first.
const MISTAKES: &[(Mutant, Where, &str)] = &[
    (DeadlineFromReply, Locks([2, 1, 0], LATE_TWICE), "at most one guard is valid"),
    (LateGrantCounts, Locks([2, 1, 0], LATE_TWICE), "fencing tokens grow from guard to guard"),
    (OwnerPerProcess, Locks([2, 1, 1], FAULT), "nothing is left of who went away"),
    (NoFallbackLook, Locks([2, 1, 1], FAULT), "a lock that has expired is soon taken"),
    (CancelledAcquireIsNotUndone, Locks([2, 1, 1], FAULT), "nothing is left of who went away"),
    (HandOverWithTheSameToken, Locks([2, 1, 0], FAULT), "fencing tokens grow from guard to guard"),
    (ReleaseIsNotRepeated, Locks([2, 1, 1], FAULT), "nothing is left of who went away"),
    (ReleaseWithoutOwnerCheck, Locks([2, 1, 1], FAULT), "at most one guard is valid"),
    (RenewRecreates, Locks([2, 1, 1], FAULT), "a renewal gives the lock to nobody"),
    (CounterOnlyToken, Locks([2, 1, 1], LOSS), "each fence is larger than all before"),
    (HandOverWithoutExpiry, Locks([2, 1, 1], FAULT), "in the end all is done"),
    (HandOverByFreeing, Locks([2, 1, 1], FAULT), "a release leaves no waiter behind"),
    (SupersededBeforeTheRun, Debounce([2, 1, 1], FAULT), "a call is superseded by a run"),
    (DebounceClaimWithoutLease, Debounce([2, 1, 1], LATE), "runs do not overlap"),
    (NoTombstone, Debounce([2, 1, 1], LATE), "no older call runs after a newer one"),
    (SupersededByACall, Debounce([2, 1, 1], FAULT), "a call is superseded by a run"),
    (DurableCallIsForgotten, Durable([1, 1], FAULT), "a call that was kept stays until it is done"),
    (FinishRemovesNewerCall, Durable([1, 1], LATE), "a call that was kept stays until it is done"),
];

/// Looks for the mistake of this number, which is switched on in this process.
fn look_for(number: usize) {
    let (mutant, place, expected) = MISTAKES[number];
    assert!(mutant.is_on(), "{mutant:?} is not switched on");
    let failure = match place {
        Locks(acquisitions, bound) => first_failure(locks::scene(acquisitions, bound)),
        Debounce(calls, bound) => first_failure(debounce::scene(calls, bound)),
        Durable(calls, bound) => first_failure(durable::scene(&calls, bound)),
    };
    match failure {
        Some((property, steps, states)) => {
            // Another property may break in as many steps, but would say less about the mistake.
            assert_eq!(property, expected, "{mutant:?}");
            println!("{mutant:?}: {property:?} fails after {steps} steps, {states} states");
        }
        None => println!("{mutant:?}: nothing fails"),
    }
}

/// Runs this test program with the mistake, and returns what it found.
fn run(number: usize) -> String {
    let (mutant, ..) = MISTAKES[number];
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["each_mistake_is_found", "--nocapture", "--test-threads=1"])
        .env("LOCK_MUTANT", format!("{mutant:?}"))
        .env("LOCK_MISTAKE", number.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().find(|line| line.contains("fails")).map(str::to_owned);
    let failed = || panic!("{mutant:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    found.unwrap_or_else(failed)
}

#[test]
fn each_mistake_is_found() {
    if let Ok(number) = std::env::var("LOCK_MISTAKE") {
        return look_for(number.parse().unwrap());
    }
    assert!(MISTAKES.iter().map(|(mutant, ..)| mutant).eq(BY_EXHAUSTION), "the lists differ");
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= MISTAKES.len() {
                        return;
                    }
                    let line = run(number);
                    println!("{line}");
                    found.lock().unwrap().push(line);
                }
            });
        }
    });
    let missed: Vec<_> = found.into_inner().unwrap();
    let missed: Vec<_> = missed.iter().filter(|line| line.contains("nothing fails")).collect();
    assert!(missed.is_empty(), "{missed:?}");
}
