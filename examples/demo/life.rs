//! The code that runs inside an instance, as a service would have it, on a current-thread runtime.

use std::{
    future::pending,
    pin::Pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lock::{Error, ErrorKind, LockGuard, Locks};
use tokio::{
    runtime::Builder,
    select,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::About,
    board::{DEBOUNCE_MAX_WAIT_MS, DEBOUNCE_WAIT_MS, Doing, Event, NOT_RELEASED},
    command::Step,
    instance::Instance,
};

const ACQUIRE: &str = "lock.acquire().await";
const TRY_ACQUIRE: &str = "lock.try_acquire().await";

/// How long an instance waits in line before it gives up.
const WAIT: Duration = Duration::from_secs(120);

type Acquiring = Pin<Box<dyn Future<Output = Result<LockGuard, Error>> + Send>>;

/// Bound on the time for which a page can block the runtime.
const LONGEST_BLOCK: Duration = Duration::from_secs(60);

/// Starts a life. It ends in order when the sender of `steps` is dropped, and at once when `killed`
/// is cancelled. Either way, `end` is dropped at the end.
pub(crate) fn start(
    instance: Arc<Instance>,
    locks: Locks,
    steps: mpsc::UnboundedReceiver<Step>,
    killed: CancellationToken,
    end: oneshot::Sender<()>,
) {
    thread::spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a current-thread runtime can be built");
        runtime.block_on(async {
            select! {
                biased;
                () = killed.cancelled() => {}
                () = live(&instance, &locks, steps, &killed) => locks.flush().await,
            }
        });
        drop(end);
    });
}

async fn live(
    instance: &Arc<Instance>,
    locks: &Locks,
    mut steps: mpsc::UnboundedReceiver<Step>,
    killed: &CancellationToken,
) {
    let mut acquiring: Option<(Acquiring, String, Duration)> = None;
    // Steps that are still queued when the page is closed are discarded.
    while !steps.is_closed() {
        let acquired = async {
            match &mut acquiring {
                Some((acquire, ..)) => acquire.await,
                None => pending().await,
            }
        };
        select! {
            // A grant is handled first, so that no step acts on an outdated state.
            biased;
            outcome = acquired => {
                let (_, id, lease) = acquiring.take().expect("BUG: an outcome without an acquire");
                settle(instance, ACQUIRE, &id, lease, outcome);
            }
            step = steps.recv() => {
                let Some(step) = step else { break };
                instance.begins_a_step();
                carry_out(instance, locks, &mut acquiring, step, killed).await;
            }
        }
    }
    if killed.is_cancelled() {
        // If it was killed while it was blocked, the instance may be in its next life already, and
        // its guard is not this life's.
        return pending().await;
    }
    // Dropping is enough, whether the instance waits in line or holds the lock.
    drop(acquiring);
    drop(instance.take_guard());
}

async fn carry_out(
    instance: &Arc<Instance>,
    locks: &Locks,
    acquiring: &mut Option<(Acquiring, String, Duration)>,
    step: Step,
    killed: &CancellationToken,
) {
    match step {
        Step::Acquire { .. } | Step::TryAcquire { .. }
            if acquiring.is_some() || instance.state().doing == Doing::Holding =>
        {
            let tries = matches!(step, Step::TryAcquire { .. });
            instance.answer(
                if tries { TRY_ACQUIRE } else { ACQUIRE },
                "not called",
                "This instance already holds a lock or waits for one.",
                false,
            );
        }
        Step::Acquire { id, lease_ms } => {
            // The guard of a lost lock, if any.
            drop(instance.take_guard());
            let lease = Duration::from_millis(lease_ms);
            let lock = locks.lock(&id).lease(lease).wait(WAIT);
            instance.waits(&id, lease);
            *acquiring = Some((Box::pin(lock.acquire()), id, lease));
        }
        Step::TryAcquire { id, lease_ms } => {
            if instance.take_guard().is_some() {
                instance.turn(Doing::Nothing, "");
            }
            let lease = Duration::from_millis(lease_ms);
            match locks.lock(&id).lease(lease).try_acquire().await {
                Ok(None) => instance.answer(
                    TRY_ACQUIRE,
                    "Ok(None)",
                    "Somebody else holds it. Skip the work, or try again later.",
                    false,
                ),
                Ok(Some(guard)) => settle(instance, TRY_ACQUIRE, &id, lease, Ok(guard)),
                Err(error) => instance.answer(TRY_ACQUIRE, &format!("Err({error})"), "", false),
            }
        }
        Step::StopWaiting => {
            if let Some((acquire, id, _)) = acquiring.take() {
                drop(acquire);
                instance.turn(Doing::Nothing, "");
                instance.write(Event::GaveUp { id, why: "dropped the future".to_owned() });
                instance.answer(
                    "drop(acquire)",
                    "()",
                    "Dropping the future is enough: you have left the line.",
                    true,
                );
            }
        }
        Step::Extend { by_ms } => extend(instance, Duration::from_millis(by_ms)).await,
        Step::Release => {
            let Some((guard, id)) = instance.take_guard() else { return nothing_held(instance) };
            instance.turn(Doing::Releasing, &id);
            instance.write(Event::Releases { id: id.clone() });
            let outcome = guard.release().await;
            instance.turn(Doing::Nothing, "");
            match outcome {
                Ok(()) => {
                    instance.write(Event::Released { id, how: "released".to_owned() });
                    instance.answer(
                        "guard.release().await",
                        "Ok(())",
                        "Released in time. If somebody waits, the first in line has it now.",
                        true,
                    );
                }
                Err(error) => {
                    let lost = error.kind() == ErrorKind::Lost;
                    let how = if lost { "had lost" } else { NOT_RELEASED };
                    instance.write(Event::Released { id, how: how.to_owned() });
                    instance.answer(
                        "guard.release().await",
                        &format!("Err({error})"),
                        "Part of the work may have run at the same time as another holder's.",
                        false,
                    );
                }
            }
        }
        Step::Drop => {
            let Some((guard, id)) = instance.take_guard() else { return nothing_held(instance) };
            drop(guard);
            instance.turn(Doing::Nothing, "");
            instance.write(Event::Released { id, how: "dropped".to_owned() });
            instance.answer(
                "drop(guard)",
                "()",
                "Released in the background. A panic or an aborted task does the same.",
                true,
            );
        }
        Step::Call => call(instance, locks),
        Step::BlockRuntime { for_ms } => {
            block(instance, Duration::from_millis(for_ms).min(LONGEST_BLOCK), killed);
        }
    }
}

/// Blocks the thread of the runtime, which no async code should do; that is the point.
fn block(instance: &Instance, time: Duration, killed: &CancellationToken) {
    let before = instance.blocks(time);
    let began = Instant::now();
    instance.answer(
        &format!("std::thread::sleep({time:?})"),
        "not returned yet",
        "The runtime is frozen: no task runs, and what you press has to wait. Only another thread \
         of the process can still ask the guard, as this page does.",
        false,
    );
    thread::sleep(time);
    if killed.is_cancelled() {
        return;
    }
    let state = instance.state();
    let renewals = state.renewals.saturating_sub(before);
    let held = state.doing == Doing::Holding;
    drop(state);
    let meaning = if held {
        format!(
            "The lock was kept: the library renewed it {renewals} times, on a thread of its own."
        )
    } else {
        String::new()
    };
    let answer = format!("() after {:.0?}", began.elapsed());
    instance.answer("std::thread::sleep(..)", &answer, &meaning, true);
}

/// Handles the outcome of an acquire.
fn settle(
    instance: &Arc<Instance>,
    call: &str,
    id: &str,
    lease: Duration,
    outcome: Result<LockGuard, Error>,
) {
    match outcome {
        Ok(guard) => {
            let answer = format!("Ok(guard), token {}", guard.fencing_token());
            instance.holds(guard, lease);
            instance.answer(
                call,
                &answer,
                "The lock is yours. The library renews it when a third of the lease has passed.",
                true,
            );
        }
        Err(error) => {
            instance.turn(Doing::Nothing, "");
            let why = format!("{:?}", error.kind());
            instance.write(Event::GaveUp { id: id.to_owned(), why });
            instance.answer(call, &format!("Err({error})"), "", false);
        }
    }
}

fn nothing_held(instance: &Instance) {
    instance.answer("guard", "none", "This instance holds no lock.", false);
}

async fn extend(instance: &Instance, by: Duration) {
    let Some(guard) = instance.state().guard.clone() else { return nothing_held(instance) };
    let call = format!("guard.extend({by:?}).await");
    instance.extends(true);
    let outcome = guard.extend(by).await;
    instance.extends(false);
    match outcome {
        Ok(()) => instance.answer(
            &call,
            "Ok(())",
            "Extended once, for a pause that you can foresee.",
            true,
        ),
        Err(error) => instance.answer(&call, &format!("Err({error})"), "", false),
    }
}

/// Makes a debounced call, in the way of a handler whose client may hang up.
fn call(instance: &Arc<Instance>, locks: &Locks) {
    let debounce = locks
        .debounce("search-index")
        .wait(Duration::from_millis(DEBOUNCE_WAIT_MS))
        .max_wait(Duration::from_millis(DEBOUNCE_MAX_WAIT_MS));
    let number = instance.calls();
    instance.write(Event::Called);
    let runs = Arc::clone(instance);
    let outcome = debounce.spawn(move || async move { runs.write(Event::Ran) });
    let instance = Arc::clone(instance);
    tokio::spawn(async move {
        let tell = |answer: &str, meaning: &str, good| {
            let call = "debounce.call(..).await";
            instance.answer_about(About::Debounce, call, answer, meaning, good);
        };
        let outcome = outcome.await;
        if !instance.is_answered(number) {
            return;
        }
        match outcome {
            Ok(Ok(Some(()))) => tell("Ok(Some(()))", "The last call of the burst: it ran.", true),
            Ok(Ok(None)) => tell("Ok(None)", "Replaced by a later call.", true),
            Ok(Err(error)) => tell(&format!("Err({error})"), "", false),
            Err(_ended) => {}
        }
    });
}
