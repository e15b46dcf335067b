//! The line inside one process: order, hand-over without a command, cancellation.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lock::{Locks, Status};
use lock_tests::{RedisServer, eventually};
use tokio::task::JoinSet;

use crate::common::{Engine, WatchedServer, may_stay, ms, on_both_stores};

on_both_stores!(
    callers_are_served_in_order_with_growing_tokens,
    another_client_gets_its_turn_after_the_current_holder,
    leases_of_different_length_wait_in_one_line,
    a_bounded_hold_is_passed_on_and_bounds_only_itself,
    a_released_guard_knows_nothing_of_its_successor,
);

async fn callers_are_served_in_order_with_growing_tokens(engine: &Engine) {
    let locks = engine.locks().await;
    let guard = locks.lock("a").acquire().await.unwrap();
    // Polled once from one task, so that their order is known.
    let mut waiting = Vec::new();
    for _ in 0..2500 {
        let mut acquire = Box::pin(locks.lock("a").acquire());
        assert!(futures_util::poll!(acquire.as_mut()).is_pending());
        waiting.push(acquire);
    }
    let mut last = guard.fencing_token();
    drop(guard);
    for acquire in waiting {
        let guard = acquire.await.unwrap();
        assert!(guard.fencing_token() > last, "in order, and beyond the tokens of one grant");
        last = guard.fencing_token();
    }
}

async fn another_client_gets_its_turn_after_the_current_holder(engine: &Engine) {
    another_client_gets_its_turn(engine, 0).await;
}

/// The same with `lost` dead waiters already in the queue.
pub(crate) async fn another_client_gets_its_turn(engine: &Engine, lost: usize) {
    let (crowd, other) = (engine.locks().await, engine.locks().await);
    let guard = crowd.lock("a").acquire().await.unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..300 {
        let (lock, served) = (crowd.lock("a"), Arc::clone(&served));
        tasks.spawn(async move {
            let _guard = lock.acquire().await.unwrap();
            served.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        });
    }
    until_waiting(&crowd, lost + 300).await;
    let turn = tokio::spawn(other.lock("a").acquire());
    until_waiting(&crowd, lost + 301).await;
    drop(guard);
    let turn = turn.await.unwrap().unwrap();
    let before = served.load(Ordering::SeqCst);
    assert!(before <= 2, "{before} of the crowd were served before");
    drop(turn);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

async fn leases_of_different_length_wait_in_one_line(engine: &Engine) {
    let locks = engine.locks().await;
    let guard = locks.lock("a").lease(ms(10_000)).acquire().await.unwrap();
    let mut waiting = Vec::new();
    for lease in [60_000, 1000, 10_000, 500, 500, 30_000] {
        let mut acquire = Box::pin(locks.lock("a").lease(ms(lease)).acquire());
        assert!(futures_util::poll!(acquire.as_mut()).is_pending());
        waiting.push((lease, acquire));
    }
    let mut last = guard.fencing_token();
    drop(guard);
    for (lease, acquire) in waiting {
        let guard = acquire.await.unwrap();
        assert!(guard.fencing_token() > last);
        last = guard.fencing_token();
        // A hold begins with at least half of its lease, and a crash would leave the lock held for
        // no longer than its lease.
        assert!((ms(lease) / 2 - ms(50)..=ms(lease)).contains(&guard.remaining()), "{guard:?}");
        let Status::Held { remaining, .. } = locks.lock("a").status().await.unwrap() else {
            panic!("it is held")
        };
        assert!(remaining <= ms(lease) + ms(lease) / 50, "{remaining:?} of {lease}");
    }
}

async fn a_bounded_hold_is_passed_on_and_bounds_only_itself(engine: &Engine) {
    let locks = engine.locks().await;
    let bounded = locks.lock("a").lease(ms(400)).hold_at_most(ms(600));
    let guard = bounded.acquire().await.unwrap();
    let next = tokio::spawn(locks.lock("a").lease(ms(400)).acquire());
    let last = tokio::spawn(bounded.acquire());
    until_waiting(&locks, 2).await;
    drop(guard);
    let next = next.await.unwrap().unwrap();
    tokio::time::sleep(ms(1000)).await;
    assert!(next.is_held(), "the previous hold's bound is not its own");
    drop(next);
    let last = last.await.unwrap().unwrap();
    let began = tokio::time::Instant::now();
    last.lost().await;
    assert!((ms(300)..ms(1500)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

async fn a_released_guard_knows_nothing_of_its_successor(engine: &Engine) {
    let locks = engine.locks().await;
    let guard = locks.lock("a").acquire().await.unwrap();
    let (lost, token) = (guard.lost(), guard.lost_token());
    let waiter = tokio::spawn(locks.lock("a").acquire());
    until_waiting(&locks, 1).await;
    guard.release().await.unwrap();
    let next = waiter.await.unwrap().unwrap();
    assert!(locks.lock("a").force_release().await.unwrap());
    next.lost().await;
    // A released lock is not lost, whatever happens to later holders.
    assert!(!token.is_cancelled());
    let mut lost = Box::pin(lost);
    assert!(futures_util::poll!(lost.as_mut()).is_pending());
}

async fn until_waiting(locks: &Locks, count: usize) {
    eventually(ms(10_000), async || match locks.lock("a").status().await.unwrap() {
        Status::Held { waiters, .. } if waiters == count => Ok(()),
        other => Err(other),
    })
    .await;
}

/// A hundred thousand acquisitions of one id cost the server only an occasional renewal, and a new
/// fence for each thousand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tasks_pass_the_lock_on_without_a_command() {
    const TASKS: u64 = 1000;
    const EACH: u64 = 100;
    let server = WatchedServer::start(RedisServer::builder());
    let locks = Engine::locks_of(&server).await;
    let last = Arc::new(AtomicU64::new(0));
    let before = server.commands().await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (lock, last) = (locks.lock("a").wait(ms(60_000)), Arc::clone(&last));
        tasks.spawn(async move {
            for _ in 0..EACH {
                let guard = lock.acquire().await.unwrap();
                let token = guard.fencing_token();
                assert!(last.swap(token, Ordering::SeqCst) < token, "in order, one at a time");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    locks.flush().await;
    let commands = server.commands().await.minus(&before).calls("evalsha");
    println!("{commands} commands for {} acquisitions", TASKS * EACH);
    // One for each thousand, and one for each time that the line was empty: at its beginning and
    // its end.
    assert!(commands <= TASKS * EACH / 1000 + 20, "{commands} commands");
}

/// Gives up waits at random moments, among others that are not given up.
async fn cancelled_at_random(clients: Vec<Locks>, waits: u64, ids: u64) {
    const TASKS: u64 = 100;
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let (held, cancelled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let clients = clients.clone();
        let (held, cancelled) = (Arc::clone(&held), Arc::clone(&cancelled));
        let mut random = Random(seed ^ (task << 32));
        tasks.spawn(async move {
            for _ in 0..waits / TASKS {
                let locks = &clients[random.below(clients.len() as u64) as usize];
                let id = format!("id-{}", random.below(ids));
                let lock = locks.lock(&*id).wait(ms(60_000));
                // One in ten never gives up, and must get the lock.
                let outcome = if random.below(10) == 0 {
                    Some(lock.acquire().await.unwrap())
                } else {
                    // Early, in the middle, and when the lock has probably been granted.
                    let polls = [3, 40, 2000][random.below(3) as usize];
                    given_up_after(random.below(polls), lock.acquire()).await
                };
                let counter = if outcome.is_some() { &held } else { &cancelled };
                counter.fetch_add(1, Ordering::Relaxed);
                // Held for a while, so that the others have to wait.
                for _ in 0..random.below(4) {
                    tokio::task::yield_now().await;
                }
                drop(outcome);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let (held, cancelled) = (held.load(Ordering::Relaxed), cancelled.load(Ordering::Relaxed));
    println!("{held} held, {cancelled} cancelled");
    // A tenth never give up; how many of the others get the lock depends on the speed of the
    // machine and its server.
    assert!(held > waits / 11 && cancelled > waits / 8, "both kinds: {held}, {cancelled}");
    for locks in &clients {
        locks.flush().await;
    }
    for locks in &clients {
        for id in 0..ids {
            let lock = locks.lock(format!("id-{id}"));
            let guard = lock.try_acquire().await.unwrap();
            guard.expect("free at once: nothing is left").release().await.unwrap();
        }
    }
}

/// The output of a future, unless it takes more than this many polls on a busy runtime.
async fn given_up_after<T, E: std::fmt::Debug>(
    polls: u64,
    future: impl Future<Output = Result<T, E>>,
) -> Option<T> {
    let mut future = std::pin::pin!(future);
    for _ in 0..=polls {
        if let std::task::Poll::Ready(output) = futures_util::poll!(future.as_mut()) {
            return Some(output.unwrap());
        }
        tokio::task::yield_now().await;
    }
    None
}

/// SplitMix64: the same sequence for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % bound
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_waits_given_up_at_random_leave_nothing() {
    let server = WatchedServer::start(RedisServer::builder());
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Engine::locks_of(&server).await);
    }
    cancelled_at_random(clients.clone(), 100_000, 8).await;
    let left: Vec<_> =
        server.keys().await.into_iter().filter(|(key, _, _)| !may_stay(key)).collect();
    assert!(left.is_empty(), "{left:?}");
    // A client's channel ends with it.
    let connection = server.connection().await;
    let count = async || {
        let channels: Vec<String> = redis::cmd("PUBSUB")
            .arg("CHANNELS")
            .arg("~wake:*")
            .query_async(&mut connection.clone())
            .await
            .unwrap();
        channels.len()
    };
    assert_eq!(count().await, 4);
    clients.clear();
    eventually(ms(5000), async || {
        let channels = count().await;
        if channels == 0 { Ok(()) } else { Err(channels) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_waits_given_up_at_random_leave_nothing_in_memory() {
    let store = lock::store::MemoryStore::new();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Locks::builder().store(store.clone()).build().await.unwrap());
    }
    cancelled_at_random(clients, 100_000, 8).await;
    let shown = format!("{store:?}");
    assert!(shown.contains("locks: 0"), "{shown}");
}

/// A caller that gives up while the lock is on its way to it does not keep the lock from the next
/// one.
#[tokio::test]
async fn a_crowd_that_is_dropped_in_one_moment_stops_nobody() {
    let server = WatchedServer::start(RedisServer::builder());
    let locks = Engine::locks_of(&server).await;
    let guard = locks.lock("a").acquire().await.unwrap();
    let mut crowd = JoinSet::new();
    for _ in 0..5000 {
        crowd.spawn(locks.lock("a").acquire());
    }
    until_waiting(&locks, 5000).await;
    let last = tokio::spawn(locks.lock("a").wait(ms(20_000)).acquire());
    until_waiting(&locks, 5001).await;
    drop(guard);
    crowd.shutdown().await;
    let guard = tokio::time::timeout(Duration::from_secs(10), last).await.unwrap();
    assert!(guard.unwrap().unwrap().is_held());
}
