//! The bounds of what a caller may ask for.

use std::time::Duration;

/// A shorter lease could not be renewed in time over any network.
pub const SHORTEST_LEASE: Duration = Duration::from_millis(50);

/// Leases are renewed, so a longer one only makes a crash more expensive. The stores rely on it:
/// a key of ours that claims to last longer is the work of a clock that was set back.
pub const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Stores count in whole milliseconds, rounded down; so do the holders that believe them.
#[must_use]
pub fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
