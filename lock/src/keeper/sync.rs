//! Synchronization primitives: the standard library's and tokio's, or loom's, which tries every
//! order of the threads' steps (`--cfg lock_loom`, for `loom_tests`).

#[cfg(not(all(test, lock_loom)))]
pub(super) use std::sync::{
    Mutex, MutexGuard, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
#[cfg(not(all(test, lock_loom)))]
pub(super) use tokio::sync::Notify;

#[cfg(all(test, lock_loom))]
pub(super) use super::loom_tests::sync::*;
