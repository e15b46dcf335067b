//! How long to wait before something that has failed is tried again.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// The shortest and the longest pause between two attempts to connect again.
pub(super) const RECONNECT: (Duration, Duration) =
    (Duration::from_millis(20), Duration::from_secs(1));

/// Between half of a delay and all of it, so that the clients of a server that comes back do not
/// all connect at once.
pub(super) fn jittered(delay: Duration) -> Duration {
    delay / 2 + delay / 2048 * any(1024) as u32
}

/// A random number below this one, or 0 if there is none.
pub(super) fn any(below: usize) -> usize {
    let random = RandomState::new().build_hasher().finish();
    usize::try_from(random % (below.max(1) as u64)).unwrap_or(0)
}
