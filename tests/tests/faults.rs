//! Servers that stop, die and lose data, connections that break, replies that are lost.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lock::{ErrorKind, Locks, Status, locked, store::MemoryStore, test_util::FaultyStore};
use lock_tests::{Direction, HostClock, Proxy, RedisServer, Worker, eventually, now};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::common::{Engine, WatchedServer, ms};

/// Faults are injected on the way to it, and the nodes of a Cluster would send clients another way.
fn redis() -> WatchedServer {
    WatchedServer::start(RedisServer::builder().cluster_of_one(false))
}

async fn connect(server: &RedisServer) -> Locks {
    Locks::connect(&server.locks_url()).await.unwrap()
}

/// Guarantee 1: whatever is out of reach, the loss is known before another client can get the lock.
#[tokio::test]
async fn a_stopped_server_costs_the_lock_before_its_expiry() {
    // The machine may also be late by up to its margin of 40 ms.
    const LEASE: Duration = Duration::from_millis(4000);

    #[locked(id = "attribute", lease = "4s", locks = locks)]
    async fn hang(locks: &Locks, left: Arc<OnceLock<SystemTime>>) -> Result<(), lock::Error> {
        struct Leave(Arc<OnceLock<SystemTime>>);
        impl Drop for Leave {
            fn drop(&mut self) {
                self.0.set(SystemTime::now()).unwrap();
            }
        }
        let _leave = Leave(left);
        std::future::pending().await
    }

    let server = WatchedServer::start(RedisServer::builder().append_only(true));
    let locks = connect(&server).await;
    let guard = locks.lock("guard").lease(LEASE).acquire().await.unwrap();
    let (lost, token) = (guard.lost(), guard.lost_token());
    let left = Arc::default();
    let body = tokio::spawn({
        let (locks, left) = (locks.clone(), Arc::clone(&left));
        async move { hang(&locks, left).await }
    });
    // After the first renewals, so that their deadlines count and not those of the acquires.
    tokio::time::sleep(LEASE).await;
    server.stop_process();
    // The expiry that the server keeps, in milliseconds of its own clock, which is this machine's.
    let expiry = |id: &str| last_expiry(&server, &format!("lock:{id}"));
    let (of_guard, of_attribute) = (expiry("guard"), expiry("attribute"));
    lost.await;
    let lost_at = SystemTime::now();
    assert!(!guard.is_held() && token.is_cancelled());
    let error = body.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost);
    let stopped_at = *left.get().expect("the body was dropped");
    for (at, expiry) in [(lost_at, of_guard), (stopped_at, of_attribute)] {
        println!("lost {:?} before the server's expiry", expiry.duration_since(at));
        assert!(at < expiry, "too late by {:?}", at.duration_since(expiry));
        assert!(at + LEASE > expiry, "the server has renewed it meanwhile");
    }
    tokio::time::sleep(LEASE).await;
    server.continue_process();
    // The stopped server's clock has gone on: both locks are free, and others get them.
    let other = connect(&server).await;
    for id in ["guard", "attribute"] {
        assert!(other.lock(id).try_acquire().await.unwrap().is_some());
    }
}

/// When a key expires, according to the server's append-only file.
fn last_expiry(server: &RedisServer, key: &str) -> SystemTime {
    let log = std::fs::read(server.append_only_file()).unwrap();
    let log = String::from_utf8_lossy(&log).into_owned();
    // A command is a list of length and text: `SET key token PXAT time`, `PEXPIREAT key time`.
    let words: Vec<&str> = log.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
    let at = words.iter().enumerate().rev().find_map(|(place, word)| match *word {
        "PEXPIREAT" if words[place + 1] == key => words.get(place + 2),
        "PXAT" if words[place - 2] == key => words.get(place + 1),
        _ => None,
    });
    UNIX_EPOCH + Duration::from_millis(at.expect("the key was given an expiry").parse().unwrap())
}

/// The same for a server that runs on, but that nothing reaches.
#[tokio::test]
async fn loss_comes_before_the_expiry_that_the_server_keeps() {
    // As above: the margin of a shorter lease would be less than a busy machine's delays.
    const LEASE: Duration = Duration::from_millis(3600);
    let server = redis();
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    for round in 0..3 {
        // Replies are late, so that a deadline that counted from them would also be late.
        proxy.delay(Direction::ToClient, ms(200));
        let guard = locks.lock("a").lease(LEASE).acquire().await.unwrap();
        tokio::time::sleep(ms(600 + 750 * round)).await;
        // Nothing reaches the server any more, so its expiry is final; it is read over another
        // connection.
        proxy.hold(Direction::Both);
        let left: i64 = redis::cmd("PTTL")
            .arg("lock:a")
            .query_async(&mut server.connection().await)
            .await
            .unwrap();
        let expiry = Instant::now() + Duration::from_millis(left.try_into().unwrap());
        guard.lost().await;
        let lost_at = Instant::now();
        assert!(!guard.is_held());
        assert!(lost_at < expiry, "round {round}: late by {:?}", lost_at - expiry);
        proxy.heal();
        drop(guard);
        locks.flush().await;
    }
}

/// Guarantee 1, where not even the keeper has run: after a stall, the clock decides before any
/// other work. Here the runtime itself is stalled, and with it the keeper of an embedded store.
#[tokio::test]
async fn after_a_stall_the_clock_counts() {
    const LEASE: Duration = Duration::from_millis(150);
    let locks = Locks::in_memory();
    let guard = locks.lock("a").lease(LEASE).acquire().await.unwrap();
    let mut lost = Box::pin(guard.lost());
    assert!(futures_util::poll!(&mut lost).is_pending());
    std::thread::sleep(LEASE * 2);
    assert!(futures_util::poll!(&mut lost).is_ready());
    assert!(!guard.is_held() && guard.remaining().is_zero() && guard.lost_token().is_cancelled());

    let fresh = locks.lock("b").lease(LEASE).acquire().await.unwrap();
    std::thread::sleep(LEASE * 2);
    assert!(!fresh.is_held(), "asked before any wait for the loss");

    let steps = AtomicU32::new(0);
    let outcome = locks.lock("c").lease(LEASE).with(|_| async {
        std::thread::sleep(LEASE * 2);
        tokio::task::yield_now().await;
        steps.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(outcome.await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(steps.load(Ordering::SeqCst), 0, "the body went on under a lock that was lost");
}

/// Guarantee 2: a fault shorter than the rest of the lease does not cost the lock.
#[tokio::test]
async fn a_healthy_lock_survives_short_faults() {
    let server = WatchedServer::start(RedisServer::builder().append_only(true));
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let guard = locks.lock("a").lease(ms(3000)).acquire().await.unwrap();
    let rest = || tokio::time::sleep(ms(1500));

    proxy.reset_connections();
    rest().await;
    assert!(guard.is_held(), "a reset connection");
    server.restart();
    rest().await;
    assert!(guard.is_held(), "a restart that keeps the data");
    let mut connection = server.connection().await;
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
    rest().await;
    assert!(guard.is_held(), "scripts that were forgotten");
    proxy.black_hole(Direction::Both);
    tokio::time::sleep(ms(800)).await;
    proxy.heal();
    rest().await;
    assert!(guard.is_held(), "a cut");
    proxy.hold(Direction::ToClient);
    tokio::time::sleep(ms(800)).await;
    proxy.heal();
    rest().await;
    assert!(guard.is_held(), "late replies");
    server.stop_process();
    tokio::time::sleep(ms(800)).await;
    server.continue_process();
    rest().await;
    assert!(guard.is_held(), "a stalled server");
    guard.release().await.unwrap();
}

/// Guarantee 2, with the default lease of ten seconds: a shorter fault does not cost the lock,
/// however often it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_ten_seconds_outlives_what_is_shorter() {
    /// Holds a lock through a fault, and for as long as it takes to renew it afterwards.
    async fn outlives<F: Future>(fault: impl FnOnce(Arc<WatchedServer>, Arc<Proxy>) -> F) {
        let builder = RedisServer::builder().append_only(true);
        let server = Arc::new(WatchedServer::start(builder));
        let proxy = Arc::new(Proxy::start(server.port()));
        let locks = Locks::connect(&proxy.url()).await.unwrap();
        let guard = locks.lock("a").acquire().await.unwrap();
        let fault = fault(Arc::clone(&server), Arc::clone(&proxy));
        tokio::select! {
            () = guard.lost() => panic!("lost"),
            _ = fault => {}
        }
        let renewed = ms(8000);
        eventually(ms(15_000), async || {
            assert!(guard.is_held());
            let remaining = guard.remaining();
            if remaining > renewed { Ok(()) } else { Err(remaining) }
        })
        .await;
        guard.release().await.unwrap();
        locks.shutdown().await;
    }
    tokio::join!(
        outlives(async |server, _proxy| {
            server.kill();
            tokio::time::sleep(ms(2000)).await;
            tokio::task::block_in_place(|| server.restart());
        }),
        outlives(async |_server, proxy| {
            proxy.black_hole(Direction::Both);
            tokio::time::sleep(ms(5000)).await;
            proxy.heal();
        }),
        outlives(async |server, _proxy| {
            repeat(&server, &["CLIENT", "KILL", "TYPE", "normal"], ms(100), ms(30_000)).await;
        }),
        outlives(async |server, _proxy| {
            repeat(&server, &["SCRIPT", "FLUSH"], ms(1), ms(12_000)).await;
        }),
    );
}

/// What the documentation says about leases (docs/guides/choosing.md). The outages begin at any time
/// between two renewals, so also when the last renewal is as long ago as it can be.
#[tokio::test(start_paused = true)]
async fn an_outage_of_four_tenths_of_the_lease_costs_no_lock_whenever_it_begins() {
    const PHASES: u32 = 50;
    for lease in [ms(2_000), ms(10_000), ms(50_000)] {
        for phase in 0..PHASES {
            let store = FaultyStore::new(MemoryStore::new());
            let locks = Locks::builder().store(store.clone()).lease(lease).build().await.unwrap();
            let mut held = Vec::new();
            for number in 0..10 {
                held.push(locks.lock(format!("held:{number}")).acquire().await.unwrap());
            }
            tokio::time::sleep(lease + lease / 2 * phase / PHASES).await;
            store.go_down();
            tokio::time::sleep(lease * 2 / 5).await;
            store.come_back();
            tokio::time::sleep(lease).await;
            let lost = held.iter().filter(|guard| !guard.is_held()).count();
            assert_eq!(lost, 0, "a lease of {lease:?}, phase {phase}");
        }
    }
}

/// The same on a server, where the pauses between attempts to connect count as well.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_four_tenths_of_ten_seconds_costs_no_lock_on_a_server() {
    let server = redis();
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    // Their renewals are spread over all of the time between two.
    let mut held = Vec::new();
    for number in 0..36 {
        held.push(locks.lock(format!("held:{number}")).acquire().await.unwrap());
        tokio::time::sleep(ms(100)).await;
    }
    // Nothing listens there, so connections are reset.
    proxy.fail_over_to(1);
    tokio::time::sleep(ms(4000)).await;
    proxy.fail_over_to(server.port());
    eventually(ms(15_000), async || {
        let left: Vec<_> = held.iter().map(|guard| guard.remaining()).collect();
        assert!(held.iter().all(|guard| guard.is_held()), "{left:?}");
        if left.iter().all(|left| *left > ms(6000)) { Ok(()) } else { Err(left) }
    })
    .await;
}

/// Repeats a command on a server.
async fn repeat(server: &RedisServer, words: &[&str], each: Duration, time: Duration) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let began = Instant::now();
    let mut times = 0;
    let mut connection = server.connection().await;
    while began.elapsed() < time {
        let _: redis::Value = command.query_async(&mut connection).await.unwrap();
        times += 1;
        tokio::time::sleep(each).await;
    }
    assert!(times > 50, "{words:?}: {times} times only");
}

/// The deadline is on a clock that is never set.
#[tokio::test]
async fn a_step_of_the_wall_clock_changes_nothing() {
    let clock = HostClock::build();
    let server = redis();
    let proxy = Proxy::start(server.port());
    let worker = || {
        let mut worker = Worker::start_by(&clock, env!("CARGO_BIN_EXE_worker"));
        worker.tell(&format!("connect {}", proxy.url()));
        worker.expect("ready");
        worker
    };
    let (mut healthy, mut cut) = (worker(), worker());
    // A step ahead: the hold does not end early.
    healthy.tell("hold a 10000");
    healthy.expect("waiting");
    healthy.expect("held");
    clock.set(60_000);
    healthy.tell("release");
    healthy.expect("released");
    // A step back: the lock is not believed to be held for longer.
    cut.tell("hold b 4000");
    cut.expect("waiting");
    cut.expect("held");
    proxy.black_hole(Direction::Both);
    let left: i64 =
        redis::cmd("PTTL").arg("lock:b").query_async(&mut server.connection().await).await.unwrap();
    let expiry = now() + u64::try_from(left).unwrap() * 1_000_000;
    clock.set(57_000);
    cut.tell("lost");
    let lost = cut.expect("lost")[0];
    assert!(lost < expiry, "too late by {} ms", (lost - expiry) / 1_000_000);
}

/// Section 6: a server that is stopped for three seconds is reported meanwhile, and used again as
/// soon as it is back.
#[tokio::test]
async fn a_server_that_stops_for_three_seconds_is_reported_and_used_again() {
    let server = redis();
    let locks = connect(&server).await;
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    server.stop_process();
    let stopped = Instant::now();
    let error = locks.lock("a").acquire().await.unwrap_err();
    let reported = stopped.elapsed();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    tokio::time::sleep(ms(3000).saturating_sub(stopped.elapsed())).await;
    server.continue_process();
    let back = Instant::now();
    let guard = loop {
        match locks.lock("a").acquire().await {
            Ok(guard) => break guard,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
    };
    let used = back.elapsed();
    println!("reported after {reported:?}, used {used:?} after its return");
    assert!(reported < ms(2500) && used < ms(2000), "{reported:?}, {used:?}");
    guard.release().await.unwrap();
}

/// Guarantee 2: lost data means a lost lock, which is known at the next renewal.
#[tokio::test]
async fn a_server_that_forgot_the_lock_costs_it() {
    let server = redis();
    let locks = connect(&server).await;
    let guard = locks.lock("a").lease(ms(9000)).acquire().await.unwrap();
    let began = Instant::now();
    server.restart();
    // The renewal comes after three seconds; the deadline alone would report the loss much later.
    let patience = ms(7000).saturating_sub(began.elapsed());
    tokio::time::timeout(patience, guard.lost()).await.expect("not before the deadline");
    assert!(locks.lock("a").try_acquire().await.unwrap().is_some());
}

/// Guarantee 7: a lost reply costs nothing: the repeated request is answered as if it had been made
/// once.
#[tokio::test]
async fn a_lost_reply_is_made_up_for() {
    let server = redis();
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let mut last = 0;
    for round in 0..10 {
        proxy.cut_instead_of_reply(1);
        let began = Instant::now();
        let guard = locks.lock("a").acquire().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(guard.fencing_token() > last, "round {round}");
        last = guard.fencing_token();
        proxy.cut_instead_of_reply(1);
        drop(guard);
        locks.flush().await;
        assert_eq!(locks.lock("a").status().await.unwrap(), Status::Free);
    }
}

/// Guarantee 4: an acquire that timed out is undone, even if the server executes it late.
#[tokio::test]
async fn an_acquire_that_was_given_up_is_undone_when_the_server_comes_back() {
    let server = redis();
    let locks = connect(&server).await;
    server.stop_process();
    let began = Instant::now();
    let error = locks.lock("a").lease(Duration::from_secs(60)).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let took = began.elapsed();
    assert!(took > ms(1900) && took < ms(3000), "{took:?}");
    let long = locks.lock("b").lease(Duration::from_secs(60));
    assert!(tokio::time::timeout(ms(100), long.acquire()).await.is_err());
    server.continue_process();
    for id in ["a", "b"] {
        eventually(Duration::from_secs(5), || {
            let lock = locks.lock(id);
            async move {
                match lock.status().await {
                    Ok(Status::Free) => Ok(()),
                    other => Err(other),
                }
            }
        })
        .await;
    }
    locks.flush().await;
    assert!(locks.lock("a").try_acquire().await.unwrap().is_some());
}

/// Section 6: two time-outs in a row replace a connection that was cut silently.
#[tokio::test]
async fn a_black_holed_connection_is_replaced() {
    let server = redis();
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let before = proxy.connections_accepted();
    // Only the existing connection is affected: its bytes vanish for ever.
    proxy.hold(Direction::Both);
    let error = locks.lock("a").acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    eventually(Duration::from_secs(5), || {
        let accepted = proxy.connections_accepted();
        async move { if accepted > before { Ok(()) } else { Err(accepted) } }
    })
    .await;
    proxy.heal();
    let began = Instant::now();
    assert!(locks.lock("a").acquire().await.unwrap().is_held());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// A server that is down is reported in bounded time, and used again soon after its return.
#[tokio::test]
async fn an_outage_is_reported_in_time_and_ends_by_itself() {
    let server = redis();
    let locks = connect(&server).await;
    server.kill();
    let began = Instant::now();
    let waiting = locks.lock("a").wait(Duration::from_secs(60));
    assert_eq!(waiting.acquire().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(began.elapsed() < ms(3000), "{:?}", began.elapsed());
    assert_eq!(locks.lock("a").status().await.unwrap_err().kind(), ErrorKind::Unavailable);
    server.restart();
    let began = Instant::now();
    let acquired = loop {
        match locks.lock("a").acquire().await {
            Ok(guard) => break guard,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
        assert!(began.elapsed() < Duration::from_secs(10));
    };
    println!("acquired {:?} after the server's return", began.elapsed());
    acquired.release().await.unwrap();
}

/// An outage in the middle of a wait is no error if it is short enough.
#[tokio::test]
async fn a_wait_outlives_a_short_outage() {
    let server = WatchedServer::start(RedisServer::builder().append_only(true));
    let (one, other) = (connect(&server).await, connect(&server).await);
    let guard = one.lock("a").lease(Duration::from_secs(5)).acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = other.lock("a").wait(Duration::from_secs(30));
        async move { lock.acquire().await }
    });
    tokio::time::sleep(ms(100)).await;
    server.restart();
    tokio::time::sleep(ms(100)).await;
    guard.release().await.unwrap();
    assert!(waiting.await.unwrap().unwrap().is_held());
}

/// A shutdown does not wait for a server that does not answer.
#[tokio::test]
async fn a_shutdown_is_bounded() {
    let server = redis();
    let locks = connect(&server).await;
    let guard = locks.lock("a").acquire().await.unwrap();
    server.stop_process();
    let began = Instant::now();
    locks.shutdown().await;
    assert!(began.elapsed() < ms(3500), "{:?}", began.elapsed());
    assert!(!guard.is_held());
}

/// When a client replaces a connection, it leaves those of other clients alone, even on a server
/// that has restarted and numbers connections from the start.
#[tokio::test]
async fn replacing_a_connection_kills_no_other() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let locks = connect(&server).await;
    let guard = locks.lock("a").acquire().await.unwrap();
    server.restart();
    let mut bystanders = Vec::new();
    for _ in 0..30 {
        bystanders.push(server.connection().await);
    }
    eventually(Duration::from_secs(5), || {
        let lock = locks.lock("b");
        async move { lock.try_acquire().await.is_ok() }
    })
    .await;
    for bystander in &mut bystanders {
        let pong: String = redis::cmd("PING").query_async(bystander).await.unwrap();
        assert_eq!(pong, "PONG");
    }
    drop(guard);
}

/// Section 5: a script that is sent again as source, because the server does not know it, is not
/// overtaken by later ones. Here the server knows the script for acquire, but not the one for
/// release.
#[tokio::test]
async fn what_was_dropped_is_free_where_the_server_has_forgotten_how_to_release() {
    let server = redis();
    let locks = connect(&server).await;
    let other = connect(&server).await;
    for round in 0..5 {
        let guard = locks.lock("a").acquire().await.unwrap();
        forget_scripts(&server).await;
        drop(other.lock("b").acquire().await.unwrap().leak());
        drop(guard);
        let again = locks.lock("a").try_acquire().await.unwrap();
        assert!(again.is_some(), "round {round}: this client's own release is still on its way");
        drop(again);
        locks.flush().await;
        other.lock("b").force_release().await.unwrap();
    }
}

/// The same for a user who may not load scripts: docs/servers.md says that the library needs no
/// such right.
#[tokio::test]
async fn what_was_dropped_is_free_for_a_user_who_may_not_load_scripts() {
    let server = redis();
    let mut admin = server.connection().await;
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("few").arg("on").arg(">hush").arg("~*").arg("&*").arg("+@all");
    // Rights to subcommands can be taken away since Redis 7.0.
    let right = if RedisServer::version().is_before(7, 0) { "-script" } else { "-script|load" };
    let _: () = user.arg(right).query_async(&mut admin).await.unwrap();
    let locks = Locks::connect(&server.url_with("few", "hush", 0)).await.unwrap();
    drop(locks.lock("a").acquire().await.unwrap());
    assert!(locks.lock("a").try_acquire().await.unwrap().is_some());
}

/// Guarantee 4: an acquire that is given up is undone after it, even if the server knows the script
/// for release but not the one for acquire.
#[tokio::test]
async fn an_acquire_that_is_sent_by_its_source_is_undone_behind_it() {
    let server = redis();
    let proxy = Proxy::start(server.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let other = connect(&server).await;
    let held = other.lock("b").acquire().await.unwrap();
    forget_scripts(&server).await;
    held.release().await.unwrap();
    proxy.hold(Direction::ToClient);
    let replies = proxy.replies_seen();
    let lock = locks.lock("a").lease(Duration::from_secs(60));
    let acquire = tokio::spawn(async move { lock.acquire().await.map(drop) });
    proxy.wait_for_replies(replies + 1).await;
    acquire.abort();
    assert!(acquire.await.unwrap_err().is_cancelled());
    // Until its release has been answered.
    proxy.wait_for_replies(replies + 2).await;
    proxy.heal();
    locks.flush().await;
    assert_eq!(other.lock("a").status().await.unwrap(), Status::Free);
}

async fn forget_scripts(server: &RedisServer) {
    let mut connection = server.connection().await;
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
}

/// Guarantee 2: the address leads to another server, and the old one is now its replica and leaves
/// its connections open.
#[tokio::test]
async fn a_lock_survives_a_failover_that_leaves_its_connection_open() {
    let (before, after) = (redis(), redis());
    let proxy = Proxy::start(before.port());
    let locks = Locks::connect(&proxy.url()).await.unwrap();
    let (mut old, mut new) = (before.connection().await, after.connection().await);
    replica_of(&mut new, Some(before.port())).await;
    let guard = locks.lock("a").lease(ms(3000)).acquire().await.unwrap();
    eventually(Duration::from_secs(10), async || {
        after.keys().await.iter().any(|(key, ..)| key == "lock:a")
    })
    .await;
    proxy.lead_to(after.port());
    replica_of(&mut new, None).await;
    replica_of(&mut old, Some(after.port())).await;
    tokio::time::sleep(ms(4000)).await;
    assert!(guard.is_held(), "renewed where the address leads");
    guard.release().await.unwrap();
    assert!(locks.lock("a").try_acquire().await.unwrap().is_some());
}

async fn replica_of(server: &mut redis::aio::MultiplexedConnection, primary: Option<u16>) {
    let (host, port) = match primary {
        Some(port) => ("127.0.0.1", port.to_string()),
        None => ("NO", "ONE".to_owned()),
    };
    let _: () = redis::cmd("REPLICAOF").arg(host).arg(port).query_async(server).await.unwrap();
}

/// Guarantee 1: an extension never promises more than the server keeps against other clients, even
/// if the key was made eternal.
#[tokio::test]
async fn an_extension_never_shortens_a_key_that_was_made_eternal() {
    let server = redis();
    let locks = connect(&server).await;
    let other = connect(&server).await;
    let guard = locks.lock("a").acquire().await.unwrap();
    let mut connection = server.connection().await;
    server.allow("lock:a");
    let _: () = redis::cmd("PERSIST").arg("lock:a").query_async(&mut connection).await.unwrap();
    guard.extend(ms(1)).await.unwrap();
    tokio::time::sleep(ms(50)).await;
    assert!(other.lock("a").try_acquire().await.unwrap().is_none() || !guard.is_held());
}

/// Section 6: a server that ends each connection at once is not flooded with new ones.
#[tokio::test]
async fn connections_that_end_at_once_are_made_again_ever_more_slowly() {
    let server = redis();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (port, accepted) = (server.port(), Arc::new(AtomicU32::new(0)));
    let relay = tokio::spawn({
        let accepted = Arc::clone(&accepted);
        async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::Relaxed);
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut to_server, mut to_client) = ([0; 65536], [0; 65536]);
                // Relays until both sides are silent.
                loop {
                    tokio::select! {
                        Ok(read @ 1..) = client.read(&mut to_server) => {
                            server.write_all(&to_server[..read]).await.unwrap();
                        }
                        Ok(read @ 1..) = server.read(&mut to_client) => {
                            client.write_all(&to_client[..read]).await.unwrap();
                        }
                        () = tokio::time::sleep(ms(20)) => break,
                        else => break,
                    }
                }
            }
        }
    });
    // On a busy machine, a handshake may pause for longer than the relay waits.
    let _locks = eventually(ms(20_000), async || {
        Locks::connect(&format!("redis://{address}")).await.map_err(|error| error.to_string())
    })
    .await;
    accepted.store(0, Ordering::Relaxed);
    tokio::time::sleep(ms(3000)).await;
    relay.abort();
    let accepted = accepted.load(Ordering::Relaxed);
    assert!((4..20).contains(&accepted), "{accepted} connections in three seconds");
}
