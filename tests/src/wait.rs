//! Times, and waiting for what another process does.

use std::{
    env,
    fmt::Debug,
    future::Future,
    panic::Location,
    sync::LazyLock,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::host_clock::PAGE;

const STEP: Duration = Duration::from_millis(5);

/// The machine's `CLOCK_MONOTONIC`: under the shim of a [`HostClock`](crate::HostClock), it is read
/// from another clock.
static MACHINE: LazyLock<ClockId> = LazyLock::new(|| {
    if env::var_os(PAGE).is_some() { ClockId::MonotonicRaw } else { ClockId::Monotonic }
});

/// Nanoseconds of a clock that all processes of this machine share, and that is never set.
pub fn now() -> u64 {
    read(*MACHINE)
}

/// The reading of a clock, in nanoseconds.
pub(crate) fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// This many milliseconds.
pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The result of one look: the awaited value, or what was seen instead.
pub trait Observation {
    /// What [`eventually`] returns.
    type Value;

    /// The awaited value, or a description of what was seen instead of it.
    ///
    /// # Errors
    ///
    /// When the awaited state is not reached yet.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl Observation for bool {
    type Value = ();

    fn outcome(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T, E: Debug> Observation for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Calls `look` every few milliseconds until it returns `true` or `Ok`, and returns what it found.
///
/// Only for the state of other processes, which cannot signal: inside the test process, wait on the
/// future, the channel or the counter itself. Let `look` return a `Result` whose error is what it
/// saw, so that the panic can report it.
///
/// `limit` is real time, even when the test's own clock is paused; a paused clock does not advance
/// while this waits between two looks.
///
/// # Panics
///
/// When `limit` has passed, at the caller's line, with what was seen last.
///
/// # Cancel safety
///
/// Safe if `look` is: nothing is kept between two looks.
#[track_caller]
pub fn eventually<L, F>(
    limit: Duration,
    mut look: L,
) -> impl Future<Output = <F::Output as Observation>::Value>
where
    L: FnMut() -> F,
    F: Future<Output: Observation>,
{
    let caller = Location::caller();
    async move {
        let start = Instant::now();
        let mut looks = 0_u32;
        loop {
            looks += 1;
            let seen = match look().await.outcome() {
                Ok(value) => return value,
                Err(seen) => seen,
            };
            assert!(
                start.elapsed() < limit,
                "{caller}: not within {limit:?} ({looks} looks); seen last: {seen}",
            );
            // Not tokio's sleep: that would advance a paused clock.
            tokio::task::spawn_blocking(|| std::thread::sleep(STEP))
                .await
                .expect("a sleeping thread does not panic");
        }
    }
}
