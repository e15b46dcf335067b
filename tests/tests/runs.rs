//! Bounded runs, and calls that go on without their callers.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use lock::{DurableRun, Error, ErrorKind, Locks, Status, debounced, locked};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::common::{Engine, ms, on_both_stores};

on_both_stores! {
    a_run_that_hangs_is_stopped_and_its_id_is_free,
    a_durable_run_that_hangs_has_failed,
    a_spawned_call_goes_on_without_its_handle,
    spawned_calls_count_in_the_order_of_their_making,
    a_run_may_spawn_the_next_one,
    a_detached_call_goes_on_without_its_caller,
    detached_calls_know_of_each_other,
    a_detached_call_takes_its_locks_in_its_run,
    a_detached_call_for_a_lock_of_its_caller_is_refused_at_once,
}

/// Long enough for anything that is not stuck.
const PATIENCE: Duration = Duration::from_secs(20);

async fn a_run_that_hangs_is_stopped_and_its_id_is_free(engine: &Engine) {
    let build = || engine.builder().lease(ms(300)).build();
    let (locks, other) = (build().await.unwrap(), build().await.unwrap());
    let hangs = locks.debounce("hang").wait(ms(10)).hold_at_most(ms(900));
    let began = Instant::now();
    let next = async {
        tokio::time::sleep(ms(300)).await;
        other.debounce("hang").wait(ms(10)).call(|| async { Instant::now() }).await
    };
    let hanging = hangs.call(std::future::pending::<()>);
    let (stopped, next) = timeout(PATIENCE, async { tokio::join!(hanging, next) }).await.unwrap();
    let error = stopped.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Lost, Some("hang")));
    let next = next.unwrap().expect("the next call runs");
    // The bound is shorter by a margin of the lease, so that no other run begins before this one is
    // stopped.
    assert!(next - began >= ms(850), "the run was bounded, not refused: {:?}", next - began);
    // A run that ends in time is not affected.
    assert_eq!(hangs.call(|| async { 1 }).await.unwrap(), Some(1));

    let error = locks.debounce("a").hold_at_most(ms(200)).call(|| async {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("`hold_at_most` of 200ms"), "{error}");
}

async fn a_durable_run_that_hangs_has_failed(engine: &Engine) {
    let locks = engine.builder().lease(ms(300)).build().await.unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let run = {
        let runs = Arc::clone(&runs);
        move |_: u64, _: DurableRun| {
            runs.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>()
        }
    };
    let debounce = locks.debounce("a").wait(ms(10)).hold_at_most(ms(400));
    let durable = debounce.durable("hangs", run).unwrap().retry(2, ms(20));
    durable.call(&1).await.unwrap();
    let aside = async {
        loop {
            let aside = durable.set_aside().await.unwrap();
            if !aside.is_empty() {
                return aside;
            }
            tokio::time::sleep(ms(20)).await;
        }
    };
    let aside = timeout(PATIENCE, aside).await.expect("it hangs for ever");
    assert_eq!((aside.len(), aside[0].attempts), (1, 2));
    assert!(aside[0].error.contains("`hold_at_most` of 400ms"), "{}", aside[0].error);
    assert_eq!(runs.load(Ordering::SeqCst), 2, "it was tried as often as it may be");

    let again = |limit| {
        let debounce = locks.debounce("b").hold_at_most(limit);
        debounce.durable("bounded", |_: u64, _: DurableRun| async {})
    };
    assert_eq!(again(ms(200)).unwrap_err().kind(), ErrorKind::Invalid, "under the lease");
    let _ = again(ms(400)).unwrap();
    let error = again(ms(500)).unwrap_err();
    assert!(error.to_string().contains("another `hold_at_most`"), "{error}");
    let _ = again(ms(400)).unwrap();
}

async fn a_spawned_call_goes_on_without_its_handle(engine: &Engine) {
    let locks = engine.locks().await;
    let ran = Arc::new(Semaphore::new(0));
    let body = {
        let ran = Arc::clone(&ran);
        || async move { ran.add_permits(1) }
    };
    drop(locks.debounce("a").wait(ms(50)).spawn(body));
    let _permit = timeout(PATIENCE, ran.acquire()).await.expect("it runs").unwrap();

    let panics = locks.debounce("a").wait(ms(10)).spawn(|| async { panic!("as it should") });
    assert!(panics.await.unwrap_err().is_panic());
    // An aborted call is withdrawn, and the id is free.
    let aborted = locks.debounce("a").wait(ms(10)).spawn(std::future::pending::<()>);
    tokio::time::sleep(ms(100)).await;
    aborted.abort();
    let next = locks.debounce("a").wait(ms(10)).spawn(|| async { 2 });
    assert_eq!(timeout(PATIENCE, next).await.unwrap().unwrap().unwrap(), Some(2));
}

async fn spawned_calls_count_in_the_order_of_their_making(engine: &Engine) {
    let locks = engine.locks().await;
    let calls = (0..50)
        .map(|number| locks.debounce("a").wait(ms(100)).spawn(move || async move { number }));
    let calls = calls.collect::<Vec<_>>();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap().unwrap());
    }
    assert_eq!(outcomes.pop(), Some(Some(49)));
    assert!(outcomes.iter().all(Option::is_none), "{outcomes:?}");
}

/// On several threads, where the first spawned task need not be polled first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn spawned_calls_count_in_the_order_of_their_making_on_any_thread() {
    for engine in [Engine::memory(), Engine::redis()] {
        for _ in 0..20 {
            spawned_calls_count_in_the_order_of_their_making(&engine).await;
        }
    }
}

async fn a_run_may_spawn_the_next_one(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(10));
    let spawned = debounce.call(|| async { [debounce.spawn(|| async { "next" })] });
    let [next] = spawned.await.unwrap().unwrap();
    let next = timeout(PATIENCE, next).await.expect("it waits for itself");
    assert_eq!(next.unwrap().unwrap(), Some("next"));
}

static SAVED: Semaphore = Semaphore::const_new(0);

#[debounced(id = "save:{id}", wait = 100, detached)]
async fn save(id: u64, text: &'static str, permits: &'static Semaphore) -> Result<u64, Error> {
    assert!(text != "panic", "as it should");
    // A nested call, in the scope of the caller.
    let fence = written(id).await?;
    permits.add_permits(1);
    Ok(fence)
}

#[locked(id = "written:{id}", guard = guard)]
async fn written(id: u64) -> Result<u64, Error> {
    Ok(guard.fencing_token())
}

async fn a_detached_call_goes_on_without_its_caller(engine: &Engine) {
    let locks = engine.locks().await;
    let ran: &'static Semaphore = Box::leak(Box::new(Semaphore::new(0)));
    let caller = locks.scope(save(7, "text", ran));
    assert!(timeout(ms(20), caller).await.is_err(), "the caller goes away while it waits");
    let _permit = timeout(PATIENCE, ran.acquire()).await.expect("it runs").unwrap();

    // A future that is never polled makes no call.
    drop(locks.scope(save(8, "text", ran)));
    let outcome = timeout(PATIENCE, locks.scope(save(7, "text", ran))).await.unwrap();
    assert!(outcome.unwrap().is_some());
    assert_eq!(ran.available_permits(), 1);

    let panic = AssertUnwindSafe(locks.scope(save(7, "panic", ran))).catch_unwind().await;
    let panic = panic.expect_err("a caller that waits panics with the body");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"as it should"));
    let error = save(7, "text", &SAVED).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
}

/// Like two clients of an HTTP server, the second of which hangs up.
async fn detached_calls_know_of_each_other(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    let ran: &'static Semaphore = Box::leak(Box::new(Semaphore::new(0)));
    let first = locks.scope(save(9, "first", ran));
    let second = async {
        tokio::time::sleep(ms(30)).await;
        assert!(timeout(ms(10), other.scope(save(9, "second", ran))).await.is_err());
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(first.unwrap(), None, "a newer call runs");
    let _permit = timeout(PATIENCE, ran.acquire()).await.expect("and it does").unwrap();
}

#[debounced(id = "document:{id}", wait = 60, detached, hold_at_most = limit)]
#[locked(id = "document:{id}", guard = guard, wait = 50)]
#[locked(id = "log", wait = 0, skip)]
async fn document(id: u64, limit: Duration) -> Result<(), Error> {
    assert!(guard.is_held());
    if limit > ms(60_000) { again(id).await } else { Ok(()) }
}

/// Boxed with a named type, because a recursively spawned future needs one.
fn again(id: u64) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
    Box::pin(async move { document(id, ms(30_000)).await.map(drop) })
}

async fn a_detached_call_takes_its_locks_in_its_run(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    let limit = ms(30_000);
    assert_eq!(locks.scope(document(1, limit)).await.unwrap(), Some(()));
    let guard = other.lock("document:1").acquire().await.unwrap();
    let error = locks.scope(document(1, limit)).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Busy, Some("document:1")));
    guard.release().await.unwrap();
    let guard = other.lock("log").acquire().await.unwrap();
    assert_eq!(locks.scope(document(1, limit)).await.unwrap(), Some(()), "skipped");
    guard.release().await.unwrap();
    assert_eq!(other.lock("document:1").status().await.unwrap(), Status::Free);
    // A run that waits for the next one of its id would wait for its own end.
    let error = timeout(PATIENCE, locks.scope(document(1, ms(90_000)))).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Deadlock, Some("document:1")));
    // The bound is checked when it is known.
    let error = locks.scope(document(1, ms(1_000))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[debounced(id = "inner", wait = "1h", detached)]
#[locked(id = "free")]
#[locked(id = "{id}", wait = "2h")]
async fn for_the_outer(id: &'static str) -> Result<(), Error> {
    Ok(())
}

#[debounced(id = "inner", wait = "1h", detached)]
#[locked(id = "{id}", wait = "2h", reentrant)]
async fn for_the_outer_again(id: &'static str) -> Result<(), Error> {
    Ok(())
}

#[debounced(id = "inner", wait = "1h", detached)]
#[locked(id = "outer", wait = "2h", or_else = |error| Ok(Some(error.kind())))]
async fn for_the_outer_with_a_way_out() -> Result<Option<ErrorKind>, Error> {
    Ok(None)
}

#[locked(id = "outer")]
async fn outer() -> Result<[Error; 2], Error> {
    let error = for_the_outer("outer").await.unwrap_err();
    let made = for_the_outer_with_a_way_out().await.unwrap();
    assert_eq!(made, Some(Some(ErrorKind::Deadlock)), "the lock's own way");
    Ok([error, for_the_outer_again("outer").await.unwrap_err()])
}

async fn a_detached_call_for_a_lock_of_its_caller_is_refused_at_once(engine: &Engine) {
    let locks = engine.locks().await;
    let errors = timeout(PATIENCE, locks.scope(outer())).await.expect("at once").unwrap();
    for error in errors {
        assert_eq!((error.kind(), error.id()), (ErrorKind::Deadlock, Some("outer")));
        assert!(error.to_string().contains("in a separate task"), "{error}");
    }
    assert!(!locks.debounce("inner").flush().await.unwrap(), "neither call was made");
}

#[tokio::test(start_paused = true)]
async fn a_detached_call_for_a_lock_that_its_caller_has_released_waits_as_any_other() {
    let locks = Locks::in_memory();
    let began = Instant::now();
    locks.scope(outer()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "nothing was waited for");
    let made = locks.scope(for_the_outer_again("outer"));
    assert_eq!(made.await.unwrap(), Some(()), "not under the lock any more");
    // A lock of another task is waited for.
    let guard = locks.lock("outer").acquire().await.unwrap();
    let began = Instant::now();
    let error = locks.scope(for_the_outer_again("outer")).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed().as_secs() / 3600), (ErrorKind::Busy, 3));
    drop(guard);
}

#[test]
fn a_detached_call_outside_of_a_runtime_says_so() {
    let locks = Locks::in_memory();
    let call = locks.scope(save(7, "text", &SAVED));
    let error = call.now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("Tokio runtime"), "{error}");
}

/// Checks on drop that the lock of its run is not free.
struct Late {
    locks: Locks,
    seen: Arc<Semaphore>,
}

impl Drop for Late {
    fn drop(&mut self) {
        let free = self.locks.lock("late").try_acquire().now_or_never();
        assert!(!matches!(free, Some(Ok(Some(_)))), "released before this was dropped");
        self.seen.add_permits(1);
    }
}

#[debounced(wait = 50, detached)]
#[locked(id = "late")]
#[allow(unused_variables)]
async fn late(used: Late, unused: Late, _also_unused: Late) -> Result<usize, Error> {
    Ok(size_of_val(&used))
}

#[tokio::test(start_paused = true)]
async fn arguments_of_a_detached_call_are_dropped_before_the_release() {
    let locks = Locks::in_memory();
    let seen = Arc::new(Semaphore::new(0));
    let make = || Late { locks: locks.clone(), seen: Arc::clone(&seen) };
    let ran = locks.scope(late(make(), make(), make())).await.unwrap();
    assert_eq!((ran, seen.available_permits()), (Some(size_of::<Late>()), 3));
    // Their check would have seen a free lock.
    assert!(matches!(locks.lock("late").try_acquire().now_or_never(), Some(Ok(Some(_)))));
}
