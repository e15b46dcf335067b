//! Durable calls.

use std::{sync::Arc, time::Duration};

use lock_core::contract::{
    ClaimRequest, DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish, FinishRequest,
    KeepRequest, Kept, SetAside, TakeBackRequest, WaitingCalls,
};
use tokio::time::sleep;

use super::{BREAK, LATE, LONG, SHORT, Suite, admin::supported, broken, demand, one};
use crate::store::DurableStore;

/// The calls of one function.
struct Function<'a> {
    suite: &'a Suite<'a>,
    store: &'a dyn DurableStore,
    book: DurableBook,
    run: Arc<str>,
}

const ID: &str = "an id";

impl<'a> Function<'a> {
    fn new(suite: &'a Suite<'a>, name: &str) -> Self {
        let Some(store) = suite.store.durable() else {
            broken("durable", "the store does not offer it")
        };
        let [due, calls, aside] = ["due", "calls", "aside"].map(|kind| suite.own_key(kind, name));
        let function = suite.key(name);
        let run = format!("~durable:{}:{function}:{ID}", function.len());
        Self { suite, store, book: DurableBook::new(due, calls, aside), run: run.into() }
    }

    /// The key of the run's lock.
    fn run(&self) -> Arc<str> {
        Arc::clone(&self.run)
    }

    fn call(&self, arguments: &str, wait: Duration) -> KeepRequest {
        KeepRequest::new(self.book.clone(), ID, arguments, wait)
    }

    async fn keep(&self, clause: &str, call: KeepRequest) -> Kept {
        let wait = call.wait;
        let kept = one(clause, self.store.keep(&[call])).await;
        let due = format!("due in {:?}, after {wait:?}", kept.due_in);
        demand(kept.due_in <= wait, clause, due);
        kept
    }

    async fn due(&self, clause: &str, limit: usize) -> DueCalls {
        one(clause, self.store.due(&[DueRequest::new(self.book.clone(), limit)])).await
    }

    async fn claim(&self, clause: &str, number: u64, lease: Duration) -> DurableClaim {
        let token = self.suite.token(number);
        let request = ClaimRequest::new(self.book.clone(), ID, self.run(), token, lease);
        one(clause, self.store.claim(&[request])).await
    }

    /// The call is granted, with these arguments, as this attempt; returns its number and the
    /// fence.
    async fn runs(
        &self,
        clause: &str,
        number: u64,
        lease: Duration,
        (arguments, attempt): (&str, u32),
    ) -> (u64, u64) {
        match self.claim(clause, number, lease).await {
            DurableClaim::Granted { fence, call, attempt: which, arguments: got, .. }
                if which == attempt && got == arguments =>
            {
                (call, fence)
            }
            other => broken(clause, format_args!("{arguments}, attempt {attempt}: {other:?}")),
        }
    }

    async fn finish(
        &self,
        clause: &str,
        number: u64,
        run: (u64, u64),
        error: Option<&str>,
    ) -> DurableFinish {
        let token = self.suite.token(number);
        let request = FinishRequest::new(self.book.clone(), ID, self.run(), token, run);
        one(clause, self.store.finish(&[request.failed(error.map(Arc::from))])).await
    }

    async fn set_aside(&self, clause: &str) -> Vec<SetAside> {
        one(clause, self.store.set_aside(std::slice::from_ref(&self.book))).await
    }
}

pub(super) async fn check(suite: &Suite<'_>) {
    once(suite).await;
    again(suite).await;
    lost(suite).await;
    retry(suite).await;
}

async fn once(suite: &Suite<'_>) {
    let function = Function::new(suite, "once");
    let clause = "durable: due after the last call";
    let none = function.claim(clause, 1, LONG).await;
    demand(none == DurableClaim::Gone, clause, format_args!("nothing is kept: {none:?}"));
    let first = function.keep(clause, function.call("one", LONG)).await;
    let DueCalls { ids, next, .. } = function.due(clause, 10).await;
    let later = ids.is_empty() && next.is_some_and(|left| left <= LONG);
    demand(later, clause, format_args!("due in a minute: {ids:?}, the next in {next:?}"));
    let early = function.claim(clause, 1, LONG).await;
    let refused = matches!(early, DurableClaim::NotYet(left) if left <= LONG);
    demand(refused, clause, format_args!("due in a minute, and claimed: {early:?}"));
    let limited = function.call("two", LONG).max_wait(Some(SHORT));
    let second = function.keep(clause, limited).await;
    let grows = format!("{} after {}", second.call, first.call);
    demand(second.call > first.call, "durable: the numbers of calls grow", grows);
    let by_then = format!("at most {SHORT:?} after the first: {:?}", second.due_in);
    demand(second.due_in <= SHORT, "durable: due after `max_wait` at the latest", by_then);
    sleep(SHORT + BREAK).await;
    let DueCalls { ids, next, .. } = function.due(clause, 10).await;
    let listed = ids == [ID] && next.is_none();
    demand(listed, clause, format_args!("one is due: {ids:?}, the next in {next:?}"));

    let clause = "durable: a claim is idempotent";
    let (call, fence) = function.runs(clause, 1, LONG, ("two", 1)).await;
    demand(call == second.call, clause, format_args!("{call}, not {}", second.call));
    let (_, again) = function.runs(clause, 1, LONG, ("two", 1)).await;
    demand(again > fence, clause, format_args!("the fence {again} after {fence}"));
    suite.is_held(clause, &function.run(), 9).await;
    let ids = function.due(clause, 10).await.ids;
    demand(ids.is_empty(), clause, format_args!("due while it runs: {ids:?}"));

    let clause = "durable: a run that has ended is done";
    let done = function.finish(clause, 1, (call, again), None).await;
    demand(done == DurableFinish::Done, clause, format_args!("{done:?}"));
    let gone = function.claim(clause, 2, LONG).await;
    demand(gone == DurableClaim::Gone, clause, format_args!("{gone:?}"));
    suite.take("durable: finish frees the run's lock", &function.run(), 3, LONG).await;
}

async fn again(suite: &Suite<'_>) {
    let (clause, function) = ("durable: a call during a run", Function::new(suite, "again"));
    function.keep(clause, function.call("one", Duration::ZERO)).await;
    let run = function.runs(clause, 1, LONG, ("one", 1)).await;
    function.keep(clause, function.call("two", Duration::ZERO)).await;
    sleep(BREAK).await;
    let second = function.claim(clause, 2, LONG).await;
    let waits = matches!(second, DurableClaim::Running(left) if left <= LONG);
    demand(waits, clause, format_args!("no two runs at once: {second:?}"));
    let ended = function.finish(clause, 1, run, None).await;
    demand(ended == DurableFinish::Again, clause, format_args!("{ended:?}"));
    function.runs(clause, 2, LONG, ("two", 1)).await;
}

async fn lost(suite: &Suite<'_>) {
    let clause = "durable: the call of a runner that died runs again";
    let function = Function::new(suite, "lost");
    function.keep(clause, function.call("one", Duration::ZERO)).await;
    let run = function.runs(clause, 1, SHORT, ("one", 1)).await;
    sleep(SHORT + LATE / 4).await;
    let ids = function.due(clause, 10).await.ids;
    demand(ids == [ID], clause, format_args!("its lease has run out, and these are due: {ids:?}"));
    function.runs(clause, 2, LONG, ("one", 1)).await;
    let late = function.finish(clause, 1, run, None).await;
    demand(late == DurableFinish::Lost, clause, format_args!("its end came too late: {late:?}"));
    suite.is_held(clause, &function.run(), 9).await;
}

async fn retry(suite: &Suite<'_>) {
    let (clause, function) = ("durable: tried again", Function::new(suite, "retry"));
    function.keep(clause, function.call("one", Duration::ZERO).retry(2, SHORT)).await;
    let run = function.runs(clause, 1, LONG, ("one", 1)).await;
    let failed = function.finish(clause, 1, run, Some("the first")).await;
    demand(failed == DurableFinish::Retry(SHORT), clause, format_args!("{failed:?}"));
    sleep(SHORT + BREAK).await;
    let run = function.runs(clause, 2, LONG, ("one", 2)).await;

    let clause = "durable: set aside after the last try";
    let failed = function.finish(clause, 2, run, Some("the second")).await;
    demand(failed == DurableFinish::SetAside, clause, format_args!("{failed:?}"));
    let gone = function.claim(clause, 3, LONG).await;
    demand(gone == DurableClaim::Gone, clause, format_args!("set aside, and run again: {gone:?}"));
    let aside = function.set_aside(clause).await;
    let (id, error, arguments) = (ID.to_owned(), "the second".to_owned(), "one".to_owned());
    let expected = [SetAside::new(id, 2, run.1, error, arguments)];
    demand(aside == expected, clause, format_args!("{aside:?}, not {expected:?}"));

    let clause = "durable: taken back";
    let take_back = async |request| one(clause, function.store.take_back(&[request])).await;
    let run_again = || TakeBackRequest::run_again(function.book.clone(), ID);
    demand(take_back(run_again()).await, clause, "the call that was set aside is not there");
    demand(function.set_aside(clause).await.is_empty(), clause, "the call is still set aside");
    demand(!take_back(run_again()).await, clause, "it was taken back a second time");
    for number in [4, 5] {
        sleep(SHORT + BREAK).await;
        let run = function.runs(clause, number, LONG, ("one", number as u32 - 3)).await;
        function.finish(clause, number, run, Some("again")).await;
    }
    let forget = TakeBackRequest::forget(function.book.clone(), ID);
    demand(take_back(forget).await, clause, "the call to be forgotten is not there");
    let gone = function.claim(clause, 6, LONG).await;
    demand(gone == DurableClaim::Gone, clause, format_args!("forgotten, and run: {gone:?}"));
}

/// False if the store does not support this.
pub(super) async fn waiting(suite: &Suite<'_>) -> bool {
    let clause = "waiting counts the calls that wait";
    let function = Function::new(suite, "waiting");
    let ask = |limit| {
        let request = [DueRequest::new(function.book.clone(), limit)];
        async move {
            let answers = supported(clause, 1, function.store.waiting(&request)).await;
            answers.map(|mut answers| answers.remove(0))
        }
    };
    let Some(none) = ask(10).await else { return false };
    demand(none == WaitingCalls::default(), clause, format_args!("nobody has called: {none:?}"));
    let later = KeepRequest::new(function.book.clone(), "another id", "1", LONG);
    function.keep(clause, later).await;
    function.keep(clause, function.call("2", LONG / 2)).await;
    let first = ask(1).await.unwrap_or_default();
    let right = matches!(&first.calls[..], [(id, left)] if id == ID && *left <= LONG / 2);
    demand(first.count == 2 && right, clause, format_args!("two wait: {first:?}"));
    let none = ask(0).await.unwrap_or_default();
    demand(none.count == 2 && none.calls.is_empty(), clause, format_args!("none of two: {none:?}"));
    true
}
