//! Several locks, taken in one order.

use std::{fmt, sync::OnceLock};

use crate::{Error, LockGuard, guarded::OnLost, lock::Request, reentrancy::Reentry};

/// Holds the guard of one call of a `#[locked]` function, once there is one.
///
/// The body is made before the lock is acquired, so that the function's future does not hold the
/// arguments twice. The body finds the guard through this slot.
#[derive(Debug, Default)]
pub struct Slot(OnceLock<LockGuard>);

impl Slot {
    /// Creates an empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Creates empty slots, for a function with several locks.
    #[must_use]
    pub const fn several<const N: usize>() -> [Self; N] {
        [const { Self::new() }; N]
    }

    /// Puts the guard into the slot, which must be empty.
    pub(crate) fn put(&self, guard: LockGuard) -> &LockGuard {
        self.0.get_or_init(|| guard)
    }

    pub(crate) fn into_guard(self) -> Option<LockGuard> {
        self.0.into_inner()
    }

    /// Returns the guard, for the body.
    pub fn guard(&self) -> &LockGuard {
        self.0.get().expect("BUG: a body runs only while the lock is held")
    }
}

/// One of several locks of a function, before it is acquired.
#[must_use]
pub struct Wanted {
    pub(crate) request: Result<Request, Error>,
    pub(crate) on_lost: OnLost,
    reentry: Reentry,
}

impl Wanted {
    pub(crate) fn new(
        request: Result<Request, Error>,
        (on_lost, reentry): (OnLost, Reentry),
    ) -> Self {
        Self { request, on_lost, reentry }
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").finish_non_exhaustive()
    }
}

/// Acquires all locks in the order of their keys, in whatever order they are named, so that no two
/// callers can each hold what the other waits for. The number in an error is the index of its lock;
/// locks that were acquired before it stay in their slots.
pub(crate) async fn take_all<const N: usize>(
    slots: &[Slot; N],
    wanted: [Wanted; N],
) -> Result<(), (usize, Error)> {
    // No lock is acquired if one of the requests is not allowed.
    let mut requests = Vec::with_capacity(N);
    for (number, Wanted { request, reentry, .. }) in wanted.into_iter().enumerate() {
        let request = request.map_err(|error| (number, error))?;
        requests.push((number, reentry, request));
    }
    // If two requests are for the same lock, the one that may come second comes second.
    requests.sort_by(|(_, a_mode, a), (_, b_mode, b)| {
        let may_come_second = |mode: &Reentry| *mode == Reentry::Allowed;
        (a.key(), may_come_second(a_mode)).cmp(&(b.key(), may_come_second(b_mode)))
    });
    for (number, reentry, request) in requests {
        let mut taken = slots.iter().filter_map(|slot| slot.0.get());
        let outer = taken.find_map(|guard| request.same_as(guard)).or_else(|| request.outer());
        let guard = match request.enter(outer, reentry) {
            Ok(None) => request.acquire().await,
            Ok(Some(outer)) => Ok(outer),
            Err(error) => Err(error),
        };
        let guard = guard.map_err(|error| (number, error))?;
        slots[number].put(guard);
    }
    Ok(())
}
