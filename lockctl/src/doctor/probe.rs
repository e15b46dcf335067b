//! The library itself, from end to end: a lock is acquired, waited for, handed over and released.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lock::{Error, Lock, LockGuard, Locks, Status, Warning};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::findings::Findings;
use crate::{
    arguments::NAME,
    exit::{Exit, Failure, in_full},
    target::Target,
};

const CHECK: &str = "locks";
/// Longer than anything here takes. After it, a lock that a killed program left behind is free.
const LEASE: Duration = Duration::from_secs(5);
/// The bound for one lock, from its acquisition to its release.
const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(20);

/// Acquires each of these locks. `hears` is false if it is already known that this user gets no
/// notices.
pub(crate) async fn check(
    target: &Target,
    ids: &[String],
    hears: bool,
    findings: &mut Findings,
) -> Result<(), Failure> {
    // Not by `into`, which adds the advice to run `doctor`.
    let refused = |error: Error| Failure::new(Exit::Failed, in_full(&error));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let locks = {
        let heard = Arc::clone(&heard);
        let hear = move |warning: &Warning| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(warning.clone());
        };
        target.builder().name(NAME).on_warning(hear).build().await.map_err(refused)?
    };
    let other = target.builder().name(NAME).build().await.map_err(refused)?;
    for id in ids {
        match timeout(PATIENCE, hand_over(&locks, &other, id)).await {
            Ok(Ok(took)) => said(took, findings),
            Ok(Err(wrong)) => findings.failure(
                CHECK,
                "",
                wrong,
                "fix what the other checks found; if they found nothing, report this",
            ),
            Err(_) => findings.failure(
                CHECK,
                "",
                format!("acquiring and handing over a lock took longer than {PATIENCE:?}"),
                "see how busy the server is (SLOWLOG GET, INFO commandstats)",
            ),
        }
    }
    locks.shutdown().await;
    other.shutdown().await;
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    if hears && heard.contains(&Warning::NoNotices) {
        findings.warning(
            "notices",
            "",
            "the library gets no notices from this store: waiters poll four times a second instead of \
             being woken",
            "allow `+subscribe` on the channels `&~wake:*`",
        );
    }
    Ok(())
}

/// An id that nobody else uses.
pub(crate) fn id() -> String {
    format!("{NAME}-doctor:{}", Uuid::new_v4().simple())
}

fn said(took: Duration, findings: &mut Findings) {
    let woken = if took < Duration::from_millis(200) { "" } else { ", but slowly" };
    findings.ok(
        CHECK,
        "",
        format!(
            "the library acquired a lock, waited for it with another client and handed it over{woken}; the \
             fencing token grew; the lock is free again"
        ),
    );
}

async fn hand_over(locks: &Locks, other: &Locks, id: &str) -> Result<Duration, String> {
    let failed = |what: &'static str| move |error: Error| format!("{what}: {}", in_full(&error));
    let (lock, waiting) = (locks.lock(id).lease(LEASE), other.lock(id).lease(LEASE).wait(PATIENCE));
    let first = lock.acquire().await.map_err(failed("a lock cannot be acquired"))?;
    let fence = first.fencing_token();
    let waiter = tokio::spawn(waiting.acquire());
    let looked = until_waited_for(&lock, || waiter.is_finished()).await;
    let began = Instant::now();
    let released = first.release().await;
    let second: LockGuard = waiter
        .await
        .map_err(|_| "waiting for a lock has panicked".to_owned())?
        .map_err(failed("a lock was not handed over to its waiter"))?;
    let took = began.elapsed();
    looked.map_err(failed("the status of a lock cannot be read"))?;
    released.map_err(failed("a lock was lost"))?;
    let grew = second.fencing_token() > fence;
    second.release().await.map_err(failed("a lock was lost"))?;
    if !grew {
        return Err("the fencing token did not grow from one holder to the next".to_owned());
    }
    match lock.status().await.map_err(failed("the status of a lock cannot be read"))? {
        Status::Free => Ok(took),
        _ => Err("a lock that was released is still held".to_owned()),
    }
}

/// Waits until the store knows of the waiter, or until its call has ended.
async fn until_waited_for(lock: &Lock, is_over: impl Fn() -> bool) -> Result<(), Error> {
    loop {
        match lock.status().await? {
            Status::Held { waiters, .. } if waiters > 0 => return Ok(()),
            _ if is_over() => return Ok(()),
            _ => sleep(STEP).await,
        }
    }
}
