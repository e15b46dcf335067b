//! Bounds on what a caller may ask for.

use std::time::Duration;

/// A shorter lease could not be renewed in time over any network.
pub const SHORTEST_LEASE: Duration = Duration::from_millis(50);

/// Leases are renewed, so a longer one only makes a crash more expensive. The stores rely on this
/// bound: a key of ours that claims to last longer is the result of a clock that was set back.
pub const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Rounds down to whole milliseconds, as the stores do, and with them the holders that rely on
/// them.
#[must_use]
pub fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
