//! Real processes that lock on a real server, while all of it breaks; and the judge of what they saw.
//!
//! Every client is a process that works under locks without end and writes down each hold
//! (`worker/workload.rs`), and makes debounced calls and writes down each call and each run
//! (`worker/calls.rs`). At the end all is mended, everybody finishes, and the history is judged.
//! There are three worlds of that kind:
//!
//! - **One server** (`single.rs`, `faults.rs`): four hands break things at the same time: the
//!   network of one client, the server, a client's process, a client's wall clock. Each process lives
//!   by clocks of its own: all of them run faster or slower than the server's, by almost as much as a
//!   lease leaves room for. Before the end nothing breaks for a while, and every debounced call has to
//!   be answered in time. `tests/soak MINUTES` does it for as long as asked.
//! - **Sentinels** (`failovers.rs`): the primary moves, again and again. `tests/soak failovers NUMBER`
//!   does it so often in each way. `LOCK_MIN_REPLICAS=1` has one of the two replicas acknowledge each
//!   lock.
//!
//! - **A Cluster** (`cluster.rs`): primaries are replaced, slots move, nodes come and go.
//!   `tests/soak cluster NUMBER` does it so often in each way.
//!
//! In the first two, one process is of the version before, if `tests/run` has built that; it knows no
//! Cluster, makes no debounced calls here, and its clocks are only stepped.
//!
//! A binary of its own, which runs before the suite and not beside it: it takes all the machine has,
//! and the suite measures how soon things happen.

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

/// What a run of the suite holds at least. Less is no pass, but a run that says nothing.
const ACQUISITIONS: usize = 50_000;
const FAULTS: u64 = 150;

/// Of debounced calls, and of those that are made while nothing breaks.
const CALLS: usize = 300;
const CALLS_WHILE_WELL: usize = 15;

/// After so long a run that is still too quiet is given up.
const LIMIT: Duration = Duration::from_secs(300);

/// How many holds there are at least for each failover.
const HOLDS: usize = 1000;

/// How soon there is a lock again once a replica is promoted, mostly.
const SOON: Duration = Duration::from_millis(300);

/// How long a lock takes on a shard of a Cluster while another one is out of reach. Mostly it is a
/// twentieth of that; this is what a machine with much other work takes.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// One world at a time.
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
    // Where every replica has to have it, no failover loses a grant.
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
    println!("{end}; {timings}; holds that ran out on shards that were there {}", starved.len());
    println!("ran out: {starved:?}");
    end.assert_nothing_was_broken();
    let acquisitions = end.verdict.acquisitions;
    assert!(acquisitions >= HOLDS * each as usize * cluster::KINDS.len(), "{acquisitions}");
    assert!(timings.middle(NEXT_LOCK) <= SOON, "{timings}");
    assert!(timings.most(cluster::ELSEWHERE) <= UNDISTURBED, "{timings}");
}

/// What everything is drawn from.
fn seed() -> u64 {
    let seed = number("LOCK_SEED").unwrap_or_else(|| std::process::id().into());
    println!("seed {seed} (LOCK_SEED draws the same faults, at other moments)");
    seed
}

/// What a variable of the environment says.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}
