//! The decisions of [`lock`](https://docs.rs/lock), without I/O.
//!
//! This crate is an implementation detail of `lock`, published because `lock` is made of it, in exactly
//! this version. Its interface changes without notice: use `lock`.
//!
//! Nothing in here knows a clock, a source of randomness, a runtime or a connection: the time comes in
//! as a [`Moment`], what a store has answered as data. So the same code runs in the library, in a
//! simulation, and under a model checker that walks through everything that can happen.
//!
//! - [`engine`]: all that one client decides: what its store is asked, and what its callers are told;
//! - [`contract`]: what the engine and the stores tell each other;
//! - [`table`]: the reference of that contract: a store as one table, which the scripts of the Redis
//!   store are compared with;
//! - [`time`], [`token`], [`limits`], [`text`]: what they are made of;
//! - [`mutant`]: mistakes on purpose.
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
