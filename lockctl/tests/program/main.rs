//! The program, run as people and scripts run it, against real servers.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says what it expected")]

mod calls;
mod common;
mod doctor;
mod locks;
mod pages;
