//! A model of the protocol, checked to exhaustion.
//!
//! [Stateright](https://docs.rs/stateright) walks through every order in which things can happen
//! within a bound, and looks at each state on the way. A test with random schedules finds what is
//! likely; this finds what is possible.
//!
//! # What is real, and what is a mirror
//!
//! The decisions are the library's own code, cloned and hashed as state: `engine::lease`,
//! `engine::lock_state` (who waits in a process, its entry and its ownership), `core::debounce::Window`,
//! `engine::burst`, and the queue of the memory store. The other parts of the engine have more state
//! than the model can bear yet, and are mirrored here, line by line: in [`locks`] and in [`debounce`], `store` is the memory store,
//! which the scripts follow, and `client` or `process` is the engine. A test holds the `store` of
//! locks to the memory store, and the tests of the workspace hold the scripts to that.
//!
//! # What is covered
//!
//! [`locks`]: up to three clients, one id. A client asks, waits, is handed the lock, claims it,
//! renews it, passes it on inside its process, releases it, or withdraws. Requests and replies keep
//! their order on a connection, and may be late, be lost with the connection, and be repeated; a
//! request of a connection that is gone may be executed at any time later (a server that allows
//! `CLIENT KILL` does not do that; the protocol bears it). Clients stop for ever, with or without
//! the server's notice, or sleep past their deadline. Notices come in any order, late, or never.
//! All data may be lost; then only the fences must still grow.
//!
//! [`debounce`]: callers of one id in three processes, and what may befall them is the same. A caller
//! goes away at any time, also between the grant of its run and the moment when it hears of it.
//!
//! Not covered: polling instead of waiting, `adopt`, `extend`, `hold_at_most`, `hold_at_least`,
//! forced releases, batches, patience that ends (a caller that goes away does the same), clocks
//! that run at different rates (that is what the margin of a lease is for) or are set back, several
//! ids, `max_wait`, `flush` and `cancel` of a debounce, durable calls.
//!
//! # What it has found
//!
//! A run that was granted once more, for its answer was lost, covered calls that had come since: they
//! were superseded by a run that had begun before them, or was older than they (mended in
//! `Window::begin`). Nothing else that breaks a guarantee, and one limit: the debounced calls of
//! different processes are in the order in which they reach the store, not in the order in which
//! they were made. See `calls_of_different_processes_are_in_order_but_for_the_time_of_a_request` in
//! `debounce/tests.rs`, which fails when that is no longer so.
//!
//! # Time
//!
//! It moves in [`TICK`]s. Whatever is due is done at once, and costs no time, unless it is late:
//! being late is a step of the checker, of which there are as many as the bound says, and each
//! lasts one tick or three, which is longer than a lease. When nobody has anything to do, time
//! goes on to the next timer, or to the next thing that expires.
//!
//! # Larger
//!
//! `cargo test -p lock --lib model::` takes the small bounds, a few seconds each. With
//! `LOCK_MODEL=2` in the environment the tests named `larger_bounds` walk through 22 million states
//! more, which takes some minutes and some GiB of memory; `--nocapture` says how far they are.
//! Each walk has one thread, because the tests run beside each other.

mod connection;
mod debounce;
mod locks;

use std::{
    fmt::Debug,
    hash::Hash,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use stateright::{Checker, HasDiscoveries, Model};

/// One step of the model's clock. Timers are looked at on its grid.
const TICK: Duration = Duration::from_millis(600);

/// Just below three ticks: a deadline has passed after three, and so has the store's own time.
const LEASE: Duration = Duration::from_millis(1750);

/// As in `store/redis`: how long a call may take, and a renewal of this lease.
const CALL_LIMIT: Duration = Duration::from_secs(1);
const RENEW_LIMIT: Duration = LEASE;

/// What the server's clock shows at the beginning, in microseconds.
const EPOCH: u64 = 1_000_000;

/// The clients.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What has happened in some state, so that a model that became empty is noticed.
#[derive(Debug, Default)]
struct Seen(AtomicU32);

impl Seen {
    fn note(&self, event: u32, happened: bool) {
        if happened {
            self.0.fetch_or(1 << event, Ordering::Relaxed);
        }
    }

    fn has(&self, event: u32) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << event) != 0
    }
}

/// Is the larger bound asked for?
fn is_larger() -> bool {
    std::env::var("LOCK_MODEL").is_ok_and(|bound| bound == "2")
}

/// Walks through all states, of which there must be at least so many.
fn check<M>(name: &str, model: M, least: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Debug + Send + Sync,
    M::Action: Clone + PartialEq + Debug,
{
    let started = Instant::now();
    let checker = model.checker().threads(1).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let states = checker.unique_state_count();
    println!(
        "{name}: {states} states, {} steps, depth {}, {:.1} s",
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64(),
    );
    checker.assert_properties();
    assert!(checker.is_done() && states >= least, "{name}: only {states} states");
}

/// Walks through the states of a model with a mistake until it breaks this property, as it must.
fn assert_breaks<M>(mistake: &str, model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Send + Sync,
    M::Action: Clone + PartialEq + Debug,
{
    let until = HasDiscoveries::AllOf([property].into());
    let checker = model.checker().threads(1).finish_when(until).spawn_bfs().join();
    let steps = checker.discovery(property).map(|path| path.into_actions().len());
    let states = checker.unique_state_count();
    println!("{mistake}: {property:?} fails after {steps:?} steps, {states} states");
    assert!(checker.model().property(property).expectation.discovery_is_failure());
    assert!(steps.is_some(), "{mistake} does not break {property:?}");
}
