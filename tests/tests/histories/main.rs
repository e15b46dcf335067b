//! Real processes that lock on a real server, while all of it breaks; and the judge of what they saw.
//!
//! Every client is a process that works under locks without end and writes down each hold
//! (`worker/workload.rs`). Meanwhile three hands break things at the same time: the network of one
//! client, the server, a client's process. At the end all is mended, everybody finishes, and the
//! history is judged. `tests/soak MINUTES` does it for as long as asked.
//!
//! A binary of its own, which runs before the suite and not beside it: it takes all the machine has,
//! and the suite measures how soon things happen.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says what it expected")]

mod faults;
mod ledger;
mod world;

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use self::{ledger::Usage, world::World};

/// What a run of the suite holds at least. Less is no pass, but a run that says nothing.
const ACQUISITIONS: usize = 50_000;
const FAULTS: u64 = 150;

/// After so long a run that is still too quiet is given up.
const LIMIT: Duration = Duration::from_secs(300);

/// How much a process may grow once it is warm, in KiB: noise of its allocator.
const GROWTH: u64 = 4096;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_holders_saw_under_faults_is_no_violation() {
    let minutes = std::env::var("LOCK_SOAK_MINUTES").ok().map(|text| text.parse::<u64>().unwrap());
    let seed = std::env::var("LOCK_SEED")
        .ok()
        .map_or_else(|| std::process::id().into(), |text| text.parse::<u64>().unwrap());
    println!("seed {seed} (LOCK_SEED draws the same faults, at other moments)");
    let began = Instant::now();
    let world = World::start(seed).await;
    let is_enough = || match minutes {
        Some(minutes) => began.elapsed() >= Duration::from_secs(60 * minutes),
        None => {
            began.elapsed() >= LIMIT
                || (world.acquisitions() >= ACQUISITIONS
                    && world.faults().values().sum::<u64>() >= FAULTS
                    && world.faults().len() == faults::KINDS)
        }
    };
    world.run(is_enough).await;
    let end = world.end().await;

    let faults: u64 = end.faults.values().sum();
    let verdict = end.history.judge();
    let mut line = format!(
        "{} acquisitions, {} failed, {faults} faults of {} kinds, {} data losses, {} s: \
         {} violations, {} overlaps and {} stale hand-overs after a data loss; writes {} accepted, {} refused as stale, \
         {} lost without the check; leaks {}; a process takes {}",
        verdict.acquisitions,
        end.failures.values().sum::<u64>(),
        end.faults.len(),
        end.forgettings,
        began.elapsed().as_secs(),
        verdict.violations.len(),
        verdict.overlaps_after_forgetting,
        verdict.stale_hand_overs,
        end.resource.accepted,
        end.resource.refused,
        end.resource.lost_unchecked,
        end.leaks.len(),
        end.usage,
    );
    for (kind, count) in &end.faults {
        let _ = write!(line, "; {kind} {count}");
    }
    println!("{line}");
    println!("failures: {:?}", end.failures);
    assert!(
        verdict.violations.is_empty(),
        "{:#?}",
        &verdict.violations[..verdict.violations.len().min(20)]
    );
    assert_eq!(end.resource.count, end.resource.accepted, "a stale write was accepted");
    assert!(end.leaks.is_empty(), "left: {:?}", end.leaks);
    assert!(end.usage.grew <= GROWTH, "memory grows: {}", end.usage);
    let Usage { tasks, files, first_tasks, first_files, .. } = end.usage;
    assert!(tasks <= first_tasks && files <= first_files, "left behind: {}", end.usage);
    // Too quiet is no pass.
    assert!(verdict.acquisitions >= ACQUISITIONS, "{} acquisitions", verdict.acquisitions);
    assert!(faults >= FAULTS, "{faults} faults");
    assert_eq!(
        end.faults.len(),
        faults::KINDS,
        "some kinds of faults never came: {:?}",
        end.faults
    );
    assert!(end.resource.refused > 0, "no holder was ever stale");
}
