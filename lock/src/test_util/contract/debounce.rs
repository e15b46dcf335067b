//! Debounced calls.

use std::{sync::Arc, time::Duration};

use lock_core::contract::{DebounceReply, DebounceRequest, EndWindowRequest, GRACE, WindowEnd};
use tokio::time::{Instant, sleep};

use super::{BREAK, LATE, LONG, SHORT, Suite, admin::supported, broken, demand, one};
use crate::store::DebounceStore;

/// One window, and calls of several clients in it.
struct Window<'a> {
    suite: &'a Suite<'a>,
    store: &'a dyn DebounceStore,
    clients: [Suite<'a>; 2],
    window: Arc<str>,
    run: Arc<str>,
}

impl<'a> Window<'a> {
    fn new(suite: &'a Suite<'a>, name: &str) -> Self {
        let Some(store) = suite.store.debounce() else {
            broken("debounce", "the store does not offer it")
        };
        let clients = [Suite::new(suite.store), Suite::new(suite.store)];
        let [window, run] = ["debounce", "run"].map(|kind| suite.own_key(kind, name));
        Self { suite, store, clients, window, run }
    }

    fn call(&self, client: usize, number: u64, wait: Duration) -> DebounceRequest {
        let token = self.clients[client].token(number);
        DebounceRequest::new(Arc::clone(&self.window), Arc::clone(&self.run), token, wait, LONG)
    }

    async fn ask(&self, clause: &str, call: DebounceRequest) -> DebounceReply {
        one(clause, self.store.register(&[call])).await
    }

    /// The call is not due yet; returns how long it has to wait.
    async fn not_yet(&self, clause: &str, call: DebounceRequest, is_newest: bool) -> Duration {
        match self.ask(clause, call).await {
            DebounceReply::NotYet { left, newest, .. } if newest == is_newest => left,
            other => broken(clause, format_args!("not due, newest: {is_newest}; got {other:?}")),
        }
    }

    async fn runs(&self, clause: &str, call: DebounceRequest) -> u64 {
        match self.ask(clause, call).await {
            DebounceReply::Granted { fence, .. } => fence,
            other => broken(clause, format_args!("due, but not granted: {other:?}")),
        }
    }

    async fn is_superseded(&self, clause: &str, call: DebounceRequest) {
        let reply = self.ask(clause, call).await;
        demand(reply == DebounceReply::Superseded, clause, format_args!("{reply:?}"));
    }

    async fn end(&self, clause: &str, end: WindowEnd) -> bool {
        let request = EndWindowRequest::new(Arc::clone(&self.window), end);
        one(clause, self.store.end_window(&[request])).await
    }

    async fn end_run(&self, clause: &str, client: usize, number: u64) {
        let released = self.clients[client].release(clause, &self.run, number).await;
        demand(released.ours, clause, "the run's token did not hold the run's lock");
    }
}

pub(super) async fn check(suite: &Suite<'_>) {
    burst(suite).await;
    running(suite).await;
    leading(suite).await;
    max_wait(suite).await;
    dead_caller(suite).await;
    ends(suite).await;
}

async fn burst(suite: &Suite<'_>) {
    let window = Window::new(suite, "burst");
    let clause = "debounce: not before its time";
    let sent = Instant::now();
    let left = window.not_yet(clause, window.call(0, 1, SHORT * 3), true).await;
    demand(left <= SHORT * 3, clause, format_args!("{left:?} left of {:?}", SHORT * 3));
    window.not_yet(clause, window.call(0, 1, SHORT * 3), true).await;
    demand(sent.elapsed() < SHORT * 3, clause, "this machine is too slow for this test");

    let clause = "debounce: the newest call runs";
    sleep(BREAK * 2).await;
    let aged = window.call(1, 1, SHORT * 3).made_ago(BREAK);
    let sent = Instant::now();
    let left = window.not_yet(clause, aged.clone(), true).await;
    let counted = format!("made {BREAK:?} ago, {left:?} left of {:?}", SHORT * 3);
    demand(left <= SHORT * 3 - BREAK, clause, counted);
    window.not_yet(clause, window.call(0, 1, SHORT * 3), false).await;
    demand(sent.elapsed() < SHORT * 3 - BREAK, clause, "this machine is too slow for this test");
    sleep(SHORT * 3 + BREAK).await;
    let first = window.runs(clause, aged.clone()).await;
    suite.is_held(clause, &window.run, 9).await;

    let clause = "debounce: a claim is idempotent";
    let again = window.runs(clause, aged).await;
    demand(again > first, clause, format_args!("the fence {again} after {first}"));

    let clause = "debounce: a run covers the calls before it";
    window.is_superseded(clause, window.call(0, 1, SHORT)).await;
    window.end_run(clause, 1, 1).await;
    window.is_superseded(clause, window.call(0, 1, SHORT)).await;

    let clause = "debounce: an older call of the same client is superseded";
    window.not_yet(clause, window.call(0, 3, LONG), true).await;
    window.is_superseded(clause, window.call(0, 2, LONG)).await;
}

async fn running(suite: &Suite<'_>) {
    let (clause, window) = ("debounce: no two runs at once", Window::new(suite, "running"));
    suite.take(clause, &window.run, 1, LONG).await;
    let call = || window.call(0, 1, BREAK);
    window.ask(clause, call()).await;
    sleep(BREAK * 2).await;
    let reply = window.ask(clause, call()).await;
    let waits = matches!(reply, DebounceReply::Running(left) if left <= LONG);
    demand(waits, clause, format_args!("due, while another run is in progress: {reply:?}"));
    window.suite.release(clause, &window.run, 1).await;
    window.runs(clause, call()).await;
    // A call that comes during the run opens the next window.
    let next = || window.call(1, 1, BREAK);
    window.ask(clause, next()).await;
    sleep(BREAK * 2).await;
    let reply = window.ask(clause, next()).await;
    demand(matches!(reply, DebounceReply::Running(_)), clause, format_args!("{reply:?}"));
    window.end_run(clause, 0, 1).await;
    window.runs(clause, next()).await;
}

async fn leading(suite: &Suite<'_>) {
    let (clause, window) = ("debounce: leading", Window::new(suite, "leading"));
    window.runs(clause, window.call(0, 1, LONG).leading(true)).await;
    window.end_run(clause, 0, 1).await;
    window.not_yet(clause, window.call(0, 2, LONG).leading(true), true).await;
}

async fn max_wait(suite: &Suite<'_>) {
    let (clause, window) = ("debounce: at the latest after `max_wait`", Window::new(suite, "max"));
    let call = |number| window.call(0, number, LONG).max_wait(Some(SHORT));
    let left = window.not_yet(clause, call(1), true).await;
    demand(left <= SHORT, clause, format_args!("{left:?} left of {SHORT:?}"));
    sleep(SHORT / 2).await;
    window.ask(clause, call(2)).await;
    sleep(SHORT / 2 + BREAK).await;
    window.runs(clause, call(2)).await;
}

async fn dead_caller(suite: &Suite<'_>) {
    let clause = "debounce: another runs if the newest caller is gone";
    let window = Window::new(suite, "dead");
    window.ask(clause, window.call(0, 1, SHORT)).await;
    let sent = Instant::now();
    window.ask(clause, window.call(1, 1, SHORT)).await;
    let answered = Instant::now();
    loop {
        let asked = Instant::now();
        match window.ask(clause, window.call(0, 1, SHORT)).await {
            DebounceReply::Granted { .. } => break,
            DebounceReply::NotYet { newest: false, .. } => {}
            other => broken(clause, format_args!("{other:?}")),
        }
        let late = asked < answered + SHORT + GRACE + LATE;
        demand(late, clause, format_args!("no run {:?} after the newest call", asked - answered));
        sleep(BREAK).await;
    }
    let after = sent.elapsed();
    let early = after + BREAK > SHORT + GRACE;
    demand(early, clause, format_args!("granted {after:?} after the newest call, which may live"));
}

async fn ends(suite: &Suite<'_>) {
    let (clause, window) = ("debounce: flush", Window::new(suite, "flush"));
    let nothing = window.end(clause, WindowEnd::Flush).await;
    demand(!nothing, clause, "a window without calls was flushed");
    window.not_yet(clause, window.call(0, 1, LONG), true).await;
    let flushed = window.end(clause, WindowEnd::Flush).await;
    demand(flushed, clause, "a window in which a call waits was not flushed");
    window.runs(clause, window.call(0, 1, LONG)).await;

    let (clause, window) = ("debounce: cancel", Window::new(suite, "cancel"));
    window.not_yet(clause, window.call(0, 1, LONG), true).await;
    let cancelled = window.end(clause, WindowEnd::Cancel).await;
    demand(cancelled, clause, "a window in which a call waits was not cancelled");
    window.is_superseded(clause, window.call(0, 1, LONG)).await;
    let again = window.end(clause, WindowEnd::Cancel).await;
    demand(!again, clause, "a window that was cancelled is cancelled again");
}

/// False if the store does not support this.
pub(super) async fn due_in(suite: &Suite<'_>) -> bool {
    let clause = "due_in says when the waiting call is due";
    let window = Window::new(suite, "due in");
    let ask = || async {
        let windows = [Arc::clone(&window.window)];
        supported(clause, 1, window.store.due_in(&windows)).await.map(|answers| answers[0])
    };
    let Some(nobody) = ask().await else { return false };
    demand(nobody.is_none(), clause, format_args!("nobody has called: {nobody:?}"));
    window.not_yet(clause, window.call(0, 1, LONG), true).await;
    let due_in = ask().await.flatten();
    let right = due_in.is_some_and(|left| left <= LONG && left > LONG / 2);
    demand(right, clause, format_args!("due in {LONG:?}: {due_in:?}"));
    window.end(clause, WindowEnd::Cancel).await;
    let cancelled = ask().await.flatten();
    demand(cancelled.is_none(), clause, format_args!("it was cancelled: {cancelled:?}"));
    true
}
