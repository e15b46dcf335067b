//! Calls of the store: how they begin, and what becomes of one that panics.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::task;

use super::task::{Done, InFlight, Task};
use crate::{
    contained::contained,
    contract::{StoreError, answer_each},
    store::{EmbeddedStore, Store},
};

impl Task {
    /// Begins a call of the store. It is polled once right here, since that is when a store begins
    /// an operation: so operations begin in the order in which the keeper wants them, which is
    /// what "in order" in the store's contract rests on. Tokio's budget is lifted for it, or a
    /// turn with many calls would leave some of them for later, in no order at all.
    ///
    /// A store that panics has not answered this call, which is all that it costs. `done` is given
    /// an answer for each of the items.
    pub(super) fn call_store<A, F, Fut, D>(&mut self, items: usize, call: F, done: D)
    where
        F: FnOnce(Arc<dyn Store>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Result<A, StoreError>>> + Send,
        D: FnOnce(Vec<Result<A, StoreError>>) -> Done + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let call = async move {
            // The call itself is made inside of the future: it is the store's code, too.
            let answers = caught(async move { call(store).await }).await;
            done(answer_each(answers, items))
        };
        let mut call: InFlight = Box::pin(task::unconstrained(call));
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => self.done.push_back(done),
            // Polled again with a waker of its own as soon as the set is.
            Poll::Pending => self.in_flight.push(call),
        }
    }

    /// The answers of a store that has them at once, without a future.
    pub(super) fn answered_at_once<A>(
        &self,
        items: usize,
        call: impl FnOnce(&dyn EmbeddedStore, &mut Vec<Result<A, StoreError>>) -> bool,
    ) -> Option<Vec<Result<A, StoreError>>> {
        if !self.is_embedded {
            return None;
        }
        let mut answers = Vec::with_capacity(items);
        // The look-up is the store's code, too.
        match contained(|| self.store.embedded().map(|store| call(store, &mut answers))) {
            Some(Some(true)) => Some(answer_each(Ok(answers), items)),
            Some(_) => None,
            None => Some(answer_each(Err(panicked()), items)),
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
