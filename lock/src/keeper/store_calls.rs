//! Calls of the store: how they begin, and what becomes of one that panics.

use std::{
    future::{Future, poll_fn},
    ops::Deref,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::task;

use super::task::{Done, InFlight, Task};
use crate::{
    contained::contained,
    contract::{StoreError, answer_each},
    store::{Answers, EmbeddedStore, Store},
};

/// An operation on a batch, as a method of the store.
pub(super) type Ask<R, A> = for<'a> fn(&'a (dyn Store + 'static), &'a [R]) -> Answers<'a, A>;

/// The same of a store that may have the answers at once.
pub(super) type AskNow<R, A> =
    fn(&dyn EmbeddedStore, &[R], &mut Vec<Result<A, StoreError>>) -> bool;

impl Task {
    /// Begins a call of the store. It is polled once right here, since that is when a store begins
    /// an operation: so operations begin in the order in which the keeper wants them, which is
    /// what "in order" in the store's contract rests on. Tokio's budget is lifted for it, or a
    /// turn with many calls would leave some of them for later, in no order at all.
    ///
    /// A store that panics has not answered this call, which is all that it costs. `done` is given
    /// an answer for each of the items.
    pub(super) fn call_store<R, A, B, D>(&mut self, batch: B, ask: Ask<R, A>, done: D)
    where
        R: Sync + 'static,
        A: 'static,
        B: Deref<Target = [R]> + Send + Sync + 'static,
        D: FnOnce(Vec<Result<A, StoreError>>) -> Done + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let call = async move {
            // The call itself is made inside of the future: it is the store's code, too.
            let answers = caught(async { ask(&*store, &batch).await }).await;
            done(answer_each(answers, batch.len()))
        };
        let mut call: InFlight = Box::pin(task::unconstrained(call));
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => self.done.push_back(done),
            // Polled again with a waker of its own as soon as the set is.
            Poll::Pending => self.in_flight.push(call),
        }
    }

    /// The same, without a future if the store has the answers at once.
    pub(super) fn call_now_or_later<R, A, B, D>(
        &mut self,
        batch: B,
        (now, later): (AskNow<R, A>, Ask<R, A>),
        done: D,
    ) where
        R: Sync + 'static,
        A: 'static,
        B: Deref<Target = [R]> + Send + Sync + 'static,
        D: FnOnce(Vec<Result<A, StoreError>>) -> Done + Send + 'static,
    {
        match self.answers_now(&batch, now) {
            Some(answers) => self.done.push_back(done(answers)),
            None => self.call_store(batch, later, done),
        }
    }

    fn answers_now<R, A>(
        &self,
        batch: &[R],
        ask: AskNow<R, A>,
    ) -> Option<Vec<Result<A, StoreError>>> {
        if !self.is_embedded {
            return None;
        }
        let mut answers = Vec::with_capacity(batch.len());
        // The look-up is the store's code, too.
        match contained(|| self.store.embedded().map(|store| ask(store, batch, &mut answers))) {
            Some(Some(true)) => Some(answer_each(Ok(answers), batch.len())),
            Some(_) => None,
            None => Some(answer_each(Err(panicked()), batch.len())),
        }
    }
}

/// What a future of the store's comes to, or that it has panicked.
async fn caught<F: Future>(future: F) -> Result<F::Output, StoreError> {
    let mut future = pin!(future);
    poll_fn(|context| {
        contained(|| future.as_mut().poll(context))
            .map_or_else(|| Poll::Ready(Err(panicked())), |poll| poll.map(Ok))
    })
    .await
}

fn panicked() -> StoreError {
    StoreError::unavailable("the store has panicked: its message is on the standard error output")
}
