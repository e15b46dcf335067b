//! The worker of a registered function: it asks the store for due calls, claims them, and runs them
//! under a lock.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use lock_core::{
    Moment,
    contract::{DueCalls, DueRequest, DurableFinish, FinishRequest},
    engine::{
        io::Terms,
        outage::{Outage, SILENCE_LIMIT},
    },
    time::Jitter,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{self, Instant},
};

use super::registry::{DurableRun, Registered, locked};
use crate::{
    Error, ErrorKind, LockGuard,
    context::{Context, WeakContext},
    guarded::{OnLost, release_after, run_under},
    keeper::Claimed,
    limits, observe,
};

/// How often a worker looks for calls that other processes have made.
const LOOK: Duration = Duration::from_secs(2);

/// How much later than the caller's process another one runs a call: most callers are still alive.
const LATER: Duration = Duration::from_millis(300);

/// Runs due calls, for as long as the `Locks` is in use.
pub(super) async fn work(context: WeakContext, registered: Arc<Registered>) {
    loop {
        let Some(context) = context.upgrade() else { return };
        let looks_at = match look(&context, &registered).await {
            Ok(looks_at) => looks_at,
            Err(error) if error.kind() == ErrorKind::Closed => {
                // A handler may have a `Locks` in it, which would otherwise stay alive for ever.
                locked(&context.registry().0).remove(&registered.name);
                return;
            }
            Err(error) => {
                complain(&context, &registered, error);
                Instant::now() + LOOK
            }
        };
        drop(context);
        *locked(&registered.looks_at) = looks_at;
        // A call that was made in between has compared its due time with the previous `looks_at`.
        let looks_at = looks_at.min(registered.next_due().unwrap_or(looks_at));
        tokio::select! {
            () = time::sleep_until(looks_at) => {}
            () = registered.called.notified() => {}
        }
    }
}

/// Begins the runs that are due, and returns when to look next.
async fn look(context: &Context, registered: &Arc<Registered>) -> Result<Instant, Error> {
    let limit = registered.runs.available_permits();
    if limit == 0 {
        return Ok(Instant::now() + LATER);
    }
    let request = DueRequest::new(registered.book.clone(), limit);
    let now = Instant::now();
    let DueCalls { ids, next, kept, .. } = context.client().due(request).await?;
    observe::durable_backlog(context.client().events(), &registered.name, kept);
    // Calls that were due when the store was asked are in its answer, or others have run them.
    locked(&registered.due).retain(|_, due| *due > now);
    for id in ids {
        let Ok(permit) = Arc::clone(&registered.runs).try_acquire_owned() else { break };
        let id: Arc<str> = id.into();
        let run = context.prefix().durable_run(&registered.name, &id);
        let lease = limits::lease(context.lease())?;
        // A run that takes too long is ended by its task, which reports that while it still holds
        // the lock. If the task cannot even be polled, `at_most` ends the lock.
        let at_most = registered.hold_at_most.map(|limit| limit.saturating_add(SILENCE_LIMIT));
        let terms = Terms::of_run(lease, at_most);
        let claim = context.client().claim(registered.book.clone(), run, terms);
        match claim.await {
            Ok(Some(Claimed { held, call, attempt, arguments })) => {
                let guard = Arc::new(LockGuard::new(held));
                let run = DurableRun { id, guard, attempt };
                let (context, registered) = (context.clone(), Arc::clone(registered));
                tokio::spawn(carry_out(context, registered, run, call, arguments, permit));
            }
            Ok(None) => {}
            // An id that is rejected does not affect those after it.
            Err(error) if error.kind() == ErrorKind::Rejected => {
                complain(context, registered, error)
            }
            Err(error) => return Err(error),
        }
    }
    let others = Instant::now() + next.map_or(LOOK, |next| next + LATER).min(LOOK);
    Ok(registered.next_due().map_or(others, |mine| mine.min(others)))
}

/// Reports an error on another thread: a panicking subscriber can neither end the worker nor a run.
fn complain(context: &Context, registered: &Registered, error: Error) {
    observe::durable_not_run(context.client().events(), &registered.name, error);
}

/// Carries out one run, from its claim to the outcome of its call.
async fn carry_out(
    context: Context,
    registered: Arc<Registered>,
    run: DurableRun,
    call: u64,
    arguments: String,
    permit: OwnedSemaphorePermit,
) {
    let (id, guard) = (Arc::clone(&run.id), Arc::clone(&run.guard));
    // In a task of its own, so that a panic is a failure like any other.
    let body = {
        let (registered, guard) = (Arc::clone(&registered), Arc::clone(&guard));
        tokio::spawn(async move {
            let body = pin!((registered.handler)(&arguments, run));
            let body = run_under(&guard, OnLost::Stop, body);
            let Some(limit) = registered.hold_at_most else { return body.await };
            let late =
                |_| Ok(Some(format!("the run has exceeded its `hold_at_most` of {limit:?}")));
            time::timeout(limit, body).await.unwrap_or_else(late)
        })
    };
    let error = match body.await {
        Ok(Ok(failure)) => failure,
        // The call is run again by the next holder of the lock.
        Ok(Err(_lost)) => return tell(&context, &registered, (&id, &guard), "lost", None),
        Err(error) if error.is_panic() => Some("the run has panicked".to_owned()),
        // The runtime is shutting down.
        Err(_) => return,
    };
    let run = Arc::clone(&context.prefix().durable_run(&registered.name, &id).key);
    let numbers = (call, guard.fencing_token());
    let request = FinishRequest::new(
        registered.book.clone(),
        Arc::clone(&id),
        run,
        guard.token().clone(),
        numbers,
    )
    .failed(error.as_deref().map(Into::into));
    // While the lock is held, no other run begins. If there is no answer until it is lost, the call
    // is run again.
    let (mut outcome, mut is_freed) = ("unknown", false);
    while guard.is_held() {
        match insist(|| context.client().finish(request.clone())).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(_) => break,
            Ok(finish) => {
                outcome = name_of(finish);
                is_freed = finish != DurableFinish::Lost;
                break;
            }
        }
    }
    tell(&context, &registered, (&id, &guard), outcome, error);
    match Arc::try_unwrap(guard) {
        // The store has freed the lock already: a release would take it for lost.
        Ok(guard) if is_freed => guard.freed(),
        Ok(guard) => release_after(Arc::new(guard)).await,
        // The body has given the guard away.
        Err(_) => {}
    }
    drop(permit);
    // A newer call may be due, or another try.
    registered.called.notify_one();
}

const fn name_of(finish: DurableFinish) -> &'static str {
    match finish {
        DurableFinish::Done => "done",
        DurableFinish::Again => "again",
        DurableFinish::Retry(_) => "retry",
        DurableFinish::SetAside => "set_aside",
        DurableFinish::Lost => "lost",
        _ => "unknown",
    }
}

fn tell(
    context: &Context,
    registered: &Registered,
    (id, guard): (&Arc<str>, &LockGuard),
    outcome: &'static str,
    error: Option<String>,
) {
    let run = (id, guard.fencing_token());
    observe::durable_ended(context.client().events(), &registered.name, run, outcome, error);
}

/// Asks again while the store does not answer, for at most [`SILENCE_LIMIT`].
pub(super) async fn insist<T, Fut>(ask: impl Fn() -> Fut) -> Result<T, Error>
where
    Fut: Future<Output = Result<T, Error>>,
{
    let (began, mut outage) = (Instant::now(), Outage::default());
    let now = || Moment::since_origin(began.elapsed());
    loop {
        let asked_at = now();
        let answer = ask().await;
        if !answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
            return answer;
        }
        let again_at = outage.retry_at(asked_at, Jitter::new(512), now());
        if outage.is_over_limit(now()) {
            return answer;
        }
        time::sleep(again_at.after(now())).await;
    }
}
