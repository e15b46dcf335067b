//! Bad input and failures: a typed error at once that says what to change, and nothing is left
//! behind.

use std::time::{Duration, Instant};

use lock::{Error, ErrorKind, Locks};
use lock_tests::{Certificates, Proxy, RedisServer, eventually};

use crate::common::{Engine, FENCE, WatchedServer, may_stay, ms, on_both_stores};

on_both_stores! { arguments_that_cannot_be_are_refused }

fn check(error: &Error, kind: ErrorKind, says: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{error:?}");
    for part in says {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        assert!(!inner.to_string().contains("hush"), "{inner}");
        source = inner.source();
    }
    assert!(!format!("{error:?} {text}").contains("hush"), "a secret is told: {error:?}");
}

async fn arguments_that_cannot_be_are_refused(engine: &Engine) {
    let locks = engine.locks().await;
    let refused = |lock: lock::Lock, says: &'static [&'static str]| async move {
        let error = lock.acquire().await.unwrap_err();
        check(&error, ErrorKind::Invalid, says);
        check(&lock.try_acquire().await.unwrap_err(), ErrorKind::Invalid, says);
    };
    refused(locks.lock(""), &["empty"]).await;
    refused(locks.lock("x".repeat(1025)), &["1024", "1025"]).await;
    refused(locks.lock("~a"), &["~"]).await;
    refused(locks.lock("a").lease(Duration::ZERO), &["0ns", "50ms"]).await;
    refused(locks.lock("a").lease(ms(49)), &["49ms", "50ms"]).await;
    refused(locks.lock("a").lease(Duration::MAX), &["86400s"]).await;
    refused(locks.lock("a").hold_at_most(ms(9999)), &["hold_at_most", "lease"]).await;
    refused(locks.lock("a").hold_at_least(Duration::MAX), &["hold_at_least"]).await;
    let never = locks.lock("a").retry(0, ms(1)).acquire().await.unwrap_err();
    check(&never, ErrorKind::Invalid, &["retry"]);
    for lock in [locks.lock(""), locks.lock("~a")] {
        assert_eq!(lock.status().await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(lock.force_release().await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    for debounce in [
        locks.debounce(""),
        locks.debounce("a").wait(Duration::ZERO),
        locks.debounce("a").wait(Duration::MAX),
        locks.debounce("a").max_wait(ms(1)),
    ] {
        let error = debounce.call(|| async { panic!("it does not run") }).await.unwrap_err();
        check(&error, ErrorKind::Invalid, &[]);
    }
    assert!(locks.lock("x".repeat(1024)).acquire().await.is_ok(), "the longest id there is");
    // Fractions of a millisecond are cut off, and the longest possible wait is valid.
    let odd = locks.lock("a").lease(Duration::from_micros(1_500_500)).wait(Duration::MAX);
    assert!(odd.acquire().await.unwrap().extend(Duration::from_micros(999)).await.is_err());
    for builder in [
        engine.builder().prefix("~"),
        engine.builder().prefix("x".repeat(1025)),
        engine.builder().lease(ms(1)),
        Locks::builder(),
    ] {
        check(&builder.build().await.unwrap_err(), ErrorKind::Invalid, &[]);
    }
    locks.flush().await;
    if let Engine::Redis(server) = engine {
        let keys = server.keys().await;
        assert!(keys.iter().all(|(key, ..)| may_stay(key)), "something is left: {keys:?}");
    }
}

#[tokio::test]
async fn a_fence_counter_that_is_none_is_named_and_nothing_is_taken() {
    let server = WatchedServer::start(RedisServer::builder().cluster_of_one(false));
    let locks = Engine::locks_of(&server).await;
    let mut connection = server.connection().await;
    for text in ["", "x", "nan", "inf", "9007199254740991", "1e300"] {
        let _: () =
            redis::cmd("SET").arg(FENCE).arg(text).query_async(&mut connection).await.unwrap();
        let refused = locks.lock("a").acquire().await.unwrap_err();
        check(&refused, ErrorKind::Rejected, &[FENCE, "delete"]);
        let refused = locks.debounce("a").wait(ms(1)).call(|| async {}).await.unwrap_err();
        check(&refused, ErrorKind::Rejected, &[FENCE, "delete"]);
        let keys = server.keys().await;
        assert!(keys.iter().all(|(key, ..)| may_stay(key)), "{text}: {keys:?}");
    }
    let _: () = redis::cmd("DEL").arg(FENCE).query_async(&mut connection).await.unwrap();
    drop(locks.lock("a").acquire().await.unwrap());
}

#[tokio::test]
async fn urls_that_name_no_store_are_refused() {
    let unknown = Locks::connect("http://me:hush@host/").await.unwrap_err();
    check(&unknown, ErrorKind::Invalid, &["`http`", "redis://"]);
    for url in ["", "hush", "redis://me:hush@host:port/", "redis://me:hush@host/x"] {
        check(&Locks::connect(url).await.unwrap_err(), ErrorKind::Invalid, &["redis"]);
    }
    let error = Locks::builder().url("redis://host/").root_certificate("hush").build().await;
    check(&error.unwrap_err(), ErrorKind::Invalid, &["rediss://"]);
    assert!(!format!("{:?}", Locks::builder().url("redis://me:hush@host/")).contains("hush"));
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_never_told() {
    let server = RedisServer::builder().cluster_of_one(false).flag("--requirepass", "hush");
    let server = WatchedServer::start_with(server, "hush".to_owned());
    for url in [server.url_with("", "hush-hush", 0), server.url(), server.url_with("me", "hush", 0)]
    {
        let error = Locks::connect(&url).await.unwrap_err();
        check(&error, ErrorKind::Rejected, &["password"]);
    }
    let error = Locks::connect(&server.url_with("", "hush", 99)).await.unwrap_err();
    check(&error, ErrorKind::Rejected, &["database"]);
    let locks = Locks::connect(&server.url_with("", "hush", 3)).await.unwrap();
    assert!(!format!("{locks:?}").contains("hush"));
    let guard = locks.lock("a").acquire().await.unwrap();
    let keys = server.keys().await;
    assert!(keys.iter().any(|(key, ..)| key == "lock:a"), "in the database of the URL: {keys:?}");
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_is_reported_at_once() {
    let proxy = Proxy::start(1);
    proxy.refuse_connections();
    let began = Instant::now();
    let error = Locks::connect(&proxy.url()).await.unwrap_err();
    check(&error, ErrorKind::Unavailable, &["reached", "host"]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_reported_in_time() {
    let server = RedisServer::builder().cluster_of_one(false).start();
    server.stop_process();
    let began = Instant::now();
    let error = Locks::connect(&server.locks_url()).await.unwrap_err();
    check(&error, ErrorKind::Unavailable, &["reached"]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_key_of_another_type_is_refused_and_left_as_it_is() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let mut connection = server.connection().await;
    let list = || redis::cmd("RPUSH").arg("lock:a").arg("1").to_owned();
    server.allow("lock:a");
    let _: () = list().query_async(&mut connection).await.unwrap();
    let lock = locks.lock("a");
    for error in [
        lock.acquire().await.unwrap_err(),
        lock.try_acquire().await.unwrap_err(),
        lock.status().await.unwrap_err(),
        lock.force_release().await.unwrap_err(),
    ] {
        check(&error, ErrorKind::Rejected, &["a", "WRONGTYPE"]);
        assert_eq!(error.id(), Some("a"));
    }
    let length: i64 = redis::cmd("LLEN").arg("lock:a").query_async(&mut connection).await.unwrap();
    assert_eq!(length, 1);
    // One such key under a lock that is held must not harm the others of its batch.
    let (one, other) = (locks.lock("b").lease(ms(300)), locks.lock("c").lease(ms(300)));
    let (lost, kept) = (one.acquire().await.unwrap(), other.acquire().await.unwrap());
    let _: () = redis::pipe()
        .cmd("DEL")
        .arg("lock:b")
        .cmd("RPUSH")
        .arg("lock:b")
        .arg("1")
        .cmd("PEXPIRE")
        .arg("lock:b")
        .arg(9000)
        .query_async(&mut connection)
        .await
        .unwrap();
    lost.lost().await;
    tokio::time::sleep(ms(600)).await;
    assert!(kept.is_held());
    assert_eq!(lost.release().await.unwrap_err().kind(), ErrorKind::Lost);
}

/// All keys are checked before any is written, so nothing is left half done.
#[tokio::test]
async fn a_key_of_another_type_among_those_of_durable_calls_costs_none() {
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let mut connection = server.connection().await;
    let durable =
        locks.debounce("a").wait(ms(10)).durable("f", |_: u64, _| async { Err::<(), _>("no") });
    let durable = durable.unwrap().retry(1, ms(10));
    durable.call(&7).await.unwrap();
    eventually(ms(5000), async || !durable.set_aside().await.unwrap().is_empty()).await;
    let _: () = redis::cmd("SET")
        .arg(&["lock:~due:f", "text", "PX", "60000"])
        .query_async(&mut connection)
        .await
        .unwrap();
    check(&durable.run_again().await.unwrap_err(), ErrorKind::Rejected, &["WRONGTYPE"]);
    assert_eq!(durable.set_aside().await.unwrap().len(), 1, "it is still there");
    check(&durable.call(&8).await.unwrap_err(), ErrorKind::Rejected, &["WRONGTYPE"]);
    let keys = server.keys().await;
    assert!(!keys.iter().any(|(key, ..)| key == "lock:~calls:f"), "{keys:?}");
}

#[tokio::test]
async fn a_full_memory_refuses_acquires_but_neither_renewals_nor_releases() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let guard = locks.lock("a").lease(ms(300)).acquire().await.unwrap();
    let mut connection = server.connection().await;
    let config =
        |value: &str| redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(value).to_owned();
    let _: () = config("1mb").query_async(&mut connection).await.unwrap();
    let error = locks.lock("b").acquire().await.unwrap_err();
    check(&error, ErrorKind::Rejected, &["memory"]);
    tokio::time::sleep(ms(900)).await;
    assert!(guard.is_held(), "still renewed");
    guard.release().await.unwrap();
    let _: () = config("0").query_async(&mut connection).await.unwrap();
    assert!(locks.lock("b").acquire().await.is_ok());
}

#[tokio::test]
async fn a_unix_socket_works() {
    let server = WatchedServer::start(RedisServer::builder().unix_socket(true));
    let over_socket = Locks::connect(&server.unix_url()).await.unwrap();
    let guard = over_socket.lock("a").acquire().await.unwrap();
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    assert!(locks.lock("a").try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
    assert!(locks.lock("a").try_acquire().await.unwrap().is_some());
}

#[tokio::test]
async fn tls_and_unix_sockets_work_and_a_foreign_authority_is_refused() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let server = WatchedServer::start(RedisServer::builder().tls(true).unix_socket(true));
    let secure =
        |authority: &str| Locks::builder().url(server.tls_url()).root_certificate(authority);
    let over_tls = secure(server.certificate_authority()).build().await.unwrap();
    let over_socket = Locks::connect(&server.unix_url()).await.unwrap();
    let guard = over_tls.lock("a").acquire().await.unwrap();
    assert!(over_socket.lock("a").try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
    assert!(over_socket.lock("a").try_acquire().await.unwrap().is_some());
    let foreign = Certificates::generate();
    let error = secure(foreign.authority()).build().await.unwrap_err();
    check(&error, ErrorKind::Unavailable, &["TLS"]);
    let error = Locks::connect(&server.tls_url()).await.unwrap_err();
    check(&error, ErrorKind::Unavailable, &["TLS"]);
    let error = secure("no certificate").build().await.unwrap_err();
    check(&error, ErrorKind::Invalid, &[]);
}
