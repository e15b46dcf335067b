//! Code that runs under locks: it is stopped when one is lost, and the lock is released at its end.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use crate::{Error, LockGuard, guard::Lost, observe::Spans, reentrancy::Frames};

/// What happens to a body whose lock is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLost {
    /// It is dropped at its next `.await`.
    Stop,
    /// It runs to its end.
    Continue,
}

/// Polls a body under locks; the number in an error is the index of the lock that was lost.
///
/// Every poll checks the locks before it lets the body go on: after a stall of any length, the body
/// does not take a single step under a lock that another holder may have.
pub(crate) fn run_under_all<const N: usize, F: Future>(
    guards: [(&LockGuard, OnLost); N],
    mut body: Pin<&mut F>,
) -> impl Future<Output = Result<F::Output, (usize, Error)>> {
    // Made once the body waits: a body that never waits costs no signal.
    let mut losses = [const { None::<Lost> }; N];
    let mut spans = Spans::default();
    poll_fn(move |context| {
        let stops =
            |(guard, on_lost): &(&LockGuard, OnLost)| *on_lost == OnLost::Stop && !guard.is_held();
        if let Some(number) = guards.iter().position(stops) {
            return Poll::Ready(Err((number, stopped(guards[number].0))));
        }
        let output = {
            let _spans = spans.enter(guards.iter().map(|(guard, _)| &**guard.hold()));
            let _frames = Frames::of(guards.iter().map(|(guard, _)| guard.hold()));
            body.as_mut().poll(context)
        };
        if let Poll::Ready(output) = output {
            return Poll::Ready(Ok(output));
        }
        for (number, ((guard, on_lost), loss)) in guards.iter().zip(&mut losses).enumerate() {
            if *on_lost == OnLost::Stop {
                let loss = loss.get_or_insert_with(|| guard.loss());
                if Pin::new(loss).poll(context).is_ready() {
                    return Poll::Ready(Err((number, stopped(guard))));
                }
            }
        }
        Poll::Pending
    })
}

fn stopped(guard: &LockGuard) -> Error {
    Error::lost("the lock was lost before the body had ended, so the body was stopped")
        .on(guard.shared_id())
}

/// Polls a body under one lock.
pub(crate) async fn run_under<F: Future>(
    guard: &LockGuard,
    on_lost: OnLost,
    body: Pin<&mut F>,
) -> Result<F::Output, Error> {
    run_under_all([(guard, on_lost)], body).await.map_err(|(_, error)| error)
}

/// Releases the lock of a body that has ended, unless the body has given its guard away. The output
/// of the body is kept, whether or not the release could be confirmed.
///
/// The body must be dropped by then, and its caller must own the guard since before the body was
/// made. Then, even if the caller's future is dropped, what the body holds is dropped before the
/// lock is free.
pub(crate) async fn release_after(guard: Arc<LockGuard>) {
    if let Some(guard) = Arc::into_inner(guard) {
        let _ = guard.release().await;
    }
}
