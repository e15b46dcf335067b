//! What operators can see and do: the holder of a lock, lists, and releases by force.

use std::{collections::HashSet, time::Duration};

use lock::{ErrorKind, Holder, Locks, Status};
use lock_tests::Proxy;

use crate::common::{Engine, command, introduced, ms, on_both_stores};

on_both_stores! {
    a_holder_is_known_by_its_name_host_and_process,
    a_list_has_each_lock_that_is_held_in_order,
    only_the_holder_that_was_named_is_released,
    a_debounce_says_what_waits_and_who_runs,
    durable_calls_are_known_by_the_name_of_their_function,
}

async fn holder(locks: &Locks, id: &str) -> Holder {
    match locks.lock(id).status().await.unwrap() {
        Status::Held { mut holders, .. } => holders.remove(0),
        other => panic!("{id}: {other:?}"),
    }
}

/// Asks until the answer is `Ok`, by tokio's clock, which is paused for the memory store.
async fn until<T, E: std::fmt::Debug>(ask: impl AsyncFn() -> Result<T, E>) -> T {
    let began = tokio::time::Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(other) if began.elapsed() > ms(20_000) => panic!("still {other:?}"),
            Err(_) => tokio::time::sleep(ms(20)).await,
        }
    }
}

/// Waits until the record of the holder's client is there, which is written after the connect.
async fn named_holder(locks: &Locks, id: &str) -> Holder {
    until(async || {
        let holder = holder(locks, id).await;
        if holder.name.is_some() { Ok(holder) } else { Err(holder) }
    })
    .await
}

async fn a_holder_is_known_by_its_name_host_and_process(engine: &Engine) {
    let billing = engine.builder().name("billing-7 \"é\"\n").build().await.unwrap();
    let operator = engine.locks().await;
    let _guard = billing.lock("a").acquire().await.unwrap();
    tokio::time::sleep(ms(20)).await;
    for asks in [&billing, &operator] {
        let holder = named_holder(asks, "a").await;
        assert_eq!(holder.name.as_deref(), Some("billing-7 \"é\"\n"));
        assert!(holder.host.as_ref().is_some_and(|host| !host.is_empty()), "{holder:?}");
        assert_eq!(holder.pid, Some(std::process::id()));
        assert!(holder.version.as_ref().is_some_and(|version| version.contains('.')));
        let held_for = holder.held_for.unwrap();
        assert!(held_for >= ms(19) && held_for < ms(5000), "{held_for:?}");
        assert!(!format!("{holder:?}").contains(holder.token.as_str()), "it is a secret");
    }
    for name in ["", &"x".repeat(257)] {
        let refused = engine.builder().name(name).build().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
}

async fn a_list_has_each_lock_that_is_held_in_order(engine: &Engine) {
    let (one, other) = (engine.builder().name("one").build().await.unwrap(), engine.locks().await);
    let mut guards = Vec::new();
    for number in 0..150 {
        let locks = if number % 2 == 0 { &one } else { &other };
        guards.push(locks.lock(format!("invoice:{number:03}")).acquire().await.unwrap());
    }
    guards.push(one.lock("in*voice").acquire().await.unwrap());
    let run = one.debounce("invoice:1").leading(true).spawn(std::future::pending::<()>);
    named_holder(&other, "invoice:000").await;

    let all = other.list("invoice:", 1000).await.unwrap();
    let expected: Vec<_> = (0..150).map(|number| format!("invoice:{number:03}")).collect();
    assert_eq!(all.iter().map(|listed| &*listed.id).collect::<Vec<_>>(), expected);
    for (number, listed) in all.iter().enumerate() {
        assert_eq!((listed.by_us, listed.waiters), (number % 2 == 1, 0), "{listed:?}");
        assert!(listed.remaining > Duration::ZERO && listed.remaining <= Duration::from_secs(10));
        let name = listed.holders[0].name.as_deref();
        assert_eq!(name, (number % 2 == 0).then_some("one"), "{listed:?}");
    }
    let some = other.list("invoice:", 7).await.unwrap();
    let ids: HashSet<_> = some.iter().map(|listed| &*listed.id).collect();
    assert!(ids.len() == 7 && ids.iter().all(|id| id.starts_with("invoice:")), "{ids:?}");
    assert_eq!(other.list("in*", 10).await.unwrap().len(), 1);
    assert_eq!(other.list("", 1000).await.unwrap().len(), 151, "not the lock of the run");
    assert!(other.list("", 0).await.unwrap().is_empty());
    drop(guards);
    run.abort();
    one.flush().await;
    other.flush().await;
    assert!(other.list("", 1000).await.unwrap().is_empty());
}

async fn only_the_holder_that_was_named_is_released(engine: &Engine) {
    let (one, operator) = (engine.locks().await, engine.locks().await);
    let lock = one.lock("a");
    let first = lock.acquire().await.unwrap();
    let seen = holder(&operator, "a").await;
    first.release().await.unwrap();
    let second = lock.acquire().await.unwrap();
    let freed = operator.lock("a").force_release_holder(&seen.token).await.unwrap();
    assert!(!freed && second.is_held(), "another client has it by now");
    let seen = holder(&operator, "a").await;
    let lost = second.lost();
    assert!(operator.lock("a").force_release_holder(&seen.token).await.unwrap());
    tokio::time::timeout(ms(5000), lost).await.expect("the holder is told");
    assert_eq!(operator.lock("a").status().await.unwrap(), Status::Free);
}

async fn a_debounce_says_what_waits_and_who_runs(engine: &Engine) {
    let (one, operator) =
        (engine.builder().name("one").build().await.unwrap(), engine.locks().await);
    let waits = one.debounce("waits").wait(Duration::from_secs(60));
    let call = waits.spawn(|| async {});
    let run = one.debounce("runs").leading(true).spawn(std::future::pending::<()>);
    let running = until(async || {
        let status = operator.debounce("runs").status().await.unwrap();
        if status.running.is_some() { Ok(status) } else { Err(status) }
    });
    let running = running.await;
    assert!(running.waiting.is_none() && running.remaining.is_some(), "{running:?}");
    assert!(running.running.unwrap().held_for.is_some());
    let status = until(async || {
        let status = operator.debounce("waits").status().await.unwrap();
        if status.waiting.is_some() { Ok(status) } else { Err(status) }
    });
    let status = status.await;
    let due_in = status.waiting.unwrap();
    assert!(due_in > Duration::from_secs(50) && due_in <= Duration::from_secs(60), "{due_in:?}");
    assert!(status.running.is_none() && status.remaining.is_none());
    let listed = operator.list_debounces("", 10).await.unwrap();
    assert_eq!(listed.iter().map(|listed| &*listed.id).collect::<Vec<_>>(), ["runs", "waits"]);
    assert!(waits.cancel().await.unwrap());
    call.await.unwrap().unwrap();
    run.abort();
    let none = until(async || {
        let listed = operator.list_debounces("", 10).await.unwrap();
        if listed.is_empty() { Ok(()) } else { Err(listed) }
    });
    none.await;
}

async fn durable_calls_are_known_by_the_name_of_their_function(engine: &Engine) {
    let (one, operator) = (engine.locks().await, engine.locks().await);
    assert!(operator.list_durable(10).await.unwrap().is_empty());
    let fails = one
        .debounce("a")
        .wait(ms(10))
        .durable("fails", |_: u64, _| async { Err::<(), _>("it does") });
    let fails = fails.unwrap().retry(1, Duration::ZERO);
    fails.id("a").call(&7).await.unwrap();
    let later =
        one.debounce("b").wait(Duration::from_secs(60)).durable("later", |_: u64, _| async {});
    let later = later.unwrap();
    later.id("b").call(&7).await.unwrap();
    later.id("c").call(&7).await.unwrap();
    let calls = operator.durable_calls("fails");
    let aside = until(async || {
        let aside = calls.set_aside().await.unwrap();
        if aside.is_empty() { Err("nothing has failed yet") } else { Ok(aside) }
    });
    let aside = aside.await;
    assert_eq!((&*aside[0].id, &*aside[0].error), ("a", "it does"));
    assert_eq!(operator.list_durable(10).await.unwrap(), ["fails", "later"]);
    assert_eq!(operator.list_durable(1).await.unwrap().len(), 1);
    let waiting = operator.durable_calls("later").waiting(1).await.unwrap();
    let all = operator.durable_calls("later").waiting(usize::MAX).await.unwrap();
    assert_eq!(all.calls.len(), 2);
    assert_eq!((waiting.count, waiting.calls.len(), &*waiting.calls[0].id), (2, 1, "b"));
    assert!(waiting.calls[0].due_in > Duration::from_secs(50));
    assert!(calls.run_again("a").await.unwrap() && !calls.run_again("b").await.unwrap());
    let again = until(async || {
        let aside = calls.set_aside().await.unwrap();
        if aside.is_empty() { Err("it has not failed again") } else { Ok(()) }
    });
    again.await;
    assert!(calls.forget("a").await.unwrap());
    assert_eq!(operator.list_durable(10).await.unwrap(), ["later"]);
    assert_eq!(
        operator.durable_calls("~").waiting(1).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

/// With an empty prefix, every key of a database might be a lock.
#[tokio::test]
async fn with_an_empty_prefix_only_locks_of_this_library_are_listed() {
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let locks = Locks::builder().url(server.locks_url()).prefix("").build().await.unwrap();
    let _guard = locks.lock("a").acquire().await.unwrap();
    command(&server, &["SET", "session", "a secret", "PX", "60000"]).await;
    command(&server, &["SET", "numbers", "1:2", "PX", "60000"]).await;
    let listed = locks.list("", 10).await.unwrap();
    assert_eq!(listed.iter().map(|listed| &*listed.id).collect::<Vec<_>>(), ["a"]);
    // By its name, it is a held lock.
    assert_eq!(holder(&locks, "session").await.held_for, None);
}

/// A key of another type is only missing from the list.
#[tokio::test]
async fn a_listing_passes_over_keys_of_other_types() {
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let locks = Engine::locks_of(&server).await;
    let _guard = locks.lock("a").acquire().await.unwrap();
    command(&server, &["HSET", "lock:b", "field", "value"]).await;
    command(&server, &["PEXPIRE", "lock:b", "60000"]).await;
    let listed = locks.list("", 10).await.unwrap();
    assert_eq!(listed.iter().map(|listed| &*listed.id).collect::<Vec<_>>(), ["a"]);
    assert_eq!(locks.lock("b").status().await.unwrap_err().kind(), ErrorKind::Rejected);
}

/// A foreign value in the place of a lock only costs its own entry.
#[tokio::test]
async fn a_key_that_is_none_of_ours_hides_no_lock() {
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let locks = Engine::locks_of(&server).await;
    let _guard = locks.lock("a").acquire().await.unwrap();
    let run = locks.debounce("b").leading(true).spawn(std::future::pending::<()>);
    named_run(&locks, "b").await;
    let long = format!("lock:{}", "k".repeat(1100));
    for key in ["lock:", &long, "lock:c"] {
        command(&server, &["SET", key, "v", "PX", "60000"]).await;
    }
    command(&server, &["RPUSH", "~queue:lock:c", "x"]).await;
    for window in ["lock:~debounce:", "lock:~debounce:c"] {
        command(&server, &["HSET", window, "newest", "x"]).await;
    }
    command(&server, &["RPUSH", "lock:~run:c", "x"]).await;
    command(&server, &["ZADD", "lock:~due:", "1", "x"]).await;
    for key in ["~queue:lock:c", "lock:~debounce:", "lock:~debounce:c", "lock:~run:c", "lock:~due:"]
    {
        command(&server, &["PEXPIRE", key, "60000"]).await;
    }
    let ids =
        |listed: &[lock::Listed]| listed.iter().map(|lock| lock.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&locks.list("", 10).await.unwrap()), ["a"]);
    let debounces = locks.list_debounces("", 10).await.unwrap();
    assert_eq!(debounces.iter().map(|listed| &*listed.id).collect::<Vec<_>>(), ["b"]);
    assert!(locks.list_durable(10).await.unwrap().is_empty());
    // If all are refused, the call fails with that error.
    assert_eq!(locks.list("c", 10).await.unwrap_err().kind(), ErrorKind::Rejected);
    run.abort();
}

async fn named_run(locks: &Locks, id: &str) {
    until(async || {
        let status = locks.debounce(id).status().await.unwrap();
        if status.running.is_some() { Ok(()) } else { Err(status) }
    })
    .await;
}

/// Tokens of other clients may be any bytes, or empty.
#[tokio::test]
async fn a_foreign_holder_is_released_by_whatever_token_it_has() {
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let locks = Engine::locks_of(&server).await;
    let set = async |token: &[u8]| {
        let mut set = redis::cmd("SET");
        set.arg("lock:a").arg(token).arg("PX").arg(60_000);
        set.exec_async(&mut server.connection().await).await.unwrap();
    };
    for token in [&b"\xff\xfe\x01abc"[..], b"", b"text"] {
        set(token).await;
        let seen = holder(&locks, "a").await;
        set(b"another").await;
        assert!(!locks.lock("a").force_release_holder(&seen.token).await.unwrap(), "{token:?}");
        set(token).await;
        assert!(locks.lock("a").force_release_holder(&seen.token).await.unwrap(), "{token:?}");
        assert!(!locks.lock("a").force_release_holder(&seen.token).await.unwrap(), "it is free");
    }
}

/// An acquire and a release cost the same as without a record: two scripts.
#[tokio::test]
async fn a_record_costs_one_command_a_connection() {
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let locks = Locks::builder().url(server.locks_url()).name("counted").build().await.unwrap();
    let operator = Engine::locks_of(&server).await;
    let guard = locks.lock("a").acquire().await.unwrap();
    named_holder(&operator, "a").await;
    drop(guard);
    locks.flush().await;
    let before = server.commands().await;
    for _ in 0..20 {
        locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    }
    let after = server.commands().await;
    assert_eq!(after.calls("evalsha") - before.calls("evalsha"), 40);
}

/// A store that lost the record with all its data gets it again with a connect.
#[tokio::test]
async fn a_record_comes_back_after_a_loss_of_data() {
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let proxy = Proxy::start(server.port());
    let locks = Locks::builder().url(proxy.url()).name("one").build().await.unwrap();
    let operator = Engine::locks_of(&server).await;
    let _guard = locks.lock("a").acquire().await.unwrap();
    named_holder(&operator, "a").await;
    // The record is not written again within ten seconds.
    tokio::time::sleep(ms(10_000)).await;
    command(&server, &["FLUSHALL"]).await;
    proxy.reset_connections();
    introduced(&server, 1).await;
}
