//! Generated code triggers no lint in the user's crate.
#![forbid(unsafe_code)]
#![deny(
    warnings,
    missing_docs,
    unused_results,
    unused_qualifications,
    unreachable_pub,
    single_use_lifetimes,
    elided_lifetimes_in_paths,
    let_underscore_drop,
    clippy::pedantic,
    clippy::nursery
)]

use lock::{Error, debounced, locked};

/// A value.
#[derive(Debug, Default)]
pub struct Counter(u32);

/// Has every argument, one of them unused.
///
/// # Errors
///
/// A lock error.
#[locked(id = "all:{number}", lease = "10s", wait = 5, guard = guard, on_lost = "continue")]
pub async fn all(number: u32, _unused: u32, _: Vec<u32>) -> Result<u64, Error> {
    Ok(guard.fencing_token() + u64::from(number))
}

/// Returns nothing.
#[locked(id = "unit", skip, or_else = |_error| ())]
pub async fn unit() {}

/// Gets a guard of another kind.
#[allow(clippy::future_not_send)]
#[debounced(wait = 5)]
pub async fn other_guard(counter: std::sync::MutexGuard<'_, u32>) -> Option<u32> {
    Some(*counter)
}

/// Returns nothing, and has no `# Errors`, since it has no `Result` of its own.
#[debounced]
pub async fn debounced_unit(_unused: u32) {}

impl Counter {
    /// A method.
    ///
    /// # Errors
    ///
    /// A lock error.
    #[locked(id = format!("counter:{}", self.0), skip)]
    pub async fn read(&self) -> Result<Option<u32>, Error> {
        Ok(Some(self.0))
    }

    /// Must be used anyway.
    #[debounced]
    #[must_use]
    pub async fn into_inner(self) -> u32 {
        self.0
    }
}

#[allow(clippy::missing_const_for_fn)]
fn main() {}
