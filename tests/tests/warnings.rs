//! Problems are reported at a connect or reconnect: conditions once, restarts and losses of data each
//! time.

use lock::{ErrorKind, Locks, Warning};
use lock_tests::{RedisServer, eventually};

use crate::common::{Heard, command, ms};

/// Cuts the connection, and waits until there is another.
async fn reconnect(server: &RedisServer, locks: &Locks) {
    // A listening connection is of this type.
    command(server, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    eventually(ms(5000), async || {
        let acquired = locks.lock("a").try_acquire().await;
        acquired.is_ok_and(|guard| guard.is_some())
    })
    .await;
}

#[tokio::test]
async fn a_healthy_server_is_none() {
    let server = RedisServer::start();
    let heard = Heard::default();
    let locks = heard.connect(&server.url()).await;
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    // A limit without eviction, or a policy without a limit, causes no warning.
    command(&server, &["CONFIG", "SET", "maxmemory", "100mb"]).await;
    let _other = heard.connect(&server.url()).await;
    command(&server, &["CONFIG", "SET", "maxmemory", "0"]).await;
    command(&server, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let _other = heard.connect(&server.url()).await;
    assert_eq!(heard.all(), []);
}

#[tokio::test]
async fn a_server_that_may_evict_is_named_at_each_connect_and_said_once() {
    let server = RedisServer::start();
    command(&server, &["CONFIG", "SET", "maxmemory", "100mb"]).await;
    command(&server, &["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).await;
    let heard = Heard::default();
    let locks = heard.connect(&server.url()).await;
    let evicts = Warning::MayEvict { policy: "volatile-ttl".to_owned() };
    heard.until(std::slice::from_ref(&evicts)).await;
    reconnect(&server, &locks).await;
    // A change is noticed with the next connection.
    command(&server, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    reconnect(&server, &locks).await;
    // The next warning would come after a repetition of the first.
    heard.until(&[evicts, Warning::MayEvict { policy: "allkeys-lru".to_owned() }]).await;
}

#[tokio::test]
async fn a_replica_is_named() {
    let (server, primary) = (
        RedisServer::builder().cluster_of_one(false).start(),
        RedisServer::builder().cluster_of_one(false).start(),
    );
    let port = primary.port().to_string();
    command(&server, &["REPLICAOF", "127.0.0.1", &port]).await;
    let heard = Heard::default();
    let builder = heard.by(Locks::builder().url(server.url()));
    let error = builder.build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    heard.until(&[Warning::Replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restarted_and_one_without_its_data_are_named() {
    let server = RedisServer::builder().cluster_of_one(false).start();
    let heard = Heard::default();
    let locks = heard.connect(&server.url()).await;
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    tokio::task::block_in_place(|| server.restart());
    eventually(ms(5000), async || {
        let all = heard.all();
        let named = all.contains(&Warning::Restarted) && all.contains(&Warning::Wiped);
        if named { Ok(()) } else { Err(all) }
    })
    .await;
    assert_eq!(heard.all().len(), 2);
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();

    let server = RedisServer::builder().cluster_of_one(false).append_only(true).start();
    let heard = Heard::default();
    let locks = heard.connect(&server.url()).await;
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    tokio::task::block_in_place(|| server.restart());
    eventually(ms(5000), async || !heard.all().is_empty()).await;
    // Not the same lock: its release may be missing from the file.
    locks.lock("b").acquire().await.unwrap().release().await.unwrap();
    heard.until(&[Warning::Restarted]).await;
}

#[tokio::test]
async fn rights_that_are_missing_are_named() {
    let server = RedisServer::start();
    for (user, right, expected) in
        [("deaf", "-subscribe", Warning::NoNotices), ("mute", "-publish", Warning::MayNotPublish)]
    {
        command(&server, &["ACL", "SETUSER", user, "on", ">hush", "~*", "&*", "+@all", right])
            .await;
        let heard = Heard::default();
        let _locks = heard.connect(&server.url_with(user, "hush", 0)).await;
        heard.until(&[expected]).await;
    }
}
