//! A process that stalls in the middle of a turn, because it or its host was stopped.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says what it expected")]

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Waker},
    thread::{self, ThreadId},
    time::Duration,
};

use lock_core::{
    Moment,
    contract::{
        AcquireRequest, Acquisition, DebounceReply, DebounceRequest, EndWindowRequest, Release,
        ReleaseRequest, RenewRequest, Renewal,
    },
    engine::io::{Terms, WindowTerms},
};

use super::Client;
use crate::{
    clock::Clock,
    events::Events,
    id::{Named, Prefix},
    introduction::Introduction,
    store::{Answers, DebounceStore, Store},
};

/// How long it stalls.
const STALL: Duration = Duration::from_secs(2);

/// At how many readings of the clock a stall is tried, at least: a turn begins with one of them.
const READINGS: i64 = 6;

/// A clock that a test moves, and that stalls the keeper's thread at one of its readings.
#[derive(Debug)]
struct Stalling {
    nanos: AtomicU64,
    /// How many readings by the keeper are left until then.
    left: AtomicI64,
    test: ThreadId,
    stalled: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Clock for Stalling {
    fn now(&self) -> Moment {
        let now = self.nanos.load(Ordering::SeqCst);
        let is_keeper = thread::current().id() != self.test;
        if is_keeper && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = self.stalled.send(());
            let _ = self.go_on.lock().unwrap().recv();
        }
        Moment::from_nanos(now)
    }
}

/// Records the windows of the calls that it is asked about, and how old the calls are.
#[derive(Default)]
struct Ages(Mutex<Vec<(Arc<str>, Duration)>>);

impl Store for Ages {
    fn acquire<'a>(&'a self, _: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        unreachable!("nobody wants a lock")
    }

    fn renew<'a>(&'a self, _: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        unreachable!("nobody has a lock")
    }

    fn release<'a>(&'a self, _: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        unreachable!("nobody has a lock")
    }

    fn debounce(&self) -> Option<&dyn DebounceStore> {
        Some(self)
    }
}

impl DebounceStore for Ages {
    fn register<'a>(&'a self, batch: &'a [DebounceRequest]) -> Answers<'a, DebounceReply> {
        let ages = batch.iter().map(|request| (Arc::clone(&request.window), request.age));
        self.0.lock().unwrap().extend(ages);
        let answers = batch.iter().map(|_| Ok(DebounceReply::Superseded)).collect();
        Box::pin(std::future::ready(answers))
    }

    fn end_window<'a>(&'a self, _: &'a [EndWindowRequest]) -> Answers<'a, bool> {
        unreachable!("nobody ends a window")
    }
}

/// A call that is reported as older than it is would be covered by a run that came before it, and
/// nothing would run for it.
#[tokio::test]
async fn a_call_that_is_made_after_a_stall_is_not_dated_before_it() {
    let key = |what: &str| Named { id: what.into(), key: what.into() };
    let terms = || {
        let wait = Duration::from_millis(10);
        let window = WindowTerms { wait, max_wait: None, leading: true };
        (window, Terms::of_run(Duration::from_secs(10), None))
    };
    let mut stalls = 0;
    for reading in 1..=READINGS {
        let ((stalled, stalls_now), (go_on, goes_on)) = (channel(), channel());
        let clock = Arc::new(Stalling {
            nanos: AtomicU64::new(1_000_000_000),
            left: AtomicI64::new(0),
            test: thread::current().id(),
            stalled,
            go_on: Mutex::new(goes_on),
        });
        let ages = Arc::new(Ages::default());
        let (client, started) = Client::on_own_thread(
            Arc::clone(&clock) as _,
            Arc::clone(&ages) as _,
            (Introduction::unnamed(Prefix::default()), Events::default()),
            || async { Ok(()) },
        )
        .unwrap();
        client.call((key("first"), key("first run")), terms()).await.unwrap();
        drop(started);

        clock.left.store(reading, Ordering::SeqCst);
        let mut wakes = pin!(client.call((key("wakes"), key("wakes run")), terms()));
        let mut context = Context::from_waker(Waker::noop());
        let _ = wakes.as_mut().poll(&mut context);
        let stalls_here = stalls_now.recv_timeout(Duration::from_millis(500)).is_ok();
        stalls += i64::from(stalls_here);
        clock.nanos.fetch_add(STALL.as_nanos() as u64, Ordering::SeqCst);
        let mut later = pin!(client.call((key("later"), key("later run")), terms()));
        let _ = later.as_mut().poll(&mut context);
        drop(go_on);
        later.await.unwrap();

        let ages = ages.0.lock().unwrap();
        let (_, age) = ages.iter().find(|(window, _)| &**window == "later").unwrap();
        assert!(*age < STALL, "{age:?} old, if it stalls at reading {reading}");
    }
    assert!(stalls > 2, "the keeper read its clock only {stalls} times");
}
