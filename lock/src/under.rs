//! Code that runs under locks: it is stopped when one is lost, and it cannot wait for itself.
//!
//! While a body is polled, the locks it runs under are on a stack of the thread that polls it. So
//! whoever asks for a lock knows whether the very code that asks holds it, without an identity of
//! tasks: a sibling in a `join!` is polled beside the body, not inside, and a spawned task is
//! polled by the executor. Both are others, who wait for each other as any two callers do. A body
//! that polls other tasks, as one does that runs a `LocalSet`, is told apart from them by Tokio.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use tokio::task;

use crate::{
    Error, LockGuard,
    guard::Lost,
    keeper::{Client, Hold},
    private::OnLost,
};

thread_local! {
    /// What the code that this thread polls at the moment runs under, the innermost last.
    static HELD: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// A lock that a body runs under, and the task that polls the body.
struct Frame {
    hold: Arc<Hold>,
    task: Option<task::Id>,
}

/// The locks of one body, on the stack for as long as a poll of it takes, a panic included.
struct Frames(usize);

impl Frames {
    fn of<'a>(guards: impl Iterator<Item = &'a LockGuard>) -> Self {
        // A thread that is being torn down has no stack any more; then nothing is nested in it.
        let pushed = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            let before = held.len();
            let task = task::try_id();
            held.extend(guards.map(|guard| Frame { hold: Arc::clone(guard.hold()), task }));
            held.len() - before
        });
        Self(pushed.unwrap_or(0))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        for _ in 0..self.0 {
            // Taken out first: what is dropped may look at the stack.
            let popped = HELD.try_with(|held| held.borrow_mut().pop());
            drop(popped);
        }
    }
}

/// The lock of this key, if the code that asks runs under it. A lock that was lost or released is
/// not held, though a body of it may go on.
pub(crate) fn held(client: &Client, key: &str) -> Option<Arc<Hold>> {
    let found = HELD.try_with(|held| {
        let (held, task) = (held.borrow(), task::try_id());
        let is_it = |Frame { hold, task: its }: &&Frame| {
            *its == task && *hold.lock.key == *key && client.made(hold)
        };
        held.iter().rev().find(is_it).map(|frame| Arc::clone(&frame.hold))
    });
    // Not under the borrow: finding it lost wakes those who wait for that.
    found.ok().flatten().filter(|hold| hold.is_kept() && hold.is_held())
}

/// Polls a body under locks; the number of an error is that of the lock that was lost.
///
/// Every poll looks at the locks before it lets the body go on: after a stall of any length the
/// body does not take a single step under a lock that may be somebody else's.
pub(crate) fn run_under_all<const N: usize, F: Future>(
    guards: [(&LockGuard, OnLost); N],
    mut body: Pin<&mut F>,
) -> impl Future<Output = Result<F::Output, (usize, Error)>> {
    // Made when there is something to wait for: a body that never waits costs no signal.
    let mut losses = [const { None::<Lost> }; N];
    poll_fn(move |context| {
        let stops =
            |(guard, on_lost): &(&LockGuard, OnLost)| *on_lost == OnLost::Stop && !guard.is_held();
        if let Some(number) = guards.iter().position(stops) {
            return Poll::Ready(Err((number, stopped(guards[number].0))));
        }
        let output = {
            let _frames = Frames::of(guards.iter().map(|(guard, _)| *guard));
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
