//! The clocks that leases are measured with.

use std::{fmt::Debug, time::Duration};

use crate::{core::Moment, mutant};

/// A source of [`Moment`]s that never goes back.
pub(crate) trait Clock: Debug + Send + Sync + 'static {
    fn now(&self) -> Moment;

    /// Does all of its machine stand still? Only in a simulation.
    #[cfg(feature = "__mutants")]
    fn is_stopped(&self) -> bool {
        false
    }

    /// What to wake then.
    #[cfg(feature = "__mutants")]
    fn when_it_goes_on(&self, _: std::task::Waker) {}
}

/// A machine of a simulation, in virtual time.
#[cfg(feature = "__mutants")]
#[doc(hidden)]
pub trait Host: Debug + Send + Sync + 'static {
    /// The time of its clock.
    fn now(&self) -> Duration;
    /// Whether all of it stands still.
    fn is_stopped(&self) -> bool;
    /// What to wake when it goes on.
    fn when_it_goes_on(&self, keeper: std::task::Waker);
}

#[cfg(feature = "__mutants")]
impl Clock for std::sync::Arc<dyn Host> {
    fn now(&self) -> Moment {
        Moment::since_origin((**self).now())
    }

    fn is_stopped(&self) -> bool {
        (**self).is_stopped()
    }

    fn when_it_goes_on(&self, keeper: std::task::Waker) {
        (**self).when_it_goes_on(keeper);
    }
}

/// A clock that goes on while the machine is suspended.
///
/// `std::time::Instant` stands still during suspend on Linux and macOS: a laptop that slept for
/// an hour would go on believing in a lease of ten seconds. `CLOCK_BOOTTIME` (Linux) and
/// `CLOCK_MONOTONIC` (Apple's counts suspend) do not. Elsewhere it is `Instant`.
#[derive(Debug)]
pub(crate) struct BootClock {
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    origin: std::time::Instant,
}

impl BootClock {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
            origin: std::time::Instant::now(),
        }
    }
}

impl Clock for BootClock {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    fn now(&self) -> Moment {
        use rustix::time::{ClockId, clock_gettime};

        #[cfg(target_vendor = "apple")]
        const CLOCK: ClockId = ClockId::Monotonic;
        #[cfg(not(target_vendor = "apple"))]
        const CLOCK: ClockId = ClockId::Boottime;

        if mutant::is("wall clock") {
            // The one that people set, and daemons.
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            return Moment::since_origin(now.unwrap_or_default());
        }
        let now = clock_gettime(CLOCK);
        // Both fields are positive: the clock counts from the start of the machine.
        Moment::since_origin(Duration::new(
            u64::try_from(now.tv_sec).unwrap_or(0),
            u32::try_from(now.tv_nsec).unwrap_or(0),
        ))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    fn now(&self) -> Moment {
        Moment::since_origin(self.origin.elapsed())
    }
}

/// Tokio's clock, which tests can pause and move.
#[derive(Debug)]
pub(crate) struct TokioClock {
    origin: tokio::time::Instant,
}

impl TokioClock {
    pub(crate) fn new() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        Moment::since_origin(tokio::time::Instant::now().saturating_duration_since(self.origin))
    }
}
