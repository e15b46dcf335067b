//! @upstash/lock, from which this library started: its own test cases, and each fault that was
//! found in it (version 0.2.1), with the numbers at which it was seen. Everything the seed does can
//! also be done here, and none of its faults may come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use lock::{Debounce, ErrorKind, Locks, Status};
use lock_tests::{Proxy, RedisServer};
use redis::{FromRedisValue, aio::MultiplexedConnection};

use crate::common::{WatchedServer, ms};

/// A server, a client of the library with the seed's raw keys, and a bare one.
async fn start() -> (WatchedServer, Locks, MultiplexedConnection) {
    // The tests look at its keys by name.
    let server = WatchedServer::start(RedisServer::builder().cluster_of_one(false));
    let locks = raw(&server.url()).await;
    let bare = server.connection().await;
    (server, locks, bare)
}

async fn raw(url: &str) -> Locks {
    Locks::builder().url(url).prefix("").build().await.unwrap()
}

async fn ask<T: FromRedisValue>(bare: &mut MultiplexedConnection, command: &str) -> T {
    let mut words = command.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query_async(bare).await.unwrap()
}

/// Checks that the remaining time of a key, in milliseconds, is at most 300 below the expected one.
fn assert_about(left: i64, expected: i64) {
    assert!((expected - 300..=expected).contains(&left), "{left} ms left, not {expected}");
}

// The seed's own cases for a lock.

#[tokio::test]
async fn a_lock_is_taken_with_the_defaults() {
    let (_server, locks, mut bare) = start().await;
    let guard = locks.lock("a").acquire().await.unwrap();
    assert!(matches!(locks.lock("a").status().await.unwrap(), Status::Held { by_us: true, .. }));
    assert_about(ask(&mut bare, "PTTL a").await, 10_000);
    guard.release().await.unwrap();
    assert_eq!(locks.lock("a").status().await.unwrap(), Status::Free);
}

#[tokio::test]
async fn a_lock_is_taken_with_values_of_ones_own() {
    let (_server, locks, mut bare) = start().await;
    let lock = locks.lock("a").lease(ms(5000)).retry(1, ms(100));
    let guard = lock.acquire().await.unwrap();
    assert_about(ask(&mut bare, "PTTL a").await, 5000);
    guard.extend(ms(10_000)).await.unwrap();
    assert_about(ask(&mut bare, "PTTL a").await, 15_000);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_second_acquire_fails_in_the_same_and_in_another_instance() {
    let (server, locks, _) = start().await;
    let lock = locks.lock("a").retry(3, ms(10));
    let guard = lock.acquire().await.unwrap();
    let other = raw(&server.url()).await.lock("a").retry(3, ms(10));
    for lock in [&lock, &other] {
        assert_eq!(lock.acquire().await.unwrap_err().kind(), ErrorKind::Busy);
    }
    guard.release().await.unwrap();
    assert!(other.acquire().await.is_ok());
}

#[tokio::test]
async fn a_lease_times_out() {
    let (_server, locks, _) = start().await;
    let leaked = locks.lock("a").lease(ms(100)).acquire().await.unwrap().leak();
    tokio::time::sleep(ms(200)).await;
    assert_eq!(locks.lock("a").status().await.unwrap(), Status::Free);
    assert!(locks.lock("a").adopt(leaked).await.is_err());
}

// Its faults.

/// Rows 1 and 2: `extend` worked in whole seconds. 500 and 1500 threw; of a lease of 400 it
/// returned false; 1400 + 1000 gave 2000, and 1600 + 1000 gave 2999.
#[tokio::test]
async fn rows_1_and_2_an_extension_is_exact_for_any_amount_and_lease() {
    let (_server, locks, mut bare) = start().await;
    for (lease, by) in [(10_000, 500), (10_000, 1500), (400, 1000), (1400, 1000), (1600, 1000)] {
        let guard = locks.lock("a").lease(ms(lease)).acquire().await.unwrap();
        guard.extend(ms(by)).await.unwrap();
        assert_about(ask(&mut bare, "PTTL a").await, (lease + by) as i64);
        guard.release().await.unwrap();
    }
}

/// Row 3: `extend(-20000)` deleted the key and returned true. Here, amounts cannot be negative or
/// out of bounds.
#[tokio::test]
async fn row_3_an_extension_never_takes_away() {
    let (_server, locks, mut bare) = start().await;
    let guard = locks.lock("a").acquire().await.unwrap();
    for by in [Duration::ZERO, Duration::MAX, Duration::from_secs(24 * 60 * 60)] {
        assert_eq!(guard.extend(by).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_about(ask(&mut bare, "PTTL a").await, 10_000);
    assert!(guard.is_held());
}

/// Row 4: settings of one call, and extensions, changed the instance: after 2 s and five
/// extensions the next acquire took 12 s.
#[tokio::test]
async fn row_4_settings_do_not_drift() {
    let (_server, locks, mut bare) = start().await;
    let lock = locks.lock("a").lease(ms(2000));
    let guard = lock.acquire().await.unwrap();
    for _ in 0..5 {
        guard.extend(ms(2000)).await.unwrap();
    }
    guard.release().await.unwrap();
    let longer = lock.clone().lease(ms(60_000));
    longer.acquire().await.unwrap().release().await.unwrap();
    let _guard = lock.acquire().await.unwrap();
    assert_about(ask(&mut bare, "PTTL a").await, 2000);
}

/// Row 5: a failed second acquire on the same object made the holder forget its token, so that it
/// could not release any more.
#[tokio::test]
async fn row_5_a_failed_acquire_does_not_hurt_the_holder() {
    let (_server, locks, mut bare) = start().await;
    let lock = locks.lock("a").retry(1, ms(1));
    let guard = lock.acquire().await.unwrap();
    assert!(lock.acquire().await.is_err());
    guard.release().await.unwrap();
    assert_eq!(ask::<i64>(&mut bare, "EXISTS a").await, 0);
}

/// Row 6: `getStatus` said FREE when another instance held the lock, and for a token of digits.
#[tokio::test]
async fn row_6_the_status_is_true_for_every_asker() {
    let (server, locks, mut bare) = start().await;
    let _: String = ask(&mut bare, "SET a 12345 NX PX 5000").await;
    let other = raw(&server.url()).await;
    for locks in [&locks, &other] {
        let Status::Held { by_us, holders, .. } = locks.lock("a").status().await.unwrap() else {
            panic!("it is held")
        };
        assert!(!by_us && holders[0].token.as_str() == "12345");
    }
}

/// Row 7: one attempt with a delay of 500 took 502 ms; with zero attempts, it never tried.
#[tokio::test]
async fn row_7_there_is_no_pause_after_the_last_attempt() {
    let (_server, locks, mut bare) = start().await;
    let _: String = ask(&mut bare, "SET a theirs NX PX 60000").await;
    let began = Instant::now();
    let error = locks.lock("a").retry(1, ms(5000)).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(began.elapsed() < ms(2500), "{:?}", began.elapsed());
    let error = locks.lock("a").retry(0, ms(100)).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "it says so instead of failing as busy");
}

/// Row 8: when the reply was lost, the repeated request met its own token and said false; the
/// lock stayed taken for the whole lease.
#[tokio::test]
async fn row_8_a_lost_reply_is_not_a_held_lock() {
    let (server, _, mut bare) = start().await;
    let proxy = Proxy::start(server.port());
    let locks = raw(&proxy.url()).await;
    proxy.cut_instead_of_reply(1);
    let guard = locks.lock("a").retry(1, ms(1)).acquire().await.unwrap();
    guard.release().await.unwrap();
    assert_eq!(ask::<i64>(&mut bare, "EXISTS a").await, 0);
}

/// Row 9: a token outlived its release, `false` meant three things, and each call sent the whole
/// text of its script.
#[tokio::test]
async fn row_9_a_release_has_one_meaning_and_scripts_go_by_hash() {
    let server = RedisServer::start();
    let locks = raw(&server.url()).await;
    let watch = server.watch_commands().await;
    for _ in 0..3 {
        locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    }
    let expired = locks.lock("a").acquire().await.unwrap();
    locks.lock("a").force_release().await.unwrap();
    assert_eq!(expired.release().await.unwrap_err().kind(), ErrorKind::Lost);
    let sent = watch.finish().await;
    assert!(sent.len() >= 8 && sent.iter().all(|command| command.name == "evalsha"), "{sent:?}");
}

/// Row 10: no renewal, no loss signal, no fencing, no owner, no prefix, nothing on drop; and a
/// debounce on the id of a lock failed in `INCR`.
#[tokio::test]
async fn row_10_what_was_missing_is_there() {
    let (_server, locks, mut bare) = start().await;
    let guard = locks.lock("a").lease(ms(300)).acquire().await.unwrap();
    let ran = locks.debounce("a").wait(ms(700)).call(|| async { 1 }).await.unwrap();
    assert_eq!(ran, Some(1));
    assert!(guard.is_held() && guard.fencing_token() > 0, "renewed for more than two leases");
    let (lost, other) = (guard.lost(), locks.lock("b").acquire().await.unwrap());
    drop(other);
    locks.flush().await;
    assert_eq!(ask::<i64>(&mut bare, "EXISTS b").await, 0, "released by the drop");
    let _: i64 = ask(&mut bare, "DEL a").await;
    lost.await;
}

/// Row 11: a lease of 0 or 1500.5 surfaced the server's own error.
#[tokio::test]
async fn row_11_leases_are_checked() {
    let (_server, locks, mut bare) = start().await;
    let error = locks.lock("a").lease(Duration::ZERO).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let odd = Duration::from_micros(1_500_500);
    let _guard = locks.lock("a").lease(odd).acquire().await.unwrap();
    assert_about(ask(&mut bare, "PTTL a").await, 1500);
}

/// Row 12: a reused token let an expired holder release and extend its successor's lock. Here each
/// acquisition has a token of its own.
#[tokio::test]
async fn row_12_an_expired_holder_cannot_touch_its_successor() {
    let (_server, locks, mut bare) = start().await;
    let lock = locks.lock("a");
    let expired = lock.acquire().await.unwrap();
    let _: i64 = ask(&mut bare, "DEL a").await;
    let successor = lock.acquire().await.unwrap();
    assert_eq!(expired.extend(ms(60_000)).await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(expired.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert_about(ask(&mut bare, "PTTL a").await, 10_000);
    successor.release().await.unwrap();
}

// Debounce.

/// Makes calls like the seed's tests, and counts the runs.
async fn burst(debounce: &Debounce, calls: u32, apart: Duration) -> (u32, Vec<Option<u32>>) {
    let runs = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for number in 0..calls {
        let (debounce, runs) = (debounce.clone(), Arc::clone(&runs));
        tasks.push(tokio::spawn(async move {
            let body = || async {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::Relaxed);
                number
            };
            debounce.call(body).await.unwrap()
        }));
        tokio::time::sleep(apart).await;
    }
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    (runs.load(Ordering::Relaxed), outcomes)
}

/// Its own cases: once per wait, with arguments, with an async body. Row 13: `Debounce` was not
/// exported. Row 14: its counter had no expiry. Row 16: callers did not learn who ran, and the
/// result was dropped. Row 17: it never ran when replies were strings.
#[tokio::test]
async fn rows_13_14_16_and_17_a_burst_runs_once_and_everyone_knows() {
    let (server, locks, mut bare) = start().await;
    for _ in 0..2 {
        let debounce: Debounce = locks.debounce("a").wait(ms(300));
        let (runs, outcomes) = burst(&debounce, 10, ms(2)).await;
        assert_eq!(runs, 1);
        assert!(
            outcomes[..9].iter().all(Option::is_none) && outcomes[9] == Some(9),
            "{outcomes:?}"
        );
        assert!(ask::<i64>(&mut bare, "PTTL ~debounce:a").await > 0);
    }
    drop(server);
}

/// Row 16: every caller slept for the whole wait, and some were told that another call had run when
/// none had. Here each is told as soon as another one runs, and not before.
#[tokio::test]
async fn row_16_a_superseded_call_is_told_as_soon_as_another_runs() {
    let (_server, locks, _) = start().await;
    let debounce = locks.debounce("a").wait(Duration::from_secs(30));
    let call = |number: u32| {
        let debounce = debounce.clone();
        tokio::spawn(async move { debounce.call(|| async move { number }).await })
    };
    let superseded = call(1);
    tokio::time::sleep(ms(100)).await;
    let newer = call(2);
    tokio::time::sleep(ms(100)).await;
    assert!(!superseded.is_finished() && !newer.is_finished(), "nothing has run");
    assert!(debounce.flush().await.unwrap());
    let outcomes = async { (newer.await.unwrap().unwrap(), superseded.await.unwrap().unwrap()) };
    let outcomes = tokio::time::timeout(Duration::from_secs(5), outcomes).await;
    assert_eq!(outcomes.expect("within a moment"), (Some(2), None));
}

/// Row 15: 40 calls, 50 ms apart, with a wait of 100 gave no run in two seconds.
#[tokio::test]
async fn row_15_a_stream_of_calls_is_run_now_and_then() {
    let (_server, locks, _) = start().await;
    let debounce = locks.debounce("a").wait(ms(100)).max_wait(ms(500));
    let (runs, outcomes) = burst(&debounce, 40, ms(50)).await;
    assert!((3..=10).contains(&runs), "{runs}");
    assert_eq!(outcomes[39], Some(39));
}

/// Row 18: a counter that was deleted during the wait lost the last call; one that was counted
/// again from one let two calls run.
#[tokio::test]
async fn row_18_a_deleted_window_neither_loses_nor_doubles_a_run() {
    let (server, locks, mut bare) = start().await;
    let other = raw(&server.url()).await;
    for again in [false, true] {
        let runs = Arc::new(AtomicU32::new(0));
        let call = |locks: &Locks| {
            let (debounce, runs) = (locks.debounce("a").wait(ms(400)), Arc::clone(&runs));
            tokio::spawn(async move {
                debounce.call(|| async { runs.fetch_add(1, Ordering::Relaxed) }).await.unwrap()
            })
        };
        let first = call(&locks);
        tokio::time::sleep(ms(100)).await;
        let _: i64 = ask(&mut bare, "DEL ~debounce:a").await;
        let second = again.then(|| call(&other));
        let first = first.await.unwrap();
        let second = match second {
            Some(call) => call.await.unwrap(),
            None => None,
        };
        assert_eq!(runs.load(Ordering::Relaxed), 1, "{first:?} {second:?}");
    }
}

/// Row 19: the timer lived in the last caller, and its death lost the burst.
#[tokio::test]
async fn row_19_the_death_of_the_last_caller_is_made_up_for() {
    let (server, locks, _) = start().await;
    let dying = raw(&server.url()).await;
    let survivor = locks.debounce("a").wait(ms(200));
    let survivor = tokio::spawn(async move { survivor.call(|| async { "ran" }).await });
    tokio::time::sleep(ms(50)).await;
    let last = dying.debounce("a").wait(ms(200));
    let last = tokio::spawn(async move { last.call(|| async { "died" }).await });
    tokio::time::sleep(ms(50)).await;
    last.abort();
    dying.shutdown().await;
    assert_eq!(survivor.await.unwrap().unwrap(), Some("ran"));
}

/// Row 20: a body longer than the wait overlapped with the next one, and no caller got its error.
#[tokio::test]
async fn row_20_runs_do_not_overlap_and_errors_have_an_owner() {
    let (_server, locks, _) = start().await;
    let debounce = locks.debounce("a").wait(ms(50));
    let inside = Arc::new(AtomicU32::new(0));
    let call = |debounce: Debounce| {
        let inside = Arc::clone(&inside);
        tokio::spawn(async move {
            let body = || async {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two runs at once");
                tokio::time::sleep(ms(400)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                Err::<(), _>("its own error")
            };
            debounce.call(body).await.unwrap()
        })
    };
    let first = call(debounce.clone());
    tokio::time::sleep(ms(200)).await;
    let second = call(debounce);
    assert_eq!(first.await.unwrap(), Some(Err("its own error")));
    assert_eq!(second.await.unwrap(), Some(Err("its own error")));
}

/// Row 21: a registration that was sent twice counted twice, and the call lost against itself.
#[tokio::test]
async fn row_21_a_repeated_registration_counts_once() {
    let (server, _, _) = start().await;
    let proxy = Proxy::start(server.port());
    let locks = raw(&proxy.url()).await;
    for lost_reply in 1..=2 {
        let debounce = locks.debounce("a").wait(ms(200));
        proxy.cut_instead_of_reply(lost_reply);
        let (runs, outcomes) = burst(&debounce, 1, ms(1)).await;
        assert_eq!((runs, outcomes), (1, vec![Some(0)]), "without reply {lost_reply}");
    }
}

// Row 22: its tests need an account and the network. These need neither.
