//! The bounds of what a caller may set.

use std::time::Duration;

pub(crate) use lock_core::limits::{LONGEST_LEASE, SHORTEST_LEASE, whole_millis};

use crate::error::Error;

/// The lease in whole milliseconds, as stores count it, if it is within its bounds.
pub(crate) fn lease(lease: Duration) -> Result<Duration, Error> {
    if (SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease) {
        Ok(whole_millis(lease))
    } else {
        Err(Error::invalid(format!(
            "a lease of {lease:?} is out of range: choose one from {SHORTEST_LEASE:?} to \
             {LONGEST_LEASE:?} (the lease is renewed for as long as the guard lives)"
        )))
    }
}
