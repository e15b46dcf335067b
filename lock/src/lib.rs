//! Distributed locks and debounce for async Rust.

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod core;
mod debounce;
mod error;
mod guard;
mod id;
mod keeper;
mod limits;
mod lock;
mod locks;
mod status;
mod store;
#[cfg(feature = "test-util")]
pub mod test_util;
mod text;
mod token;
mod under;
mod url;

pub use crate::{
    debounce::Debounce,
    error::{AlreadyInstalled, Error, ErrorKind},
    guard::LockGuard,
    lock::Lock,
    locks::{Locks, LocksBuilder},
    status::Status,
    store::{
        AcquireRequest, Acquisition, CLAIM_WINDOW, DebounceReply, DebounceRequest, DebounceStep,
        Holder, IfHeld, Listener, MemoryStore, Release, ReleaseRequest, RenewRequest, Renewal,
        Store, StoreError, StoreFuture, Wake, WakeUps,
    },
    token::Token,
};
pub(crate) use __private as private;
pub use lock_macros::{debounced, locked};

/// The README's examples are tests.
#[cfg(all(doctest, feature = "redis", feature = "test-util"))]
#[doc = include_str!("../../README.md")]
struct Readme;
