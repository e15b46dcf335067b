//! Generated code triggers no lint in the user's crate: neither the compiler's, when the suite
//! builds this as a program, nor clippy's, which checks it as a library (`tests/Cargo.toml`).
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
#[locked(id = "all:{number}", lease = "10s", wait = "5ms", guard = guard, on_lost = "continue")]
pub async fn all(number: u32, _unused: u32, _: Vec<u32>) -> Result<u64, Error> {
    Ok(guard.fencing_token() + u64::from(number))
}

/// Uses its guard before it waits, and returns early.
///
/// # Errors
///
/// A lock error.
#[locked(id = "early:{number}", guard = guard)]
pub async fn early(number: u64) -> Result<Option<u64>, Error> {
    if number == guard.fencing_token() {
        return Ok(None);
    }
    std::future::ready(()).await;
    Ok(Some(number))
}

/// The same with several locks, under a debounce.
///
/// # Errors
///
/// A lock error.
#[debounced(id = "early:{number}", leading, max_wait = "1m")]
#[locked(id = "early:{number}", guard = guard)]
#[locked(id = "other:{number}", guard = other)]
pub async fn early_of_several(number: u64) -> Result<Option<u64>, Error> {
    if number == guard.fencing_token() || number == other.fencing_token() {
        return Ok(None);
    }
    std::future::ready(()).await;
    Ok(Some(number))
}

/// A durable one.
#[debounced(id = "durable:{number}", durable, run = run)]
#[locked(id = "early:{number}", guard = guard)]
pub async fn durable(number: u64) -> Result<u64, Error> {
    if number == guard.fencing_token() {
        return Ok(run.generation());
    }
    std::future::ready(()).await;
    Ok(number)
}

/// A durable one without a wait.
#[debounced(durable)]
pub async fn durable_at_once(number: u64) {
    let _ = number + 1;
}

/// Has several locks.
///
/// # Errors
///
/// A lock error.
#[locked(id = "first:{number}", lease = "10s", hold_at_most = "1m", hold_at_least = "1ms", guard = one)]
#[locked(id = "second", wait = 0, skip, reentrant, guard = two)]
#[locked(id = "third", wait = 0, or_else = |_error| Ok(None))]
pub async fn several(number: u32, _unused: Vec<u32>) -> Result<Option<u64>, Error> {
    Ok(Some(one.fencing_token() + two.fencing_token() + u64::from(number)))
}

/// Takes its locks in its run.
#[debounced(id = "save:{number}", wait = "5ms", max_wait = "1s", leading)]
#[locked(id = "first:{number}", guard = guard)]
#[locked(id = "second", skip, or_else = |_error| ())]
pub async fn saved(number: u32) {
    let _ = guard.fencing_token() + u64::from(number);
}

/// Returns nothing.
#[locked(id = "unit", skip, or_else = |_error| ())]
pub async fn unit() {}

/// Gets a `MutexGuard`, so its future is not `Send`.
#[allow(clippy::future_not_send)]
#[debounced(wait = "5ms")]
pub async fn other_guard(counter: std::sync::MutexGuard<'_, u32>) -> Option<u32> {
    Some(*counter)
}

/// Returns nothing, and has no `# Errors`, because it has no `Result` of its own.
#[debounced]
pub async fn debounced_unit(_unused: u32) {}

/// Uses its arguments only in the attribute, or under no name that the body has.
///
/// # Errors
///
/// A lock error.
#[locked(id = format!("{number}"), wait = wait, locks = locks, or_else = |_error| Ok(fallback))]
pub async fn used_by_the_attribute(
    number: u32,
    wait: std::time::Duration,
    locks: lock::Locks,
    fallback: u32,
    #[allow(unused_variables)] allowed: u32,
) -> Result<u32, Error> {
    Ok(1)
}

/// Names arguments that it does not use.
///
/// # Errors
///
/// A lock error.
#[locked(id = "unused")]
pub async fn unused(
    #[expect(unused_variables)] (first, second): (u32, u32),
    #[expect(unused_variables)] (third, fourth): (u32, u32),
    #[allow(unused_variables)] Pair { left, right }: Pair,
    #[expect(unused_mut)] (mut fifth, _sixth): (u32, u32),
) -> Result<u32, Error> {
    Ok(first + fifth + left)
}

/// Two of them.
#[derive(Debug)]
pub struct Pair {
    /// One.
    pub left: u32,
    /// Another.
    pub right: u32,
}

/// A durable one, the same.
#[debounced(id = "{number}", hold_at_most = LIMIT, durable)]
#[locked(id = "{other}")]
pub async fn durable_used_by_the_attribute(number: u32, other: u32) -> Result<(), Error> {
    Ok(())
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// A detached one.
#[debounced(id = "{number}", detached, hold_at_most = LIMIT)]
pub async fn detached(number: u32, text: String, _unused: Vec<u32>) -> usize {
    text.len()
}

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

    /// Keeps its `#[must_use]`.
    #[debounced]
    #[must_use]
    pub async fn into_inner(self) -> u32 {
        self.0
    }
}

/// For the build as a program; clippy checks the file as a library.
pub const fn main() {}
