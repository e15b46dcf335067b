//! Every order in which things can happen, within a bound.
//!
//! [Stateright](https://docs.rs/stateright) walks through it, and looks at each state on the way. A test
//! with random schedules finds what is likely; this finds what is possible.
//!
//! What is checked is the code itself: the engine of each process, the table as the server, and between
//! them connections that keep their order, and may be late, be cut, and have their requests executed when
//! nobody waits for them any more. See [`scene`] for what can happen, and [`locks`], [`debounce`] and
//! [`durable`] for what callers do and what must hold.
//!
//! # Time
//!
//! It moves from timer to timer, on a grid of 100 ms, when nobody has anything to do. What is due is done
//! at once, and costs no time, unless it is late: being late is a step of the checker, of which there are
//! as many as the bound says, and each lasts one tick or three, which is longer than a lease.
//!
//! # What is reduced
//!
//! - What differs by a jitter only falls together on the grid.
//! - What a timer does that neither the server nor a caller can see (a renewal becomes due, and waits for
//!   company) is done with the step of time that leads there: nothing else happens in between.
//! - Steps of different processes between two requests are taken in one order, unless one is late.
//! - Of the second and the third process, the second begins first; their jitter differs, and nothing else.
//! - Two notices of one kind about one token that are on their way are one. One about a token that its
//!   process does not use any more is not delivered.
//! - Of an engine, a connection and the table, all is in the state but the timers (which are in the parts,
//!   too) and the texts of errors. A state is known by a hash of 64 bits.
//! - A worker of durable calls looks only while there is a call to run.
//!
//! # What is not covered
//!
//! Polling instead of waiting, `adopt`, `extend`, `hold_at_most`, `hold_at_least`, releases by force,
//! batches of several keys, patience that ends (a caller that goes away does the same), answers that
//! overtake each other, clocks that run at different rates or are set back, `max_wait`, `flush` and
//! `cancel` of a debounce. The simulation has all of them. What a worker of durable calls does is written
//! here once more, after `lock/src/durable/worker.rs`.
//!
//! # What it has found
//!
//! A run that was granted once more, for its answer was lost, covered calls that had come since (mended in
//! `Window::begin`). And one limit: the debounced calls of different processes are in the order in which
//! they reach the store, not in the order in which they were made; see the last test of
//! [`debounce_within_bounds`].
#![allow(clippy::unwrap_used, reason = "a test that unwraps says what it expected")]

mod checker;
mod debounce;
mod debounce_within_bounds;
mod durable;
mod durable_within_bounds;
mod kept;
mod locks;
mod locks_within_bounds;
mod mistakes;
mod play;
mod scene;
mod word;
mod world;

use std::time::Duration;

use lock_core::{Token, token};

/// Each state is made of some tens of small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One step of being late.
const TICK: Duration = Duration::from_millis(600);

/// Just below three ticks: a deadline has passed after three, and so has the store's own time.
const LEASE: Duration = Duration::from_millis(1750);

/// What the server's clock shows at the beginning, in microseconds.
const EPOCH: u64 = 1_000_000;

/// The clients.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// The client of a token.
fn client_of(of: &Token) -> usize {
    let client = NAMES.iter().position(|name| token::is_of(of, name));
    client.expect("BUG: a token that no client has made")
}
