//! The clocks that leases are measured with.

use std::{fmt::Debug, time::Duration};

use lock_core::{Moment, mutant::Mutant};

/// A source of [`Moment`]s that never goes back.
pub(crate) trait Clock: Debug + Send + Sync + 'static {
    fn now(&self) -> Moment;
}

/// A clock that goes on while the machine is suspended.
///
/// `std::time::Instant` does not advance during suspend on Linux and macOS: after an hour of
/// suspend, a laptop would still believe in a lease of ten seconds. `CLOCK_BOOTTIME` (Linux) and
/// `CLOCK_MONOTONIC` (Apple) advance. Other systems use `Instant`.
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

        if Mutant::WallClock.is_on() {
            // The clock that users and daemons set.
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

/// Tokio's clock, which tests can pause and advance.
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
