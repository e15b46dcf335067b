//! The runtime half of the attributes, exported as `__private`. Not public API: it changes without
//! notice, and nothing else in this crate uses it.

mod debounced;
mod detached;
#[cfg(feature = "durable")]
mod durable;
mod id;
mod output;
mod run;

#[cfg(feature = "durable")]
pub use self::durable::{
    DurableFunction, Stored, durable_call, durable_function, durable_register,
};
pub use self::{
    debounced::{
        begin, begin_under, debounce, debounce_begun, debounce_begun_under, debounce_under,
    },
    detached::{DetachedCall, DetachedOutput, DetachedTask},
    id::{Id, display, milliseconds},
    output::{
        Copied, DebouncedOutput, LockedOutput, Skipped, is_busy, or_else, or_else_of, output_of,
    },
    run::{ambient, finish, finish_all, given, run, run_all, want},
};
#[cfg(all(lock_mutants, feature = "redis"))]
pub use crate::builder::redis_store;
pub use crate::{
    guarded::OnLost,
    lock_set::{Slot, Wanted},
    reentrancy::Reentry,
};
