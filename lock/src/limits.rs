//! The bounds of what a caller may ask for.

use std::time::Duration;

use crate::error::Error;

/// A shorter lease could not be renewed in time over any network.
pub(crate) const SHORTEST_LEASE: Duration = Duration::from_millis(50);

/// Leases are renewed, so a longer one only makes a crash more expensive. The stores rely on it:
/// a key of ours that claims to last longer is the work of a clock that was set back.
pub(crate) const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Stores count in whole milliseconds, rounded down; so does whoever believes them.
pub(crate) fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn lease(lease: Duration) -> Result<Duration, Error> {
    if (SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease) {
        Ok(whole_millis(lease))
    } else {
        Err(Error::invalid(format!(
            "a lease of {lease:?} cannot be: choose one from {SHORTEST_LEASE:?} to {LONGEST_LEASE:?} \
             (it is renewed as long as the guard lives)"
        )))
    }
}
