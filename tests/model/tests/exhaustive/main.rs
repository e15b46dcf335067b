//! Every order in which things can happen, within a bound.
//!
//! [Stateright](https://docs.rs/stateright) walks through it, and looks at each state on the way. A test
//! with random schedules finds what is likely; this finds what is possible.
//!
//! What is checked is the code itself: the engine of each process, the table as the server, and between
//! them connections that keep their order, and may be late, be cut, and have their requests executed when
//! nobody waits for them any more. See [`scene`] for what can happen, and [`locks`], [`debounce`] and
//! [`durable`] for what callers do and what must hold.
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
