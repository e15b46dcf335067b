//! Notices reach the client that they are meant for.

use std::sync::{Arc, Mutex, PoisonError};

use lock_core::contract::{
    Acquisition, DebounceRequest, Delivery, EndWindowRequest, ForceReleaseRequest, IfHeld, Notice,
    WindowEnd,
};
use tokio::time::{Instant, sleep, timeout};

use super::{BOUND, BREAK, LATE, LONG, Suite, broken, demand, granted, one};
use crate::{store::Listener, store::Store};

/// The notices that a client has received.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Notice>>>);

impl Heard {
    async fn has(&self, matches: impl Fn(&Notice) -> bool) -> bool {
        let began = Instant::now();
        loop {
            if self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(&matches) {
                return true;
            }
            if began.elapsed() > LATE {
                return false;
            }
            sleep(BREAK).await;
        }
    }

    async fn demand(&self, clause: &str, notice: Notice) {
        let heard = self.has(|other| *other == notice).await;
        demand(heard, clause, format_args!("{notice:?} did not arrive within {LATE:?}"));
    }
}

/// False if the store has no notices.
pub(super) async fn check(store: &dyn Store) -> bool {
    let (clause, suite) = ("notices", Suite::new(store));
    let heard = Heard::default();
    let listener = {
        let heard = heard.clone();
        Listener::new(move |notice| {
            let mut heard = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
            heard.extend(notice);
            true
        })
    };
    let delivery = timeout(BOUND, store.subscribe(&suite.client, listener)).await;
    let Ok(delivery) = delivery else {
        broken("bounded", format_args!("`subscribe`: no answer within {BOUND:?}"))
    };
    // A store may answer quickly, and connect slowly.
    let connected = |notice: &Notice| matches!(notice, Notice::Connected(delivery) if *delivery != Delivery::Polling);
    if delivery == Delivery::Polling && !heard.has(connected).await {
        return false;
    }

    let (clause_contended, key) = ("notices: contended", suite.key("notices"));
    suite.take(clause, &key, 1, LONG).await;
    let waits = suite.acquire(clause, &key, 2, LONG, IfHeld::Wait).await;
    if let Acquisition::Held { ticket: Some(_), notifies, .. } = waits {
        demand(notifies, clause, format_args!("a holder that listens does not notify: {waits:?}"));
        heard.demand(clause_contended, Notice::Contended { number: 1 }).await;
        suite.release(clause, &key, 1).await;
        heard.demand("notices: granted", Notice::Granted { number: 2 }).await;
        granted(clause, suite.acquire(clause, &key, 2, LONG, IfHeld::KeepWaiting(None)).await);
    } else {
        suite.release(clause, &key, 1).await;
        suite.take(clause, &key, 2, LONG).await;
    }
    if let Some(admin) = store.admin() {
        let released = admin.force_release(&[ForceReleaseRequest::new(Arc::clone(&key))]).await;
        if released.iter().all(Result::is_ok) {
            heard.demand("notices: revoked", Notice::Revoked { number: 2 }).await;
        }
    }
    if let Some(debounce) = store.debounce() {
        let [window, run] = ["debounce", "run"].map(|kind| suite.own_key(kind, "notices"));
        let call = DebounceRequest::new(Arc::clone(&window), run, suite.token(3), LONG, LONG);
        one(clause, debounce.register(&[call])).await;
        let flush = [EndWindowRequest::new(window, WindowEnd::Flush)];
        one(clause, debounce.end_window(&flush)).await;
        heard.demand("notices: flushed", Notice::Flushed { number: 3 }).await;
    }
    true
}
