//! Waiting for a lock, giving up, and being cancelled in the middle of it.

use std::{sync::Arc, time::Duration};

use lock::{ErrorKind, Locks, Status};
use lock_tests::{Direction, Proxy, eventually};
use tokio::{sync::Mutex, task::JoinSet, time::Instant};

use crate::common::{Engine, may_stay, ms, on_both_stores};

on_both_stores! {
    waits_until_the_holder_lets_go,
    gives_up_when_the_wait_is_over,
    retries_as_often_as_it_is_told,
    callers_of_one_process_are_served_in_their_order,
    one_at_a_time_under_contention,
    a_holder_that_vanishes_is_succeeded_after_its_lease,
    futures_dropped_before_they_are_polled_leave_nothing,
    a_waiter_that_goes_away_leaves_its_place,
}

async fn waits_until_the_holder_lets_go(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let guard = one.lock("a").lease(ms(300)).acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = other.lock("a");
        async move { lock.acquire().await }
    });
    tokio::time::sleep(ms(800)).await;
    assert!(!waiting.is_finished());
    let first = guard.fencing_token();
    guard.release().await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    assert!(second.fencing_token() > first);
}

async fn gives_up_when_the_wait_is_over(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let _guard = one.lock("a").acquire().await.unwrap();
    for locks in [&one, &other] {
        let began = Instant::now();
        let error = locks.lock("a").wait(ms(400)).acquire().await.unwrap_err();
        assert_eq!((error.kind(), error.id()), (ErrorKind::Busy, Some("a")));
        let waited = began.elapsed();
        assert!(waited >= ms(400) && waited < ms(900), "{waited:?}");
    }
    let error = other.lock("a").wait(Duration::ZERO).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
}

async fn retries_as_often_as_it_is_told(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let guard = one.lock("a").acquire().await.unwrap();
    let began = Instant::now();
    let lock = other.lock("a").retry(3, ms(400));
    assert_eq!(lock.acquire().await.unwrap_err().kind(), ErrorKind::Busy);
    let took = began.elapsed();
    assert!(took >= ms(800) && took < ms(1200), "two pauses and none at the end: {took:?}");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(ms(50)).await;
    drop(guard);
    assert!(waiting.await.unwrap().is_ok());
}

async fn callers_of_one_process_are_served_in_their_order(engine: &Engine) {
    let locks = engine.locks().await;
    let guard = locks.lock("a").acquire().await.unwrap();
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        let (lock, served) = (locks.lock("a"), Arc::clone(&served));
        tasks.spawn(async move {
            let guard = lock.acquire().await.unwrap();
            served.lock().await.push((number, guard.fencing_token()));
        });
        tokio::task::yield_now().await;
    }
    drop(guard);
    tasks.join_all().await;
    let served = served.lock().await;
    assert!(served.is_sorted() && served.is_sorted_by_key(|(_, token)| *token), "{served:?}");
}

async fn one_at_a_time_under_contention(engine: &Engine) {
    let inside = Arc::new(Mutex::new(0_u64));
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let locks = engine.locks().await;
        for _ in 0..5 {
            let (locks, inside) = (locks.clone(), Arc::clone(&inside));
            tasks.spawn(async move {
                for _ in 0..4 {
                    let guard = locks.lock("a").wait(ms(60_000)).acquire().await.unwrap();
                    let mut last = inside.try_lock().expect("no other body is inside");
                    assert!(guard.fencing_token() > *last);
                    *last = guard.fencing_token();
                    tokio::time::sleep(ms(1)).await;
                }
            });
        }
    }
    tasks.join_all().await;
}

async fn a_holder_that_vanishes_is_succeeded_after_its_lease(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let began = Instant::now();
    let token = one.lock("a").lease(ms(500)).acquire().await.unwrap().leak();
    let next = other.lock("a").wait(ms(5000)).acquire().await.unwrap();
    let waited = began.elapsed();
    assert!(waited >= ms(495) && waited < ms(1000), "{waited:?}");
    assert!(one.lock("a").adopt(token).await.is_err() && next.is_held());
}

async fn futures_dropped_before_they_are_polled_leave_nothing(engine: &Engine) {
    let locks = engine.locks().await;
    for _ in 0..100 {
        drop(locks.lock("a").acquire());
        let mut once = Box::pin(async { locks.lock("a").acquire().await });
        // Pending, or ready with a guard that is never taken out: the memory store answers at once.
        let polled = futures_util::poll!(&mut once);
        drop((polled, once));
    }
    locks.flush().await;
    assert_eq!(locks.lock("a").status().await.unwrap(), Status::Free);
}

async fn a_waiter_that_goes_away_leaves_its_place(engine: &Engine) {
    let locks = engine.locks().await;
    let guard = locks.lock("a").acquire().await.unwrap();
    let wait = |locks: &Locks| {
        let lock = locks.lock("a");
        tokio::spawn(async move { lock.acquire().await })
    };
    let (first, second, third) = (wait(&locks), wait(&locks), wait(&locks));
    tokio::time::sleep(ms(50)).await;
    first.abort();
    second.abort();
    tokio::time::sleep(ms(50)).await;
    let Status::Held { waiters, .. } = locks.lock("a").status().await.unwrap() else {
        panic!("it is held")
    };
    assert_eq!(waiters, 1);
    drop(guard);
    assert!(third.await.unwrap().is_ok());
}

/// Inside a process, a release passes the lock to the next caller without a pause.
#[tokio::test(start_paused = true)]
async fn a_release_wakes_the_next_caller_at_once() {
    let locks = Locks::in_memory();
    let began = Instant::now();
    let guard = locks.lock("a").acquire().await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..5 {
        let lock = locks.lock("a");
        tasks.spawn(async move {
            let _guard = lock.acquire().await.unwrap();
            tokio::time::sleep(ms(300)).await;
        });
    }
    tokio::time::sleep(ms(300)).await;
    drop(guard);
    tasks.join_all().await;
    // Timers of a paused clock fire to the millisecond.
    assert!(began.elapsed() <= ms(300 * 6 + 6), "{:?}", began.elapsed());
}

/// Any executor will do: a Redis store needs nothing from its callers' runtime.
#[test]
fn a_redis_store_serves_callers_without_a_runtime() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let url = server.url();
    let outcome = futures_util::FutureExt::now_or_never(async {});
    assert_eq!(outcome, Some(()));
    let (locks, guard) = block_on(async move {
        let locks = Locks::connect(&url).await.unwrap();
        let guard = locks.lock("a").acquire().await.unwrap();
        (locks, guard)
    });
    drop(guard);
    block_on(locks.flush());
    assert_eq!(block_on(locks.lock("a").status()).unwrap(), Status::Free);
}

/// An executor that does not know tokio.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        let poll = future.as_mut().poll(&mut std::task::Context::from_waker(&waker));
        match poll {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn an_embedded_store_says_that_it_needs_a_runtime() {
    let error = block_on(Locks::in_memory().lock("a").acquire()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("runtime"), "{error}");
}

/// An embedded store survives the runtimes of its callers: each test of a crate has its own.
#[test]
fn an_embedded_store_moves_from_runtime_to_runtime() {
    let locks = Locks::in_memory();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let kept = first.block_on(locks.lock("kept").lease(ms(400)).acquire()).unwrap();
    let dropped = first.block_on(locks.lock("dropped").acquire()).unwrap();
    drop(first);
    drop(dropped);
    let second = runtime();
    second.block_on(async {
        assert!(locks.lock("dropped").try_acquire().await.unwrap().is_some());
        tokio::time::sleep(ms(900)).await;
        assert!(kept.is_held(), "renewed on the second runtime");
        assert!(locks.lock("kept").try_acquire().await.unwrap().is_none());
    });
}

/// A runtime that is gone cannot serve callers, and the error says so instead of a hang.
#[test]
fn an_embedded_store_reports_a_runtime_that_was_shut_down() {
    let locks = Locks::in_memory();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    runtime.shutdown_timeout(Duration::from_secs(5));
    let _inside = handle.enter();
    let error = block_on(locks.lock("a").acquire()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(_inside);
    let next = tokio::runtime::Runtime::new().unwrap();
    assert!(next.block_on(locks.lock("a").acquire()).is_ok());
}

/// Guarantee 4: 10,000 acquires, each dropped at a random moment, with replies that are late by a
/// random time. Two round trips later, no key is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancelled_acquires_leave_no_key() {
    const ACQUIRES: u64 = 10_000;
    const AT_ONCE: u64 = 250;
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let proxy = Proxy::start(server.port());
    proxy.delay_between(Direction::Both, ms(0)..=ms(4), 7);
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let (mut granted, mut cancelled) = (0, 0);
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..ACQUIRES / AT_ONCE {
        let mut tasks = JoinSet::new();
        for number in 0..AT_ONCE {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // The drops range from before the request is sent to after its reply has come. A fifth
            // of the acquires use a few shared ids, where a wait may be dropped.
            let patience = Duration::from_micros(random % 16_000);
            let id = if number % 5 == 0 { random % 10 } else { round * AT_ONCE + number };
            let lock = locks.lock(format!("a{id}"));
            tasks.spawn(async move {
                let acquired = tokio::time::timeout(patience, lock.acquire()).await;
                acquired.map(|outcome| drop(outcome.unwrap())).is_ok()
            });
        }
        for granted_one in tasks.join_all().await {
            if granted_one { granted += 1 } else { cancelled += 1 }
        }
    }
    // Two round trips on the same connection: the first answer comes after those of the attempts
    // that were on their way, the second after the resulting releases.
    for _ in 0..2 {
        locks.lock("round trip").status().await.unwrap();
    }
    let left: Vec<_> = server.keys().await.into_iter().filter(|(key, ..)| !may_stay(key)).collect();
    let late = left.len();
    eventually(ms(500), || async {
        let keys = server.keys().await.into_iter().filter(|(key, ..)| !may_stay(key));
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() { Ok(()) } else { Err(keys) }
    })
    .await;
    println!("{granted} granted, {cancelled} cancelled, {late} keys left after two round trips");
    assert!(granted > 500 && cancelled > 500, "{granted} granted, {cancelled} cancelled");
    assert_eq!(late, 0, "{left:?}");
    assert!(proxy.replies_seen() > 300, "{} replies: too quiet", proxy.replies_seen());
}
