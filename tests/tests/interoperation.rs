//! One key, many clients: a client that does `SET key token NX PX lease` and compares before it
//! deletes excludes this library, and is excluded by it.

use lock::{ErrorKind, Locks, Status};
use lock_tests::RedisServer;
use redis::aio::MultiplexedConnection;

use crate::common::{Engine, ms};

/// The pattern of @upstash/lock, Redlock, redsync and redis-py.
async fn bare_acquire(connection: &mut MultiplexedConnection, key: &str, token: &str) -> bool {
    let reply: Option<String> = redis::cmd("SET")
        .arg(key)
        .arg(token)
        .arg("NX")
        .arg("PX")
        .arg(5000)
        .query_async(connection)
        .await
        .unwrap();
    reply.is_some()
}

async fn bare_release(connection: &mut MultiplexedConnection, key: &str, token: &str) -> bool {
    let script = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
    let freed: i64 = redis::cmd("EVAL")
        .arg(script)
        .arg(1)
        .arg(key)
        .arg(token)
        .query_async(connection)
        .await
        .unwrap();
    freed == 1
}

#[tokio::test]
async fn bare_clients_and_this_library_exclude_each_other() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let mut bare = server.connection().await;
    for (prefix, key) in [("", "a"), ("lock:", "lock:a")] {
        let locks = Locks::builder().url(server.locks_url()).prefix(prefix).build().await.unwrap();
        let lock = locks.lock("a");

        assert!(bare_acquire(&mut bare, key, "theirs").await);
        assert!(lock.try_acquire().await.unwrap().is_none());
        let Status::Held { by_us, holders, remaining, .. } = lock.status().await.unwrap() else {
            panic!("it is held")
        };
        assert!(!by_us && holders[0].token.as_str() == "theirs" && remaining <= ms(5000));
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        assert!(bare_release(&mut bare, key, "theirs").await);
        let guard = waiting.await.unwrap().unwrap();

        assert!(!bare_acquire(&mut bare, key, "theirs").await);
        assert!(!bare_release(&mut bare, key, "theirs").await);
        guard.release().await.unwrap();
        assert!(bare_acquire(&mut bare, key, "theirs").await);
        assert!(bare_release(&mut bare, key, "theirs").await);
    }
}

#[tokio::test]
async fn the_key_holds_exactly_the_token_for_exactly_the_lease() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let locks = Locks::builder().url(server.locks_url()).prefix("").build().await.unwrap();
    let guard = locks.lock("a").lease(ms(4321)).acquire().await.unwrap();
    let (value, left): (String, i64) = redis::pipe()
        .cmd("GET")
        .arg("a")
        .cmd("PTTL")
        .arg("a")
        .query_async(&mut server.connection().await)
        .await
        .unwrap();
    assert!((3000..=4321).contains(&left), "{left}");
    assert_eq!(guard.leak().as_str(), value);
}

/// A bare client that takes the key over after it has expired, or was deleted, is respected.
#[tokio::test]
async fn a_key_that_changed_hands_is_lost() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let mut bare = server.connection().await;
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let guard = locks.lock("a").lease(ms(300)).acquire().await.unwrap();
    let _: i64 = redis::cmd("DEL").arg("lock:a").query_async(&mut bare).await.unwrap();
    assert!(bare_acquire(&mut bare, "lock:a", "theirs").await);
    guard.lost().await;
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(bare_release(&mut bare, "lock:a", "theirs").await, "it was neither renewed nor freed");
}

/// The same before a renewal has noticed: the release itself compares.
#[tokio::test]
async fn a_release_frees_nobody_elses_lock() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let mut bare = server.connection().await;
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    for explicit in [true, false] {
        let guard = locks.lock("a").acquire().await.unwrap();
        let _: i64 = redis::cmd("DEL").arg("lock:a").query_async(&mut bare).await.unwrap();
        assert!(bare_acquire(&mut bare, "lock:a", "theirs").await);
        if explicit {
            assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
        } else {
            drop(guard);
            locks.flush().await;
        }
        assert!(bare_release(&mut bare, "lock:a", "theirs").await, "it was freed");
    }
}

/// One of our keys outlives the longest lease only if the server's clock was set back.
#[tokio::test]
async fn a_lease_of_a_clock_that_was_set_back_is_cut() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let mut bare = server.connection().await;
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let day = 24 * 60 * 60 * 1000;
    let ours = locks.lock("a").acquire().await.unwrap().leak();
    for (token, cut) in [(ours.as_str(), true), ("theirs", false)] {
        let _: () = redis::cmd("SET")
            .arg("lock:a")
            .arg(token)
            .arg("PX")
            .arg(10 * day)
            .query_async(&mut bare)
            .await
            .unwrap();
        assert!(locks.lock("a").try_acquire().await.unwrap().is_none());
        let left: i64 = redis::cmd("PTTL").arg("lock:a").query_async(&mut bare).await.unwrap();
        assert_eq!(left <= day, cut, "{left}");
    }
}

/// Guarantee 6: the fence survives losses that the lock's key does not.
#[tokio::test]
async fn fencing_tokens_grow_across_a_loss_of_all_data() {
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let mut last = 0;
    for round in 0..20 {
        let guard = locks.lock("a").acquire().await.unwrap();
        assert!(guard.fencing_token() > last, "round {round}");
        last = guard.fencing_token();
        guard.release().await.unwrap();
        match round % 4 {
            0 => {
                let mut connection = server.connection().await;
                let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
            }
            1 => server.restart(),
            _ => {}
        }
    }
    // The counter decides when the clock is behind it.
    let ahead = (last >> 10) + 10_000_000_000;
    let mut connection = server.connection().await;
    let _: () =
        redis::cmd("SET").arg("~fence").arg(ahead).query_async(&mut connection).await.unwrap();
    let guard = locks.lock("a").acquire().await.unwrap();
    assert_eq!(guard.fencing_token() >> 10, ahead + 1);
}

/// A resource that checks the fencing token never takes a stale write, however large the token is.
#[tokio::test]
async fn a_fenced_key_refuses_stale_writers() {
    let server = RedisServer::start();
    let mut connection = server.connection().await;
    let mut written = Vec::new();
    // The last two differ in digits that a Lua number would lose.
    let newest = u64::MAX >> 1;
    for (token, value, accepted) in [
        (9, "a", true),
        (9, "b", true),
        (10, "c", true),
        (9, "d", false),
        (newest - 1, "e", true),
        (newest, "f", true),
        (newest - 1, "g", false),
    ] {
        let done = lock::fenced::set(&mut connection, "ledger", value, token).await.unwrap();
        assert_eq!(done, accepted, "{token} {value}");
        if accepted {
            written.push(value);
        }
        let found: String = redis::cmd("HGET")
            .arg("ledger")
            .arg("value")
            .query_async(&mut connection)
            .await
            .unwrap();
        assert_eq!(Some(&&*found), written.last());
    }
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let stale = locks.lock("a").acquire().await.unwrap();
    assert!(locks.lock("a").force_release().await.unwrap());
    let next = locks.lock("a").acquire().await.unwrap();
    let mut set = async |guard: &lock::LockGuard| {
        lock::fenced::set(&mut connection, "a", 1, guard.fencing_token()).await.unwrap()
    };
    assert!(set(&next).await && !set(&stale).await);
}

#[tokio::test]
async fn a_failed_extension_frees_nobody_elses_lock() {
    let server = RedisServer::start();
    let mut connection = server.connection().await;
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let guard = locks.lock("a").acquire().await.unwrap();
    let _: i64 = redis::cmd("DEL").arg("lock:a").query_async(&mut connection).await.unwrap();
    assert!(bare_acquire(&mut connection, "lock:a", "other").await);
    assert_eq!(guard.extend(ms(1000)).await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(!guard.is_held());
    let holder: Option<String> =
        redis::cmd("GET").arg("lock:a").query_async(&mut connection).await.unwrap();
    assert_eq!(holder.as_deref(), Some("other"));
}
