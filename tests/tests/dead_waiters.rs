//! Waiters that have died: what they leave in the queue, and whom they may not hold up.
//!
//! These talk to the stores themselves. No client of theirs listens, but where it is said: such a
//! waiter is dead when it has not asked again for two seconds.

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

/// The holder was not told of the one that died, for that was before its time; so it is told of the
/// next, which is not the first in the queue.
async fn who_waits_behind_the_dead_gets_its_turn(engine: &Engine) {
    let store = engine.store().await;
    leave_who_died_waiting(&*store, &["lock:a"]).await;
    another_client_gets_its_turn(engine, 0).await;
}

/// The same for one that would be alive for longer, but whose process was killed: only the server
/// knows that nobody listens.
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

/// Or the next holders would take them for others who wait, and let go for nobody.
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
                assert!(!contended, "with the dead");
                3
            }
        };
        assert_eq!(renew(store, key, holder).await, Renewal::renewed(), "{key}");
    }
}

/// A queue of one that is dead and two that are not.
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
    // 2 is the dead one; of those who leave it is the one between them.
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

    // Kept for a while by a release, the lock is theirs to wait for.
    assert!(release(store, ReleaseRequest::new(KEPT, token(1)).keeping(ms(30_000))).await);
    assert_eq!(waiters(store, KEPT).await, 2);

    // The first of them takes the lock whose lease is over, and knows of the other.
    let first = request(FREE, 3, 30_000).if_held(IfHeld::KeepWaiting(Some(places[&(FREE, 3)])));
    assert!(granted(store, first).await, "the other one waits");
    assert_eq!(waiters(store, FREE).await, 1);

    // Taken for dead, and not at all: it is too late for the lock, and keeps its place.
    let late = request(ASKED_LATE, 2, 2000).if_held(IfHeld::KeepWaiting(None));
    let Acquisition::Held { ticket: place, .. } = acquire(store, late).await else {
        panic!("it is next")
    };
    assert_eq!(place, Some(places[&(ASKED_LATE, 2)]));
    assert_eq!(
        store.holder(&[ASKED_LATE.into()]).await.remove(0).unwrap().unwrap().token,
        token(3)
    );

    // The dead one between those who leave goes with the next who joins.
    joins(store, LEFT, 5).await;
    for number in [2, 4, 5] {
        assert!(!release(store, ReleaseRequest::new(LEFT, token(number))).await);
    }
    assert_eq!(renew(store, LEFT, 1).await, Renewal::renewed());

    // Granted a lock that is free while it waits for it, it waits no more once it has let go.
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

/// Do others wait for what it is granted?
async fn granted(store: &dyn Store, request: AcquireRequest) -> bool {
    match acquire(store, request).await {
        Acquisition::Granted { contended, .. } => contended,
        held => panic!("{held:?}"),
    }
}

/// Its place in the queue.
async fn joins(store: &dyn Store, key: &str, number: u64) -> u64 {
    match acquire(store, request(key, number, 2000).if_held(IfHeld::Wait)).await {
        Acquisition::Held { ticket: Some(place), .. } => place,
        other => panic!("{other:?}"),
    }
}

/// Was it the token's?
async fn release(store: &dyn Store, request: ReleaseRequest) -> bool {
    store.release(&[request]).await.remove(0).unwrap().ours
}

async fn renew(store: &dyn Store, key: &str, number: u64) -> Renewal {
    store.renew(&[RenewRequest::new(key, token(number), ms(30_000))]).await.remove(0).unwrap()
}

async fn waiters(store: &dyn Store, key: &str) -> usize {
    store.holder(&[key.into()]).await.remove(0).unwrap().expect("it is held").waiters
}

/// A waiter of each of these locks dies, and the lease of the holder ends.
async fn leave_who_died_waiting(store: &dyn Store, keys: &[&str]) {
    for key in keys {
        granted(store, request(key, 1, 2000)).await;
        joins(store, key, 2).await;
        assert_eq!(waiters(store, key).await, 1);
    }
    sleep(ms(2100)).await;
}
