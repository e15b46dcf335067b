//! Walks through the states of a world.

use std::{
    fmt::Debug,
    hash::Hash,
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use stateright::{Checker, HasDiscoveries, Model};

/// The events that have happened in some state, so that a model in which nothing happens any more
/// is noticed.
#[derive(Debug, Default)]
pub(crate) struct Seen(AtomicU32);

impl Seen {
    pub(crate) const LATE_ANSWER: u32 = 31;
    pub(crate) const EXECUTED_STALE: u32 = 30;

    pub(crate) fn note(&self, event: u32, happened: bool) {
        if happened {
            self.0.fetch_or(1 << event, Ordering::Relaxed);
        }
    }

    pub(crate) fn has(&self, event: u32) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << event) != 0
    }
}

/// Is the larger bound asked for?
pub(crate) fn is_larger() -> bool {
    std::env::var("LOCK_MODEL").is_ok_and(|bound| bound == "2")
}

/// Walks through all states, of which there must be at least `least`. If a mistake makes them
/// endless, the walk stops after [`MOST`] steps for each of those.
pub(crate) fn check<M>(name: &str, model: M, least: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Debug + Send + Sync,
    M::Action: Clone + PartialEq + Debug,
{
    let started = Instant::now();
    let most = if is_larger() { MOST_LARGER } else { MOST * least };
    let checker = model.checker().threads(1).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.target_state_count(most);
    if is_larger() {
        // Depth first keeps only the states on the current path, and a hash of each of the others.
        judge(name, &checker.spawn_dfs().join(), (least, most), started);
    } else {
        judge(name, &checker.spawn_bfs().join(), (least, most), started);
    }
}

/// Prints and judges the result of a walk.
fn judge<M>(name: &str, checker: &impl Checker<M>, (least, most): (usize, usize), started: Instant)
where
    M: Model,
    M::State: Hash + Clone + PartialEq + Debug,
    M::Action: Clone + PartialEq + Debug,
{
    let states = checker.unique_state_count();
    println!(
        "{name}: {states} states, {} steps, depth {}, {:.1} s",
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64(),
    );
    checker.assert_properties();
    assert!(states >= least, "{name}: only {states} states");
    assert!(checker.state_count() < most, "{name}: there is no end of states");
}

/// A walk with more steps than this for each of the `least` states counts as endless.
const MOST: usize = 8;

/// The limit of the walks with the larger bounds: as many steps as fit into the memory of a large
/// machine.
const MOST_LARGER: usize = 200_000_000;

/// A mistake that takes more steps than this counts as not found.
const MOST_BEFORE_FAILURE: usize = 5_000_000;

/// Walks through the states of a model with a mistake until it breaks a property. Returns which
/// one, and after how many steps; breadth first, so there is no shorter way.
pub(crate) fn first_failure<M>(model: M) -> Option<(&'static str, usize, usize)>
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Debug + Send + Sync,
    M::Action: Clone + PartialEq + Debug,
{
    let checker = model.checker().threads(1).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.target_state_count(MOST_BEFORE_FAILURE).spawn_bfs().join();
    let states = checker.unique_state_count();
    let failures = checker
        .discoveries()
        .into_iter()
        .filter(|(name, _)| checker.model().property(name).expectation.discovery_is_failure());
    let failures = failures.map(|(name, path)| (name, path.into_actions().len(), states));
    failures.min_by_key(|(name, steps, _)| (*steps, *name))
}
