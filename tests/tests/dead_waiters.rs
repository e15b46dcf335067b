//! Waiters that have died: their entries in the queue, which must not hold up other waiters.
//!
//! These tests use the stores directly. Unless noted, their clients do not listen for notices: such
//! a waiter counts as dead when it has not asked again for two seconds.

use std::collections::HashMap;

use lock::{
    Token,
    store::{
        AcquireRequest, Acquisition, ForceReleaseRequest, IfHeld, ReleaseRequest, RenewRequest,
        Renewal, Store,
    },
};
use lock_tests::{Worker, eventually};
use tokio::time::sleep;

use crate::{
    common::{Engine, ms, on_both_stores},
    line::another_client_gets_its_turn,
};

on_both_stores!(
    who_waits_behind_the_dead_gets_its_turn,
    the_dead_leave_the_queue_with_whoever_finds_them,
    the_living_stay_where_they_are_when_the_dead_leave,
);

/// The holder was not told of the dead waiter, which had died before its grant; so it has to be
/// told of the next one, which is not the first in the queue.
async fn who_waits_behind_the_dead_gets_its_turn(engine: &Engine) {
    let store = engine.store().await;
    leave_who_died_waiting(&*store, &["lock:a"]).await;
    another_client_gets_its_turn(engine, 0).await;
}

/// The same for a waiter that would count as alive for longer, but whose process was killed: only
/// the server knows that it no longer listens.
#[tokio::test]
async fn who_waits_behind_a_killed_process_gets_its_turn() {
    let engine = Engine::redis();
    let Engine::Redis(server) = &engine else { unreachable!() };
    let store = &*engine.store().await;
    granted(store, request("lock:a", 1, 3000)).await;
    let mut waiter = Worker::start(env!("CARGO_BIN_EXE_worker"));
    waiter.tell(&format!("connect {}", server.url()));
    waiter.expect("ready");
    waiter.tell("wait a 10000 60000");
    eventually(ms(2500), async || match waiters(store, "lock:a").await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    waiter.kill();
    eventually(ms(5000), async || {
        match store.holder(&["lock:a".into()]).await.remove(0).unwrap() {
            None => Ok(()),
            held => Err(held),
        }
    })
    .await;
    another_client_gets_its_turn(&engine, 1).await;
}

/// Otherwise the next holders would take the dead for other waiters, and give up the lock for no
/// one.
async fn the_dead_leave_the_queue_with_whoever_finds_them(engine: &Engine) {
    let store = &*engine.store().await;
    let keys = ["lock:released", "lock:forced", "lock:kept", "lock:asked"];
    leave_who_died_waiting(store, &keys).await;
    for key in keys {
        let next = request(key, 3, 30_000);
        let holder = match key {
            "lock:released" => {
                granted(store, next).await;
                assert!(release(store, ReleaseRequest::new(key, token(3))).await);
                granted(store, request(key, 4, 30_000)).await;
                4
            }
            "lock:forced" => {
                assert!(
                    !store
                        .force_release(&[ForceReleaseRequest::new(key)])
                        .await
                        .remove(0)
                        .unwrap()
                        .handed_over
                );
                granted(store, request(key, 4, 30_000)).await;
                4
            }
            "lock:kept" => {
                granted(store, next).await;
                let release_later = ReleaseRequest::new(key, token(3)).keeping(ms(30_000));
                assert!(release(store, release_later).await);
                3
            }
            _ => {
                let contended = granted(store, next.if_held(IfHeld::KeepWaiting(None))).await;
                assert!(!contended, "the dead do not count");
                3
            }
        };
        assert_eq!(renew(store, key, holder).await, Renewal::renewed(), "{key}");
    }
}

/// A queue of one dead waiter and two living ones.
async fn the_living_stay_where_they_are_when_the_dead_leave(engine: &Engine) {
    const KEPT: &str = "lock:kept";
    const FREE: &str = "lock:free";
    const ASKED_LATE: &str = "lock:asked late";
    const LEFT: &str = "lock:left";
    const HELD_TWICE: &str = "lock:held twice";
    let keys =
        [(KEPT, 30_000), (LEFT, 30_000), (FREE, 1800), (ASKED_LATE, 1800), (HELD_TWICE, 1800)];
    let store = &*engine.store().await;
    let mut places = HashMap::new();
    for (key, lease) in keys {
        granted(store, request(key, 1, lease)).await;
        for number in 2..=4 {
            places.insert((key, number), joins(store, key, number).await);
        }
    }
    sleep(ms(1500)).await;
    // Waiter 2 is the dead one; where a waiter leaves, it is the one in between, 3.
    for (key, _) in keys {
        let living = if key == LEFT || key == HELD_TWICE { [2, 4] } else { [3, 4] };
        for number in living {
            let place = Some(places[&(key, number)]);
            let keeps_place = request(key, number, 2000).if_held(IfHeld::KeepWaiting(place));
            match acquire(store, keeps_place).await {
                Acquisition::Held { ticket: kept, .. } => assert_eq!(kept, place),
                granted => panic!("{granted:?}"),
            }
        }
    }
    sleep(ms(700)).await;

    // A release keeps the lock for a while, and they go on waiting.
    assert!(release(store, ReleaseRequest::new(KEPT, token(1)).keeping(ms(30_000))).await);
    assert_eq!(waiters(store, KEPT).await, 2);

    // The first living waiter takes the lock whose lease is over, and is told of the other.
    let first = request(FREE, 3, 30_000).if_held(IfHeld::KeepWaiting(Some(places[&(FREE, 3)])));
    assert!(granted(store, first).await, "the other one waits");
    assert_eq!(waiters(store, FREE).await, 1);

    // A waiter was wrongly taken for dead: it is too late for the lock, but keeps its place.
    let late = request(ASKED_LATE, 2, 2000).if_held(IfHeld::KeepWaiting(None));
    let Acquisition::Held { ticket: place, .. } = acquire(store, late).await else {
        panic!("it is next")
    };
    assert_eq!(place, Some(places[&(ASKED_LATE, 2)]));
    assert_eq!(
        store.holder(&[ASKED_LATE.into()]).await.remove(0).unwrap().unwrap().token,
        token(3)
    );

    // The dead waiter between two living ones is removed when the next one joins.
    joins(store, LEFT, 5).await;
    for number in [2, 4, 5] {
        assert!(!release(store, ReleaseRequest::new(LEFT, token(number))).await);
    }
    assert_eq!(renew(store, LEFT, 1).await, Renewal::renewed());

    // A waiter that is granted the free lock leaves the queue: after its release it no longer
    // waits.
    granted(store, request(HELD_TWICE, 4, 30_000).if_held(IfHeld::Wait)).await;
    assert!(release(store, ReleaseRequest::new(HELD_TWICE, token(4))).await);
    assert_eq!(
        store.holder(&[HELD_TWICE.into()]).await.remove(0).unwrap().unwrap().token,
        token(2)
    );
    assert_eq!(waiters(store, HELD_TWICE).await, 0);
}

fn token(number: u64) -> Token {
    Token::from(format!("{:032x}:{number}", 7))
}

fn request(key: &str, number: u64, lease: u64) -> AcquireRequest {
    AcquireRequest::new(key, token(number), ms(lease))
}

async fn acquire(store: &dyn Store, request: AcquireRequest) -> Acquisition {
    store.acquire(&[request]).await.remove(0).unwrap()
}

/// Acquires the lock, and returns whether others wait for it.
async fn granted(store: &dyn Store, request: AcquireRequest) -> bool {
    match acquire(store, request).await {
        Acquisition::Granted { contended, .. } => contended,
        held => panic!("{held:?}"),
    }
}

/// Joins the queue, and returns the place in it.
async fn joins(store: &dyn Store, key: &str, number: u64) -> u64 {
    match acquire(store, request(key, number, 2000).if_held(IfHeld::Wait)).await {
        Acquisition::Held { ticket: Some(place), .. } => place,
        other => panic!("{other:?}"),
    }
}

/// Releases the lock, and returns whether the token held it.
async fn release(store: &dyn Store, request: ReleaseRequest) -> bool {
    store.release(&[request]).await.remove(0).unwrap().ours
}

async fn renew(store: &dyn Store, key: &str, number: u64) -> Renewal {
    store.renew(&[RenewRequest::new(key, token(number), ms(30_000))]).await.remove(0).unwrap()
}

async fn waiters(store: &dyn Store, key: &str) -> usize {
    store.holder(&[key.into()]).await.remove(0).unwrap().expect("it is held").waiters
}

/// For each of these locks, a waiter dies and the holder's lease ends.
async fn leave_who_died_waiting(store: &dyn Store, keys: &[&str]) {
    for key in keys {
        granted(store, request(key, 1, 2000)).await;
        joins(store, key, 2).await;
        assert_eq!(waiters(store, key).await, 1);
    }
    sleep(ms(2100)).await;
}
