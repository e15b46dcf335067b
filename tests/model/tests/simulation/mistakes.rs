//! The simulation finds deliberate mistakes: each makes a world fail.
//!
//! A mistake is switched on for a whole process, so this test runs another one for each.

use std::{
    env,
    process::{Command, Stdio},
};

use lock_model::mistakes::BY_CHANCE;

/// The most worlds that are tried for each: the first that fails is enough.
const SEEDS: &str = "2000";

#[test]
fn worlds_fail_of_each_mistake() {
    if env::var_os("LOCK_MUTANT").is_some() {
        return;
    }
    let survivors = BY_CHANCE.iter().filter(|mutant| {
        let output = Command::new(env::current_exe().unwrap())
            .args(["nothing_that_is_promised", "--nocapture"])
            .env("LOCK_MUTANT", format!("{mutant:?}"))
            .env("LOCK_SEEDS", SEEDS)
            .env_remove("LOCK_SEED")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        // Requests that differ from the recorded ones do not count: a world has to fail.
        let failed = text.lines().find(|line| line.contains("LOCK_SEED="));
        println!("{mutant:?}: {}", failed.unwrap_or("nothing fails"));
        failed.is_none()
    });
    let survivors: Vec<_> = survivors.collect();
    assert!(survivors.is_empty(), "no world fails because of {survivors:?}");
}
