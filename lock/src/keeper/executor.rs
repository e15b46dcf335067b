//! Carries out on a store what the engine decides, in order.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{
    contract::{StoreError, answer_each},
    engine::calls::{Answer, Batch, Call, Sent},
};
use tokio::task;

use super::{caller::Caller, held::Owner};
use crate::{
    contained::contained,
    store::{Answers, EmbeddedStore, Store},
};

type InFlight<O> = Pin<Box<dyn Future<Output = Answer<Caller<O>>> + Send>>;

type AnyStore = dyn Store;

/// An operation on a batch, as a method of the store.
type Operation<Q, A> = for<'a> fn(&'a (dyn Store + 'static), &'a [Q]) -> Answers<'a, A>;

/// The same, for a store that may have the answers at once.
type AtOnce<Q, A> = fn(&dyn EmbeddedStore, &[Q], &mut Vec<Result<A, StoreError>>) -> bool;

/// How the engine gets the answers to a batch.
type Done<O, T, A> = fn(Sent<T>, Vec<Result<A, StoreError>>) -> Answer<Caller<O>>;

pub(super) struct Executor<O: Owner> {
    store: Arc<dyn Store>,
    /// Whether its callers drive it, and it may have answers at once. Decided when it is made.
    is_embedded: bool,
    in_flight: FuturesUnordered<InFlight<O>>,
    /// Answers that are ready, most of them because they were given at once.
    pub(super) answers: VecDeque<Answer<Caller<O>>>,
}

impl<O: Owner> Executor<O> {
    pub(super) fn new(store: Arc<dyn Store>, is_embedded: bool) -> Self {
        Self { store, is_embedded, in_flight: FuturesUnordered::new(), answers: VecDeque::new() }
    }

    /// Begins a call.
    pub(super) fn begin(&mut self, call: Call<Caller<O>>) {
        match call {
            Call::Acquire(batch) => self.run_at_once(
                batch,
                (|store, batch, answers| store.acquire_now(batch, answers), AnyStore::acquire),
                Answer::Acquired,
            ),
            Call::Renew(batch) => self.run_at_once(
                batch,
                (|store, batch, answers| store.renew_now(batch, answers), AnyStore::renew),
                Answer::Renewed,
            ),
            Call::Release(batch) => self.run_at_once(
                batch,
                (|store, batch, answers| store.release_now(batch, answers), AnyStore::release),
                Answer::Released,
            ),
            Call::Extend(batch) => self.run(batch, AnyStore::extend, Answer::Extended),
            Call::Holder(batch) => self.run(batch, AnyStore::holder, Answer::Holder),
            Call::Client(batch) => self.run(batch, AnyStore::client, Answer::Client),
            Call::Scan(batch) => self.run(batch, AnyStore::scan, Answer::Scanned),
            Call::Introduce(batch) => self.run(batch, AnyStore::introduce, Answer::Introduced),
            Call::DueIn(batch) => self.run(batch, AnyStore::due_in, Answer::DueIn),
            Call::ForceRelease(batch) => {
                self.run(batch, AnyStore::force_release, Answer::ForceReleased)
            }
            Call::Register(batch) => self.run(batch, AnyStore::register, Answer::Registered),
            Call::EndWindow(batch) => self.run(batch, AnyStore::end_window, Answer::WindowEnded),
            Call::Claim(batch) => self.run(batch, AnyStore::claim, Answer::Claimed),
            Call::Keep(batch) => self.run(batch, AnyStore::keep, Answer::Kept),
            Call::Due(batch) => self.run(batch, AnyStore::due, Answer::Due),
            Call::Waiting(batch) => self.run(batch, AnyStore::waiting, Answer::Waiting),
            Call::Finish(batch) => self.run(batch, AnyStore::finish, Answer::Finished),
            Call::SetAside(batch) => self.run(batch, AnyStore::set_aside, Answer::SetAside),
            Call::TakeBack(batch) => self.run(batch, AnyStore::take_back, Answer::TakenBack),
        }
    }

    /// Returns an answer that is ready. `context` is woken when the next one comes.
    pub(super) fn next(&mut self, context: &mut Context<'_>) -> Option<Answer<Caller<O>>> {
        if self.answers.is_empty() {
            self.poll(context);
        }
        self.answers.pop_front()
    }

    /// Has `context` woken by calls that were begun since: they would wake nobody otherwise.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) {
        if !self.in_flight.is_empty()
            && let Poll::Ready(Some(answer)) = self.in_flight.poll_next_unpin(context)
        {
            self.answers.push_back(answer);
        }
    }

    /// Will an answer come?
    pub(super) fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Polls a call once right here, since that is when a store begins an operation. So operations
    /// begin in the order in which the engine wants them, on which "in order" in the store's
    /// contract rests. Tokio's budget is lifted for this: otherwise a turn with many calls would
    /// leave some of them for later, in no order at all.
    ///
    /// If a store panics, this call has no answer, and nothing else is affected. `done` is given an
    /// answer for each of the items.
    fn run<Q, T, A>(
        &mut self,
        Batch { requests, sent }: Batch<Q, T>,
        operation: Operation<Q, A>,
        done: Done<O, T, A>,
    ) where
        Q: Send + Sync + 'static,
        T: Send + 'static,
        A: 'static,
    {
        let store = Arc::clone(&self.store);
        let call = async move {
            // The call itself is made inside the future, because it is also the store's code.
            let answers = caught(async { operation(&*store, &requests).await }).await;
            done(sent, answer_each(answers, requests.len()))
        };
        let mut call: InFlight<O> = Box::pin(task::unconstrained(call));
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => self.answers.push_back(answer),
            // Polled again, with a waker of its own, as soon as the set is polled.
            Poll::Pending => self.in_flight.push(call),
        }
    }

    /// The same, without a future if the store has the answers at once.
    fn run_at_once<Q, T, A>(
        &mut self,
        batch: Batch<Q, T>,
        (at_once, operation): (AtOnce<Q, A>, Operation<Q, A>),
        done: Done<O, T, A>,
    ) where
        Q: Send + Sync + 'static,
        T: Send + 'static,
        A: 'static,
    {
        match self.answers_at_once(&batch.requests, at_once) {
            Some(answers) => self.answers.push_back(done(batch.sent, answers)),
            None => self.run(batch, operation, done),
        }
    }

    fn answers_at_once<Q, A>(
        &self,
        requests: &[Q],
        at_once: AtOnce<Q, A>,
    ) -> Option<Vec<Result<A, StoreError>>> {
        if !self.is_embedded {
            return None;
        }
        let mut answers = Vec::with_capacity(requests.len());
        // The look-up is also the store's code.
        let look = || self.store.embedded().map(|store| at_once(store, requests, &mut answers));
        match contained(look) {
            Some(Some(true)) => Some(answer_each(Ok(answers), requests.len())),
            Some(_) => None,
            None => Some(answer_each(Err(panicked()), requests.len())),
        }
    }
}

/// The output of a future of the store's, or the fact that it has panicked.
async fn caught<F: Future>(future: F) -> Result<F::Output, StoreError> {
    let mut future = pin!(future);
    poll_fn(|context| {
        contained(|| future.as_mut().poll(context))
            .map_or_else(|| Poll::Ready(Err(panicked())), |poll| poll.map(Ok))
    })
    .await
}

fn panicked() -> StoreError {
    StoreError::unavailable("the store has panicked: see the panic message on standard error")
}
