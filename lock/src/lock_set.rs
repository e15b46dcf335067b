//! Several locks, taken in one order.

use std::{fmt, sync::OnceLock};

use crate::{Error, LockGuard, guarded::OnLost, lock::Request, reentrancy::Reentry};

/// Where the guard of one call of a `#[locked]` function is, once there is one.
///
/// The body is made before the lock is acquired, so that no argument lives in the function's
/// future a second time; it finds the guard through this.
#[derive(Debug, Default)]
pub struct Slot(OnceLock<LockGuard>);

impl Slot {
    /// No guard yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// No guards yet, of a function with several locks.
    #[must_use]
    pub const fn several<const N: usize>() -> [Self; N] {
        [const { Self::new() }; N]
    }

    /// The guard is here from now on. There is none yet.
    pub(crate) fn put(&self, guard: LockGuard) -> &LockGuard {
        self.0.get_or_init(|| guard)
    }

    pub(crate) fn into_guard(self) -> Option<LockGuard> {
        self.0.into_inner()
    }

    /// The guard, for the body.
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

/// Takes all of them, in the order of their keys, whatever the order in which they are named: so no
/// two callers can each hold what the other waits for. The number of an error is that of the lock it
/// happened to; what was taken before it stays in its slot.
pub(crate) async fn take_all<const N: usize>(
    slots: &[Slot; N],
    wanted: [Wanted; N],
) -> Result<(), (usize, Error)> {
    // Nothing is taken if one of them is not allowed.
    let mut requests = Vec::with_capacity(N);
    for (number, Wanted { request, reentry, .. }) in wanted.into_iter().enumerate() {
        let request = request.map_err(|error| (number, error))?;
        requests.push((number, reentry, request));
    }
    // Of two that are one lock, the one that may come second comes second.
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
