//! Replicas that have to acknowledge a grant: every grant is on them, and a refused lock is free.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lock::{ErrorKind, Locks, LocksBuilder, Warning};
use lock_tests::{ClientCommand, Direction, Proxy, RedisServer, eventually, ms};
use redis::AsyncCommands;
use tokio::time::{sleep, timeout};

use crate::common::Heard;

const PATIENCE: Duration = Duration::from_secs(20);

/// A primary and a replica that follows it.
async fn replicated() -> (RedisServer, RedisServer) {
    let primary = RedisServer::start();
    let replica = replica_of(&primary, primary.port()).await;
    (primary, replica)
}

/// A replica that follows this primary over this port.
async fn replica_of(primary: &RedisServer, port: u16) -> RedisServer {
    let port = port.to_string();
    let replica = RedisServer::builder().flags(["--replicaof", "127.0.0.1", &port]).start();
    let mut connection = primary.connection().await;
    eventually(PATIENCE, || {
        let mut connection = connection.clone();
        async move {
            // The replica counts once it has acknowledged a write.
            let _: () = connection.set("probe", "1").await.unwrap();
            let mut wait = redis::cmd("WAIT");
            let count: usize = wait.arg(1).arg(100).query_async(&mut connection).await.unwrap();
            count == 1
        }
    })
    .await;
    let _: () = connection.del("probe").await.unwrap();
    replica
}

fn builder(server: &RedisServer, replicas: usize) -> LocksBuilder {
    Locks::builder().url(server.url()).min_replicas(replicas)
}

async fn waits(server: &RedisServer) -> u64 {
    server.commands().await.calls("wait")
}

/// With a replica that lags by 40 ms, while connections are cut and scripts are forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_is_on_the_replica() {
    let primary = RedisServer::start();
    let way = Proxy::start(primary.port());
    let replica = replica_of(&primary, way.port()).await;
    way.delay(Direction::ToClient, ms(40));
    let mut admin = primary.connection().await;
    let mut user = redis::cmd("ACL");
    user.arg(&["SETUSER", "app", "on", ">pw", "~*", "resetchannels", "&*", "+@all"]);
    user.exec_async(&mut admin).await.unwrap();
    let url = primary.url_with("app", "pw", 0);
    let granted = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for client in 0..2 {
        let locks = Locks::builder().url(&url).min_replicas(1).build().await.unwrap();
        for task in 0..8 {
            let (locks, granted) = (locks.clone(), Arc::clone(&granted));
            let mut there = replica.connection().await;
            tasks.push(tokio::spawn(async move {
                for round in 0..10 {
                    // Both clients want half of the locks, which are handed over.
                    let id = match task % 2 {
                        0 => format!("own:{client}:{task}:{round}"),
                        _ => format!("shared:{task}"),
                    };
                    let lock = locks.lock(id).wait(PATIENCE);
                    let Ok(guard) = lock.acquire().await else { continue };
                    // However soon the replica is checked.
                    let token: Option<String> = there.get(lock.key()).await.unwrap();
                    assert!(token.is_some() || !guard.is_held(), "granted, and not there");
                    granted.fetch_add(1, Ordering::Relaxed);
                    let _ = guard.release().await;
                }
            }));
        }
    }
    let mut tasks = pin!(join_all(tasks));
    let ended = loop {
        for words in [&["CLIENT", "KILL", "USER", "app"][..], &["SCRIPT", "FLUSH"]] {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]).exec_async(&mut admin).await.unwrap();
        }
        if let Ok(ended) = timeout(ms(150), tasks.as_mut()).await {
            break ended;
        }
    };
    for task in ended {
        task.unwrap();
    }
    let granted = granted.load(Ordering::Relaxed);
    assert!(granted >= 80, "{granted} of 160 were granted");
}

/// A stopped replica acknowledges nothing: no lock is granted, and attempts are undone. Held locks
/// stay held although the replica acknowledges none of their renewals, even with a short lease.
#[tokio::test(flavor = "multi_thread")]
async fn without_replicas_nothing_is_granted_and_what_is_held_is_kept() {
    let (primary, replica) = replicated().await;
    let heard = Heard::default();
    let locks = heard.by(builder(&primary, 1)).build().await.unwrap();
    let long = locks.lock("long").acquire().await.unwrap();
    let short = locks.lock("short").lease(ms(600)).acquire().await.unwrap();
    assert_eq!(heard.all(), []);
    replica.stop_process();
    let began = Instant::now();
    let attempts = [
        locks.lock("a").wait(ms(0)).acquire(),
        locks.lock("b").wait(PATIENCE).acquire(),
        locks.lock("c").retry(3, ms(10)).acquire(),
    ];
    for attempt in join_all(attempts).await {
        let error = attempt.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let text = error.to_string();
        let address = format!("127.0.0.1:{}", primary.port());
        for part in ["only 0 of the 1 replicas", "min_replicas", "undone", &address] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let run = locks.debounce("d").wait(ms(1)).call(|| async { panic!("no run without replicas") });
    assert_eq!(run.await.unwrap_err().kind(), ErrorKind::Unavailable);
    heard.until(&[Warning::TooFewReplicas { wanted: 1 }]).await;
    assert!(long.is_held() && short.is_held());
    let mut connection = primary.connection().await;
    eventually(PATIENCE, || {
        let mut connection = connection.clone();
        async move {
            // Except the keys of the debounced call, which expire.
            let mut keys: Vec<String> = connection.keys("lock:[^~]*").await.unwrap();
            keys.sort();
            if keys == ["lock:long", "lock:short"] { Ok(()) } else { Err(keys) }
        }
    })
    .await;

    replica.continue_process();
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    assert!(long.is_held() && short.is_held());
    short.release().await.unwrap();
    long.release().await.unwrap();
    let keys: Vec<String> = connection.keys("lock:[^~]*").await.unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

/// More replicas than there are, which is found at the connect.
#[tokio::test(flavor = "multi_thread")]
async fn more_replicas_than_there_are_is_warned_of_at_the_connect() {
    let (primary, _replica) = replicated().await;
    let heard = Heard::default();
    let locks = heard.by(builder(&primary, 2)).build().await.unwrap();
    heard.until(&[Warning::TooFewReplicas { wanted: 2 }]).await;
    let error = locks.lock("a").acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("only 1 of the 2 replicas"), "{error}");
}

/// Grants that are sent together share a WAIT, and requests behind it are served in time.
#[tokio::test(flavor = "multi_thread")]
async fn many_grants_share_a_wait() {
    let (primary, _replica) = replicated().await;
    let locks = builder(&primary, 1).build().await.unwrap();
    let before = waits(&primary).await;
    let granted = Arc::new(AtomicU32::new(0));
    let tasks = (0..64).map(|task| {
        let (locks, granted) = (locks.clone(), Arc::clone(&granted));
        tokio::spawn(async move {
            for round in 0..20 {
                let guard = locks.lock(format!("a:{task}:{round}")).acquire().await.unwrap();
                granted.fetch_add(1, Ordering::Relaxed);
                guard.release().await.unwrap();
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let (granted, waits) =
        (u64::from(granted.load(Ordering::Relaxed)), waits(&primary).await - before);
    assert!(waits * 4 <= granted, "{waits} for {granted} grants");
    assert!(waits > 0);
}

/// A call of another kind that comes during a WAIT waits for that one only.
#[tokio::test(flavor = "multi_thread")]
async fn other_calls_pass_between_two_waits() {
    let (primary, replica) = replicated().await;
    let locks = builder(&primary, 1).build().await.unwrap();
    let held = locks.lock("held").acquire().await.unwrap();
    replica.stop_process();
    let crowd: Vec<_> = (0..200)
        .map(|number| tokio::spawn(locks.lock(format!("a:{number}")).wait(PATIENCE).acquire()))
        .collect();
    let began = Instant::now();
    for _ in 0..3 {
        locks.lock("held").status().await.unwrap();
    }
    // Three waits of half a second, and about as much again for a busy machine.
    assert!(began.elapsed() < ms(3500), "{:?}", began.elapsed());
    assert!(held.is_held());
    for acquire in crowd {
        assert_eq!(acquire.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    held.release().await.unwrap();
}

/// A short lease has a short WAIT, whose end an idle server notices late: that must not make the
/// connection count as silent. Afterwards, other requests have their full time again.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_lease_is_no_matter_of_the_others_and_of_the_connection() {
    let (primary, replica) = replicated().await;
    let locks = builder(&primary, 1).build().await.unwrap();
    replica.stop_process();
    let short = async || {
        let before = primary.commands().await.calls("client|id");
        let error = locks.lock("a").lease(ms(60)).wait(ms(0)).acquire().await.unwrap_err();
        let connects = primary.commands().await.calls("client|id") - before;
        (error.to_string(), connects)
    };
    let mut seen = Vec::new();
    // On a busy machine, the connection is sometimes silent.
    for _ in 0..5 {
        let (error, connects) = short().await;
        if error.contains("within 10ms only 0 of the 1 replicas") && connects == 0 {
            seen.clear();
            break;
        }
        seen.push((error, connects));
    }
    assert!(seen.is_empty(), "{seen:?}");
    let error = locks.lock("b").wait(ms(0)).acquire().await.unwrap_err().to_string();
    assert!(error.contains("within 500ms only 0 of the 1 replicas"), "{error}");
}

/// Renewals have a connection of their own, on which nothing waits for a replica.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_does_not_stand_behind_a_wait() {
    let (primary, _replica) = replicated().await;
    let locks = builder(&primary, 1).build().await.unwrap();
    let held = locks.lock("held").lease(ms(500)).acquire().await.unwrap();
    let senders = |commands: &[ClientCommand], name: &str| -> BTreeSet<String> {
        let sent = commands.iter().filter(|command| command.name == name);
        sent.map(|command| command.client.clone()).collect()
    };
    let renewals = eventually(PATIENCE, async || {
        let watch = primary.watch_commands().await;
        sleep(ms(400)).await;
        let renewals = senders(&watch.finish().await, "evalsha");
        if renewals.is_empty() { Err(renewals) } else { Ok(renewals) }
    })
    .await;
    let watch = primary.watch_commands().await;
    for number in 0..20 {
        let guard = locks.lock(format!("a:{number}")).acquire().await.unwrap();
        guard.release().await.unwrap();
    }
    let commands = watch.finish().await;
    let waits = senders(&commands, "wait");
    assert_eq!(waits.len(), 1);
    assert!(waits.is_disjoint(&renewals), "{waits:?}, {renewals:?}");
    assert!(held.is_held());
    held.release().await.unwrap();
}

#[tokio::test]
async fn who_has_no_replicas_or_may_not_ask_them_is_told_at_once() {
    for builder in
        [Locks::builder().url("memory:"), Locks::builder().store(lock::store::MemoryStore::new())]
    {
        let error = builder.min_replicas(1).build_lazy().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("min_replicas"), "{error}");
    }
    let server = RedisServer::start();
    let mut connection = server.connection().await;
    let mut user = redis::cmd("ACL");
    user.arg(&["SETUSER", "few", "on", ">pw", "~*", "resetchannels", "&*", "+@all", "-wait"]);
    user.exec_async(&mut connection).await.unwrap();
    let url = server.url_with("few", "pw", 0);
    let error = Locks::builder().url(&url).min_replicas(1).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("+wait"), "{error}");
    Locks::connect(&url).await.unwrap().lock("a").acquire().await.unwrap().release().await.unwrap();
}
