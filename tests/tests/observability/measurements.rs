//! The measurements, and their consistency.

use std::{process::Command, sync::Arc};

use futures_util::poll;
use lock::{
    Locks,
    test_util::{Fault, FaultyStore, Operation},
};
use lock_tests::{RedisServer, eventually, ms};
use tokio::runtime::Builder;

use crate::{
    recorder::{measured, record},
    subscriber::{block_at, listen, told_soon},
};

/// Makes everything that can be measured happen at least once.
pub(crate) async fn everything_happens() {
    listen();
    record();
    let store = FaultyStore::new(lock::store::MemoryStore::new());
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    // Granted, handed over, busy.
    let guard = locks.lock("m").acquire().await.unwrap();
    let waiter = tokio::spawn(locks.lock("m").acquire());
    tokio::task::yield_now().await;
    assert!(locks.lock("m").try_acquire().await.unwrap().is_none());
    drop(guard);
    drop(waiter.await.unwrap().unwrap());
    // Renewed, and lost; the store fails.
    let guard = locks.lock("m").lease(ms(200)).acquire().await.unwrap();
    eventually(ms(10_000), async || measured("lock_renewal_seconds", &[]).1 > 0).await;
    store.go_down();
    eventually(ms(10_000), async || !guard.is_held()).await;
    store.come_back();
    drop(guard);
    store.fail_next(Operation::Acquire, Fault::Rejected, 1);
    assert!(locks.lock("refused").acquire().await.is_err());
    // Debounced and durable calls.
    let burst = locks.debounce("m").wait(ms(20));
    let (first, second) = tokio::join!(burst.call(async || ()), burst.call(async || ()));
    assert!(first.unwrap().is_none() && second.unwrap().is_some());
    let run = async |(): (), _: lock::DurableRun| {};
    let durable = locks.debounce("m").wait(ms(20)).durable("measured", run).unwrap();
    durable.id("d").call(&()).await.unwrap();
    eventually(ms(20_000), async || measured("lock_durable_runs_total", &[]).1 > 0).await;
    // A connection, and another.
    let server = Arc::new(RedisServer::builder().cluster_of_one(false).start());
    let connected = Locks::connect(&server.url()).await.unwrap();
    drop(connected.lock("m").acquire().await.unwrap());
    let restarts = Arc::clone(&server);
    tokio::task::spawn_blocking(move || restarts.restart()).await.unwrap();
    eventually(ms(20_000), async || connected.lock("m").acquire().await.is_ok()).await;
    eventually(ms(20_000), async || measured("lock_reconnects_total", &[]).1 > 0).await;
    // More events than there is room for, while a subscriber blocks.
    let gate = block_at("m full", "in line");
    let full = locks.lock("m full").acquire().await.unwrap();
    let waiter = tokio::spawn(locks.lock("m full").acquire());
    told_soon("m full", "in line").await;
    let crowd: Vec<_> = (0..400).map(|_| tokio::spawn(locks.lock("m full").acquire())).collect();
    tokio::task::yield_now().await;
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
    drop((gate, full));
    drop(waiter.await.unwrap().unwrap());
    eventually(ms(20_000), async || measured("lock_events_left_out_total", &[]).1 > 0).await;
}

/// In a process of its own, because the count of held locks covers the whole process.
#[test]
fn the_numbers_are_those_of_what_happened() {
    const ALONE: &str = "LOCK_TESTS_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let name = "measurements::the_numbers_are_those_of_what_happened";
        alone.args([name, "--exact", "--nocapture"]).env(ALONE, "1");
        assert!(alone.status().unwrap().success());
        return;
    }
    record();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        locks_are_counted().await;
        losses_are_counted().await;
        calls_are_counted().await;
    });
}

const MINE: [(&str, &str); 1] = [("mode", "exclusive")];

fn now(name: &str) -> f64 {
    measured(name, &MINE).0
}

async fn locks_are_counted() {
    let locks = Locks::in_memory();
    let (first, other) = (locks.lock("a").acquire().await.unwrap(), locks.lock("b"));
    let other = other.acquire().await.unwrap();
    assert_eq!((now("lock_held"), now("lock_waiters")), (2.0, 0.0));
    {
        let (mut waits, mut leaves) =
            (Box::pin(locks.lock("a").acquire()), Box::pin(locks.lock("a").acquire()));
        assert!(poll!(waits.as_mut()).is_pending() && poll!(leaves.as_mut()).is_pending());
        assert_eq!(now("lock_waiters"), 2.0);
        drop(leaves);
        assert_eq!(now("lock_waiters"), 1.0);
        drop(first);
        drop(waits.await.unwrap());
    }
    assert!(locks.lock("b").try_acquire().await.unwrap().is_none());
    other.release().await.unwrap();
    let _ = locks.lock("c").acquire().await.unwrap().leak();
    assert_eq!((now("lock_held"), now("lock_waiters")), (0.0, 0.0));
    let acquisitions = |outcome| measured("lock_acquisitions_total", &[("outcome", outcome)]).0;
    assert_eq!(["granted", "busy", "cancelled"].map(acquisitions), [4.0, 1.0, 1.0]);
    assert_eq!(measured("lock_hold_seconds", &MINE).1, 4);
    assert_eq!(measured("lock_wait_seconds", &MINE).1, 6);
    assert_eq!(measured("lock_hand_overs_total", &[]).0, 1.0);
}

/// A lock ends once, whether the loss or the drop comes first.
async fn losses_are_counted() {
    let locks = Locks::in_memory();
    let guard = locks.lock("lost").acquire().await.unwrap();
    assert_eq!(now("lock_held"), 1.0);
    assert!(locks.lock("lost").force_release().await.unwrap());
    eventually(ms(5000), async || now("lock_held") == 0.0).await;
    drop(guard);
    locks.flush().await;
    assert_eq!(now("lock_held"), 0.0);
    let forced = measured("lock_lost_total", &[("reason", "forced")]);
    assert_eq!(forced.0, 1.0);
    assert_eq!(measured("lock_hold_seconds", &MINE).1, 5);
}

async fn calls_are_counted() {
    let locks = Locks::in_memory();
    let burst = locks.debounce("burst").wait(ms(50));
    let calls =
        tokio::join!(burst.call(async || ()), burst.call(async || ()), burst.call(async || ()),);
    assert!(calls.2.unwrap().is_some());
    assert_eq!(measured("lock_debounce_runs_total", &[]).0, 1.0);
    assert_eq!(measured("lock_debounce_superseded_total", &[]).0, 2.0);
    assert_eq!(measured("lock_held", &[]).0, 0.0);
    let run = async |(): (), _: lock::DurableRun| {};
    let durable = locks.debounce("any").wait(ms(3_600_000)).durable("backlog", run).unwrap();
    for id in ["one", "two", "three"] {
        durable.id(id).call(&()).await.unwrap();
    }
    eventually(ms(20_000), async || {
        let (backlog, _) = measured("lock_durable_backlog", &[("function", "backlog")]);
        if backlog == 3.0 { Ok(()) } else { Err(backlog) }
    })
    .await;
}
