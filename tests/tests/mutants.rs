//! The tests have teeth: each mistake, made on purpose, fails the test that is there for it.
//!
//! The mistakes are in `lock/src/mutant.rs`; the suite runs itself with one of them switched on.

use std::{
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use lock_tests::end_with_this_process;

/// Each mistake, and the test that must fail of it.
const MUTANTS: [(&str, &str); 19] = [
    ("deadline from reply", "simulation::worlds_of_many_seeds"),
    ("loss is not signalled", "simulation::worlds_of_many_seeds"),
    ("no margin", "simulation::worlds_of_many_seeds"),
    ("owner per process", "simulation::worlds_of_many_seeds"),
    ("release without owner check", "interoperation::a_release_frees_nobody_elses_lock"),
    ("renew re-creates", "faults::a_server_that_forgot_the_lock_costs_it"),
    ("counter-only token", "interoperation::fencing_tokens_grow_across_a_loss_of_all_data"),
    ("no fallback look", "waiting::lost_wake_ups_cost"),
    ("seconds as TTL", "interoperation::the_key_holds_exactly_the_token"),
    ("error counted as not ours", "test_util::each_fault_is_the_error"),
    ("failed extend releases", "interoperation::a_failed_extension_frees_nobody"),
    ("debounce claim without lease", "debounce::on_redis::runs_never_overlap"),
    ("cancelled acquire is not undone", "acquire::ten_thousand_cancelled_acquires"),
    ("no look at the clock", "faults::after_a_stall_the_clock_counts"),
    ("wall clock", "faults::a_step_of_the_wall_clock_changes_nothing"),
    ("no tombstone", "differential::both_stores_answer_alike"),
    ("hand-over to the crowd", "line::on_redis::another_client_gets_its_turn"),
    ("hand-over with the same token", "line::on_redis::callers_are_served_in_order"),
    ("ticket is not kept", "differential::both_stores_answer_alike"),
];

/// What the suite says of one test with a mistake: true if it has failed.
fn fails(mutant: &str, test: &str) -> bool {
    let output = end_with_this_process(&mut Command::new(std::env::current_exe().unwrap()))
        .args([test, "--test-threads=1"])
        .env("LOCK_MUTANT", mutant)
        // One world again, or a million, is asked of the suite and not of this.
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
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((mutant, test)) = MUTANTS.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if !fails(mutant, test) {
                        survivors.lock().unwrap().push(*mutant);
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    println!("{} of {} caught", MUTANTS.len() - survivors.len(), MUTANTS.len());
    assert!(survivors.is_empty(), "nothing fails of {survivors:?}");
}
