//! The checker has teeth: each mistake, made on purpose in the engine or the table, is found.
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

/// What happens where a mistake is looked for.
#[derive(Clone, Copy)]
enum Where {
    Locks([u8; 3], Bound),
    Debounce([u8; 3], Bound),
    Durable([u8; 2], Bound),
}

use Where::{Debounce, Durable, Locks};

/// Each mistake, and where it is found.
const MISTAKES: &[(Mutant, Where)] = &[
    (DeadlineFromReply, Locks([2, 1, 0], LATE_TWICE)),
    (LateGrantCounts, Locks([2, 1, 0], LATE_TWICE)),
    (OwnerPerProcess, Locks([2, 1, 1], FAULT)),
    (NoFallbackLook, Locks([2, 1, 1], FAULT)),
    (CancelledAcquireIsNotUndone, Locks([2, 1, 1], FAULT)),
    (HandOverWithTheSameToken, Locks([2, 1, 0], FAULT)),
    (ReleaseIsNotRepeated, Locks([2, 1, 1], FAULT)),
    (ReleaseWithoutOwnerCheck, Locks([2, 1, 1], FAULT)),
    (RenewRecreates, Locks([2, 1, 1], FAULT)),
    (CounterOnlyToken, Locks([2, 1, 1], LOSS)),
    (HandOverWithoutExpiry, Locks([2, 1, 1], FAULT)),
    (HandOverByFreeing, Locks([2, 1, 1], FAULT)),
    (SupersededBeforeTheRun, Debounce([2, 1, 1], FAULT)),
    (DebounceClaimWithoutLease, Debounce([2, 1, 1], LATE)),
    (NoTombstone, Debounce([2, 1, 1], LATE)),
    (SupersededByACall, Debounce([2, 1, 1], FAULT)),
    (DurableCallIsForgotten, Durable([1, 1], FAULT)),
    (FinishRemovesNewerCall, Durable([1, 1], LATE)),
];

/// Looks for the mistake of this number, which is switched on in this process.
fn look_for(number: usize) {
    let (mutant, place) = MISTAKES[number];
    assert!(mutant.is_on(), "{mutant:?} is not switched on");
    let failure = match place {
        Locks(acquisitions, bound) => first_failure(locks::scene(acquisitions, bound)),
        Debounce(calls, bound) => first_failure(debounce::scene(calls, bound)),
        Durable(calls, bound) => first_failure(durable::scene(&calls, bound)),
    };
    match failure {
        Some((property, steps, states)) => {
            println!("{mutant:?}: {property:?} fails after {steps} steps, {states} states");
        }
        None => println!("{mutant:?}: nothing fails"),
    }
}

/// Runs itself with this mistake: what is found.
fn run(number: usize) -> String {
    let (mutant, _) = MISTAKES[number];
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
    assert!(MISTAKES.iter().map(|(mutant, _)| mutant).eq(BY_EXHAUSTION), "the lists differ");
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
