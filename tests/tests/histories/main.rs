//! Real processes lock on real servers while everything breaks, and a judge checks what they saw.
//!
//! Every client is a process that works under locks all the time and reports each hold
//! (`worker/workload.rs`), and that makes debounced calls and reports each call and each run
//! (`worker/calls.rs`). At the end all faults are healed, all clients finish, and the history is
//! judged. There are three such worlds:
//!
//! - **One server** (`single.rs`, `faults.rs`): four tasks break things at the same time: the
//!   network of one client, the server, a client's process, a client's wall clock. Each process has
//!   clocks of its own, which run faster or slower than the server's by almost as much as a lease
//!   allows for. Before the end nothing breaks for a while, and every debounced call has to be
//!   answered in time. `tests/soak MINUTES` runs it for as long as asked.
//! - **Sentinels** (`failovers.rs`): the primary moves, again and again. `tests/soak failovers
//!   NUMBER` runs that many failovers of each kind. With `LOCK_MIN_REPLICAS=1`, one of the two
//!   replicas has to acknowledge each lock.
//!
//! - **A Cluster** (`cluster.rs`): primaries are replaced, slots move, nodes come and go.
//!   `tests/soak cluster NUMBER` runs that many events of each kind.
//!
//! In the first two, one process is of the previous version, if `tests/run` has built it. That
//! version does not know Clusters, makes no debounced calls here, and its wall clock is only
//! stepped.
//!
//! A binary of its own, which runs before the suite and not beside it: it takes the whole machine,
//! and the suite measures times.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says what it expected")]

mod calls;
mod cluster;
mod end;
mod failovers;
mod faults;
mod ledger;
mod prober;
mod single;
mod timings;
mod world;

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use self::{cluster::Shards, failovers::Failovers, single::Single, timings::NEXT_LOCK};

/// The minimum of acquisitions in a run of the suite. A run with fewer proves nothing, and does not
/// pass.
const ACQUISITIONS: usize = 50_000;
const FAULTS: u64 = 150;

/// The minimum of debounced calls, and of those made while nothing breaks.
const CALLS: usize = 300;
const CALLS_WHILE_WELL: usize = 15;

/// When a run that is still too quiet is given up.
const LIMIT: Duration = Duration::from_secs(300);

/// The minimum of holds for each failover.
const HOLDS: usize = 1000;

/// The longest that the median time from the promotion of a replica to the next lock may be.
const SOON: Duration = Duration::from_millis(300);

/// How long a lock may take on a shard of a Cluster while another shard is out of reach. Usually it
/// takes a twentieth of that; this allows for a busy machine.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// Only one world runs at a time.
static MACHINE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_holders_saw_under_faults_is_no_violation() {
    let _machine = MACHINE.lock().await;
    let minutes = number("LOCK_SOAK_MINUTES");
    let began = Instant::now();
    let single = Single::start(seed());
    let is_enough = || match minutes {
        Some(minutes) => began.elapsed() >= Duration::from_secs(60 * minutes),
        None => {
            let (acquisitions, faults) = (single.world.acquisitions(), single.world.faults());
            began.elapsed() >= LIMIT
                || (acquisitions >= ACQUISITIONS
                    && faults.values().sum::<u64>() >= FAULTS
                    && faults.len() == faults::KINDS)
        }
    };
    single.run(is_enough).await;
    let end = single.end().await;
    println!("{end}");
    end.assert_nothing_was_broken();
    // Too quiet is no pass.
    let acquisitions = end.verdict.acquisitions;
    assert!(acquisitions >= ACQUISITIONS, "{acquisitions} acquisitions");
    let (calls, while_well) = (end.verdict.calls, end.verdict.calls_while_well);
    assert!(calls >= CALLS && while_well >= CALLS_WHILE_WELL, "{calls} calls, {while_well}");
    assert!(end.faults() >= FAULTS, "{} faults", end.faults());
    let kinds = &end.faults;
    assert_eq!(kinds.len(), faults::KINDS, "some kinds of faults never came: {kinds:?}");
    assert!(end.resource.refused > 0, "no holder was ever stale");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_holders_saw_over_failovers_is_no_violation() {
    let _machine = MACHINE.lock().await;
    let each = number("LOCK_FAILOVERS");
    let in_a_hurry = each.is_none();
    let each = each.unwrap_or(1);
    let replicas = number("LOCK_MIN_REPLICAS");
    let failovers = Failovers::start(seed(), replicas).await;
    let timings = failovers.run(each, in_a_hurry).await;
    let end = failovers.end().await;
    println!("{end}; {timings}");
    end.assert_nothing_was_broken();
    // If every replica has to acknowledge a grant, no failover loses one.
    if replicas == Some(failovers::REPLICAS) {
        assert_eq!(end.verdict.overlaps_after_forgetting, 0);
    }
    let acquisitions = end.verdict.acquisitions;
    assert!(acquisitions >= HOLDS * each as usize * failovers::KINDS.len(), "{acquisitions}");
    assert!(timings.middle(NEXT_LOCK) <= SOON, "{timings}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_holders_saw_over_a_cluster_is_no_violation() {
    let _machine = MACHINE.lock().await;
    let each = number("LOCK_CLUSTER_EVENTS").unwrap_or(1);
    let shards = Shards::start(seed()).await;
    shards.run(each).await;
    let (end, timings, starved) = shards.end().await;
    println!("{end}; {timings}; holds that ran out on available shards {}", starved.len());
    println!("ran out: {starved:?}");
    end.assert_nothing_was_broken();
    let acquisitions = end.verdict.acquisitions;
    assert!(acquisitions >= HOLDS * each as usize * cluster::KINDS.len(), "{acquisitions}");
    assert!(timings.middle(NEXT_LOCK) <= SOON, "{timings}");
    assert!(timings.most(cluster::ELSEWHERE) <= UNDISTURBED, "{timings}");
}

/// The seed from which everything is drawn.
fn seed() -> u64 {
    let seed = number("LOCK_SEED").unwrap_or_else(|| std::process::id().into());
    println!("seed {seed} (LOCK_SEED draws the same faults, at other moments)");
    seed
}

/// The number in an environment variable.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}
