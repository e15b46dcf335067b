//! Distributed locks and debounce for async Rust.

#[cfg(feature = "__fuzzing")]
#[doc(hidden)]
#[path = "fuzzing.rs"]
pub mod __fuzzing;
#[doc(hidden)]
#[path = "macro_support/mod.rs"]
pub mod __private;
mod builder;
mod clock;
mod contained;
mod context;
mod contract;
mod core;
mod debounce;
mod default;
#[cfg(feature = "durable")]
mod durable;
mod error;
mod events;
#[cfg(feature = "redis")]
pub mod fenced;
mod guard;
mod guarded;
mod id;
mod keeper;
mod limits;
mod lock;
mod lock_set;
mod locks;
#[cfg(test)]
mod model;
mod mutant;
mod process;
mod reentrancy;
mod runtime;
mod status;
pub mod store;
#[cfg(feature = "test-util")]
pub mod test_util;
mod text;
mod token;
mod url;
#[cfg(feature = "redis")]
mod warning;

#[cfg(feature = "__mutants")]
#[doc(hidden)]
pub use crate::keeper::Host as __Host;
#[cfg(feature = "redis")]
pub use crate::warning::Warning;
pub use crate::{
    builder::LocksBuilder,
    debounce::Debounce,
    error::{AlreadyInstalled, Error, ErrorKind},
    guard::LockGuard,
    lock::Lock,
    locks::Locks,
    status::Status,
    token::Token,
};
#[cfg(feature = "durable")]
pub use crate::{
    contract::SetAside,
    durable::{Durable, DurableOutput, DurableRun, Receipt},
};
pub use lock_macros::{debounced, locked};

/// The README's examples are tests.
#[cfg(all(doctest, feature = "redis", feature = "durable", feature = "test-util"))]
#[doc = include_str!("../../README.md")]
struct Readme;
