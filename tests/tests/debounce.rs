//! Debounce: one run for a burst, and every caller knows whether it was its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use lock::{Debounce, Error, ErrorKind, Status};
use tokio::{task::JoinSet, time::Instant};

use crate::common::{Engine, FENCE, ms, on_both_stores};

on_both_stores! {
    a_burst_runs_once_with_the_last_call,
    bursts_of_several_processes_run_once,
    the_wait_counts_from_the_last_call,
    runs_never_overlap,
    max_wait_bounds_a_stream_of_calls,
    a_call_during_a_run_opens_the_next_window,
    a_caller_that_dies_is_replaced_by_another_process,
    a_withdrawn_call_leaves_nothing,
    a_run_keeps_its_lock_beyond_its_lease,
    a_lock_and_a_debounce_of_one_id_are_apart,
}

/// Calls, and says what the call became.
async fn call(debounce: Debounce, number: u32, runs: Arc<AtomicU32>) -> Option<u32> {
    debounce
        .call(|| async {
            runs.fetch_add(1, Ordering::Relaxed);
            number
        })
        .await
        .unwrap()
}

async fn a_burst_runs_once_with_the_last_call(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(200));
    for burst in 0..3 {
        let runs = Arc::new(AtomicU32::new(0));
        let mut calls = JoinSet::new();
        for number in 0..10 {
            calls.spawn(call(debounce.clone(), burst * 10 + number, Arc::clone(&runs)));
            tokio::time::sleep(ms(5)).await;
        }
        let mut outcomes = calls.join_all().await;
        outcomes.retain(Option::is_some);
        assert_eq!(outcomes, [Some(burst * 10 + 9)]);
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }
}

async fn bursts_of_several_processes_run_once(engine: &Engine) {
    let processes = [engine.locks().await, engine.locks().await, engine.locks().await];
    let runs = Arc::new(AtomicU32::new(0));
    let mut calls = JoinSet::new();
    for number in 0..30 {
        let locks = &processes[number as usize % 3];
        calls.spawn(call(locks.debounce("a").wait(ms(300)), number, Arc::clone(&runs)));
        tokio::time::sleep(ms(5)).await;
    }
    let mut outcomes = calls.join_all().await;
    outcomes.retain(Option::is_some);
    assert_eq!(outcomes, [Some(29)]);
}

async fn the_wait_counts_from_the_last_call(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(400));
    let began = Instant::now();
    let first = tokio::spawn({
        let debounce = debounce.clone();
        async move { debounce.call(|| async { Instant::now() }).await.unwrap() }
    });
    tokio::time::sleep(ms(250)).await;
    let ran = debounce.call(|| async { Instant::now() }).await.unwrap().expect("the last call");
    assert!(first.await.unwrap().is_none());
    let after = ran - began;
    assert!(after >= ms(649) && after < ms(1100), "{after:?}");
}

async fn runs_never_overlap(engine: &Engine) {
    let inside = Arc::new(AtomicU32::new(0));
    let runs = Arc::new(AtomicU32::new(0));
    let mut calls = JoinSet::new();
    for process in 0..2 {
        let locks = engine.locks().await;
        let (inside, runs) = (Arc::clone(&inside), Arc::clone(&runs));
        calls.spawn(async move {
            for round in 0..6 {
                tokio::time::sleep(ms(40 + 30 * process + 10 * round)).await;
                let (inside, runs) = (Arc::clone(&inside), Arc::clone(&runs));
                // The run takes much longer than the wait.
                let debounce = locks.debounce("a").wait(ms(30));
                let outcome = debounce.call(|| async move {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two runs at once");
                    tokio::time::sleep(ms(120)).await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    runs.fetch_add(1, Ordering::SeqCst);
                });
                outcome.await.unwrap();
            }
        });
    }
    calls.join_all().await;
    assert!(runs.load(Ordering::SeqCst) >= 3);
}

async fn max_wait_bounds_a_stream_of_calls(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(200)).max_wait(ms(600));
    let runs = Arc::new(AtomicU32::new(0));
    let mut calls = JoinSet::new();
    for number in 0..40 {
        calls.spawn(call(debounce.clone(), number, Arc::clone(&runs)));
        tokio::time::sleep(ms(50)).await;
    }
    let during = runs.load(Ordering::Relaxed);
    assert!((2..=4).contains(&during), "{during} runs in two seconds");
    let last = calls.join_all().await.into_iter().flatten().max();
    assert_eq!(last, Some(39), "and the last call is not lost");
}

async fn a_call_during_a_run_opens_the_next_window(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(100));
    let first = tokio::spawn({
        let debounce = debounce.clone();
        async move { debounce.call(|| tokio::time::sleep(ms(500))).await }
    });
    tokio::time::sleep(ms(250)).await;
    let began = Instant::now();
    let second = debounce.call(|| async { "again" }).await.unwrap();
    assert_eq!(second, Some("again"));
    assert!(first.await.unwrap().unwrap().is_some(), "the first run was left to end");
    assert!(began.elapsed() >= ms(240), "and the second came after it: {:?}", began.elapsed());
}

async fn a_caller_that_dies_is_replaced_by_another_process(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let runs = Arc::new(AtomicU32::new(0));
    let survivor = tokio::spawn(call(one.debounce("a").wait(ms(200)), 1, Arc::clone(&runs)));
    tokio::time::sleep(ms(50)).await;
    let dying = tokio::spawn(call(other.debounce("a").wait(ms(200)), 2, Arc::clone(&runs)));
    tokio::time::sleep(ms(50)).await;
    dying.abort();
    assert_eq!(survivor.await.unwrap(), Some(1));
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

async fn a_withdrawn_call_leaves_nothing(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(50));
    for patience in [0, 1, 10, 40, 60, 80] {
        let call = debounce.call(std::future::pending::<()>);
        assert!(tokio::time::timeout(ms(patience), call).await.is_err());
    }
    locks.flush().await;
    // The next burst is not disturbed by what was withdrawn.
    let ran = tokio::time::timeout(Duration::from_secs(5), debounce.call(|| async { 1 })).await;
    assert_eq!(ran.unwrap().unwrap(), Some(1));
    if let Engine::Redis(server) = engine {
        let keys = server.keys().await;
        let run = keys.iter().find(|(key, ..)| key.contains("~run:"));
        assert!(run.is_none(), "the lock of a run is left: {keys:?}");
        assert!(keys.iter().all(|(key, _, left)| key == FENCE || *left > 0), "{keys:?}");
    }
}

async fn a_run_keeps_its_lock_beyond_its_lease(engine: &Engine) {
    let build = || async { engine.builder().lease(ms(200)).build().await.unwrap() };
    let (one, other) = (build().await, build().await);
    let long = one.debounce("a").wait(ms(20));
    let run = tokio::spawn(async move { long.call(|| tokio::time::sleep(ms(900))).await });
    tokio::time::sleep(ms(100)).await;
    let began = Instant::now();
    other.debounce("a").wait(ms(20)).call(|| async {}).await.unwrap().expect("it runs later");
    assert!(began.elapsed() > ms(700), "after {:?}", began.elapsed());
    assert!(run.await.unwrap().unwrap().is_some());
}

async fn a_lock_and_a_debounce_of_one_id_are_apart(engine: &Engine) {
    let locks = engine.builder().prefix("").build().await.unwrap();
    let guard = locks.lock("a").acquire().await.unwrap();
    let ran = locks.debounce("a").wait(ms(10)).call(|| async { 1 }).await.unwrap();
    assert_eq!(ran, Some(1));
    assert!(guard.is_held());
    assert!(matches!(locks.lock("a").status().await.unwrap(), Status::Held { by_us: true, .. }));
}

#[tokio::test]
async fn the_error_of_a_run_is_its_callers() {
    let locks = lock::Locks::in_memory();
    let debounce = locks.debounce("a").wait(ms(1));
    let outcome: Result<Option<Result<u32, &str>>, Error> =
        debounce.call(|| async { Err("failed") }).await;
    assert_eq!(outcome.unwrap(), Some(Err("failed")));
}

/// Losing the data of a window costs at most one run too few or too many for that window, and
/// here neither: the call that waits runs.
#[tokio::test]
async fn a_wiped_window_still_runs() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let locks = lock::Locks::connect(&server.url()).await.unwrap();
    let debounce = locks.debounce("a").wait(ms(300));
    let waiting = tokio::spawn({
        let debounce = debounce.clone();
        async move { debounce.call(|| async { 1 }).await }
    });
    tokio::time::sleep(ms(100)).await;
    let mut connection = server.connection().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Some(1));
    assert_eq!(debounce.call(|| async { 2 }).await.unwrap(), Some(2), "the next window is right");
}

#[tokio::test]
async fn a_key_of_another_type_is_refused() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let locks = lock::Locks::connect(&server.url()).await.unwrap();
    let mut connection = server.connection().await;
    let _: () = redis::pipe()
        .cmd("SET")
        .arg("lock:~debounce:a")
        .arg("x")
        .arg("PX")
        .arg(60_000)
        .query_async(&mut connection)
        .await
        .unwrap();
    let error = locks.debounce("a").call(|| async {}).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Rejected, Some("a")));
}
