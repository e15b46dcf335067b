//! The engine and the table of `lock-core`, as they are, in worlds of the tests' own making.
//!
//! - [`server`]: a store: what the table answers to a call of an engine.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps says what it expected")]

pub mod server;
