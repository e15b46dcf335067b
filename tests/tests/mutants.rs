//! The tests find deliberate mistakes: each mistake fails the test that is meant to find it.
//!
//! The mistakes are in `lock-core/src/mutant.rs`; the suite runs itself with one of them switched
//! on. Most mistakes in the engine and the table are found faster by the model checker and the
//! simulation.

use std::{
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use lock_core::mutant::Mutant::{self, *};
use lock_model::mistakes::{BY_CHANCE, BY_EXHAUSTION};
use lock_tests::end_with_this_process;

/// Each mistake, and the test that must fail because of it.
const MUTANTS: [(Mutant, &str); 19] = [
    (DeadlineFromReply, "keeper_worlds::what_is_decided"),
    (LossIsNotSignalled, "keeper_worlds::what_is_decided"),
    (OwnerPerProcess, "keeper_worlds::what_is_decided"),
    (ScriptReleaseWithoutOwnerCheck, "interoperation::a_release_frees_nobody_elses_lock"),
    (ScriptRenewRecreates, "faults::a_server_that_forgot_the_lock_costs_it"),
    (ScriptCounterOnlyToken, "interoperation::fencing_tokens_grow_across_a_loss_of_all_data"),
    (NoFallbackLook, "waiting::lost_wake_ups_cost"),
    (ScriptSecondsAsTtl, "interoperation::the_key_holds_exactly_the_token"),
    (NotOursIsIgnored, "faults::a_server_that_forgot_the_lock_costs_it"),
    (ErrorCountedAsNotOurs, "test_util::each_fault_is_the_error"),
    (ScriptFailedExtendReleases, "interoperation::a_failed_extension_frees_nobody"),
    (ScriptDebounceClaimWithoutLease, "debounce::on_redis::runs_never_overlap"),
    (CancelledAcquireIsNotUndone, "acquire::ten_thousand_cancelled_acquires"),
    (NoLookAtTheClock, "faults::after_a_stall_the_clock_counts"),
    (WallClock, "faults::a_step_of_the_wall_clock_changes_nothing"),
    (ScriptNoTombstone, "differential::both_stores_answer_alike"),
    (HandOverToTheCrowd, "line::on_redis::another_client_gets_its_turn"),
    (HandOverWithTheSameToken, "line::on_redis::callers_are_served_in_order"),
    (ScriptTicketIsNotKept, "differential::both_stores_answer_alike"),
];

/// Runs one test with a mistake. Returns true if it has failed.
fn fails(mutant: Mutant, test: &str) -> bool {
    let output = end_with_this_process(&mut Command::new(std::env::current_exe().unwrap()))
        .args([test, "--test-threads=1"])
        .env("LOCK_MUTANT", format!("{mutant:?}"))
        // A given seed or number of seeds is meant for the suite, not for this test.
        .env_remove("LOCK_SEED")
        .env_remove("LOCK_SEEDS")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{test} is not one test: {text}");
    !output.status.success()
}

#[test]
fn every_mistake_is_caught() {
    if std::env::var_os("LOCK_MUTANT").is_some() {
        return;
    }
    let found_here = MUTANTS.iter().map(|(mutant, _)| mutant);
    let found: Vec<_> = found_here.chain(BY_EXHAUSTION).chain(BY_CHANCE).collect();
    let unknown: Vec<_> = Mutant::ALL.iter().filter(|mutant| !found.contains(mutant)).collect();
    assert!(unknown.is_empty(), "no test for {unknown:?}");
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((mutant, test)) = MUTANTS.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if !fails(*mutant, test) {
                        survivors.lock().unwrap().push(*mutant);
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    println!("{} of {} caught", MUTANTS.len() - survivors.len(), MUTANTS.len());
    assert!(survivors.is_empty(), "nothing fails because of {survivors:?}");
}
