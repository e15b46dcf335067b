//! Links whose round trip takes up to a second.

use std::time::{Duration, Instant};

use lock::Locks;
use lock_tests::{Direction, Proxy, RedisServer};

use crate::common::ms;

/// How long a lock with a short lease is held on such a link.
const KEPT: Duration = Duration::from_secs(60);

/// Connects, holds, waits, releases, with everything that takes one round trip.
async fn goes_well(locks: &Locks, near: &Locks, round_trip: Duration) {
    let noise = ms(500);
    let began = Instant::now();
    let guard = locks.lock("a").acquire().await.unwrap();
    let took = began.elapsed();
    assert!(took <= round_trip + noise, "acquire: {took:?}");
    guard.release().await.unwrap();
    // Waiting: the holder is near, and releases the lock after a while.
    let held = near.lock("a").acquire().await.unwrap();
    let waiter = tokio::spawn(locks.lock("a").wait(ms(20_000)).acquire());
    tokio::time::sleep(round_trip * 2).await;
    assert!(!waiter.is_finished());
    let began = Instant::now();
    held.release().await.unwrap();
    let next = waiter.await.unwrap().unwrap();
    let took = began.elapsed();
    // Half a round trip for the push, a whole one for the claim.
    assert!(took <= round_trip * 3 / 2 + noise, "hand-over: {took:?}");
    assert!(next.is_held());
    drop(next);
    locks.flush().await;
    assert!(near.lock("a").try_acquire().await.unwrap().is_some(), "a drop has released it");
}

async fn a_link_of(round_trip: Duration) {
    let server = RedisServer::builder().cluster_of_one(false).start();
    let proxy = Proxy::start(server.port());
    proxy.delay(Direction::Both, round_trip / 2);
    let near = Locks::connect(&server.locks_url()).await.unwrap();
    let began = Instant::now();
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let connected = began.elapsed();
    assert!(connected <= round_trip * 3 + ms(500), "connect: {connected:?}");
    goes_well(&locks, &near, round_trip).await;

    // A lease has to last for at least three round trips: one for the renewal, one for its delay,
    // and one for its answer.
    let short = locks.lock("short").lease(round_trip * 3).acquire().await.unwrap();
    let until = Instant::now() + KEPT;
    let mut lost = Box::pin(short.lost());
    while Instant::now() < until {
        let lost = tokio::time::timeout(ms(500), &mut lost).await.is_ok();
        assert!(!lost, "the lease was lost after {:?}", KEPT - (until - Instant::now()));
    }
    short.release().await.unwrap();

    // A request at the very moment of a cut is answered on the next connection.
    let began = Instant::now();
    proxy.reset_connections();
    let guard = locks.lock("b").acquire().await.unwrap();
    let took = began.elapsed();
    guard.release().await.unwrap();
    assert!(took <= round_trip * 4 + ms(1000), "after a cut: {took:?}");
    goes_well(&locks, &near, round_trip).await;
    println!(
        "round trip {round_trip:?}: connected in {connected:?}, a lease of {:?} kept for {KEPT:?}, \
         acquired {took:?} after a cut",
        round_trip * 3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn links_with_a_round_trip_of_up_to_a_second_work() {
    let mut links = tokio::task::JoinSet::new();
    for round_trip in [300, 450, 700, 950] {
        links.spawn(a_link_of(ms(round_trip)));
    }
    links.join_all().await;
}

/// A link that becomes slow during use is not taken for a dead one.
#[tokio::test]
async fn a_link_that_becomes_slow_stays() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let guard = locks.lock("a").lease(ms(5000)).acquire().await.unwrap();
    let accepted = proxy.connections_accepted();
    proxy.delay(Direction::Both, ms(400));
    for number in 0..4 {
        locks.lock(format!("b{number}")).acquire().await.unwrap().release().await.unwrap();
    }
    assert!(guard.is_held());
    assert_eq!(proxy.connections_accepted(), accepted, "the connection was replaced");
}
