//! Every order in which things can happen, within a bound.
//!
//! [Stateright](https://docs.rs/stateright) walks through them, and checks each state on the way. A
//! test with random schedules finds what is likely; this finds what is possible.
//!
//! The code itself is checked: the engine of each process, and the table as the server. The
//! connections between them keep their order, but may be late or be cut, and a request may be
//! executed after its caller has given up. See [`scene`] for what can happen, and [`locks`],
//! [`debounce`] and [`durable`] for what callers do and what must hold.
//!
//! # Time
//!
//! Time moves from timer to timer, on a grid of 100 ms, when no process has anything to do. What is
//! due is done at once, and takes no time, unless it is late. Being late is a step of the checker:
//! the bound limits the number of these steps, and each lasts one tick or three, which is longer
//! than a lease.
//!
//! # What is reduced
//!
//! - States that differ only by a jitter coincide on the grid.
//! - Effects of a timer that neither the server nor a caller can see (a renewal becomes due, and
//!   waits to be batched) are part of the step of time that leads there: nothing else happens in
//!   between.
//! - Steps of different processes between two requests are taken in one order, unless one is late.
//! - The second process begins before the third; they differ only in their jitter.
//! - Two notices of one kind about one token count as one while both are on their way. A notice
//!   about a token that its process no longer uses is not delivered.
//! - The state includes all of the engines, the connections and the table, except the timers (which
//!   the parts also contain) and the texts of errors. States are identified by a hash of 64 bits.
//! - A worker of durable calls looks only while there is a call to run.
//!
//! # What is not covered
//!
//! Polling instead of waiting, `adopt`, `extend`, `hold_at_most`, `hold_at_least`, releases by
//! force, batches of several keys, waits that time out (a caller that goes away does the same),
//! answers that overtake each other, clocks that run at different rates or are set back,
//! `max_wait`, `flush` and `cancel` of a debounce. The simulation has all of them. The worker of
//! durable calls is modelled here after `lock/src/durable/worker.rs`.
//!
//! # What it has found
//!
//! A run that was granted again because its answer was lost covered calls that had come since
//! (fixed in `Window::begin`). And one limit: debounced calls of different processes are ordered by
//! when they reach the store, not by when they were made; see the last test of
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

/// The smallest delay.
const TICK: Duration = Duration::from_millis(600);

/// Just below three ticks: after three, a deadline has passed, and the lease has also ended in the
/// store.
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
