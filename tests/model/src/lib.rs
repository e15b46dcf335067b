//! The engine and the table of `lock-core`, unchanged, in simulated worlds: every order of events
//! within a bound (`tests/exhaustive`), and many random ones (`tests/simulation`).
//!
//! - [`server`]: a store, that is, the table's answers to the calls of an engine;
//! - [`connection`]: the messages on their way between the two;
//! - [`process`]: an engine and its connection, driven as the keeper drives them;
//! - [`mistakes`]: the deliberate mistakes that are found here.
#![forbid(unsafe_code)]

pub mod connection;
pub mod mistakes;
pub mod process;
pub mod server;

pub use self::process::{Process, Who};
