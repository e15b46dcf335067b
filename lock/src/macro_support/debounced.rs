//! `#[debounced]`: a call, and its run.

use std::{
    future::Future,
    pin::{Pin, pin},
};

use super::{detached::Under, run::run_all};
use crate::{
    Debounce, Error, ErrorKind, LockGuard, Locks,
    guarded::{OnLost, run_under},
    id::Named,
    lock::Request,
    lock_set::{Slot, Wanted},
};

/// Calls a `#[debounced]` function and runs its body, which the caller drops before it calls
/// [`finish`](super::finish).
// Not an `async fn`: its future would reserve space for each argument.
pub fn debounce<F: Future>(
    slot: &Slot,
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
    body: Pin<&mut F>,
) -> impl Future<Output = Result<Option<F::Output>, Error>> {
    let debounce = locks.map(|locks| configure(locks.debounce(id)));
    async move {
        let claimed = match debounce {
            Ok(ref debounce) => debounce.claim().await?,
            Err(error) => return Err(error),
        };
        let Some(guard) = claimed else { return Ok(None) };
        run_under(slot.put(guard), OnLost::Stop, body).await.map(Some)
    }
}

/// Calls a `#[debounced]` function whose run takes locks; the caller calls
/// [`finish_all`](super::finish_all), and [`finish`](super::finish) for the run.
pub async fn debounce_under<const N: usize, F: Future>(
    (run_slot, slots): (&Slot, &[Slot; N]),
    wanted: [Wanted; N],
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
    body: Pin<&mut F>,
) -> Result<Option<Result<F::Output, (usize, Error)>>, Error> {
    let run = pin!(run_all(slots, wanted, body));
    debounce(run_slot, locks, id, configure, run).await
}

/// Begins the call of a detached function. The caller waits for it as for any other call.
pub fn begin(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
) -> Result<impl Future<Output = Result<Option<LockGuard>, Error>> + Send + 'static, Error> {
    let (debounce, keys) = ready(locks, id, configure)?;
    Ok(debounce.begin(Ok(keys)))
}

/// The debounce and the keys of a call, if it may be made here.
fn ready(
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
) -> Result<(Debounce, (Named, Named)), Error> {
    let debounce = configure(locks?.debounce(id));
    let keys = debounce.keys_outside_of_own_run()?;
    Ok((debounce, keys))
}

/// Waits for a call that was [begun](begin), and does what [`debounce`] does.
pub async fn debounce_begun<F: Future>(
    slot: &Slot,
    begun: Result<impl Future<Output = Result<Option<LockGuard>, Error>>, Error>,
    body: Pin<&mut F>,
) -> Result<Option<F::Output>, Error> {
    let Some(guard) = begun?.await? else { return Ok(None) };
    run_under(slot.put(guard), OnLost::Stop, body).await.map(Some)
}

/// Begins the call of a detached function whose run takes locks. An error comes with the number of
/// its lock.
///
/// A lock that the caller runs under is refused here, where that is known, whether or not it is
/// `reentrant`: the task of the run would wait for the caller, which waits for the task; and the
/// task cannot run under a guard that its caller may drop.
pub fn begin_under<const N: usize>(
    wanted: &[Wanted; N],
    locks: Result<Locks, Error>,
    id: String,
    configure: impl FnOnce(Debounce) -> Debounce,
) -> BegunUnder<impl Future<Output = Result<Option<LockGuard>, Error>> + Send + 'static> {
    let (debounce, keys) = match ready(locks, id, configure) {
        Ok(ready) => ready,
        Err(error) => return Ok(Err(error)),
    };
    for (number, Wanted { request, .. }) in wanted.iter().enumerate() {
        if let Some(outer) = request.as_ref().ok().and_then(Request::outer) {
            let message = "a detached call takes this lock in a separate task, but its caller \
                           already runs under the lock and would wait for itself: make the call \
                           after the lock is released, or leave `detached` out and add `reentrant` \
                           to the `#[locked]`";
            let error = Error::new(ErrorKind::Deadlock, message).on(outer.shared_id());
            return Err((number, error));
        }
    }
    Ok(Ok(debounce.begin(Ok(keys))))
}

/// A call that was begun, or the reason why it was not.
type BegunUnder<F> = Result<Result<F, Error>, (usize, Error)>;

/// Does what [`debounce_under`] does, for a call that was [begun](begin_under).
pub async fn debounce_begun_under<const N: usize, F: Future>(
    (run_slot, slots): (&Slot, &[Slot; N]),
    wanted: [Wanted; N],
    begun: BegunUnder<impl Future<Output = Result<Option<LockGuard>, Error>>>,
    body: Pin<&mut F>,
) -> Result<Option<Under<F::Output>>, Error> {
    match begun {
        Ok(begun) => {
            let run = pin!(run_all(slots, wanted, body));
            debounce_begun(run_slot, begun, run).await
        }
        Err(refused) => Ok(Some(Err(refused))),
    }
}
