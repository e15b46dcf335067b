//! The engine and the table of `lock-core`, as they are, in worlds of the tests' own making: every
//! order of events within a bound (`tests/exhaustive`), and many of them by chance (`tests/simulation`).
//!
//! - [`server`]: a store: what the table answers to a call of an engine;
//! - [`connection`]: what is on its way between the two;
//! - [`process`]: an engine and its connection, driven as the keeper drives them;
//! - [`mistakes`]: the mistakes on purpose that are found here.
#![forbid(unsafe_code)]

pub mod connection;
pub mod mistakes;
pub mod process;
pub mod server;

pub use self::process::{Process, Who};
