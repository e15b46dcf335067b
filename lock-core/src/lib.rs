//! The decision-making half of [`lock`](https://docs.rs/lock), without I/O.
//!
//! This crate is an implementation detail of `lock`, published only because `lock` depends on
//! exactly this version of it. Its interface changes without notice: use `lock`.
//!
//! Nothing in this crate has access to a clock, a source of randomness, a runtime or a connection:
//! the time is passed in as a [`Moment`], and the answers of a store as data. So the same code runs
//! in the library, in a simulation, and under a model checker that explores every order of events
//! within a bound.
//!
//! - [`engine`]: everything that one client decides: what it asks its store, and what it answers
//!   its callers;
//! - [`contract`]: the requests, answers and notices between the engine and the stores;
//! - [`table`]: the reference implementation of that contract: a store as a single table, which the
//!   scripts of the Redis store are compared with;
//! - [`time`], [`token`], [`limits`], [`text`]: the building blocks of the above;
//! - [`mutant`]: deliberate mistakes.
#![forbid(unsafe_code)]

pub mod contract;
pub mod engine;
pub mod limits;
mod maps;
pub mod mutant;
pub mod table;
pub mod text;
pub mod time;
pub mod token;

pub use self::{time::Moment, token::Token};
