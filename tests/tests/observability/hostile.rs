//! A faulty subscriber or recorder loses the event that it was given, and no lock.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use lock::{
    Locks,
    test_util::{FaultyStore, Operation},
};
use lock_tests::{eventually, ms};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Recorder, SharedString, Unit};
use tokio::runtime::Builder;
use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};

use crate::{
    recorder::{measured, record},
    subscriber::{block_at, listen, told_soon, told_where},
};

/// A subscriber and a recorder that panic in every method.
struct Panics;

fn bug() -> ! {
    panic!("a bug in a subscriber, or in a recorder")
}

impl Subscriber for Panics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "lock"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        bug()
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {
        bug()
    }

    fn event(&self, _: &Event<'_>) {
        bug()
    }

    fn enter(&self, _: &Id) {
        bug()
    }

    fn exit(&self, _: &Id) {
        bug()
    }

    fn try_close(&self, _: Id) -> bool {
        bug()
    }
}

impl Recorder for Panics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        bug()
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        bug()
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        bug()
    }

    fn register_counter(&self, _: &Key, _: &metrics::Metadata<'_>) -> Counter {
        bug()
    }

    fn register_gauge(&self, _: &Key, _: &metrics::Metadata<'_>) -> Gauge {
        bug()
    }

    fn register_histogram(&self, _: &Key, _: &metrics::Metadata<'_>) -> Histogram {
        bug()
    }
}

async fn everything(locks: &Locks) {
    let guard = locks.lock("hostile").acquire().await.unwrap();
    assert!(locks.lock("hostile").try_acquire().await.unwrap().is_none());
    assert!(locks.lock("hostile").wait(ms(10)).acquire().await.is_err());
    drop(guard);
    assert_eq!(locks.lock("hostile").with(|_| async { 7 }).await.unwrap(), 7);
    locks.lock("hostile").acquire().await.unwrap().release().await.unwrap();
    let _ = locks.lock("hostile leaked").acquire().await.unwrap().leak();
    let _lost = locks.lock("hostile").acquire().await.unwrap();
    assert!(locks.lock("hostile").force_release().await.unwrap());
}

#[test]
fn panics_of_a_subscriber_and_a_recorder_cost_what_they_were_told() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let told = || {
        metrics::with_local_recorder(&Panics, || {
            runtime.block_on(async {
                let locks = Locks::in_memory();
                everything(&locks).await;
                // A drop while the stack unwinds: a second panic would end the process.
                let unwinds = locks.lock("hostile").with(|_| async { panic!("of the body") });
                assert!(AssertUnwindSafe(unwinds).catch_unwind().await.is_err());
                locks.flush().await;
                assert!(locks.lock("hostile").try_acquire().await.unwrap().is_some());
            });
        });
    };
    tracing::subscriber::with_default(Panics, told);
}

/// Uses the process's subscriber, because events of the keeper go to no other.
#[tokio::test]
async fn a_subscriber_that_blocks_stops_no_keeper_and_what_is_left_out_is_counted() {
    listen();
    record();
    let store = FaultyStore::new(lock::store::MemoryStore::new());
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    let kept = locks.lock("kept").lease(ms(300)).acquire().await.unwrap();
    let gate = block_at("blocks", "in line");
    let first = locks.lock("blocks").acquire().await.unwrap();
    let second = tokio::spawn(locks.lock("blocks").acquire());
    told_soon("blocks", "in line").await;
    // Far more events than there is room for, while none is passed on.
    let holder = locks.lock("crowded").acquire().await.unwrap();
    let crowd: Vec<_> = (0..400).map(|_| tokio::spawn(locks.lock("crowded").acquire())).collect();
    tokio::task::yield_now().await;
    let renewals = store.calls(Operation::Renew);
    eventually(ms(20_000), async || store.calls(Operation::Renew) > renewals + 5).await;
    assert!(kept.is_held(), "it was renewed for more than its lease");
    drop((holder, first));
    for waiter in crowd {
        drop(waiter.await.unwrap().unwrap());
    }
    drop(second.await.unwrap().unwrap());
    drop(gate);
    let left_out = told_where("left out", |_| true).await;
    assert_eq!(left_out.level, Level::WARN);
    let number: u64 = left_out.field("left_out").parse().unwrap();
    assert!((200..400).contains(&number), "{number}");
    eventually(ms(5000), async || measured("lock_events_left_out_total", &[]).0 >= 200.0).await;
}
