//! The recent round-trip time to a server, and the time limits that follow from it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::stream::STEP;

/// How long one call may take on a link without latency of its own.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// A link that does not answer within this time is counted as silent.
const HEALTHY: Duration = Duration::from_millis(250);

/// The recent round-trip time, in nanoseconds.
#[derive(Default)]
pub(super) struct RoundTrip(AtomicU64);

impl RoundTrip {
    /// How long a call may take: a slow link must be able to answer.
    pub(super) fn call_limit(&self) -> Duration {
        CALL_LIMIT + self.lately() * 2
    }

    /// How long a call waits for a link. Before the first link, nothing is known about its latency.
    pub(super) fn connect_limit(&self) -> Duration {
        if self.lately().is_zero() { STEP * 3 / 2 } else { self.call_limit() }
    }

    /// How long a link may be silent on a call whose answer counts within this limit. The rest is
    /// time for another link, and for another try on it, within the remaining lease.
    pub(super) fn silent_after(&self, limit: Duration) -> Duration {
        (limit / 6).max(HEALTHY).min(limit / 3).min(CALL_LIMIT).max(self.lately() * 2)
    }

    fn lately(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Records a round trip. The time rises at once when the link becomes slow, and falls within a
    /// number of calls when it becomes fast again.
    pub(super) fn measured(&self, round_trip: Duration) {
        let before = self.0.load(Ordering::Relaxed);
        // A stall of the server is no property of the link.
        let measured = round_trip.min(CALL_LIMIT).as_nanos() as u64;
        // Relaxed, and not one atomic step: of two measurements at once, either will do.
        self.0.store(measured.max(before - before / 8), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_a_link_that_becomes_slow_and_one_that_becomes_fast_again() {
        let (link, ms) = (RoundTrip::default(), Duration::from_millis);
        assert_eq!((link.connect_limit(), link.call_limit()), (STEP * 3 / 2, CALL_LIMIT));
        link.measured(ms(400));
        assert_eq!((link.connect_limit(), link.call_limit()), (ms(1800), ms(1800)));
        for _ in 0..100 {
            link.measured(ms(1));
        }
        assert_eq!(link.call_limit(), ms(1002));
        // A server that was suspended.
        link.measured(ms(60_000));
        assert_eq!(link.call_limit(), ms(3000));
    }

    #[test]
    fn a_silent_link_leaves_a_renewal_the_time_for_another() {
        let (link, ms) = (RoundTrip::default(), Duration::from_millis);
        for (limit, silent_after) in [(300, 100), (1000, 250), (3000, 500), (30_000, 1000)] {
            assert_eq!(link.silent_after(ms(limit)), ms(silent_after), "{limit}");
        }
        link.measured(ms(600));
        assert_eq!(link.silent_after(ms(3000)), ms(1200));
    }
}
