//! Debounce: one run for a burst, and every caller knows whether it was its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use lock::{Debounce, Error, ErrorKind, Locks, Status};
use lock_tests::{Direction, Proxy, RedisServer, eventually};
use tokio::{task::JoinSet, time::Instant};

use crate::common::{Engine, may_stay, ms, on_both_stores};

on_both_stores! {
    a_burst_runs_once_with_the_last_call,
    bursts_of_several_processes_run_once,
    the_wait_counts_from_the_last_call,
    runs_never_overlap,
    an_operator_ends_a_run_that_hangs,
    max_wait_bounds_a_stream_of_calls,
    a_call_during_a_run_opens_the_next_window,
    a_caller_that_dies_is_replaced_by_another_process,
    a_withdrawn_call_leaves_nothing,
    a_run_keeps_its_lock_beyond_its_lease,
    a_lock_and_a_debounce_of_one_id_are_apart,
    whoever_is_superseded_by_another_process_is_told_when_that_runs,
    leading_runs_the_first_at_once_and_the_last_after_the_wait,
    leading_is_for_one_of_all_processes,
    a_flush_runs_the_newest_call_wherever_it_is,
    a_cancel_ends_the_calls_of_all_processes,
    a_flush_and_a_cancel_of_nothing_say_so,
    the_generation_grows_from_run_to_run,
    a_run_is_superseded_by_nothing_that_comes_during_it,
    a_run_that_calls_itself_is_a_deadlock,
    a_cancel_covers_calls_that_the_store_was_not_told_of,
}

/// Makes a call, and returns its outcome.
async fn call(debounce: Debounce, number: u32, runs: Arc<AtomicU32>) -> Option<u32> {
    debounce
        .call(|| async {
            runs.fetch_add(1, Ordering::Relaxed);
            number
        })
        .await
        .unwrap()
}

async fn a_burst_runs_once_with_the_last_call(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(200));
    for burst in 0..3 {
        let runs = Arc::new(AtomicU32::new(0));
        let mut calls = JoinSet::new();
        for number in 0..10 {
            calls.spawn(call(debounce.clone(), burst * 10 + number, Arc::clone(&runs)));
            tokio::time::sleep(ms(5)).await;
        }
        let mut outcomes = calls.join_all().await;
        outcomes.retain(Option::is_some);
        assert_eq!(outcomes, [Some(burst * 10 + 9)]);
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }
}

async fn bursts_of_several_processes_run_once(engine: &Engine) {
    let processes = [engine.locks().await, engine.locks().await, engine.locks().await];
    let runs = Arc::new(AtomicU32::new(0));
    let mut calls = JoinSet::new();
    for number in 0..30 {
        let locks = &processes[number as usize % 3];
        calls.spawn(call(locks.debounce("a").wait(ms(300)), number, Arc::clone(&runs)));
        tokio::time::sleep(ms(5)).await;
    }
    let mut outcomes = calls.join_all().await;
    outcomes.retain(Option::is_some);
    assert_eq!(outcomes, [Some(29)]);
}

async fn the_wait_counts_from_the_last_call(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(400));
    let began = Instant::now();
    let first = tokio::spawn({
        let debounce = debounce.clone();
        async move { debounce.call(|| async { Instant::now() }).await.unwrap() }
    });
    tokio::time::sleep(ms(250)).await;
    let ran = debounce.call(|| async { Instant::now() }).await.unwrap().expect("the last call");
    assert!(first.await.unwrap().is_none());
    let after = ran - began;
    assert!(after >= ms(649) && after < ms(1100), "{after:?}");
}

async fn an_operator_ends_a_run_that_hangs(engine: &Engine) {
    let (one, operator) = (engine.locks().await, engine.locks().await);
    let debounce = one.debounce("a").wait(ms(10));
    let hangs = tokio::spawn(debounce.call(std::future::pending::<()>));
    let ended = async {
        while !operator.debounce("a").end_run().await.unwrap() {
            tokio::time::sleep(ms(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it runs soon");
    assert_eq!(hangs.await.unwrap().unwrap_err().kind(), ErrorKind::Lost);
    // The id is free, and no run holds it.
    assert_eq!(debounce.call(|| async { 7 }).await.unwrap(), Some(7));
    assert!(!operator.debounce("a").end_run().await.unwrap());
}

async fn runs_never_overlap(engine: &Engine) {
    let inside = Arc::new(AtomicU32::new(0));
    let runs = Arc::new(AtomicU32::new(0));
    let mut calls = JoinSet::new();
    for process in 0..2 {
        let locks = engine.locks().await;
        let (inside, runs) = (Arc::clone(&inside), Arc::clone(&runs));
        calls.spawn(async move {
            for round in 0..6 {
                tokio::time::sleep(ms(40 + 30 * process + 10 * round)).await;
                let (inside, runs) = (Arc::clone(&inside), Arc::clone(&runs));
                // The runs take much longer than the wait.
                let debounce = locks.debounce("a").wait(ms(30));
                let outcome = debounce.call(|| async move {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two runs at once");
                    tokio::time::sleep(ms(120)).await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    runs.fetch_add(1, Ordering::SeqCst);
                });
                outcome.await.unwrap();
            }
        });
    }
    calls.join_all().await;
    assert!(runs.load(Ordering::SeqCst) >= 3);
}

async fn max_wait_bounds_a_stream_of_calls(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(200)).max_wait(ms(600));
    let runs = Arc::new(AtomicU32::new(0));
    let mut calls = JoinSet::new();
    for number in 0..40 {
        calls.spawn(call(debounce.clone(), number, Arc::clone(&runs)));
        tokio::time::sleep(ms(50)).await;
    }
    let during = runs.load(Ordering::Relaxed);
    assert!((2..=4).contains(&during), "{during} runs in two seconds");
    let last = calls.join_all().await.into_iter().flatten().max();
    assert_eq!(last, Some(39), "and the last call is not lost");
}

async fn a_call_during_a_run_opens_the_next_window(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(100));
    let (started, has_started) = tokio::sync::oneshot::channel();
    let first = tokio::spawn({
        let debounce = debounce.clone();
        let body = || async {
            started.send(()).unwrap();
            tokio::time::sleep(ms(500)).await;
            Instant::now()
        };
        async move { debounce.call(body).await }
    });
    has_started.await.unwrap();
    let second = debounce.call(|| async { Instant::now() }).await.unwrap().expect("again");
    let end = first.await.unwrap().unwrap().expect("the first run was left to end");
    assert!(second >= end, "and the second came before its end, by {:?}", end - second);
}

async fn a_caller_that_dies_is_replaced_by_another_process(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let runs = Arc::new(AtomicU32::new(0));
    let survivor = tokio::spawn(call(one.debounce("a").wait(ms(200)), 1, Arc::clone(&runs)));
    tokio::time::sleep(ms(50)).await;
    let dying = tokio::spawn(call(other.debounce("a").wait(ms(200)), 2, Arc::clone(&runs)));
    tokio::time::sleep(ms(50)).await;
    dying.abort();
    assert_eq!(survivor.await.unwrap(), Some(1));
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

async fn a_withdrawn_call_leaves_nothing(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(50));
    for patience in [0, 1, 10, 40, 60, 80] {
        let call = debounce.call(std::future::pending::<()>);
        assert!(tokio::time::timeout(ms(patience), call).await.is_err());
    }
    locks.flush().await;
    // The withdrawn calls do not disturb the next burst.
    let ran = tokio::time::timeout(Duration::from_secs(5), debounce.call(|| async { 1 })).await;
    assert_eq!(ran.unwrap().unwrap(), Some(1));
    if let Engine::Redis(server) = engine {
        let keys = server.keys().await;
        let run = keys.iter().find(|(key, ..)| key.contains("~run:"));
        assert!(run.is_none(), "the lock of a run is left: {keys:?}");
        assert!(keys.iter().all(|(key, _, left)| may_stay(key) || *left > 0), "{keys:?}");
    }
}

async fn a_run_keeps_its_lock_beyond_its_lease(engine: &Engine) {
    let build = || async { engine.builder().lease(ms(200)).build().await.unwrap() };
    let (one, other) = (build().await, build().await);
    let long = one.debounce("a").wait(ms(20));
    let (started, has_started) = tokio::sync::oneshot::channel();
    let run = tokio::spawn(async move {
        let body = || async {
            started.send(()).unwrap();
            tokio::time::sleep(ms(900)).await;
            Instant::now()
        };
        long.call(body).await
    });
    has_started.await.unwrap();
    let next = other.debounce("a").wait(ms(20)).call(|| async { Instant::now() });
    let next = next.await.unwrap().expect("it runs later");
    let end = run.await.unwrap().unwrap().expect("it ran");
    assert!(next >= end, "before its end, by {:?}", end - next);
}

async fn a_lock_and_a_debounce_of_one_id_are_apart(engine: &Engine) {
    let locks = engine.builder().prefix("").build().await.unwrap();
    let guard = locks.lock("a").acquire().await.unwrap();
    let ran = locks.debounce("a").wait(ms(10)).call(|| async { 1 }).await.unwrap();
    assert_eq!(ran, Some(1));
    assert!(guard.is_held());
    assert!(matches!(locks.lock("a").status().await.unwrap(), Status::Held { by_us: true, .. }));
}

#[tokio::test]
async fn the_error_of_a_run_is_its_callers() {
    let locks = lock::Locks::in_memory();
    let debounce = locks.debounce("a").wait(ms(1));
    let outcome: Result<Option<Result<u32, &str>>, Error> =
        debounce.call(|| async { Err("failed") }).await;
    assert_eq!(outcome.unwrap(), Some(Err("failed")));
}

/// Losing the data of a window may cost one run too few or too many for that window, but here
/// neither happens: the waiting call runs.
#[tokio::test]
async fn a_wiped_window_still_runs() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let locks = lock::Locks::connect(&server.locks_url()).await.unwrap();
    let debounce = locks.debounce("a").wait(ms(300));
    let waiting = tokio::spawn({
        let debounce = debounce.clone();
        async move { debounce.call(|| async { 1 }).await }
    });
    tokio::time::sleep(ms(100)).await;
    let mut connection = server.connection().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Some(1));
    assert_eq!(debounce.call(|| async { 2 }).await.unwrap(), Some(2), "the next window is right");
}

#[tokio::test]
async fn a_key_of_another_type_is_refused() {
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let locks = lock::Locks::connect(&server.locks_url()).await.unwrap();
    let mut connection = server.connection().await;
    let _: () = redis::pipe()
        .cmd("SET")
        .arg("lock:~debounce:a")
        .arg("x")
        .arg("PX")
        .arg(60_000)
        .query_async(&mut connection)
        .await
        .unwrap();
    let error = locks.debounce("a").call(|| async {}).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Rejected, Some("a")));
}

async fn whoever_is_superseded_by_another_process_is_told_when_that_runs(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let runs = Arc::new(AtomicU32::new(0));
    let older = tokio::spawn(call(one.debounce("a").wait(ms(300)), 1, Arc::clone(&runs)));
    tokio::time::sleep(ms(50)).await;
    let began = Instant::now();
    let newer = call(other.debounce("a").wait(ms(300)), 2, Arc::clone(&runs)).await;
    assert_eq!((newer, older.await.unwrap()), (Some(2), None));
    // Not a second later, when the newest call would be taken for dead.
    assert!(began.elapsed() < ms(900), "{:?}", began.elapsed());
}

async fn leading_runs_the_first_at_once_and_the_last_after_the_wait(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(300)).leading(true);
    let runs = Arc::new(AtomicU32::new(0));
    let began = Instant::now();
    assert_eq!(call(debounce.clone(), 1, Arc::clone(&runs)).await, Some(1));
    assert!(began.elapsed() < ms(250), "at once: {:?}", began.elapsed());
    let second = tokio::spawn(call(debounce.clone(), 2, Arc::clone(&runs)));
    tokio::time::sleep(ms(20)).await;
    assert_eq!(call(debounce.clone(), 3, Arc::clone(&runs)).await, Some(3));
    assert!(began.elapsed() >= ms(300), "after the wait: {:?}", began.elapsed());
    assert_eq!(second.await.unwrap(), None);
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    // One call alone runs once.
    tokio::time::sleep(ms(350)).await;
    assert_eq!(call(debounce, 4, Arc::clone(&runs)).await, Some(4));
    tokio::time::sleep(ms(400)).await;
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

async fn leading_is_for_one_of_all_processes(engine: &Engine) {
    // All processes are connected before the first one calls: connecting sometimes takes a while.
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(engine.locks().await);
    }
    let debounce = |locks: &Locks| locks.debounce("a").wait(ms(1500)).leading(true);
    let runs = Arc::new(AtomicU32::new(0));
    // A run covers calls from before its start, so the others call when it is over.
    let first = call(debounce(&processes[0]), 100, Arc::clone(&runs)).await;
    assert_eq!(first, Some(100));
    let mut calls = JoinSet::new();
    for number in 0..20 {
        let locks = &processes[number as usize % 4];
        calls.spawn(call(debounce(locks), number, Arc::clone(&runs)));
        // Of two calls that are closer than a store can tell apart, either may be the last.
        tokio::time::sleep(ms(5)).await;
    }
    let ran: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
    assert_eq!(ran, [19], "the last of the others");
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

/// Gives a call that was just spawned the time to reach the store; there is no way to ask for it.
async fn arrived() {
    tokio::time::sleep(ms(50)).await;
}

async fn a_flush_runs_the_newest_call_wherever_it_is(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let wait = Duration::from_secs(60);
    let runs = Arc::new(AtomicU32::new(0));
    let (near, far) = (one.debounce("a").wait(wait), other.debounce("a").wait(wait));
    for (caller, flusher) in [(&near, &near), (&near, &far)] {
        let first = tokio::spawn(call(caller.clone(), 1, Arc::clone(&runs)));
        arrived().await;
        // The second call is coalesced: the store knows only the first.
        let second = tokio::spawn(call(caller.clone(), 2, Arc::clone(&runs)));
        arrived().await;
        assert!(flusher.flush().await.unwrap());
        let second = tokio::time::timeout(Duration::from_secs(10), second).await;
        assert_eq!(second.expect("at once").unwrap(), Some(2));
        assert_eq!(first.await.unwrap(), None);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

async fn a_cancel_ends_the_calls_of_all_processes(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let wait = Duration::from_secs(60);
    let runs = Arc::new(AtomicU32::new(0));
    let mut calls = JoinSet::new();
    for locks in [&one, &other, &one] {
        calls.spawn(call(locks.debounce("a").wait(wait), 1, Arc::clone(&runs)));
        arrived().await;
    }
    assert!(one.debounce("a").cancel().await.unwrap());
    let ended = tokio::time::timeout(Duration::from_secs(10), calls.join_all()).await;
    assert_eq!(ended.expect("at once"), [None, None, None]);
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    // The next burst is a separate one.
    assert_eq!(call(other.debounce("a").wait(ms(20)), 2, Arc::clone(&runs)).await, Some(2));
}

async fn a_flush_and_a_cancel_of_nothing_say_so(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(20));
    assert!(!debounce.flush().await.unwrap() && !debounce.cancel().await.unwrap());
    debounce.call(|| async {}).await.unwrap().expect("it runs");
    assert!(!debounce.flush().await.unwrap() && !debounce.cancel().await.unwrap());
    assert_eq!(locks.debounce("~a").flush().await.unwrap_err().kind(), ErrorKind::Invalid);
    locks.shutdown().await;
    assert_eq!(debounce.cancel().await.unwrap_err().kind(), ErrorKind::Closed);
}

async fn the_generation_grows_from_run_to_run(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let mut last = 0;
    for locks in [&one, &other, &other, &one] {
        let debounce = locks.debounce("a").wait(ms(10));
        let generation = debounce.call_with(|run| async move { run.fencing_token() }).await;
        let generation = generation.unwrap().expect("it runs");
        assert!(generation > last);
        last = generation;
    }
}

async fn a_run_is_superseded_by_nothing_that_comes_during_it(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(50));
    let runs = Arc::new(AtomicU32::new(0));
    let long = tokio::spawn({
        let debounce = debounce.clone();
        async move { debounce.call(|| tokio::time::sleep(ms(400))).await }
    });
    tokio::time::sleep(ms(150)).await;
    let mut calls = JoinSet::new();
    for number in 0..10 {
        calls.spawn(call(debounce.clone(), number, Arc::clone(&runs)));
        tokio::time::sleep(ms(10)).await;
    }
    assert_eq!(calls.join_all().await.into_iter().flatten().count(), 1, "one run for them");
    assert!(long.await.unwrap().unwrap().is_some());
}

async fn a_run_that_calls_itself_is_a_deadlock(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(10));
    let (again, other) = (debounce.clone(), locks.debounce("b").wait(ms(10)));
    let nested = debounce.call(|| async move {
        assert!(other.call(|| async {}).await.unwrap().is_some(), "another id is independent");
        again.call(|| async {}).await
    });
    let error = nested.await.unwrap().expect("it runs").unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Deadlock, Some("a")));
}

async fn a_cancel_covers_calls_that_the_store_was_not_told_of(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let runs = Arc::new(AtomicU32::new(0));
    let debounce = one.debounce("a").wait(ms(400));
    let told = tokio::spawn(call(debounce.clone(), 1, Arc::clone(&runs)));
    arrived().await;
    let untold = tokio::spawn(call(debounce, 2, Arc::clone(&runs)));
    arrived().await;
    assert!(other.debounce("a").cancel().await.unwrap());
    assert_eq!((told.await.unwrap(), untold.await.unwrap()), (None, None));
    assert_eq!(runs.load(Ordering::Relaxed), 0);
}

/// A window does not fail after thousands of processes have come and gone.
#[tokio::test]
async fn a_window_forgets_thousands_of_clients() {
    let server = RedisServer::builder().cluster_of_one(false).start();
    let locks = lock::Locks::connect(&server.locks_url()).await.unwrap();
    let mut fields = redis::cmd("HSET");
    fields.arg("lock:~debounce:a");
    for client in 0..9000 {
        fields.arg(format!("of:{client:032x}")).arg("1 1000000");
    }
    let mut connection = server.connection().await;
    let _: i64 = fields.query_async(&mut connection).await.unwrap();
    let debounce = locks.debounce("a").wait(ms(10));
    assert_eq!(debounce.call(|| async { 1 }).await.unwrap(), Some(1));
    let left: i64 =
        redis::cmd("HLEN").arg("lock:~debounce:a").query_async(&mut connection).await.unwrap();
    assert!(left < 20, "{left} fields");
}

/// The number of commands depends on the windows, not on the calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_are_five_commands_and_thirty_from_four_processes() {
    // Unwatched, because watching the keys also sends commands.
    let server = RedisServer::start();
    for (processes, most) in [(1, 5), (4, 30)] {
        let mut clients = Vec::new();
        for _ in 0..processes {
            clients.push(lock::Locks::connect(&server.locks_url()).await.unwrap());
        }
        let before = server.commands().await;
        let runs = Arc::new(AtomicU32::new(0));
        let mut calls = JoinSet::new();
        let began = Instant::now();
        for number in 0..1000 {
            let debounce = clients[number as usize % processes].debounce("a").wait(ms(1000));
            calls.spawn(call(debounce, number, Arc::clone(&runs)));
            if number % 2 == 0 {
                // By the clock: this many short sleeps would take seconds on a busy machine, and a
                // longer burst means more windows.
                tokio::time::sleep_until(began + ms(number.into())).await;
            }
        }
        let windows = began.elapsed().as_millis().div_ceil(1300) as u64;
        let outcomes: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
        for locks in &clients {
            locks.flush().await;
        }
        let commands = server.commands().await.minus(&before).client_commands(&["evalsha", "eval"]);
        println!("{processes} processes: {commands} commands, ran {outcomes:?}");
        assert_eq!((outcomes.len(), runs.load(Ordering::Relaxed)), (1, 1));
        // Calls that were made at the same time may arrive in either order.
        assert!(outcomes[0] >= 990, "{outcomes:?}");
        assert!(commands <= most * windows, "{commands} commands");
    }
}

/// A call every 50 ms for ten seconds, `wait` 300 ms, `max_wait` 1 s. Returns the times of the
/// runs.
async fn stream(locks: &lock::Locks) -> Vec<Duration> {
    let debounce = locks.debounce("a").wait(ms(300)).max_wait(ms(1000));
    let began = Instant::now();
    let runs = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut calls = JoinSet::new();
    for number in 0..200 {
        let (debounce, runs) = (debounce.clone(), Arc::clone(&runs));
        calls.spawn(async move {
            let ran = debounce.call(|| async { runs.lock().unwrap().push(began.elapsed()) }).await;
            (number, ran.unwrap().is_some())
        });
        tokio::time::sleep_until(began + ms(50) * (number + 1)).await;
    }
    let ended = calls.join_all().await;
    assert!(ended.contains(&(199, true)), "the last call is not lost");
    let runs = runs.lock().unwrap();
    runs.clone()
}

fn check_stream(runs: &[Duration], tolerance: Duration) {
    println!("{runs:?}");
    assert_eq!(runs.len(), 10, "one each second: {runs:?}");
    let mut before = Duration::ZERO;
    for (number, run) in runs.iter().enumerate() {
        // The last one comes when the calls have ended.
        let expected = if number < 9 { ms(1000) } else { (*run - before).clamp(ms(300), ms(1000)) };
        assert!((*run - before).abs_diff(expected) <= tolerance, "{number}: {runs:?}");
        before = *run;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_runs_once_a_second_in_memory() {
    check_stream(&stream(&lock::Locks::in_memory()).await, ms(50));
}

/// The bounds are looser than the printed figure, which varies on a busy machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_runs_once_a_second_on_redis() {
    let Engine::Redis(server) = Engine::redis() else { unreachable!() };
    let locks = lock::Locks::connect(&server.locks_url()).await.unwrap();
    check_stream(&stream(&locks).await, ms(150));
}

/// Losing data in the middle of a window costs at most one run too few or too many for that window,
/// and the next window is right.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_lost_in_a_window_costs_one_run_at_most() {
    for fault in ["flush", "restart", "failover"] {
        let (server, replica) = (
            RedisServer::builder().cluster_of_one(false).start(),
            RedisServer::builder().cluster_of_one(false).start(),
        );
        // The replica follows its primary through one proxy; the clients reach either through
        // another.
        let (link, address) = (Proxy::start(server.port()), Proxy::start(server.port()));
        let command = async |server: &RedisServer, words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            let answer = command.query_async(&mut server.connection().await).await;
            answer.map(|answer: redis::Value| format!("{answer:?}")).unwrap()
        };
        if fault == "failover" {
            let port = link.port().to_string();
            command(&replica, &["REPLICAOF", "127.0.0.1", &port]).await;
            eventually(ms(10_000), async || {
                command(&replica, &["INFO", "replication"]).await.contains("master_link_status:up")
            })
            .await;
        }
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(lock::Locks::connect(&address.url()).await.unwrap());
        }
        let runs = Arc::new(AtomicU32::new(0));
        let mut calls = JoinSet::new();
        for number in 0..30 {
            let debounce = clients[number as usize % 3].debounce("a").wait(ms(400));
            calls.spawn(call(debounce, number, Arc::clone(&runs)));
            tokio::time::sleep(ms(10)).await;
            // From here on the replica receives nothing: this suffix is lost.
            if number == 12 && fault == "failover" {
                link.black_hole(Direction::ToClient);
            }
            if number == 20 {
                match fault {
                    "flush" => {
                        command(&server, &["FLUSHALL"]).await;
                    }
                    "failover" => {
                        server.kill();
                        command(&replica, &["REPLICAOF", "NO", "ONE"]).await;
                        address.fail_over_to(replica.port());
                    }
                    _ => {
                        server.kill();
                        tokio::task::block_in_place(|| server.restart());
                    }
                }
            }
        }
        calls.join_all().await;
        let ran = runs.swap(0, Ordering::SeqCst);
        println!("{fault}: {ran} runs");
        assert!((1..=2).contains(&ran), "{fault}: {ran} runs");
        let mut calls = JoinSet::new();
        for number in 0..30 {
            let debounce = clients[number as usize % 3].debounce("a").wait(ms(300));
            calls.spawn(call(debounce, number, Arc::clone(&runs)));
            tokio::time::sleep(ms(5)).await;
        }
        calls.join_all().await;
        assert_eq!(runs.load(Ordering::SeqCst), 1, "{fault}: the next window is right");
    }
}
