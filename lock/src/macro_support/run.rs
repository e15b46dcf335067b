//! `#[locked]`: the locks of a call, its body, and the release.

use std::{array, future::Future, pin::Pin};

use crate::{
    Error, ErrorKind, Lock, Locks,
    guarded::{OnLost, run_under, run_under_all},
    lock_set::{Slot, Wanted, take_all},
    reentrancy::Reentry,
};

/// Acquires the lock of a `#[locked]` function and runs its body, which the caller drops before
/// it calls [`finish`].
pub async fn run<F: Future>(
    slot: &Slot,
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Lock) -> Lock,
    (on_lost, reentry): (OnLost, Reentry),
    body: Pin<&mut F>,
) -> Result<F::Output, Error> {
    let request = configure(locks?.lock(id)).request()?;
    let guard = match request.enter(request.outer(), reentry)? {
        Some(outer) => outer,
        None => request.acquire().await?,
    };
    run_under(slot.put(guard), on_lost, body).await
}

/// Releases the lock, if one is held. The result stands, whether or not the release succeeds.
pub async fn finish<T, E>(slot: Slot, result: Result<T, E>) -> Result<T, E> {
    if let Some(guard) = slot.into_guard()
        && !guard.is_alias()
    {
        let _ = guard.release().await;
    }
    result
}

/// One of the locks for [`run_all`].
pub fn want(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Lock) -> Lock,
    modes: (OnLost, Reentry),
) -> Wanted {
    Wanted::new(locks.and_then(|locks| configure(locks.lock(id)).request()), modes)
}

/// Does what [`run`] does, under several locks. An error comes with the number of its lock. The
/// caller calls [`finish_all`].
pub async fn run_all<const N: usize, F: Future>(
    slots: &[Slot; N],
    wanted: [Wanted; N],
    body: Pin<&mut F>,
) -> Result<F::Output, (usize, Error)> {
    let on_lost = wanted.each_ref().map(|wanted| wanted.on_lost);
    take_all(slots, wanted).await?;
    let guards: [_; N] = array::from_fn(|number| (slots[number].guard(), on_lost[number]));
    run_under_all(guards, body).await
}

/// Does what [`finish`] does, for several locks.
pub async fn finish_all<const N: usize, T>(slots: [Slot; N], result: T) -> T {
    for slot in slots {
        let _ = finish(slot, Ok::<(), Error>(())).await;
    }
    result
}

/// The `Locks` that the attribute names.
pub fn given(locks: &Locks) -> Result<Locks, Error> {
    Ok(locks.clone())
}

/// The `Locks` of the task, or else of the process.
pub fn ambient() -> Result<Locks, Error> {
    Locks::current().ok_or_else(|| {
        Error::new(
            ErrorKind::NotInstalled,
            "no `Locks` to use: add `locks.install()` at the start of `main`, or wrap the call in \
             `locks.scope(..)`, which spawned tasks do not inherit (`Locks::current()` passes it \
             on), or name one with `locks = ..` in the attribute",
        )
    })
}
