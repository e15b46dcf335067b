//! Keys that disappear in other ways than by a release of this library.
//!
//! Waiters behind a holder that will not notify them look up to four times a second. Waiters behind
//! one of our holders look every five seconds, and no caller gets `Busy` without a last look.

use std::time::{Duration, Instant};

use lock::{ErrorKind, Lock, Locks, Status};
use lock_tests::{RedisServer, eventually};

use crate::common::ms;

/// What a busy machine may add to a bound that the library keeps.
const NOISE: Duration = Duration::from_millis(250);

/// The most looks at a lock whose holder does not notify; in fact each look also takes a moment.
fn looks_within(time: Duration) -> u64 {
    // The first look joins the queue.
    1 + (time.as_millis() / 250) as u64
}

async fn run(server: &RedisServer, words: &[&str]) -> redis::Value {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut server.connection().await).await.unwrap()
}

async fn until_waiting(lock: &Lock) {
    eventually(ms(5000), async || {
        matches!(lock.status().await.unwrap(), Status::Held { waiters: 1, .. })
    })
    .await;
}

/// Waits for a lock, ends its hold by `end`, and returns how long the waiter then took to get it,
/// and how many commands it sent during its wait.
async fn waits_for(
    server: &RedisServer,
    take: impl AsyncFn(),
    end: impl AsyncFn(),
) -> (Duration, u64) {
    const HELD: Duration = Duration::from_millis(1500);
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    take().await;
    let began = Instant::now();
    let before = server.commands().await;
    let waiter = tokio::spawn(locks.lock("a").wait(ms(20_000)).acquire());
    tokio::time::sleep(HELD).await;
    let waited = began.elapsed();
    let counts = server.commands().await.minus(&before);
    let sent = counts.client_commands(&["evalsha", "eval"]);
    assert!(!waiter.is_finished());
    assert!(sent <= looks_within(waited), "{sent} looks in {waited:?}");
    let ended = Instant::now();
    end().await;
    let guard = waiter.await.unwrap().unwrap();
    let took = ended.elapsed();
    guard.release().await.unwrap();
    (took, sent)
}

#[tokio::test]
async fn a_foreign_key_that_goes_in_any_way_is_noticed_within_half_a_second() {
    let server = RedisServer::builder().cluster_of_one(false).start();
    for (way, end) in [
        ("DEL", &["DEL", "lock:a"][..]),
        ("UNLINK", &["UNLINK", "lock:a"]),
        ("PEXPIRE", &["PEXPIRE", "lock:a", "1"]),
        ("RENAME", &["RENAME", "lock:a", "elsewhere"]),
        ("FLUSHALL", &["FLUSHALL"]),
    ] {
        let take = async || {
            run(&server, &["SET", "lock:a", "x", "NX", "PX", "60000"]).await;
        };
        let end = async || {
            run(&server, end).await;
        };
        let (took, sent) = waits_for(&server, take, end).await;
        println!("a foreign key, {way}: had after {took:?}, {sent} looks in 1.5 s");
        assert!(took <= ms(500) + NOISE, "{way}: {took:?}");
    }
}

/// A token that looks like one of ours is not enough: its client has to be connected.
#[tokio::test]
async fn a_token_of_a_client_that_is_gone_is_watched_as_a_foreign_one() {
    let server = RedisServer::start();
    let token = format!("{}:1", "0123456789abcdef".repeat(2));
    let take = async || {
        run(&server, &["SET", "lock:a", &token, "NX", "PX", "60000"]).await;
    };
    let end = async || {
        run(&server, &["DEL", "lock:a"]).await;
    };
    let (took, _) = waits_for(&server, take, end).await;
    assert!(took <= ms(500) + NOISE, "{took:?}");
}

/// Its release wakes no waiter, so the waiters look on their own.
#[tokio::test]
async fn the_release_of_a_holder_who_may_not_publish_is_noticed_within_half_a_second() {
    let server = RedisServer::start();
    run(&server, &["ACL", "SETUSER", "mute", "on", ">hush", "~*", "&*", "+@all", "-publish"]).await;
    let mute = Locks::connect(&server.url_with("mute", "hush", 0)).await.unwrap();
    let guard = std::cell::RefCell::new(None);
    let take = async || {
        *guard.borrow_mut() = Some(mute.lock("a").acquire().await.unwrap());
    };
    let end = async || {
        let held = guard.borrow_mut().take().unwrap();
        held.release().await.unwrap();
    };
    let (took, sent) = waits_for(&server, take, end).await;
    println!("a holder who may not publish: had after {took:?}, {sent} looks in 1.5 s");
    assert!(took <= ms(500) + NOISE, "{took:?}");
}

/// The holder finds out at its next renewal, and passes the lock on. At the latest, the waiter
/// finds out at its next heartbeat. Neither sends more than one command in five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_ours_that_an_operator_deletes_is_noticed_within_five_seconds() {
    let mut ways = tokio::task::JoinSet::new();
    for (end, lease) in [
        (&["DEL", "lock:a"][..], 3_000),
        (&["DEL", "lock:a"], 60_000),
        (&["FLUSHALL"], 60_000),
        (&["PEXPIRE", "lock:a", "1"], 60_000),
    ] {
        ways.spawn(async move {
            let server = RedisServer::start();
            let holder = Locks::connect(&server.locks_url()).await.unwrap();
            let waiting = Locks::connect(&server.locks_url()).await.unwrap();
            let guard = holder.lock("a").lease(ms(lease)).acquire().await.unwrap();
            let before = server.commands().await;
            let waiter = tokio::spawn(waiting.lock("a").wait(ms(30_000)).acquire());
            until_waiting(&holder.lock("a")).await;
            let began = Instant::now();
            run(&server, end).await;
            let next = waiter.await.unwrap().unwrap();
            let took = began.elapsed();
            let counts = server.commands().await.minus(&before);
            println!("a key of ours with a lease of {lease} ms, {end:?}: had after {took:?}");
            assert!(took <= ms(5000) + NOISE, "{end:?}, {lease} ms: {took:?}");
            if lease < 60_000 {
                assert!(took <= ms(lease), "the holder has passed it on: {took:?}");
            } else {
                // It joins and looks once; the other commands are this test's.
                let acquires = counts.calls("zadd");
                assert!(acquires <= 2, "{acquires} looks: {counts:?}");
            }
            assert!(next.is_held());
            drop(guard);
        });
    }
    ways.join_all().await;
}

/// A caller that gets `Busy` gets it truthfully.
#[tokio::test]
async fn nobody_is_told_busy_without_a_last_look() {
    let server = RedisServer::start();
    let holder = Locks::connect(&server.locks_url()).await.unwrap();
    let waiting = Locks::connect(&server.locks_url()).await.unwrap();
    let guard = holder.lock("a").lease(ms(60_000)).acquire().await.unwrap();
    let waiter = tokio::spawn(waiting.lock("a").wait(ms(1000)).acquire());
    // A waiter behind it with a shorter wait would not get a turn anyway.
    let behind = tokio::spawn(waiting.lock("a").wait(ms(400)).acquire());
    until_waiting(&holder.lock("a")).await;
    assert_eq!(behind.await.unwrap().unwrap_err().kind(), ErrorKind::Busy);
    run(&server, &["DEL", "lock:a"]).await;
    let began = Instant::now();
    let next = waiter.await.unwrap().expect("it is free when the wait is over");
    assert!(began.elapsed() < ms(1000) + NOISE);
    // And if the lock is still held, the last look has shown it.
    let began = Instant::now();
    let error = holder.lock("a").wait(ms(300)).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(began.elapsed() < ms(300) + NOISE, "{:?}", began.elapsed());
    drop((next, guard));
}

/// A crowd of callers that give up one after another does not ask once for each.
#[tokio::test]
async fn a_crowd_that_gives_up_looks_four_times_a_second() {
    let server = RedisServer::start();
    let holder = Locks::connect(&server.locks_url()).await.unwrap();
    let waiting = Locks::connect(&server.locks_url()).await.unwrap();
    let guard = holder.lock("a").lease(ms(60_000)).acquire().await.unwrap();
    let first = tokio::spawn(waiting.lock("a").wait(ms(30_000)).acquire());
    until_waiting(&holder.lock("a")).await;
    let before = server.commands().await;
    let began = Instant::now();
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..500 {
        crowd.spawn(waiting.lock("a").wait(ms(500 + 3 * number)).acquire());
    }
    for outcome in crowd.join_all().await {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Busy);
    }
    let sent = server.commands().await.minus(&before).client_commands(&["evalsha", "eval"]);
    assert!(sent <= 2 + looks_within(began.elapsed()), "{sent} looks in {:?}", began.elapsed());
    drop(guard);
    drop(first.await.unwrap().unwrap());
}
