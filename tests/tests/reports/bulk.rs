//! Very many requests at once from one client: all succeed, and a lock that is held meanwhile is
//! kept.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use lock::{Error, LockGuard, Locks};
use lock_tests::{Direction, Proxy, RedisServer, eventually};
use tokio::task::JoinSet;

use crate::common::ms;

/// How many ids at once.
const IDS: usize = 60_000;

/// A server, and a client that holds a lock with a lease of a second.
struct Beside {
    server: RedisServer,
    locks: Locks,
    held: LockGuard,
}

impl Beside {
    async fn start() -> Self {
        let server = RedisServer::start();
        let locks = Locks::connect(&server.locks_url()).await.unwrap();
        let held = locks.lock("held beside").lease(ms(1000)).acquire().await.unwrap();
        Self { server, locks, held }
    }

    /// Does one thing for each id, all at once.
    async fn all<F, T>(&self, what: &str, one: impl Fn(&Locks, String) -> F) -> Vec<T>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
        T: Send + 'static,
    {
        let mut calls = JoinSet::new();
        let began = Instant::now();
        for number in 0..IDS {
            calls.spawn(one(&self.locks, format!("id{number}")));
        }
        let mut done = Vec::with_capacity(IDS);
        while let Some(outcome) = calls.join_next().await {
            done.push(outcome.unwrap().unwrap_or_else(|error| {
                panic!("{what}: {error} ({:?} after the beginning)", began.elapsed())
            }));
        }
        let took = began.elapsed();
        let rate = IDS as f64 / took.as_secs_f64();
        println!("{what}: {IDS} at once, 0 failures, {took:.1?}, {rate:.0} a second");
        assert!(self.held.is_held(), "{what}: a lease of a second was lost beside it");
        done
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_extensions_and_forced_releases_at_once_all_succeed() {
    let beside = Beside::start().await;
    let guards = beside
        .all("acquire", |locks, id| {
            let acquire = locks.lock(id).lease(ms(60_000)).acquire();
            async move { acquire.await.map(Arc::new) }
        })
        .await;
    let guards: std::collections::HashMap<_, _> =
        guards.into_iter().map(|guard| (guard.id().to_owned(), guard)).collect();
    beside
        .all("status", |locks, id| {
            let lock = locks.lock(id);
            async move { lock.status().await }
        })
        .await;
    beside
        .all("extend", |_, id| {
            let guard = Arc::clone(&guards[&id]);
            async move { guard.extend(ms(1000)).await }
        })
        .await;
    let freed = beside
        .all("force_release", |locks, id| {
            let lock = locks.lock(id);
            async move { lock.force_release().await }
        })
        .await;
    assert!(freed.into_iter().all(|freed| freed), "each of them was held");
    drop(guards);
    beside.locks.flush().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn debounced_ids_at_once_all_run() {
    let beside = Beside::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let ran = beside
        .all("debounce", |locks, id| {
            let runs = Arc::clone(&runs);
            locks.debounce(id).wait(ms(1000)).call(move || async move {
                runs.fetch_add(1, Ordering::Relaxed);
            })
        })
        .await;
    assert!(ran.into_iter().all(|ran| ran.is_some()));
    assert_eq!(runs.load(Ordering::Relaxed), IDS);
    let ended = beside
        .all("cancel", |locks, id| {
            let debounce = locks.debounce(id);
            async move { debounce.cancel().await }
        })
        .await;
    assert!(ended.into_iter().all(|waited| !waited), "all have run");
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_calls_at_once_all_are_kept_and_run() {
    let beside = Beside::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let durable = beside
        .locks
        .debounce("any")
        .wait(ms(500))
        .durable("count", move |_: u64, _| {
            count.fetch_add(1, Ordering::Relaxed);
            async {}
        })
        .unwrap();
    beside
        .all("durable call", |_, id| {
            let durable = durable.id(id);
            async move { durable.call(&7).await }
        })
        .await;
    let began = Instant::now();
    eventually(ms(120_000), async || {
        let runs = runs.load(Ordering::Relaxed);
        if runs >= IDS { Ok(()) } else { Err(runs) }
    })
    .await;
    let rate = IDS as f64 / began.elapsed().as_secs_f64();
    println!("durable runs: {IDS} within {:.1?}, {rate:.0} a second", began.elapsed());
    assert!(beside.held.is_held());
    drop(beside.server);
}

/// The store was silent once, for earlier requests: that is no reason to give up the ones that wait
/// now.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_fails_no_more_than_was_on_its_way() {
    let server = RedisServer::builder().cluster_of_one(false).start();
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    proxy.refuse_connections();
    proxy.reset_connections();
    assert!(locks.lock("a").status().await.is_err(), "the store is away");
    proxy.heal();
    eventually(ms(5000), async || locks.lock("a").acquire().await.is_ok()).await;
    tokio::time::sleep(ms(2000)).await;
    proxy.delay(Direction::Both, ms(100));
    let mut calls = JoinSet::new();
    for number in 0..6000 {
        let lock = locks.lock(format!("id{number}"));
        calls.spawn(async move { lock.status().await.is_ok() });
    }
    tokio::time::sleep(ms(150)).await;
    proxy.reset_connections();
    let failed = calls.join_all().await.into_iter().filter(|served| !served).count();
    assert!(failed <= 1000, "{failed} of 6,000 failed");
}

/// Scripts that the server has forgotten cost a batch one extra round trip, not one for each item.
#[tokio::test(flavor = "multi_thread")]
async fn forgotten_scripts_cost_a_batch_one_round_trip() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let mut connection = server.connection().await;
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
    proxy.delay(Direction::Both, ms(150));
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for number in 0..100 {
        let lock = locks.lock(format!("id{number}"));
        calls.spawn(async move { lock.status().await.map(drop) });
    }
    for outcome in calls.join_all().await {
        outcome.unwrap();
    }
    // The first call is sent alone, and the others after it.
    assert!(began.elapsed() < ms(3000), "{:?}", began.elapsed());
}
