//! An error says which server, what happened and what to change; its cause is the source, and not
//! part of the text.

use std::{
    error::Error as _,
    io::{Read, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

use lock::{Error, ErrorKind, Locks};
use lock_tests::{RedisServer, Worker, eventually};

use crate::common::ms;

/// Checks that the text contains all parts, no secret, and no copy of the source's text.
#[track_caller]
fn check(error: &Error, kind: ErrorKind, server: &RedisServer, says: &[&str]) {
    check_at(error, kind, &format!("127.0.0.1:{}", server.port()), says);
}

#[track_caller]
fn check_at(error: &Error, kind: ErrorKind, address: &str, says: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{error:?}");
    for part in says.iter().chain([&address]) {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
    assert!(!format!("{error:?}").contains("hush"), "a secret is told: {error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        assert!(!text.contains(&cause_text), "{text:?} repeats its source {cause_text:?}");
        assert!(!cause_text.contains("hush"), "{cause_text}");
        source = cause.source();
    }
}

async fn run(server: &RedisServer, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let _: redis::Value = command.query_async(&mut server.connection().await).await.unwrap();
}

/// Ends the library's listening connection.
async fn cut(server: &RedisServer) {
    run(server, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
}

async fn until_it_works(locks: &Locks) {
    eventually(ms(10_000), async || {
        locks.lock("a").acquire().await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

async fn refused_at_connect(url: &str) -> Error {
    Locks::connect(url).await.expect_err("it is no server for locks")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_named_and_the_cause_is_the_source() {
    let server = RedisServer::start();
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let guard = locks.lock("a").lease(ms(20_000)).acquire().await.unwrap();
    tokio::task::block_in_place(|| server.kill());
    let refused = &["refused", "check host and port"];
    check(&refused_at_connect(&server.url()).await, ErrorKind::Unavailable, &server, refused);
    for error in [
        locks.lock("b").acquire().await.unwrap_err(),
        locks.lock("b").status().await.unwrap_err(),
        guard.extend(ms(100)).await.unwrap_err(),
        locks.debounce("b").wait(ms(1)).call(|| async {}).await.unwrap_err(),
    ] {
        check(&error, ErrorKind::Unavailable, &server, refused);
        assert!(error.source().is_some(), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_changed_is_the_reason_that_is_given() {
    let server = RedisServer::start();
    let user = ["ACL", "SETUSER", "app", "on", ">hush", "~*", "&*", "+@all"];
    run(&server, &user).await;
    let locks = Locks::connect(&server.url_with("app", "hush", 0)).await.unwrap();
    for trouble in
        [&["ACL", "SETUSER", "app", "resetpass", ">other"][..], &["ACL", "DELUSER", "app"]]
    {
        run(&server, trouble).await;
        cut(&server).await;
        let error = eventually(ms(5000), async || {
            let error = locks.lock("a").acquire().await.err().ok_or("it was served")?;
            if error.to_string().contains("password") { Ok(error) } else { Err("another reason") }
        })
        .await;
        check(&error, ErrorKind::Unavailable, &server, &["WRONGPASS", "password"]);
        let source = error.source().expect("what the server has said");
        assert!(source.to_string().contains("WRONGPASS"), "{source}");
        let at_connect = refused_at_connect(&server.url_with("app", "hush", 0)).await;
        check(&at_connect, ErrorKind::Rejected, &server, &["password"]);
        run(&server, &user).await;
        until_it_works(&locks).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_room_for_another_client_says_so() {
    let server = RedisServer::start();
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    // Open connections count, including the one for this command.
    let mut open = server.connection().await;
    let set = |most: &str| redis::cmd("CONFIG").arg(&["SET", "maxclients", most]).to_owned();
    let _: () = set("1").query_async(&mut open).await.unwrap();
    let _: i64 =
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).query_async(&mut open).await.unwrap();
    let error = eventually(ms(5000), async || {
        let error = locks.lock("a").acquire().await.err().ok_or_else(|| "served".to_owned())?;
        if error.to_string().contains("maxclients") { Ok(error) } else { Err(format!("{error:?}")) }
    })
    .await;
    check(&error, ErrorKind::Unavailable, &server, &["maxclients"]);
    let at_connect = refused_at_connect(&server.url()).await;
    check(&at_connect, ErrorKind::Unavailable, &server, &["maxclients"]);
    let _: () = set("100").query_async(&mut open).await.unwrap();
    until_it_works(&locks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_somebodys_script_keeps_busy_is_worth_another_try() {
    let server = RedisServer::start();
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    run(&server, &["CONFIG", "SET", "lua-time-limit", "1"]).await;
    let (mut busy, mut other) = (server.connection().await, server.connection().await);
    let script = tokio::spawn(async move {
        let endless = redis::cmd("EVAL").arg(&["while true do end", "0"]).to_owned();
        let _: Result<redis::Value, _> = endless.query_async(&mut busy).await;
    });
    let ends_it = &["SCRIPT KILL"];
    let error = eventually(ms(5000), async || {
        let error = Locks::connect(&server.locks_url()).await.err().ok_or("it connects")?;
        if error.to_string().contains("SCRIPT KILL") { Ok(error) } else { Err("another reason") }
    })
    .await;
    check(&error, ErrorKind::Unavailable, &server, ends_it);
    let error = locks.lock("a").wait(ms(500)).acquire().await.unwrap_err();
    check(&error, ErrorKind::Unavailable, &server, ends_it);
    let _: () = redis::cmd("SCRIPT").arg("KILL").query_async(&mut other).await.unwrap();
    script.await.unwrap();
    until_it_works(&locks).await;
}

#[tokio::test]
async fn a_name_that_means_nothing_is_the_reason_that_is_given() {
    let error = refused_at_connect("redis://lock.invalid:6379/").await;
    check_at(
        &error,
        ErrorKind::Unavailable,
        "lock.invalid:6379",
        &["host name could not be resolved"],
    );
    assert!(error.source().is_some());
}

#[tokio::test]
async fn what_is_no_server_for_locks_is_refused_at_connect() {
    // A cluster that has not been set up yet.
    let cluster =
        RedisServer::builder().cluster_of_one(false).flag("--cluster-enabled", "yes").start();
    let error = refused_at_connect(&cluster.url()).await;
    check(&error, ErrorKind::Unavailable, &cluster, &["Redis Cluster", "has a slot", "create"]);

    let primary = RedisServer::start();
    let replica = RedisServer::builder().cluster_of_one(false).start();
    run(&replica, &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    let error = refused_at_connect(&replica.url()).await;
    let url = format!("redis://127.0.0.1:{}/", primary.port());
    check(&error, ErrorKind::Rejected, &replica, &["read-only replica", &url]);
    // A writable replica is as good as a primary.
    run(&replica, &["CONFIG", "SET", "replica-read-only", "no"]).await;
    drop(Locks::connect(&replica.url()).await.unwrap().lock("a").acquire().await.unwrap());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(4) {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let error = refused_at_connect(&format!("redis://{address}/")).await;
    check_at(&error, ErrorKind::Rejected, &address.to_string(), &["Redis protocol", "port"]);
}

#[tokio::test]
async fn a_sentinel_is_refused_at_connect() {
    let primary = RedisServer::start();
    let sentinel = RedisServer::builder().sentinel_of(primary.port()).start();
    let error = refused_at_connect(&sentinel.url()).await;
    check(&error, ErrorKind::Rejected, &sentinel, &["Sentinel", "redis+sentinel://", "/NAME"]);
}

/// A request that the server refuses without executing it is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_passes_is_waited_for() {
    let server = RedisServer::builder().cluster_of_one(false).start();
    let primary = RedisServer::builder().cluster_of_one(false).start();
    let port = primary.port().to_string();
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    for (begins, ends) in [
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"][..],
            &["CONFIG", "SET", "min-replicas-to-write", "0"][..],
        ),
        (&["REPLICAOF", "127.0.0.1", &port], &["REPLICAOF", "NO", "ONE"]),
    ] {
        run(&server, begins).await;
        let waiting = tokio::spawn(locks.lock("a").acquire());
        tokio::time::sleep(ms(700)).await;
        assert!(!waiting.is_finished(), "{begins:?} was a reason to give up");
        run(&server, ends).await;
        drop(waiting.await.unwrap().unwrap_or_else(|error| panic!("{begins:?}: {error}")));
    }
    // A refusal that lasts is reported, with its code.
    run(&server, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let began = Instant::now();
    let error = locks.lock("a").acquire().await.unwrap_err();
    assert!(began.elapsed() > ms(1500), "{:?}", began.elapsed());
    check(&error, ErrorKind::Unavailable, &server, &["NOREPLICAS", "min-replicas-to-write"]);
}

/// A service may start while its store is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_client_connects_with_its_first_call() {
    let server = RedisServer::start();
    tokio::task::block_in_place(|| server.kill());
    let locks = Locks::builder().url(server.locks_url()).build_lazy().unwrap();
    let error = locks.lock("a").acquire().await.unwrap_err();
    check(&error, ErrorKind::Unavailable, &server, &["refused"]);
    tokio::task::block_in_place(|| server.restart());
    until_it_works(&locks).await;
    // Without a runtime and without a call, nothing connects and nothing waits.
    let before = server.commands().await;
    let outside = std::thread::spawn({
        let url = server.url();
        move || Locks::builder().url(url).build_lazy().unwrap()
    });
    let unused = tokio::task::block_in_place(|| outside.join().unwrap());
    assert_eq!(server.commands().await.minus(&before).calls("hello"), 0);
    // Push notices work as with any other client.
    let guard = locks.lock("b").acquire().await.unwrap();
    let waiter = tokio::spawn(unused.lock("b").acquire());
    eventually(ms(5000), async || {
        let status = locks.lock("b").status().await.unwrap();
        matches!(status, lock::Status::Held { waiters: 1, .. })
    })
    .await;
    let began = Instant::now();
    guard.release().await.unwrap();
    drop(waiter.await.unwrap().unwrap());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let invalid = Locks::builder().url("nonsense").build_lazy().unwrap_err();
    assert_eq!(invalid.kind(), ErrorKind::Invalid);
}

/// One event, and not one for each of the many attempts.
#[test]
fn one_event_tells_why_there_is_no_connection() {
    let server = RedisServer::start();
    let mut worker = Worker::start(env!("CARGO_BIN_EXE_worker"));
    worker.tell("subscribe and count");
    worker.expect("ready");
    worker.tell(&format!("connect {}", server.url()));
    worker.expect("ready");
    server.kill();
    worker.tell("hold a 10000");
    worker.expect("waiting");
    assert_eq!(worker.hear()[..2], ["failed", "Unavailable"]);
    worker.tell("events");
    // Two if the first attempt met a server that was about to end.
    let events = worker.expect("events")[0];
    assert!((1..=2).contains(&events), "{events} events for some twenty attempts");
}
