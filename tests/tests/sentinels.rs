//! A primary that moves: the Sentinels' messages take effect at once, and what happens to locks.

use std::time::{Duration, Instant};

use lock::{__private::redis_store, ErrorKind, Locks, Warning, test_util::contract};
use lock_tests::{RedisServer, Sentinels, eventually, ms};
use tokio::time::{sleep, timeout};

use crate::common::{Heard, command};

/// Bound on waits over a failover, for which a Sentinel needs one to three seconds.
const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(sentinels: &Sentinels) -> Locks {
    Locks::connect(&sentinels.url()).await.unwrap()
}

/// Waits until every replica has all of the primary's writes.
async fn replicated(primary: &RedisServer) {
    let mut connection = primary.connection().await;
    let mut wait = redis::cmd("WAIT");
    let replicas: usize = wait.arg(2).arg(5000).query_async(&mut connection).await.unwrap();
    assert_eq!(replicas, 2);
}

/// How many scripts a server has run for its own clients. A replica runs none: it is sent their
/// effects.
async fn scripts(server: &RedisServer) -> u64 {
    server.commands().await.client_commands(&["evalsha", "eval"])
}

/// The lock is renewed on the new primary, and its waiters are served there. The old one gets no
/// requests after the Sentinels have announced the failover, although it would go on for ten
/// seconds.
#[tokio::test(flavor = "multi_thread")]
async fn locks_follow_the_primary() {
    let sentinels = Sentinels::start().await;
    let old = sentinels.primary().await;
    let locks = connect(&sentinels).await;
    let other = connect(&sentinels).await;
    let lock = locks.lock("followed").lease(ms(6000)).wait(PATIENCE);
    let held = lock.acquire().await.unwrap();
    let before = held.fencing_token();
    let waiter = tokio::spawn(other.lock("followed").wait(2 * PATIENCE).acquire());
    eventually(PATIENCE, || async {
        let status = lock.status().await.unwrap();
        if format!("{status:?}").contains("waiters: 1") { Ok(()) } else { Err(status) }
    })
    .await;
    replicated(old).await;

    let new = sentinels.fail_over().await;
    assert_ne!(new.port(), old.port());
    // By now, each client knows from at least one Sentinel: it subscribes to them, and asks them
    // once a second.
    let free = other.lock("free").wait(PATIENCE).acquire().await.unwrap();
    assert!(free.fencing_token() > before, "fencing tokens rise over a failover");
    let (asked, served) = (scripts(old).await, scripts(new).await);
    sleep(ms(7000)).await;
    assert!(held.is_held(), "it is renewed where it is now");
    assert_eq!(scripts(old).await, asked, "the old primary was asked for something");
    assert!(scripts(new).await > served);

    held.release().await.unwrap();
    let passed_on = timeout(PATIENCE, waiter).await.unwrap().unwrap().unwrap();
    assert!(passed_on.fencing_token() > before);
    let last = locks.lock("last").acquire().await.unwrap();
    assert!(last.fencing_token() > free.fencing_token());
}

/// A replica may lack a grant of its primary: the first renewal there, which comes before it is
/// due, tells the holder.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_key_did_not_survive_is_lost_at_once() {
    let sentinels = Sentinels::start().await;
    let old = sentinels.primary().await;
    let locks = connect(&sentinels).await;
    let lease = Duration::from_secs(120);
    let kept = locks.lock("kept").lease(lease).acquire().await.unwrap();
    let lock = locks.lock("missed").lease(lease);
    let missed = lock.acquire().await.unwrap();
    replicated(old).await;
    for replica in sentinels.others(old) {
        let mut connection = replica.connection().await;
        let set = |value: &str| {
            let mut set = redis::cmd("CONFIG");
            set.arg("SET").arg("replica-read-only").arg(value);
            set
        };
        set("no").exec_async(&mut connection).await.unwrap();
        let mut delete = redis::cmd("DEL");
        let deleted: u64 = delete.arg(lock.key()).query_async(&mut connection).await.unwrap();
        assert_eq!(deleted, 1);
        set("yes").exec_async(&mut connection).await.unwrap();
    }
    sentinels.fail_over().await;
    timeout(Duration::from_secs(5), missed.lost()).await.expect("long before its renewal");
    assert!(!missed.is_held());
    assert!(kept.is_held());
    assert_eq!(missed.release().await.unwrap_err().kind(), ErrorKind::Lost);
    kept.release().await.unwrap();
}

/// Killed, or stopped and continued: in both cases a lock with a lease longer than the failover
/// outlives it, and the old primary grants nothing when it returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_or_stands_still_is_left() {
    for killed in [true, false] {
        let sentinels = Sentinels::start().await;
        let old = sentinels.primary().await;
        let locks = connect(&sentinels).await;
        let held = locks.lock("held").lease(ms(20_000)).acquire().await.unwrap();
        replicated(old).await;
        if killed {
            old.kill()
        } else {
            old.stop_process()
        }
        let new = sentinels.moved_from(old.port()).await;
        let began = Instant::now();
        let next = locks.lock("next").wait(PATIENCE).acquire().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert!(held.is_held() && next.fencing_token() > held.fencing_token());
        if killed {
            old.restart()
        } else {
            old.continue_process()
        }
        let asked = scripts(new).await;
        for number in 0..50 {
            let guard = locks.lock(format!("more:{number}")).acquire().await.unwrap();
            guard.release().await.unwrap();
        }
        assert!(scripts(new).await >= asked + 100, "they were granted by the new primary");
        assert!(held.is_held());
        held.release().await.unwrap();
    }
}

/// The known primary goes on serving, also over a new connection.
#[tokio::test(flavor = "multi_thread")]
async fn without_sentinels_the_known_primary_serves_on() {
    let sentinels = Sentinels::start().await;
    let primary = sentinels.primary().await;
    let locks = connect(&sentinels).await;
    sentinels.sentinels().iter().for_each(RedisServer::kill);
    let guard = locks.lock("before").acquire().await.unwrap();
    let mut connection = primary.connection().await;
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal");
    let _ = kill.exec_async(&mut connection).await;
    let next = locks.lock("after").acquire().await.unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

/// Whatever runtime it was used on.
#[tokio::test]
async fn a_store_that_is_dropped_leaves_the_sentinels_in_peace() {
    let sentinels = Sentinels::start().await;
    let listeners = async || {
        let mut listeners = 0;
        for sentinel in sentinels.sentinels() {
            let mut connection = sentinel.connection().await;
            let mut list = redis::cmd("CLIENT");
            let list: String = list.arg("LIST").query_async(&mut connection).await.unwrap();
            listeners += list.lines().filter(|line| line.contains(" sub=1 ")).count();
        }
        listeners
    };
    let before = listeners().await;
    let store = redis_store(&sentinels.url()).await.unwrap();
    eventually(PATIENCE, async || listeners().await == before + 3).await;
    drop(store);
    eventually(PATIENCE, async || listeners().await == before).await;
}

#[tokio::test]
async fn the_contract_is_kept_behind_sentinels() {
    let sentinels = Sentinels::start().await;
    let store = redis_store(&sentinels.url()).await.unwrap();
    let report = contract::all(&store).await;
    assert_eq!(report.skipped, ["embedded"], "{report}");
    assert_eq!(report.checked.len(), 12, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sentinels_do_not_know_is_said() {
    let primary = RedisServer::start();
    let sentinel =
        RedisServer::builder().sentinel_of(primary.port()).flag("--requirepass", "watch").start();
    let at = format!("127.0.0.1:{}", sentinel.port());
    let builder = |name: &str| Locks::builder().url(format!("redis+sentinel://{at}/{name}"));
    let knows = |builder: lock::LocksBuilder| builder.sentinel_credentials("", "watch");

    let error = builder("main").build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains(&at) && error.to_string().contains("NOAUTH"), "{error:?}");

    let error = knows(builder("another")).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("`another`"), "{error}");
    assert!(error.to_string().contains("SENTINEL MASTERS"), "{error}");

    let url = format!("redis+sentinel://127.0.0.1:{}/main", primary.port());
    let error = Locks::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("not a Sentinel"), "{error}");

    let error = Locks::connect("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("127.0.0.1:1, 127.0.0.1:2"), "{error}");

    let locks = knows(builder("main")).build().await.unwrap();
    locks.lock("known").acquire().await.unwrap().release().await.unwrap();
    // Calls wait for an answer within their bounds, and the error names what is missing.
    let lazy = Locks::builder().url("redis+sentinel://127.0.0.1:1/main").build_lazy().unwrap();
    let error = lazy.lock("unknown").acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no Sentinel has given yet"), "{error}");
    let lazy = knows(builder("main")).build_lazy().unwrap();
    lazy.lock("known").acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_warned_of() {
    let sentinels = Sentinels::start().await;
    let heard = Heard::default();
    let locks = heard.connect(&sentinels.url()).await;
    locks.lock("first").acquire().await.unwrap().release().await.unwrap();
    let alone = Warning::MayServeAlone;
    eventually(PATIENCE, || async { heard.all().contains(&alone) }).await;
    sentinels.fail_over().await;
    locks.lock("second").wait(PATIENCE).acquire().await.unwrap().release().await.unwrap();
    eventually(PATIENCE, || async {
        let said = heard.all();
        if said.contains(&Warning::Restarted) { Ok(()) } else { Err(said) }
    })
    .await;

    // A primary that requires replicas causes no warning. The warnings of a connect come in a fixed
    // order, and the other one, which the test provokes, would come after this one.
    let primary = sentinels.primary().await;
    for (setting, value) in
        [("min-replicas-to-write", "1"), ("maxmemory", "1gb"), ("maxmemory-policy", "allkeys-lru")]
    {
        command(primary, &["CONFIG", "SET", setting, value]).await;
    }
    let heard = Heard::default();
    let _locks = heard.connect(&sentinels.url()).await;
    eventually(PATIENCE, || async { !heard.all().is_empty() }).await;
    let said = heard.all();
    assert!(matches!(said[..], [Warning::MayEvict { .. }]), "{said:?}");
}
