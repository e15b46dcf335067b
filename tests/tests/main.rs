//! The suite: one module for each public idea.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says what it expected")]

mod common;
mod guard;
mod harness;
