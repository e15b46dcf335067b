//! A Redis Cluster: each request goes to the node that has the id's slot, wherever the slot moves,
//! and a node that is out of reach stops only its own ids.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lock::{
    __private::redis_store, Credentials, ErrorKind, LockGuard, Locks, Status, Warning,
    test_util::contract,
};
use lock_tests::{Certificates, Cluster, RedisServer, eventually, ms};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::common::{Heard, may_stay};

/// Bound on waits over a failover, for which the nodes need three to five seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// One slot of each primary of a new cluster.
const SLOTS: [u16; 3] = [1000, 7000, 13_000];

/// An id whose lock is in this slot.
fn id_in(slot: u16, name: &str) -> String {
    format!("{{{}}}{name}", Cluster::word_of(slot))
}

async fn connect(cluster: &Cluster) -> Locks {
    Locks::connect(&cluster.url()).await.unwrap()
}

/// Waits until a primary's replica has acknowledged its writes.
async fn replicated(primary: &RedisServer) {
    let mut connection = primary.connection().await;
    let mut wait = redis::cmd("WAIT");
    let replicas: usize = wait.arg(1).arg(5000).query_async(&mut connection).await.unwrap();
    assert_eq!(replicas, 1);
}

async fn waits_for(locks: &Locks, id: &str, waiters: usize) {
    eventually(PATIENCE, || async {
        match locks.lock(id).status().await.unwrap() {
            Status::Held { waiters: found, .. } if found == waiters => Ok(()),
            status => Err(status),
        }
    })
    .await;
}

/// Asserts that no key is left except the counters of fences, and that all others expire.
async fn assert_clean(cluster: &Cluster) {
    for server in cluster.primaries().await {
        eventually(ms(5000), || async {
            let keys = server.keys().await;
            let left = |key: &str| !may_stay(key) && !key.contains("~debounce:");
            let left: Vec<_> = keys.into_iter().filter(|(key, ..)| left(key)).collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_on_a_cluster() {
    let cluster = Cluster::start().await;
    let store = redis_store(&cluster.url()).await.unwrap();
    let report = contract::all(&store).await;
    assert_eq!(report.skipped, ["embedded"], "{report}");
    assert_eq!(report.checked.len(), 12, "{report}");
}

/// Ids of any form, on all nodes and many at once: a lock's key has the name that other clients
/// would give it, and all its other keys are on the same node.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_any_form_are_locked_waited_for_and_debounced() {
    let cluster = Cluster::start().await;
    let (locks, other) = (connect(&cluster).await, connect(&cluster).await);
    let mut ids: Vec<String> =
        ["a{b}c", "{}", "a{", "}{", "{", "a}", "{a}{b}", "x{{a}}", "ü{ß}", "a b", "a~run:b"]
            .map(String::from)
            .to_vec();
    ids.extend((0..300).map(|number| format!("many-{number}")));
    let mut guards = Vec::new();
    for id in &ids {
        guards.push(locks.lock(id.as_str()).wait(PATIENCE).acquire().await.unwrap());
    }
    for (id, guard) in ids.iter().zip(&guards).take(20) {
        let key = locks.lock(id.as_str()).key();
        let server = cluster.primary_of(Cluster::slot_of(&key)).await;
        let held: Option<String> =
            redis::cmd("GET").arg(&key).query_async(&mut server.connection().await).await.unwrap();
        assert!(held.is_some(), "{id} is where others would look for it");
        assert!(guard.is_held());
    }
    let waiters: Vec<_> = ids
        .iter()
        .map(|id| tokio::spawn(other.lock(id.as_str()).wait(PATIENCE).acquire()))
        .collect();
    for id in &ids {
        waits_for(&locks, id, 1).await;
    }
    let fences: Vec<_> = guards.iter().map(LockGuard::fencing_token).collect();
    drop(guards);
    let mut handed_over = Vec::new();
    for (waiter, before) in waiters.into_iter().zip(fences) {
        let guard = waiter.await.unwrap().unwrap();
        assert!(guard.fencing_token() > before, "fencing tokens rise on each node");
        handed_over.push(guard);
    }
    drop(handed_over);
    other.flush().await;
    for id in ids.iter().take(30) {
        let ran = locks.debounce(id.as_str()).wait(ms(50)).call(|| async { 7 }).await.unwrap();
        assert_eq!(ran, Some(7), "{id}");
    }
    assert_clean(&cluster).await;
}

/// A URL with the address of only one node, possibly a replica; and a lazy connection, which asks
/// for nothing until the first call.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_url_of_any_node_leads_to_all() {
    let cluster = Cluster::start().await;
    for server in cluster.servers() {
        let heard = Heard::default();
        let locks = heard.connect(&server.url()).await;
        let lazy = Locks::builder().url(server.url()).build_lazy().unwrap();
        for slot in SLOTS {
            let id = id_in(slot, "plain");
            let guard = locks.lock(&*id).acquire().await.unwrap();
            let status = lazy.lock(&*id).status().await.unwrap();
            assert!(matches!(status, Status::Held { by_us: false, .. }), "{status:?}");
            guard.release().await.unwrap();
            lazy.lock(&*id).acquire().await.unwrap().release().await.unwrap();
        }
        assert_eq!(heard.all(), [], "a cluster causes no warning");
    }
    let one = cluster.servers()[0].url().replace("redis:", "redis+cluster:");
    let one = one.trim_end_matches('/').to_owned();
    for url in [one.clone(), format!("{one}/"), format!("{one}/0")] {
        let locks = Locks::connect(&url).await.unwrap();
        locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    }
    assert_clean(&cluster).await;
}

#[tokio::test]
async fn a_server_by_itself_is_no_cluster() {
    let server = RedisServer::builder().cluster_of_one(false).start();
    let url = format!("redis+cluster://127.0.0.1:{}", server.port());
    let error = Locks::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    let text = error.to_string();
    assert!(text.contains("use `redis://`") && text.contains(&server.port().to_string()), "{text}");

    let gone = RedisServer::builder().cluster_of_one(false).start();
    gone.kill();
    let url = format!("redis+cluster://user:secret@127.0.0.1:{}", gone.port());
    let error = Locks::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    // A call waits for the cluster within its bounds, and gives the same error.
    let lazy = Locks::builder().url(url).build_lazy().unwrap();
    let error = lazy.lock("a").acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&gone.port().to_string()), "{error}");
}

/// A proxy leads each call to its server, and the library must not do so itself.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_named_by_slots_for_a_proxy() {
    let server = RedisServer::builder().cluster_of_one(true).start();
    let url = format!("{}?slots=1", server.url());
    let store = redis_store(&url).await.unwrap();
    let report = contract::all(&store).await;
    assert_eq!(report.skipped, ["embedded"], "{report}");
    let locks = Locks::connect(&url).await.unwrap();
    let other = Locks::connect(&url).await.unwrap();
    let held = locks.lock("a").acquire().await.unwrap();
    let waiter = tokio::spawn(other.lock("a").wait(PATIENCE).acquire());
    waits_for(&locks, "a", 1).await;
    let keys: Vec<_> = server.keys().await.into_iter().map(|(key, ..)| key).collect();
    let tagged = |kind: &str| keys.iter().any(|key| key.starts_with(kind) && key.contains('{'));
    assert!(tagged("~queue:{") && tagged("~fence:{"), "{keys:?}");
    assert!(keys.contains(&"lock:a".to_owned()), "{keys:?}");
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

/// The lock is renewed on the new primary, and its waiters are served there; the other nodes do not
/// know the lock.
#[tokio::test(flavor = "multi_thread")]
async fn locks_follow_their_slots_over_a_failover() {
    let cluster = Cluster::start().await;
    let (locks, other) = (connect(&cluster).await, connect(&cluster).await);
    let ids = SLOTS.map(|slot| id_in(slot, "followed"));
    let mut held = Vec::new();
    let mut waiters = Vec::new();
    for id in &ids {
        held.push(locks.lock(&**id).lease(ms(6000)).acquire().await.unwrap());
        waiters.push(tokio::spawn(other.lock(&**id).wait(2 * PATIENCE).acquire()));
        waits_for(&locks, id, 1).await;
    }
    let old = cluster.primary_of(SLOTS[1]).await;
    replicated(&old).await;
    let new = cluster.fail_over(SLOTS[1]).await;
    assert_ne!(new.port(), old.port());
    let asked = new.commands().await.client_commands(&["evalsha", "eval"]);
    sleep(ms(7000)).await;
    assert!(held.iter().all(LockGuard::is_held), "each is renewed where it is now");
    assert!(new.commands().await.client_commands(&["evalsha", "eval"]) > asked);
    for (guard, waiter) in held.into_iter().zip(waiters) {
        let before = guard.fencing_token();
        guard.release().await.unwrap();
        let passed_on = timeout(PATIENCE, waiter).await.unwrap().unwrap().unwrap();
        assert!(passed_on.fencing_token() > before);
    }
    other.flush().await;
    assert_clean(&cluster).await;
}

/// A replica may lack a grant of its primary: the first renewal there, which comes before it is
/// due, tells the holder.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_key_did_not_survive_is_lost_at_once() {
    let cluster = Cluster::builder().severable(true).start().await;
    let locks = connect(&cluster).await;
    let lease = Duration::from_secs(120);
    let elsewhere = locks.lock(id_in(SLOTS[0], "kept")).lease(lease).acquire().await.unwrap();
    let kept = locks.lock(id_in(SLOTS[1], "kept")).lease(lease).acquire().await.unwrap();
    let old = cluster.primary_of(SLOTS[1]).await;
    replicated(&old).await;
    let replica = cluster.replica_of(&old).await;
    cluster.cut_off(&replica).await;
    let missed = locks.lock(id_in(SLOTS[1], "missed")).lease(lease).acquire().await.unwrap();
    old.kill();
    cluster.let_in(&replica).await;
    cluster.moved_from(SLOTS[1], old.port()).await;
    timeout(Duration::from_secs(10), missed.lost()).await.expect("long before its renewal");
    assert!(!missed.is_held());
    assert!(kept.is_held() && elsewhere.is_held());
}

/// A dead node, and a silent one: all kinds of calls on the other nodes go on undisturbed, and its
/// own ids come back with the node that takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_out_of_reach_stops_only_its_own_ids() {
    for killed in [true, false] {
        let cluster = Cluster::start_with(&["--cluster-require-full-coverage", "no"]).await;
        let locks = Arc::new(connect(&cluster).await);
        let held = locks.lock(id_in(SLOTS[0], "held")).lease(ms(1500)).acquire().await.unwrap();
        let old = cluster.primary_of(SLOTS[1]).await;
        let lost = locks.lock(id_in(SLOTS[1], "held")).lease(ms(30_000)).acquire().await.unwrap();
        replicated(&old).await;
        if killed {
            old.kill();
        } else {
            old.stop_process();
        }
        // More calls of each kind than may be on their way to the lost node.
        let gone = id_in(SLOTS[1], "");
        for number in 0..6000 {
            let (locks, id) = (Arc::clone(&locks), format!("{gone}{number}"));
            tokio::spawn(async move {
                match number % 3 {
                    0 => drop(locks.lock(id).wait(PATIENCE).acquire().await),
                    1 => drop(locks.lock(id).status().await),
                    _ => drop(locks.debounce(id).wait(ms(20)).call(|| async {}).await),
                }
            });
        }
        let healthy = [SLOTS[0], SLOTS[2]].map(|slot| id_in(slot, "healthy"));
        let began = Instant::now();
        let (mut worst, mut rounds) = (Duration::ZERO, 0);
        while began.elapsed() < ms(2500) {
            for id in &healthy {
                let began = Instant::now();
                let guard = locks.lock(&**id).acquire().await.unwrap();
                locks.lock(&**id).status().await.unwrap();
                guard.extend(ms(100)).await.unwrap();
                guard.release().await.unwrap();
                worst = worst.max(began.elapsed());
                let began = Instant::now();
                let call = locks.debounce(&**id).wait(ms(1)).call(|| async {});
                assert_eq!(call.await.unwrap(), Some(()));
                worst = worst.max(began.elapsed());
                rounds += 1;
            }
        }
        assert!(rounds > 10, "{rounds} in all");
        // About 10 ms on an idle machine; a call that waited for the dead node would take a second
        // or more.
        assert!(worst < ms(800), "{worst:?} where nothing is wrong (killed: {killed})");
        assert!(held.is_held(), "it has to be renewed every half second");

        cluster.moved_from(SLOTS[1], old.port()).await;
        let began = Instant::now();
        drop(locks.lock(id_in(SLOTS[1], "next")).wait(PATIENCE).acquire().await.unwrap());
        assert!(began.elapsed() < ms(3000), "{:?}", began.elapsed());
        assert!(lost.is_held(), "a lease that is longer than the failover outlives it");
        lost.release().await.unwrap();
    }
}

/// While the slot is half moved, some of its keys are on one node and some on the other.
#[tokio::test(flavor = "multi_thread")]
async fn locks_of_a_slot_that_is_half_moved_are_kept() {
    let cluster = Cluster::start().await;
    let (locks, other) = (connect(&cluster).await, connect(&cluster).await);
    let slot = SLOTS[1];
    let mut held = Vec::new();
    for number in 0..20 {
        let lock = locks.lock(id_in(slot, &format!("held-{number}"))).lease(ms(1500));
        held.push(lock.acquire().await.unwrap());
    }
    let waited_for = id_in(slot, "held-0");
    let waiter = tokio::spawn(other.lock(&*waited_for).wait(PATIENCE).acquire());
    waits_for(&locks, &waited_for, 1).await;
    let to = cluster.primary_of(SLOTS[2]).await;
    let half = cluster.begin_move(slot, &to).await;
    sleep(ms(2000)).await;
    assert!(held.iter().all(LockGuard::is_held), "before a key is moved");
    assert!(half.move_keys(7).await > 0);
    sleep(ms(2000)).await;
    assert!(held.iter().all(LockGuard::is_held), "between the two");
    half.move_keys(1000).await;
    sleep(ms(2000)).await;
    assert!(held.iter().all(LockGuard::is_held), "with all keys moved");
    // A request with several keys has to wait: for two seconds, as when no server answers.
    let new = locks.lock(id_in(slot, "new"));
    let waits = tokio::spawn(new.clone().wait(PATIENCE).acquire());
    sleep(ms(300)).await;
    assert!(!waits.is_finished());
    half.finish().await;
    waits.await.unwrap().unwrap().release().await.unwrap();
    sleep(ms(2000)).await;
    assert!(held.iter().all(LockGuard::is_held), "on the other node");
    let before = held[0].fencing_token();
    held.remove(0).release().await.unwrap();
    let next = timeout(PATIENCE, waiter).await.unwrap().unwrap().unwrap();
    assert!(next.fencing_token() > before, "its counter has moved with it");
    for guard in held {
        guard.release().await.unwrap();
    }
    drop(next);
    other.flush().await;
    assert_clean(&cluster).await;
}

/// A node joins, gets slots, and gives them back before it leaves.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go() {
    let cluster = Cluster::start().await;
    let locks = connect(&cluster).await;
    let slots: Vec<u16> = (SLOTS[0]..SLOTS[0] + 20).collect();
    let mut held = Vec::new();
    for slot in &slots {
        held.push(locks.lock(id_in(*slot, "held")).lease(ms(4000)).acquire().await.unwrap());
    }
    let new = cluster.add_node().await;
    cluster.move_slots(slots.clone(), &new).await;
    for slot in &slots {
        let guard = locks.lock(id_in(*slot, "free")).wait(PATIENCE).acquire().await.unwrap();
        guard.release().await.unwrap();
    }
    sleep(ms(4500)).await;
    assert!(held.iter().all(LockGuard::is_held), "they are renewed on the new node");
    assert!(new.commands().await.client_commands(&["evalsha", "eval"]) > 0);
    let gone = cluster.remove_node(&new).await;
    gone.kill();
    sleep(ms(4500)).await;
    assert!(held.iter().all(LockGuard::is_held), "they are renewed where they are now");
    for guard in held {
        guard.release().await.unwrap();
    }
    for slot in slots {
        drop(locks.lock(id_in(slot, "free")).wait(PATIENCE).acquire().await.unwrap());
    }
    locks.flush().await;
    assert_clean(&cluster).await;
}

/// A waiter counts as alive by its connection to the node of its lock: there, a dead waiter is
/// passed over and a living one is not, whatever other nodes know about them.
#[tokio::test(flavor = "multi_thread")]
async fn the_living_are_told_from_the_dead_on_each_node() {
    let cluster = Cluster::start().await;
    let (locks, alive) = (connect(&cluster).await, connect(&cluster).await);
    for slot in SLOTS {
        let id = id_in(slot, "queued");
        let held = locks.lock(&*id).acquire().await.unwrap();
        let dead = connect(&cluster).await;
        let waiter = tokio::spawn(dead.lock(&*id).wait(PATIENCE).acquire());
        waits_for(&locks, &id, 1).await;
        let waits = tokio::spawn(alive.lock(&*id).wait(PATIENCE).acquire());
        waits_for(&locks, &id, 2).await;
        // Its connection to that node dies and is not replaced, as when a process is killed.
        waiter.abort();
        drop(dead);
        let began = Instant::now();
        held.release().await.unwrap();
        let guard = timeout(PATIENCE, waits).await.unwrap().unwrap().unwrap();
        assert!(began.elapsed() < ms(1000), "{:?}: it is served at once", began.elapsed());
        // Released by force: each node reports it, and the client takes notice once.
        assert!(locks.lock(&*id).force_release().await.unwrap());
        timeout(PATIENCE, guard.lost()).await.unwrap();
        let next = alive.lock(&*id).wait(PATIENCE).acquire().await.unwrap();
        sleep(ms(100)).await;
        assert!(next.is_held(), "repeated notices are about the previous guard");
    }
}

/// A primary that is replaced by command goes on answering, as a replica, and a client that only
/// waits sends no requests. It must still subscribe at the new primary, which would otherwise take
/// its waiters for dead.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_only_waits_hears_of_a_failover() {
    let cluster = Cluster::start().await;
    let (locks, other) = (connect(&cluster).await, connect(&cluster).await);
    let id = id_in(SLOTS[1], "queued");
    let held = locks.lock(&*id).acquire().await.unwrap();
    let waiter = tokio::spawn(other.lock(&*id).wait(PATIENCE).acquire());
    waits_for(&locks, &id, 1).await;
    // By then, a waiter that came before its holder was known to listen has looked once more.
    sleep(ms(1000)).await;
    let new = cluster.fail_over(SLOTS[1]).await;
    // Sooner than the waiter's own look, which comes five seconds after its last one.
    let listeners = || async {
        let mut question = redis::cmd("PUBSUB");
        question.arg("CHANNELS").arg("~wake:*");
        let found: Vec<String> = question.query_async(&mut new.connection().await).await.unwrap();
        if found.len() == 2 { Ok(()) } else { Err(found) }
    };
    eventually(ms(3000), listeners).await;
    let began = Instant::now();
    held.release().await.unwrap();
    let _guard = timeout(PATIENCE, waiter).await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() < ms(800), "{:?}", began.elapsed());
}

/// Grants wait for the replica of their own node.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_acknowledge_on_each_node() {
    let cluster = Cluster::start_with(&["--cluster-require-full-coverage", "no"]).await;
    let heard = Heard::default();
    let builder = Locks::builder().url(cluster.url()).min_replicas(1);
    let locks = heard.by(builder).build().await.unwrap();
    for slot in SLOTS {
        locks.lock(id_in(slot, "a")).acquire().await.unwrap().release().await.unwrap();
    }
    assert_eq!(heard.all(), []);
    let primary = cluster.primary_of(SLOTS[1]).await;
    cluster.replica_of(&primary).await.kill();
    let error = locks.lock(id_in(SLOTS[1], "b")).wait(ms(1500)).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("1 replicas") || error.to_string().contains("replica"),
        "{error}"
    );
    for slot in [SLOTS[0], SLOTS[2]] {
        locks.lock(id_in(slot, "b")).acquire().await.unwrap().release().await.unwrap();
    }
    heard.until(&[Warning::TooFewReplicas { wanted: 1 }]).await;
}

/// Notices to a client come from the node of the lock or of the burst.
#[tokio::test(flavor = "multi_thread")]
async fn each_node_notifies_of_what_it_has() {
    let cluster = Cluster::start().await;
    let (locks, other) = (connect(&cluster).await, connect(&cluster).await);
    for slot in SLOTS {
        let id = id_in(slot, "told");
        let hour = Duration::from_secs(3600);
        let waiting = tokio::spawn(locks.debounce(&*id).wait(hour).call(|| async { 7 }));
        eventually(PATIENCE, || async { other.debounce(&*id).flush().await.unwrap() }).await;
        let ran = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
        assert_eq!(ran, Some(7), "the other client has flushed it");
        // Contended, so that it is handed over to another client instead of the next caller of its
        // own.
        let held = locks.lock(&*id).acquire().await.unwrap();
        let own = tokio::spawn(locks.lock(&*id).wait(PATIENCE).acquire());
        let others = tokio::spawn(other.lock(&*id).wait(PATIENCE).acquire());
        waits_for(&locks, &id, 2).await;
        held.release().await.unwrap();
        let first = timeout(PATIENCE, others).await.unwrap().unwrap().unwrap();
        first.release().await.unwrap();
        drop(timeout(PATIENCE, own).await.unwrap().unwrap().unwrap());
    }
}

#[lock::locked(id = "{first}", locks = locks, wait = "30s")]
#[lock::locked(id = "{second}", locks = locks, wait = "30s")]
async fn under_both(
    locks: &Locks,
    first: &str,
    second: &str,
    inside: &AtomicUsize,
) -> Result<(), lock::Error> {
    let others = inside.fetch_add(1, Ordering::SeqCst);
    tokio::task::yield_now().await;
    inside.fetch_sub(1, Ordering::SeqCst);
    assert_eq!(others, 0, "another task has one of the two");
    Ok(())
}

/// They are taken in one order, whatever nodes they are on, so that no caller waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn locks_of_different_nodes_are_taken_together() {
    let cluster = Cluster::start().await;
    let clients = [connect(&cluster).await, connect(&cluster).await];
    let ids = SLOTS.map(|slot| id_in(slot, "set"));
    let inside = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..60 {
        let locks = clients[number % 2].clone();
        // All tasks have one of the two in common.
        let (one, other) = (ids[1].clone(), ids[number % 2 * 2].clone());
        let (first, second) = if number % 3 == 0 { (one, other) } else { (other, one) };
        let inside = Arc::clone(&inside);
        tasks.spawn(async move { under_both(&locks, &first, &second, &inside).await });
    }
    for outcome in timeout(2 * PATIENCE, tasks.join_all()).await.unwrap() {
        outcome.unwrap();
    }
    for client in &clients {
        client.flush().await;
    }
    assert_clean(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_reached_over_tls() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let certificates = Certificates::generate();
    let cluster = Cluster::builder().tls(&certificates).start().await;
    let own = certificates.client();
    let builder = || Locks::builder().url(cluster.url()).root_certificate(certificates.authority());
    let locks = builder().client_certificate(own.certificate, own.key).build().await.unwrap();
    let held = locks.lock(id_in(SLOTS[1], "held")).lease(PATIENCE).acquire().await.unwrap();
    for slot in SLOTS {
        locks.lock(id_in(slot, "a")).acquire().await.unwrap().release().await.unwrap();
    }
    replicated(&*cluster.primary_of(SLOTS[1]).await).await;
    cluster.fail_over(SLOTS[1]).await;
    drop(locks.lock(id_in(SLOTS[1], "next")).wait(PATIENCE).acquire().await.unwrap());
    assert!(held.is_held());
    let error = builder().build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("client_certificate"), "{error}");
}

/// Every connection asks for credentials: those to the nodes, and those that only ask for the
/// slots.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_at_each_node() {
    let servers = RedisServer::builder().flags(["--requirepass", "hush", "--masterauth", "hush"]);
    let cluster = Cluster::builder().servers(servers).start().await;
    let url = cluster.url().replace(":hush@", "");
    let builder = || Locks::builder().url(&*url);
    let error = builder().build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(error.to_string().contains("NOAUTH"), "{error}");
    let give = || async { Ok::<_, std::io::Error>(Credentials::new("default", "hush")) };
    let locks = builder().credentials(give).build().await.unwrap();
    for slot in SLOTS {
        locks.lock(id_in(slot, "a")).acquire().await.unwrap().release().await.unwrap();
    }
    cluster.fail_over(SLOTS[1]).await;
    drop(locks.lock(id_in(SLOTS[1], "next")).wait(PATIENCE).acquire().await.unwrap());
    let refused = || async { Ok::<_, std::io::Error>(Credentials::new("default", "wrong")) };
    let error = builder().credentials(refused).build().await.unwrap_err();
    assert!(error.to_string().contains("WRONGPASS"), "{error}");
    assert!(!format!("{error:?}").contains("\"wrong\""), "{error:?}");
}

/// A store that is no longer used sends no requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_dropped_leaves_the_nodes_in_peace() {
    let cluster = Cluster::start().await;
    let locks = connect(&cluster).await;
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    // At this time, the store looks for the node that has taken over.
    let old = cluster.primary_of(SLOTS[0]).await;
    old.stop_process();
    let error = locks.lock(id_in(SLOTS[0], "b")).wait(ms(1200)).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    locks.shutdown().await;
    drop(locks);
    let primary = cluster.primary_of(SLOTS[1]).await;
    eventually(PATIENCE, || async {
        let clients: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(&mut primary.connection().await)
            .await
            .unwrap();
        let ours = clients.lines().filter(|line| line.contains(" sub=1")).count();
        if ours == 0 { Ok(()) } else { Err(clients) }
    })
    .await;
    // Before Redis 7.0, subcommands are not counted separately.
    let name = if RedisServer::version().is_before(7, 0) { "cluster" } else { "cluster|slots" };
    let asked = primary.commands().await.calls(name);
    assert!(asked > 0, "it was asked before");
    sleep(ms(1500)).await;
    assert_eq!(primary.commands().await.calls(name), asked);
    old.continue_process();
}

/// Another server may come up at the address of a dead node: its grants would be second grants.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_at_the_address_of_a_node_is_not_taken_for_it() {
    let cluster = Cluster::builder().node_timeout(ms(6000)).start().await;
    let (locks, other) = (connect(&cluster).await, connect(&cluster).await);
    let id = id_in(SLOTS[1], "held");
    let held = locks.lock(&*id).lease(Duration::from_secs(60)).acquire().await.unwrap();
    let node = cluster.primary_of(SLOTS[1]).await;
    replicated(&node).await;
    node.kill();
    // Answers like a standalone server.
    let stranger = RedisServer::builder().cluster_of_one(false).start();
    let there = TcpListener::bind(("127.0.0.1", node.port())).await.unwrap();
    let port = stranger.port();
    let relay = tokio::spawn(async move {
        loop {
            let (mut client, _) = there.accept().await.unwrap();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let error = other.lock(&*id).wait(ms(2500)).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no longer a node of a Redis Cluster"), "{error}");
    assert!(stranger.keys().await.is_empty(), "{:?}", stranger.keys().await);
    assert!(held.is_held(), "no server was asked that does not know it");
    relay.abort();
    // Its replica has meanwhile followed the other server, and so has lost its data.
    cluster.moved_from(SLOTS[1], node.port()).await;
    drop(other.lock(id_in(SLOTS[1], "next")).wait(PATIENCE).acquire().await.unwrap());
}

/// The epochs of the new cluster start again, below those of the nodes that are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_set_up_anew_is_found() {
    let cluster = Cluster::start().await;
    let anew = RedisServer::builder().cluster_of_one(true).start();
    let url = format!("{},127.0.0.1:{}", cluster.url(), anew.port());
    for slot in SLOTS {
        cluster.fail_over(slot).await;
    }
    // As a client of the first cluster: its nodes are asked while they are up.
    let locks = connect_to(&url, &cluster).await;
    for server in cluster.servers() {
        server.kill();
    }
    let began = Instant::now();
    eventually(PATIENCE, || async {
        locks.lock(id_in(SLOTS[1], "a")).wait(ms(1000)).acquire().await.map(drop)
    })
    .await;
    assert!(began.elapsed() < ms(10_000), "{:?}", began.elapsed());
    assert!(!anew.keys().await.is_empty());
}

/// Connects as a client of `cluster`. Both clusters are among the seeds, and it is chance which
/// answers first.
async fn connect_to(url: &str, cluster: &Cluster) -> Locks {
    let slot = SLOTS[1];
    let primary = cluster.primary_of(slot).await;
    eventually(PATIENCE, || async {
        let locks = Locks::connect(url).await.unwrap();
        let guard = locks.lock(id_in(slot, "whose")).acquire().await.unwrap();
        let keys = primary.keys().await;
        drop(guard);
        if keys.iter().any(|(key, ..)| key.contains("whose")) { Ok(locks) } else { Err(keys) }
    })
    .await
}

/// All ids of a tenant with one hash tag are in one slot: requests for one of them go on whatever
/// happens to requests for the others.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_one_slot_are_asked_for_over_a_failover() {
    let cluster = Arc::new(Cluster::start().await);
    let locks = connect(&cluster).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (locks, over) = (locks.clone(), Arc::clone(&over));
        tasks.spawn(async move {
            let lock = locks.lock(id_in(SLOTS[1], &format!("held-{number}"))).lease(PATIENCE);
            let guard = lock.acquire().await?;
            while !over.load(Ordering::Relaxed) {
                if number % 2 == 0 {
                    guard.extend(ms(1)).await?;
                } else {
                    lock.status().await?;
                }
                sleep(Duration::from_micros(37 * number)).await;
            }
            guard.release().await
        });
    }
    sleep(ms(300)).await;
    cluster.fail_over(SLOTS[1]).await;
    sleep(ms(300)).await;
    over.store(true, Ordering::Relaxed);
    for outcome in tasks.join_all().await {
        outcome.unwrap();
    }
}

/// Clients arrive one after another at each of three nodes, and are served there in that order.
#[tokio::test(flavor = "multi_thread")]
async fn each_node_serves_in_the_order_of_arrival() {
    const CLIENTS: usize = 6;

    let cluster = Cluster::start().await;
    let holder = connect(&cluster).await;
    let ids = SLOTS.map(|slot| id_in(slot, "line"));
    let mut held = Vec::new();
    for id in &ids {
        held.push(holder.lock(&**id).acquire().await.unwrap());
    }
    let served = Arc::new(std::sync::Mutex::new(ids.clone().map(|_| Vec::new())));
    let mut waiters = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let client = connect(&cluster).await;
        for (node, id) in ids.iter().enumerate() {
            let (lock, served) = (client.lock(&**id).wait(2 * PATIENCE), Arc::clone(&served));
            waiters.spawn(async move {
                let guard = lock.acquire().await.unwrap();
                served.lock().unwrap()[node].push((number, guard.fencing_token()));
            });
            waits_for(&holder, id, number + 1).await;
        }
    }
    drop(held);
    timeout(2 * PATIENCE, waiters.join_all()).await.unwrap();
    for line in &*served.lock().unwrap() {
        let order: Vec<_> = line.iter().map(|(number, _)| *number).collect();
        assert_eq!(order, (0..CLIENTS).collect::<Vec<_>>());
        assert!(line.is_sorted_by_key(|(_, fencing_token)| *fencing_token), "{line:?}");
    }
}
