//! The suite: one module for each public idea.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says what it expected")]

mod acquire;
mod attributes;
mod common;
mod contract;
mod controls;
mod dead_waiters;
mod debounce;
mod differential;
mod dropped_callers;
mod durable;
mod errors;
mod faults;
mod guard;
mod hand_over;
mod harness;
mod hostile;
mod interoperation;
mod line;
mod macros;
mod mutants;
mod postgresql;
mod regressions;
mod reports;
mod runs;
mod runtimes;
mod scale;
mod seed;
mod sentinels;
mod simulation;
mod stores;
mod test_util;
mod tls;
mod ui;
mod waiting;
mod warnings;
