//! Faults that a hostile review has found, each with the interleaving that showed it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use lock::{
    ErrorKind, Locks, Status,
    store::{
        AcquireRequest, Acquisition, AdminStore, Answers, DebounceStore, ExtendRequest,
        ForceReleaseRequest, Holder, MemoryStore, Release, ReleaseRequest, RenewRequest, Renewal,
        Store,
    },
};
use lock_tests::{Direction, Proxy, RedisServer, eventually};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::common::{Engine, WatchedServer, ms, on_both_stores};

on_both_stores! {
    what_was_dropped_is_free_in_a_turn_with_many_calls,
    the_last_call_of_a_large_burst_runs,
    what_was_dropped_is_free_for_a_question,
    a_lock_is_adopted_once,
    a_new_grant_ends_the_old_guard,
    a_guard_that_nobody_received_is_not_kept,
    the_next_in_line_is_woken_when_the_first_gives_up,
    a_newer_call_keeps_its_turn_during_a_long_run,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs on a thread of its own, so that a hang becomes a failure.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(limit).expect("it hangs")
}

/// More calls than tokio's budget for a poll were started in no particular order.
async fn what_was_dropped_is_free_in_a_turn_with_many_calls(engine: &Engine) {
    let locks = engine.locks().await;
    for _ in 0..20 {
        let guard = locks.lock("a").acquire().await.unwrap();
        let mut questions: Vec<_> = (0..400)
            .map(|number| {
                let lock = locks.lock(format!("b{number}"));
                Box::pin(async move { lock.status().await })
            })
            .collect();
        for question in &mut questions {
            let _ = poll_once(question.as_mut());
        }
        drop(guard);
        assert!(locks.lock("a").try_acquire().await.unwrap().is_some());
        locks.flush().await;
    }
}

async fn the_last_call_of_a_large_burst_runs(engine: &Engine) {
    let locks = engine.locks().await;
    for size in [10, 150, 1000] {
        let calls = (0..size).map(|number| {
            let debounce = locks.debounce(format!("a{size}")).wait(ms(300));
            async move { debounce.call(|| async move { number }).await.unwrap() }
        });
        let ran: Vec<_> =
            futures_util::future::join_all(calls).await.into_iter().flatten().collect();
        assert_eq!(ran, [size - 1]);
    }
}

async fn what_was_dropped_is_free_for_a_question(engine: &Engine) {
    let locks = engine.locks().await;
    for _ in 0..50 {
        drop(locks.lock("a").acquire().await.unwrap());
        assert_eq!(locks.lock("a").status().await.unwrap(), Status::Free);
        drop(locks.lock("a").acquire().await.unwrap());
        assert!(!locks.lock("a").force_release().await.unwrap());
    }
}

/// A token that is delivered twice must not make two holders.
async fn a_lock_is_adopted_once(engine: &Engine) {
    let processes = [engine.locks().await, engine.locks().await, engine.locks().await];
    let token = processes[0].lock("a").acquire().await.unwrap().leak();
    let adopted = processes[1].lock("a").adopt(token.clone()).await.unwrap();
    let again = processes[2].lock("a").adopt(token).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Lost);
    assert!(adopted.is_held());
    let by_us = async |locks: &Locks| match locks.lock("a").status().await.unwrap() {
        Status::Held { by_us, .. } => by_us,
        _ => panic!("it is held"),
    };
    assert!(!by_us(&processes[0]).await && by_us(&processes[1]).await);
}

async fn a_new_grant_ends_the_old_guard(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    let old = locks.lock("a").acquire().await.unwrap();
    assert!(other.lock("a").force_release().await.unwrap());
    let new = locks.lock("a").acquire().await.unwrap();
    assert!(new.is_held() && !old.is_held(), "two guards of one lock are believed");
}

/// `hold_at_least` only applies to a guard that has reached its caller.
async fn a_guard_that_nobody_received_is_not_kept(engine: &Engine) {
    let locks = engine.locks().await;
    let lock = locks.lock("a").hold_at_least(Duration::from_secs(3600));
    for pause in [0, 5, 50] {
        let mut acquire = Box::pin(lock.acquire());
        let received = poll_once(acquire.as_mut()).is_ready();
        if received {
            // The memory store answers at once: this one has reached its caller.
            return;
        }
        tokio::time::sleep(ms(pause)).await;
        drop(acquire);
        locks.flush().await;
        assert_eq!(lock.status().await.unwrap(), Status::Free, "dropped after {pause} ms");
    }
}

async fn the_next_in_line_is_woken_when_the_first_gives_up(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    let guard = other.lock("a").acquire().await.unwrap();
    let wait = |wait| {
        let lock = locks.lock("a").wait(wait);
        tokio::spawn(async move { lock.acquire().await })
    };
    let (first, second) = (wait(ms(200)), wait(Duration::from_secs(60)));
    assert_eq!(first.await.unwrap().unwrap_err().kind(), ErrorKind::Busy);
    guard.release().await.unwrap();
    let second = tokio::time::timeout(Duration::from_secs(2), second).await;
    assert!(second.unwrap().unwrap().unwrap().is_held());
}

/// Two calls wait for a run that outlasts their window: only the newer one runs.
async fn a_newer_call_keeps_its_turn_during_a_long_run(engine: &Engine) {
    let build = || async { engine.builder().lease(ms(300)).build().await.unwrap() };
    let (runner, one, other) = (build().await, build().await, build().await);
    let runs = Arc::new(AtomicU32::new(0));
    let mut bursts = JoinSet::new();
    for burst in 0..8 {
        let (runner, one, other) = (runner.clone(), one.clone(), other.clone());
        let runs = Arc::clone(&runs);
        bursts.spawn(async move {
            let debounce = |locks: &Locks| locks.debounce(format!("a{burst}")).wait(ms(100));
            let (long, older, newer) = (debounce(&runner), debounce(&one), debounce(&other));
            let count = || {
                let runs = Arc::clone(&runs);
                async move { runs.fetch_add(1, Ordering::SeqCst) }
            };
            let long = long.call(|| tokio::time::sleep(ms(2500 + 16 * burst)));
            let older = async {
                tokio::time::sleep(ms(300)).await;
                older.call(count).await
            };
            let newer = async {
                tokio::time::sleep(ms(350)).await;
                newer.call(count).await
            };
            let (long, older, newer) = tokio::join!(long, older, newer);
            assert!(long.unwrap().is_some());
            assert!(older.unwrap().is_none() && newer.unwrap().is_some(), "the newer one runs");
        });
    }
    bursts.join_all().await;
    assert_eq!(runs.load(Ordering::SeqCst), 8);
}

/// A store that answers and panics on command.
#[derive(Clone)]
struct Told {
    inner: MemoryStore,
    answers: Arc<Semaphore>,
    panics: Arc<AtomicBool>,
}

impl Told {
    fn new(answers: usize) -> Self {
        let answers = Arc::new(Semaphore::new(answers));
        Self { inner: MemoryStore::new(), answers, panics: Arc::default() }
    }
}

impl Store for Told {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        Box::pin(async move {
            assert!(!self.panics.load(Ordering::SeqCst), "a bug in a store");
            let answer = self.inner.acquire(batch).await;
            self.answers.acquire().await.unwrap().forget();
            answer
        })
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        self.inner.renew(batch)
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        Box::pin(async move {
            tokio::time::sleep(ms(100)).await;
            self.inner.release(batch).await
        })
    }

    fn admin(&self) -> Option<&dyn AdminStore> {
        Some(self)
    }

    fn debounce(&self) -> Option<&dyn DebounceStore> {
        Some(&self.inner)
    }
}

impl AdminStore for Told {
    fn extend<'a>(&'a self, batch: &'a [ExtendRequest]) -> Answers<'a, Option<Duration>> {
        self.inner.extend(batch)
    }

    fn holder<'a>(&'a self, batch: &'a [Arc<str>]) -> Answers<'a, Option<Holder>> {
        Box::pin(async move {
            // Keeps the keeper busy, so that messages queue up.
            thread::sleep(ms(100));
            self.inner.holder(batch).await
        })
    }

    fn force_release<'a>(&'a self, batch: &'a [ForceReleaseRequest]) -> Answers<'a, Release> {
        self.inner.force_release(batch)
    }
}

/// An answer and a withdrawal wait for the keeper together, followed by a flush.
#[tokio::test]
async fn a_flush_waits_for_what_is_withdrawn_while_it_is_granted() {
    let store = Told::new(0);
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    let lock = locks.lock("a");
    let mut acquire = Box::pin(lock.acquire());
    assert!(poll_once(acquire.as_mut()).is_pending());
    thread::sleep(ms(50));
    let other = locks.lock("b");
    let mut question = Box::pin(other.status());
    assert!(poll_once(question.as_mut()).is_pending());
    thread::sleep(ms(20));
    store.answers.add_permits(1);
    drop(acquire);
    locks.flush().await;
    let holder = store.inner.holder(&["lock:a".into()]).await.remove(0);
    assert!(holder.unwrap().is_none());
}

/// A store that panics only costs the call in which it panics: neither held locks nor later calls.
#[tokio::test]
async fn a_store_that_panics_costs_the_call_that_it_panics_in() {
    let store = Told::new(10);
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    // Long enough for the panic hook, which writes a backtrace on the keeper's thread.
    let guard = locks.lock("a").lease(ms(5000)).acquire().await.unwrap();
    store.panics.store(true, Ordering::SeqCst);
    let error = locks.lock("b").acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let source = std::error::Error::source(&error).expect("what has happened");
    assert!(source.to_string().contains("panicked"), "{source}");
    assert!(guard.is_held(), "it was renewed meanwhile");
    store.panics.store(false, Ordering::SeqCst);
    let next = locks.lock("b").acquire().await.unwrap();
    assert!(guard.is_held() && next.is_held());
    drop((guard, next));
    locks.flush().await;
}

// Embedded stores and the runtimes of their callers.

#[test]
fn a_runtime_that_stands_still_does_not_hold_up_another() {
    let still = runtime();
    let locks = Locks::in_memory();
    drop(still.block_on(locks.lock("a").acquire()).unwrap());
    let held = within(Duration::from_secs(10), move || {
        runtime().block_on(async {
            let guard = locks.lock("a").lease(ms(300)).acquire().await.unwrap();
            tokio::time::sleep(ms(900)).await;
            guard.is_held()
        })
    });
    assert!(held, "renewed on its own runtime");
    drop(still);
}

#[test]
fn a_runtime_that_ends_does_not_cost_the_locks_of_another() {
    let first = runtime();
    let locks = Locks::in_memory();
    drop(first.block_on(locks.lock("a").acquire()).unwrap());
    let (told, tell) = mpsc::channel();
    let second = thread::spawn(move || {
        runtime().block_on(async {
            let guard = locks.lock("a").lease(ms(300)).acquire().await.unwrap();
            let waiting = tokio::spawn({
                let lock = locks.lock("a");
                async move { lock.acquire().await }
            });
            told.send(()).unwrap();
            tokio::time::sleep(ms(900)).await;
            assert!(guard.is_held() && !waiting.is_finished());
            drop(guard);
            assert!(waiting.await.unwrap().unwrap().is_held());
        });
    });
    tell.recv().unwrap();
    drop(first);
    second.join().unwrap();
}

#[test]
fn a_guard_of_an_embedded_store_is_released_outside_a_runtime() {
    let locks = Locks::in_memory();
    let first = runtime();
    let (one, other) = first.block_on(async {
        (locks.lock("a").acquire().await.unwrap(), locks.lock("b").acquire().await.unwrap())
    });
    drop(first);
    drop(one);
    let mut release = std::pin::pin!(other.release());
    assert!(matches!(poll_once(release.as_mut()), Poll::Ready(Ok(()))));
    runtime().block_on(async {
        assert_eq!(locks.lock("a").status().await.unwrap(), Status::Free);
        assert_eq!(locks.lock("b").status().await.unwrap(), Status::Free);
    });
}

#[test]
fn a_runtime_without_timers_is_refused() {
    let error = within(Duration::from_secs(10), || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Locks::in_memory().lock("a").acquire()).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("enable_time"), "{error}");
}

// Redis, and the connection to it.

#[tokio::test]
async fn what_was_dropped_is_free_after_a_broken_connection() {
    let server = WatchedServer::start(RedisServer::builder());
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    for _ in 0..20 {
        let guard = locks.lock("a").acquire().await.unwrap();
        proxy.reset_connections();
        drop(guard);
        assert!(locks.lock("a").try_acquire().await.unwrap().is_some());
        locks.flush().await;
    }
}

/// The first try took the lock and its reply was lost; the second was refused.
#[tokio::test]
async fn a_refusal_after_a_lost_reply_leaves_nothing() {
    let server = WatchedServer::start(RedisServer::builder().cluster_of_one(false));
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let mut connection = server.connection().await;
    proxy.hold(Direction::ToClient);
    let lock = locks.lock("a").lease(Duration::from_secs(60));
    let acquire = tokio::spawn(async move { lock.acquire().await.map(drop) });
    eventually(Duration::from_secs(5), || async {
        server.keys().await.iter().any(|(key, ..)| key == "lock:a")
    })
    .await;
    let memory =
        |limit: &str| redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit).to_owned();
    let _: () = memory("1mb").query_async(&mut connection).await.unwrap();
    proxy.reset_connections();
    proxy.heal();
    let _ = acquire.await.unwrap();
    locks.flush().await;
    let left: i64 = redis::cmd("PTTL").arg("lock:a").query_async(&mut connection).await.unwrap();
    assert!(left < 0, "held for another {left} ms");
    let _: () = memory("0").query_async(&mut connection).await.unwrap();
}

/// A lease of a few round trips is enough: a slow link is not a broken one.
#[tokio::test]
async fn a_short_lease_is_renewed_over_a_slow_link() {
    let server = WatchedServer::start(RedisServer::builder().cluster_of_one(false));
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    proxy.delay(Direction::Both, ms(50));
    let connections = proxy.connections_accepted();
    let guard = locks.lock("a").lease(ms(900)).acquire().await.unwrap();
    tokio::time::sleep(ms(3000)).await;
    assert!(guard.is_held());
    assert_eq!(proxy.connections_accepted(), connections, "the connection was left alone");
}

/// A lease that is too short for the link only costs its own lock, and not those that are renewed
/// at the same time.
#[tokio::test]
async fn short_leases_do_not_cost_long_ones_over_a_slow_link() {
    let server = WatchedServer::start(RedisServer::builder());
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    proxy.delay(Direction::ToClient, ms(120));
    let long = locks.lock("long").lease(ms(1500)).acquire().await.unwrap();
    let mut short = JoinSet::new();
    for number in 0..100 {
        let lock = locks.lock(format!("short:{number}")).lease(ms(300));
        short.spawn(async move {
            // Not all at the same time.
            tokio::time::sleep(ms(9 * number)).await;
            loop {
                if let Ok(guard) = lock.acquire().await {
                    guard.lost().await;
                }
            }
        });
    }
    tokio::select! {
        () = long.lost() => panic!("lost with the others"),
        () = tokio::time::sleep(ms(5000)) => {}
    }
    short.shutdown().await;
    assert!(long.is_held());
}

/// A silent store is not a busy lock.
#[tokio::test]
async fn silence_is_not_reported_as_busy() {
    let server = WatchedServer::start(RedisServer::builder());
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    server.stop_process();
    let first = tokio::spawn({
        let lock = locks.lock("a");
        async move { lock.acquire().await.map(drop) }
    });
    tokio::time::sleep(ms(50)).await;
    let error = locks.lock("a").wait(ms(500)).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    server.continue_process();
    // Whether the server is back in time for the first caller depends on the machine.
    let _ = first.await.unwrap();
}

/// The last clone is dropped during a cut: the release is tried for as long as any other.
#[tokio::test]
async fn a_release_outlives_the_last_client() {
    let server = WatchedServer::start(RedisServer::builder());
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let guard = locks.lock("a").lease(Duration::from_secs(60)).acquire().await.unwrap();
    proxy.black_hole(Direction::Both);
    drop((guard, locks));
    tokio::time::sleep(ms(3500)).await;
    proxy.heal();
    eventually(Duration::from_secs(10), || async {
        let keys = server.keys().await;
        if keys.iter().any(|(key, ..)| key == "lock:a") { Err(keys) } else { Ok(()) }
    })
    .await;
}

/// The claim was granted, its answer came after the run's lock had expired, and the second claim
/// was told that a newer call had run.
#[tokio::test]
async fn a_claim_whose_answer_is_late_still_runs() {
    let server = WatchedServer::start(RedisServer::builder());
    let proxy = Proxy::start(server.port());
    let locks = Locks::builder().url(proxy.url()).lease(ms(300)).build().await.unwrap();
    let debounce = locks.debounce("a").wait(ms(300));
    let call = tokio::spawn(async move { debounce.call(|| async { "ran" }).await });
    tokio::time::sleep(ms(150)).await;
    proxy.hold(Direction::ToClient);
    tokio::time::sleep(ms(700)).await;
    proxy.heal();
    assert_eq!(call.await.unwrap().unwrap(), Some("ran"));
}

/// Errors in which the server repeats the command must not contain the token.
#[tokio::test]
async fn a_server_without_scripts_is_named_without_the_token() {
    let server = RedisServer::builder().flag("--rename-command", "EVALSHA").flags([""]).start();
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let error = locks.lock("a").acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("EVALSHA"), "{error}");
    let client = format!("{locks:?}").split('"').nth(1).unwrap().to_owned();
    assert!(client.len() == 32 && !format!("{error:?}").contains(&client), "{error:?}");
}

/// Every registration used to search through all debounced ids.
#[tokio::test]
async fn many_debounced_ids_do_not_cost_held_locks() {
    const IDS: u32 = 30_000;
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    // A lease of ten seconds: a renewal waits behind the registrations, which take less than that
    // even on a busy machine, but would take longer with the searches.
    let guard = locks.lock("a").acquire().await.unwrap();
    let calls: Vec<_> = (0..IDS)
        .map(|number| {
            let debounce = locks.debounce(format!("d{number}")).wait(Duration::from_secs(600));
            tokio::spawn(async move { debounce.call(|| async {}).await.unwrap_err().kind() })
        })
        .collect();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        assert!(guard.is_held(), "after {:?}", began.elapsed());
        tokio::time::sleep(ms(50)).await;
    }
    // A busy server does not answer all of them in time.
    let mut gave_up = 0;
    for call in calls {
        if call.is_finished() {
            assert_eq!(call.await.unwrap(), ErrorKind::Unavailable);
            gave_up += 1;
        } else {
            call.abort();
        }
    }
    assert!(gave_up < IDS / 4 * 3, "{gave_up} gave up, and the others are few");
}
