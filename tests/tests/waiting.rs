//! Waiting between processes: order, dead waiters, lost notices, and costs.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use lock::{ErrorKind, Lock, Locks, Status};
use lock_tests::{Proxy, RedisServer, Worker, eventually};

use crate::common::{Engine, WatchedServer, introduced, may_stay, ms, on_both_stores};

/// What a busy machine may add to a bound that the library keeps.
const NOISE: Duration = Duration::from_millis(150);

fn worker(url: &str) -> Worker {
    let mut worker = Worker::start(env!("CARGO_BIN_EXE_worker"));
    worker.tell(&format!("connect {url}"));
    worker.expect("ready");
    worker
}

/// The number of waiters; `None` if the connection was cut at that very moment.
async fn waiters(lock: &Lock) -> Option<usize> {
    match lock.status().await {
        Ok(Status::Held { waiters, .. }) => Some(waiters),
        Ok(_) => Some(0),
        Err(error) if error.kind() == ErrorKind::Unavailable => None,
        Err(error) => panic!("{error}"),
    }
}

/// Waits until this many callers are in line, in this process and in the store.
async fn until_waiting(lock: &Lock, count: usize) {
    eventually(ms(5000), async || {
        let waiting = waiters(lock).await;
        if waiting == Some(count) { Ok(()) } else { Err(waiting) }
    })
    .await;
}

async fn keys(server: &RedisServer) -> Vec<String> {
    let keys = server.keys().await.into_iter().map(|(key, _, _)| key);
    keys.filter(|key| !may_stay(key)).collect()
}

on_both_stores!(
    a_release_hands_over_in_the_order_of_arrival,
    the_next_caller_takes_the_place_of_one_that_leaves,
    a_forced_release_hands_over_and_is_told_to_the_holder,
    waiters_are_counted,
    a_lock_that_is_kept_is_waited_for,
    single_attempts_and_polling_do_not_queue,
    busy_comes_at_the_deadline,
);

async fn a_release_hands_over_in_the_order_of_arrival(engine: &Engine) {
    let guard = engine.locks().await.lock("a").acquire().await.unwrap();
    let mut last = guard.fencing_token();
    let status = engine.locks().await.lock("a");
    let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..8 {
        let (lock, order) = (engine.locks().await.lock("a"), order.clone());
        tokio::spawn(async move { order.send((number, lock.acquire().await)) });
        until_waiting(&status, number + 1).await;
    }
    drop(guard);
    for number in 0..8 {
        let (next, guard) = served.recv().await.unwrap();
        let guard = guard.unwrap();
        assert_eq!(next, number, "in the order in which they came");
        assert!(guard.fencing_token() > last && guard.is_held());
        last = guard.fencing_token();
        let lock = engine.locks().await.lock("a");
        assert!(lock.try_acquire().await.unwrap().is_none(), "one at a time");
    }
}

/// The entry in the store's queue belongs to the process, not to the caller that it was made for.
async fn the_next_caller_takes_the_place_of_one_that_leaves(engine: &Engine) {
    let guard = engine.locks().await.lock("a").acquire().await.unwrap();
    let (one, other) = (engine.locks().await, engine.locks().await);
    let first = tokio::spawn(one.lock("a").acquire());
    until_waiting(&one.lock("a"), 1).await;
    let second = tokio::spawn(one.lock("a").acquire());
    until_waiting(&one.lock("a"), 2).await;
    let elsewhere = tokio::spawn(other.lock("a").acquire());
    until_waiting(&one.lock("a"), 3).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    until_waiting(&one.lock("a"), 2).await;
    drop(guard);
    let guard = second.await.unwrap().unwrap();
    assert!(!elsewhere.is_finished(), "its place was behind");
    drop(guard);
    drop(elsewhere.await.unwrap().unwrap());
}

async fn a_forced_release_hands_over_and_is_told_to_the_holder(engine: &Engine) {
    let guard = engine.locks().await.lock("a").lease(ms(30_000)).acquire().await.unwrap();
    let (waiting, admin) = (engine.locks().await, engine.locks().await);
    let waiter = tokio::spawn(waiting.lock("a").acquire());
    until_waiting(&admin.lock("a"), 1).await;
    let began = tokio::time::Instant::now();
    assert!(admin.lock("a").force_release().await.unwrap());
    guard.lost().await;
    let next = waiter.await.unwrap().unwrap();
    // On its own, the holder would only learn of it after a third of the lease.
    assert!(began.elapsed() < ms(5000), "{:?}", began.elapsed());
    assert!(!guard.is_held() && next.is_held());
    assert!(next.fencing_token() > guard.fencing_token());
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(admin.lock("a").try_acquire().await.unwrap().is_none(), "the next one still holds it");
}

async fn waiters_are_counted(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let guard = one.lock("a").acquire().await.unwrap();
    assert_eq!(waiters(&one.lock("a")).await, Some(0));
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        waiting.spawn(other.lock("a").acquire());
    }
    // A client counts each of its own callers, and those of each other client as one.
    until_waiting(&other.lock("a"), 3).await;
    until_waiting(&one.lock("a"), 1).await;
    waiting.spawn(one.lock("a").acquire());
    until_waiting(&one.lock("a"), 2).await;
    waiting.shutdown().await;
    until_waiting(&one.lock("a"), 0).await;
    drop(guard);
}

/// `hold_at_least`: the waiter knows when that time is over, although the lease may be longer.
async fn a_lock_that_is_kept_is_waited_for(engine: &Engine) {
    let lock = engine.locks().await.lock("a").hold_at_least(ms(700)).lease(ms(60_000));
    let (began, guard) = (tokio::time::Instant::now(), lock.acquire().await.unwrap());
    let other = engine.locks().await;
    let waiter = tokio::spawn(other.lock("a").acquire());
    until_waiting(&lock, 1).await;
    // Also by a caller of the same process, which does not get a lock that has to be kept.
    let mine = tokio::spawn(lock.clone().hold_at_least(ms(0)).acquire());
    drop(guard);
    let next = waiter.await.unwrap().unwrap();
    assert!((ms(700)..ms(5000)).contains(&began.elapsed()), "{:?}", began.elapsed());
    drop(next);
    drop(mine.await.unwrap().unwrap());
}

async fn single_attempts_and_polling_do_not_queue(engine: &Engine) {
    let guard = engine.locks().await.lock("a").acquire().await.unwrap();
    let locks = engine.locks().await;
    let zero = locks.lock("a").wait(Duration::ZERO).acquire().await.unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::Busy);
    let mut attempts = Box::pin(locks.lock("a").retry(3, ms(50)).acquire());
    assert!(futures_util::poll!(attempts.as_mut()).is_pending());
    assert_eq!(waiters(&locks.lock("a")).await, Some(0));
    assert_eq!(attempts.await.unwrap_err().kind(), ErrorKind::Busy);
    drop(guard);
}

async fn busy_comes_at_the_deadline(engine: &Engine) {
    let guard = engine.locks().await.lock("a").acquire().await.unwrap();
    let locks = engine.locks().await;
    let began = tokio::time::Instant::now();
    // The second one is behind the first, but gets its own answer in time.
    let first = tokio::spawn(locks.lock("a").wait(ms(400)).acquire());
    let second = tokio::spawn(locks.lock("a").wait(ms(300)).acquire());
    assert_eq!(second.await.unwrap().unwrap_err().kind(), ErrorKind::Busy);
    assert!((ms(300)..ms(310) + NOISE).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(first.await.unwrap().unwrap_err().kind(), ErrorKind::Busy);
    assert!((ms(400)..ms(410) + NOISE).contains(&began.elapsed()), "{:?}", began.elapsed());
    drop(guard);
}

/// Checks the order by the server's append-only file, exclusion by the machine's clock, and the
/// number of messages and commands.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_waiters_in_twenty_processes_are_served_in_order() {
    const PROCESSES: usize = 20;
    const ACQUISITIONS: usize = 2000;
    let server =
        WatchedServer::start(RedisServer::builder().cluster_of_one(false).append_only(true));
    let mut workers: Vec<_> = (0..PROCESSES).map(|_| worker(&server.locks_url())).collect();
    let client = redis::Client::open(server.url()).unwrap();
    let mut wakes = client.get_async_pubsub().await.unwrap();
    wakes.psubscribe("~wake:*").await.unwrap();
    let before = server.commands().await;

    for worker in &mut workers {
        worker.tell("crowd a 10 10 1 60000");
    }
    let sections = tokio::task::spawn_blocking(move || {
        let mut sections = Vec::new();
        for worker in &workers {
            loop {
                let words = worker.hear();
                if words[0] == "done" {
                    break;
                }
                let numbers: Vec<u64> = words[1..].iter().map(|w| w.parse().unwrap()).collect();
                sections.push((numbers[0], numbers[1], numbers[2]));
            }
        }
        sections
    });
    let mut sections = sections.await.unwrap();
    let after = server.commands().await;
    let mut connection = server.connection().await;
    let _: () = redis::cmd("PUBLISH")
        .arg("~wake:end")
        .arg("end")
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut granted = 0;
    let mut messages = wakes.on_message();
    loop {
        let message = messages.next().await.unwrap().get_payload::<String>().unwrap();
        if message == "end" {
            break;
        }
        granted += usize::from(message.starts_with("granted"));
    }

    assert_eq!(sections.len(), ACQUISITIONS);
    sections.sort_unstable();
    for pair in sections.windows(2) {
        let ((token, _, end), (next_token, start, _)) = (pair[0], pair[1]);
        assert!(token < next_token, "no token twice");
        assert!(end <= start, "two at once, or a later one with a smaller token: {pair:?}");
    }
    let handed_over = check_order(&server, "lock:a");
    println!("{handed_over} handed over by the store, {granted} woken");
    assert!(handed_over > ACQUISITIONS / 2, "{handed_over}");
    assert!(granted as f64 <= 1.05 * handed_over as f64, "{granted} woken for {handed_over}");
    // The release, the claim, and the next caller's place: there are no looks in between.
    let calls = after.minus(&before).calls("evalsha");
    println!("{calls} commands");
    assert!(calls <= 3 * ACQUISITIONS as u64 + 200, "{calls} commands");
    eventually(ms(2000), async || {
        let left = keys(&server).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// Reads the server's append-only file, and checks that the lock always went to the first in the
/// queue. Returns how often it went to a waiter.
fn check_order(server: &RedisServer, key: &str) -> usize {
    let text = String::from_utf8(fs::read(server.append_only_file()).unwrap()).unwrap();
    let mut lines = text.split("\r\n");
    let queue = format!("~queue:{key}");
    let mut waiting: BTreeMap<u64, String> = BTreeMap::new();
    // Removed from the queue as the first, and about to get the lock.
    let mut first: Option<String> = None;
    let mut holder: Option<String> = None;
    let mut handed_over = 0;
    while let Some(count) = lines.next().and_then(|line| line.strip_prefix('*')) {
        let count = count.parse().unwrap();
        let words: Vec<&str> = (0..count).map(|_| lines.nth(1).unwrap()).collect();
        match words[..] {
            ["ZADD", of, place, token, ..] if of == queue => {
                waiting.retain(|_, waiter| waiter != token);
                waiting.insert(place.parse().unwrap(), token.to_owned());
            }
            ["ZREM", of, ref members @ ..] if of == queue => {
                for member in members.iter().filter(|member| !member.starts_with(['@', '?'])) {
                    let is_first = waiting.first_key_value().is_some_and(|(_, t)| t == member);
                    waiting.retain(|_, waiter| waiter != member);
                    first = is_first.then(|| (*member).to_owned());
                }
            }
            ["SET", of, token, ..] if of == key && holder.as_deref() != Some(token) => {
                if first.as_deref() == Some(token) {
                    handed_over += 1;
                } else {
                    assert!(waiting.is_empty(), "{token} passed {waiting:?}");
                }
                holder = Some(token.to_owned());
            }
            ["DEL", of] if of == key => holder = None,
            _ => {}
        }
    }
    assert!(waiting.is_empty(), "still waiting: {waiting:?}");
    handed_over
}

/// A dead process is passed over at once: the server knows that its connection is gone. A stopped
/// one gets a reservation, and does not lose its place for good.
#[tokio::test(flavor = "multi_thread")]
async fn the_dead_and_the_stopped_delay_the_next_one_by_the_claim_window_at_most() {
    for kill in [true, false] {
        let server = WatchedServer::start(RedisServer::builder());
        let locks = Engine::locks_of(&server).await;
        let guard = locks.lock("a").acquire().await.unwrap();
        let (mut head, mut next) = (worker(&server.locks_url()), worker(&server.locks_url()));
        head.tell("wait a 10000 60000");
        until_waiting(&locks.lock("a"), 1).await;
        next.tell("wait a 10000 60000");
        until_waiting(&locks.lock("a"), 2).await;
        if kill {
            head.kill();
        } else {
            head.stop();
        }
        let released = Instant::now();
        drop(guard);
        next.expect("waiting");
        let next = tokio::task::spawn_blocking(move || {
            next.expect("held");
            (next, released.elapsed())
        });
        let (mut next, delay) = next.await.unwrap();
        println!("killed: {kill}, delay: {delay:?}");
        assert!(delay <= ms(1100) + NOISE, "killed: {kill}, delay: {delay:?}");
        if !kill {
            assert!(delay >= ms(900), "it had no time to claim: {delay:?}");
            head.go_on();
            next.tell("release");
            head.expect("waiting");
            tokio::task::spawn_blocking(move || head.expect("held")).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_holder_that_dies_is_had_when_its_lease_is_over() {
    const LEASE: Duration = Duration::from_millis(1500);
    let server = WatchedServer::start(RedisServer::builder());
    let locks = Engine::locks_of(&server).await;
    for _ in 0..3 {
        let mut holder = worker(&server.locks_url());
        holder.tell(&format!("hold a {}", LEASE.as_millis()));
        holder.expect("waiting");
        holder.expect("held");
        let waiter = tokio::spawn(locks.lock("a").wait(ms(20_000)).acquire());
        until_waiting(&locks.lock("a"), 1).await;
        holder.kill();
        let killed = Instant::now();
        let guard = waiter.await.unwrap().unwrap();
        assert!(killed.elapsed() <= LEASE + ms(250) + NOISE, "{:?}", killed.elapsed());
        guard.release().await.unwrap();
    }
}

/// All notices are lost, or every second one: it takes longer, but no caller hangs.
#[tokio::test(flavor = "multi_thread")]
async fn lost_wake_ups_cost_no_more_than_the_holders_remaining_time() {
    const LEASE: Duration = Duration::from_millis(1000);
    for every in [1, 2] {
        let server = WatchedServer::start(RedisServer::builder());
        let proxy = Proxy::start(server.port());
        let (near, far) =
            (Engine::locks_of(&server).await, Locks::connect(&proxy.url()).await.unwrap());
        proxy.drop_messages(every);
        for round in 0..4 {
            let guard = near.lock("a").lease(LEASE).acquire().await.unwrap();
            let waiter = tokio::spawn(far.lock("a").lease(LEASE).acquire());
            until_waiting(&near.lock("a"), 1).await;
            let released = Instant::now();
            guard.release().await.unwrap();
            let held = waiter.await.unwrap().unwrap();
            let bound = LEASE + NOISE;
            let delay = released.elapsed();
            assert!(delay <= bound, "every {every}, round {round}: {delay:?}");
            // The holder is not told of the waiter either: its own callers go on until it learns of
            // it at a renewal.
            let mut crowd = tokio::task::JoinSet::new();
            for _ in 0..4 {
                crowd.spawn(far.lock("a").lease(LEASE).acquire());
            }
            let waiter = tokio::spawn(near.lock("a").lease(LEASE).acquire());
            until_waiting(&near.lock("a"), 1).await;
            let released = Instant::now();
            drop(held);
            while !waiter.is_finished() {
                tokio::select! {
                    Some(next) = crowd.join_next() => drop(next.unwrap().unwrap()),
                    () = finished(&waiter) => {}
                }
            }
            waiter.await.unwrap().unwrap().release().await.unwrap();
            assert!(released.elapsed() <= 3 * bound, "{:?}", released.elapsed());
            crowd.shutdown().await;
            far.flush().await;
        }
    }
}

async fn finished<T>(task: &tokio::task::JoinHandle<T>) {
    eventually(ms(20_000), async || task.is_finished()).await;
}

/// Where the server does not push, a second connection listens; where that is refused, waiters
/// poll.
#[tokio::test(flavor = "multi_thread")]
async fn without_pushes_there_is_pub_sub_and_without_that_polling() {
    for (flags, delivery, bound) in [
        (&["--rename-command", "HELLO", ""][..], "pub/sub", ms(900)),
        (&["--rename-command", "SUBSCRIBE", ""][..], "polling", ms(900)),
        (
            &["--rename-command", "SUBSCRIBE", "", "--rename-command", "HELLO", ""][..],
            "polling",
            ms(900),
        ),
    ] {
        let server = WatchedServer::start(RedisServer::builder().flags(flags.iter().copied()));
        let (one, other) = (Engine::locks_of(&server).await, Engine::locks_of(&server).await);
        let shown = format!("{one:?}");
        assert!(shown.contains(&format!("delivery: \"{delivery}\"")), "{shown}");
        for _ in 0..5 {
            let guard = one.lock("a").acquire().await.unwrap();
            let waiter = tokio::spawn(other.lock("a").acquire());
            until_waiting(&one.lock("a"), 1).await;
            let released = Instant::now();
            guard.release().await.unwrap();
            waiter.await.unwrap().unwrap().release().await.unwrap();
            assert!(released.elapsed() < bound, "{delivery}: {:?}", released.elapsed());
        }
        drop((one, other));
    }
}

/// A waiter whose connections are cut keeps its place, which counts again once it listens. A waiter
/// whose place was lost takes another; several that do so at the same time come in any order.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_and_lost_data_lose_no_place() {
    for keeps_order in [true, false] {
        let server = WatchedServer::start(RedisServer::builder());
        let holder = Engine::locks_of(&server).await;
        let guard = holder.lock("a").lease(ms(3000)).acquire().await.unwrap();
        let (one, other) = (Engine::locks_of(&server).await, Engine::locks_of(&server).await);
        let first = tokio::spawn(one.lock("a").wait(ms(20_000)).acquire());
        until_waiting(&holder.lock("a"), 1).await;
        let second = tokio::spawn(other.lock("a").wait(ms(20_000)).acquire());
        until_waiting(&holder.lock("a"), 2).await;
        let mut admin = server.connection().await;
        if keeps_order {
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("SKIPME").arg("yes");
            let _: redis::Value = kill.query_async(&mut admin).await.unwrap();
            // A hand-over skips waiters that do not listen, so all three clients have to be back.
            eventually(ms(5000), async || {
                let mut channels = redis::cmd("PUBSUB");
                channels.arg("CHANNELS");
                let heard: Vec<String> = channels.query_async(&mut admin.clone()).await.unwrap();
                if heard.len() == 3 { Ok(()) } else { Err(heard) }
            })
            .await;
        } else {
            let mut lose = redis::cmd("DEL");
            let _: u64 = lose.arg("~queue:lock:a").query_async(&mut admin).await.unwrap();
        }
        until_waiting(&holder.lock("a"), 2).await;
        drop(guard);
        let waiting = [first, second];
        let (next, place, mut last) = futures_util::future::select_all(waiting).await;
        assert!(!keeps_order || place == 0, "the first is served first");
        let last = last.pop().unwrap();
        assert!(!last.is_finished(), "one at a time");
        drop(next.unwrap().unwrap());
        drop(last.await.unwrap().unwrap());
    }
}

/// Waits for eleven seconds with the default lease: only a look when the holder's time could be up.
#[tokio::test]
async fn waiting_sends_a_command_in_five_seconds_at_most() {
    let server = WatchedServer::start(RedisServer::builder());
    let holder = Engine::locks_of(&server).await;
    let guard = holder.lock("a").acquire().await.unwrap();
    let locks = Engine::locks_of(&server).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..10 {
        waiting.spawn(locks.lock("a").wait(ms(60_000)).acquire());
    }
    until_waiting(&locks.lock("a"), 10).await;
    let before = server.commands().await;
    tokio::time::sleep(ms(11_000)).await;
    let commands = server.commands().await.minus(&before).calls("evalsha");
    // Three of them are the holder's renewals.
    assert!(commands <= 3 + 2, "{commands} commands");
    waiting.shutdown().await;
    drop(guard);
}

#[tokio::test]
async fn attempts_are_as_many_commands() {
    let server = WatchedServer::start(RedisServer::builder());
    let _guard = Engine::locks_of(&server).await.lock("a").acquire().await.unwrap();
    let locks = Engine::locks_of(&server).await;
    introduced(&server, 2).await;
    let before = server.commands().await;
    locks.lock("a").wait(Duration::ZERO).acquire().await.unwrap_err();
    assert!(locks.lock("a").try_acquire().await.unwrap().is_none());
    locks.lock("a").retry(3, ms(20)).acquire().await.unwrap_err();
    let counts = server.commands().await.minus(&before);
    assert_eq!(counts.calls("evalsha"), 1 + 1 + 3);
    assert_eq!(counts.calls("zadd"), 0, "no caller has joined the queue");
}
