//! Nested attributes: a lock that is held already, several locks of one function, and locks of a
//! debounced run.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use lock::{Error, ErrorKind, LockGuard, Locks, Status, debounced, locked};
use lock_tests::eventually;
use tokio::time::{Instant, sleep, timeout};

use crate::common::{Engine, ms, on_both_stores};

on_both_stores! {
    a_lock_that_the_caller_runs_under_is_a_deadlock_at_once,
    siblings_and_tasks_wait_for_each_other,
    tasks_that_a_body_polls_are_not_the_body,
    reentrant_bodies_run_under_the_outer_guard,
    the_loss_of_the_outer_guard_stops_the_inner_body,
    the_release_of_the_outer_guard_stops_the_inner_body,
    locks_in_either_order_never_hang,
    each_of_several_locks_has_its_own_terms,
    the_loss_of_any_lock_stops_the_body,
    debounced_runs_take_their_locks,
}

#[locked(id = "depth:{name}")]
async fn recursive(name: &str, depth: u32) -> Result<u32, Error> {
    if depth == 0 { Ok(0) } else { Box::pin(recursive(name, depth - 1)).await }
}

fn boxed(depth: u32) -> Pin<Box<dyn Future<Output = Result<u32, Error>> + Send>> {
    #[locked(id = "boxed")]
    async fn body(depth: u32) -> Result<u32, Error> {
        boxed(depth - 1).await
    }
    Box::pin(body(depth))
}

#[locked(id = "ping")]
async fn ping(count: u32) -> Result<u32, Error> {
    Box::pin(pong(count)).await
}

#[locked(id = "pong")]
async fn pong(count: u32) -> Result<u32, Error> {
    // So that it does not happen at the first poll of the outer bodies.
    tokio::task::yield_now().await;
    Box::pin(ping(count)).await
}

#[locked(id = "busy", wait = 0, skip)]
async fn skipping() -> Result<(), Error> {
    Box::pin(skipping()).await
}

async fn a_lock_that_the_caller_runs_under_is_a_deadlock_at_once(engine: &Engine) {
    let locks = engine.locks().await;
    let began = Instant::now();
    locks
        .scope(async {
            assert_eq!(recursive("a", 0).await.unwrap(), 0);
            let error = recursive("a", 1).await.unwrap_err();
            assert_eq!((error.kind(), error.id()), (ErrorKind::Deadlock, Some("depth:a")));
            assert!(error.to_string().contains("`reentrant`"), "{error}");
            assert!(error.to_string().contains("pass the guard on"), "{error}");
            assert_eq!(boxed(1).await.unwrap_err().kind(), ErrorKind::Deadlock);
            let error = ping(1).await.unwrap_err();
            assert_eq!((error.kind(), error.id()), (ErrorKind::Deadlock, Some("ping")));
            // Not even one attempt is made: it would always find the lock busy.
            assert_eq!(skipping().await.unwrap_err().kind(), ErrorKind::Deadlock);
        })
        .await;

    let lock = locks.lock("with");
    let nested = lock.with(|_| async {
        assert!(lock.try_acquire().await.unwrap().is_none(), "an attempt is answered");
        assert_eq!(lock.clone().wait(ms(0)).acquire().await.unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(lock.acquire().await.unwrap_err().kind(), ErrorKind::Deadlock);
        let polling = lock.clone().retry(3, ms(5000)).acquire().await;
        assert_eq!(polling.unwrap_err().kind(), ErrorKind::Deadlock);
        // Another client's lock of the same id does not count; here it is one of another store.
        drop(Locks::in_memory().lock("with").acquire().await.unwrap());
        lock.with(|_| async {}).await
    });
    assert_eq!(nested.await.unwrap().unwrap_err().kind(), ErrorKind::Deadlock);
    assert!(began.elapsed() < ms(2000), "nobody waited: {:?}", began.elapsed());
    for id in ["depth:a", "boxed", "ping", "pong", "busy", "with"] {
        assert_eq!(locks.lock(id).status().await.unwrap(), Status::Free, "{id}");
    }

    // After a panic, no thread counts as running inside the body.
    #[locked(id = "panics")]
    async fn panics(really: bool) -> Result<(), Error> {
        assert!(!really, "as it should");
        Ok(())
    }
    let panicking = tokio::spawn(locks.scope(panics(true)));
    assert!(panicking.await.unwrap_err().is_panic());
    locks.scope(panics(false)).await.unwrap();
}

#[locked(id = "sibling")]
async fn sibling() -> Result<(), Error> {
    sleep(ms(20)).await;
    Ok(())
}

#[locked(id = "parent")]
async fn parent(locks: &Locks) -> Result<(), Error> {
    // A spawned task is another task, even if this one waits for it. The spawned one gives up
    // first.
    let task = tokio::spawn(locks.scope(waits_for_parent()));
    assert_eq!(task.await.unwrap().unwrap_err().kind(), ErrorKind::Busy);
    let (one, two, three) = tokio::join!(sibling(), sibling(), sibling());
    one.and(two).and(three)
}

#[locked(id = "parent", wait = 50)]
async fn waits_for_parent() -> Result<(), Error> {
    Ok(())
}

async fn siblings_and_tasks_wait_for_each_other(engine: &Engine) {
    let locks = engine.locks().await;
    let (one, two, parent) =
        locks.scope(async { tokio::join!(sibling(), sibling(), parent(&locks)) }).await;
    one.and(two).and(parent).unwrap();
    // A body that is done does not count any more, and a guard that is merely held is not a body.
    locks.scope(async { sibling().await.and(sibling().await) }).await.unwrap();
    let _guard = locks.lock("parent").acquire().await.unwrap();
    let error = locks.scope(waits_for_parent()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
}

#[locked(id = "local", reentrant)]
async fn local(inside: &AtomicU32) -> Result<(), Error> {
    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two bodies at once");
    sleep(ms(20)).await;
    inside.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

async fn tasks_that_a_body_polls_are_not_the_body(engine: &Engine) {
    let locks = engine.locks().await;
    let inside = Arc::new(AtomicU32::new(0));
    let set = tokio::task::LocalSet::new();
    let other = set.spawn_local({
        let (locks, inside) = (locks.clone(), Arc::clone(&inside));
        async move {
            sleep(ms(20)).await;
            locks.scope(local(&inside)).await
        }
    });
    // The set polls the other task inside the body, but it still is another task.
    let body = locks.lock("local").with(|_| {
        set.run_until(async {
            local(&inside).await.unwrap();
            inside.fetch_add(1, Ordering::SeqCst);
            sleep(ms(60)).await;
            inside.fetch_sub(1, Ordering::SeqCst);
        })
    });
    locks.scope(body).await.unwrap();
    set.run_until(other).await.unwrap().unwrap();
}

#[locked(id = "account:{account}", lease = "300ms", guard = guard)]
async fn transfer(account: u32) -> Result<(u64, u64), Error> {
    let inner = audit(account).await?;
    assert!(guard.is_held(), "the inner body has ended, the lock is still the outer's");
    assert_eq!(audit(account).await?, inner);
    Ok((guard.fencing_token(), inner))
}

#[locked(id = "account:{account}", reentrant, guard = guard)]
async fn audit(account: u32) -> Result<u64, Error> {
    assert_eq!(guard.id(), format!("account:{account}"));
    assert!(guard.is_held() && guard.remaining() > ms(0));
    guard.extend(ms(10)).await?;
    Ok(guard.fencing_token())
}

#[locked(id = "depth", reentrant)]
async fn deep(depth: u32) -> Result<u32, Error> {
    if depth == 0 { Ok(0) } else { Ok(1 + Box::pin(deep(depth - 1)).await?) }
}

async fn reentrant_bodies_run_under_the_outer_guard(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    let (outer, inner) = locks.scope(transfer(7)).await.unwrap();
    assert_eq!(outer, inner, "one lock, one grant");
    assert_eq!(other.lock("account:7").status().await.unwrap(), Status::Free);
    let alone = locks.scope(audit(7)).await.unwrap();
    assert!(alone > outer, "outside a body, it is acquired");
    assert_eq!(other.lock("account:7").status().await.unwrap(), Status::Free);
    assert_eq!(locks.scope(deep(20)).await.unwrap(), 20);

    // The same under `with`, but not under a lock of another client.
    let held = locks.lock("account:8").with(|guard| async move {
        let inner = audit(8).await.unwrap();
        (guard.fencing_token(), inner)
    });
    let (outer, inner) = locks.scope(held).await.unwrap();
    assert_eq!(outer, inner);
    let strange = other
        .lock("account:9")
        .with(|_| async { timeout(ms(100), locks.scope(audit(9))).await.is_err() });
    assert!(strange.await.unwrap(), "another client has to wait");
}

#[locked(id = "outer", lease = "300ms", on_lost = "continue")]
async fn survives() -> Result<ErrorKind, Error> {
    let lost = sleeps().await.unwrap_err();
    assert_eq!(lost.id(), Some("outer"));
    Ok(lost.kind())
}

#[locked(id = "outer", reentrant)]
async fn sleeps() -> Result<(), Error> {
    std::future::pending().await
}

async fn the_loss_of_the_outer_guard_stops_the_inner_body(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    let force = async {
        sleep(ms(50)).await;
        assert!(other.lock("outer").force_release().await.unwrap());
    };
    let (kind, ()) = tokio::join!(locks.scope(survives()), force);
    assert_eq!(kind.unwrap(), ErrorKind::Lost);
}

type Escaped = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

#[locked(id = "escape")]
async fn lets_one_escape(guards: Arc<AtomicU32>) -> Result<Escaped, Error> {
    let mut inner: Escaped = Box::pin(escapes(guards));
    // The inner body has begun, under the guard of this body.
    assert!(timeout(ms(20), &mut inner).await.is_err());
    Ok(inner)
}

#[locked(id = "escape", reentrant, guard = guard)]
async fn escapes(steps: Arc<AtomicU32>) -> Result<(), Error> {
    loop {
        assert!(guard.is_held() && guard.remaining() > ms(0));
        steps.fetch_add(1, Ordering::SeqCst);
        sleep(ms(5)).await;
    }
}

async fn the_release_of_the_outer_guard_stops_the_inner_body(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    let steps = Arc::new(AtomicU32::new(0));
    let inner = locks.scope(lets_one_escape(Arc::clone(&steps))).await.unwrap();
    let guard = other.lock("escape").wait(ms(0)).acquire().await.unwrap();
    let before = steps.load(Ordering::SeqCst);
    assert!(before > 0, "it has begun");
    let error = timeout(ms(500), locks.scope(inner)).await.expect("it goes on").unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Lost, Some("escape")));
    assert_eq!(steps.load(Ordering::SeqCst), before, "no step while another holds it");
    guard.release().await.unwrap();
}

static BOTH: AtomicU32 = AtomicU32::new(0);

#[locked(id = "pair:{a}", wait = "30s")]
#[locked(id = "pair:{b}", wait = "30s")]
async fn pair(a: &str, b: &str) -> Result<(), Error> {
    assert_eq!(BOTH.fetch_add(1, Ordering::SeqCst), 0, "two bodies at once");
    tokio::task::yield_now().await;
    BOTH.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

#[locked(id = "pair:right", wait = "30s", guard = right)]
#[locked(id = "pair:left", wait = "30s", guard = left)]
async fn other_pair() -> Result<(), Error> {
    assert_eq!((right.id(), left.id()), ("pair:right", "pair:left"));
    pair_of(left, right);
    Ok(())
}

fn pair_of(left: &LockGuard, right: &LockGuard) {
    assert!(left.is_held() && right.is_held());
}

async fn locks_in_either_order_never_hang(engine: &Engine) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..4 {
        let locks = engine.locks().await;
        tasks.spawn(async move {
            for _ in 0..15 {
                let result = match number {
                    0 | 3 => locks.scope(pair("left", "right")).await,
                    1 => locks.scope(pair("right", "left")).await,
                    _ => locks.scope(other_pair()).await,
                };
                result.unwrap();
            }
        });
    }
    let done = timeout(Duration::from_secs(20), tasks.join_all()).await;
    assert_eq!(done.expect("they wait for each other").len(), 4);

    let locks = engine.locks().await;
    let error = locks.scope(pair("same", "same")).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Deadlock, Some("pair:same")));

    #[locked(id = "same", reentrant, guard = one)]
    #[locked(id = "same", guard = two)]
    async fn twice() -> Result<bool, Error> {
        Ok(one.fencing_token() == two.fencing_token())
    }
    assert!(locks.scope(twice()).await.unwrap());
    for id in ["pair:left", "pair:right", "pair:same", "same"] {
        assert_eq!(locks.lock(id).status().await.unwrap(), Status::Free, "{id}");
    }
}

#[locked(id = "b", wait = 0, skip)]
#[locked(id = "a", wait = "20ms", or_else = |error| Ok(Some(error.to_string().len())))]
#[locked(id = "c", wait = "10ms")]
async fn terms() -> Result<Option<usize>, Error> {
    Ok(Some(0))
}

async fn each_of_several_locks_has_its_own_terms(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    assert_eq!(locks.scope(terms()).await.unwrap(), Some(0));
    for (id, expected) in [("b", "skipped"), ("a", "made"), ("c", "failed")] {
        let guard = other.lock(id).acquire().await.unwrap();
        let outcome = match locks.scope(terms()).await {
            Ok(None) => "skipped",
            Ok(Some(0)) => "ran",
            Ok(Some(_)) => "made",
            Err(error) => {
                assert_eq!((error.kind(), error.id()), (ErrorKind::Busy, Some(id)));
                "failed"
            }
        };
        assert_eq!(outcome, expected, "when {id} is busy");
        guard.release().await.unwrap();
        // A waiter that has given up may be handed the lock before its withdrawal has arrived.
        for id in ["a", "b", "c"] {
            let free = async || other.lock(id).status().await.unwrap() == Status::Free;
            eventually(ms(5000), free).await;
        }
    }
    // An invalid id is found before any lock is taken.
    #[locked(id = "a")]
    #[locked(id = name)]
    async fn cannot_be(name: &str) -> Result<(), Error> {
        Ok(())
    }
    let guard = other.lock("a").acquire().await.unwrap();
    assert_eq!(locks.scope(cannot_be("")).await.unwrap_err().kind(), ErrorKind::Invalid);
    drop(guard);
}

#[locked(id = "first", lease = "300ms")]
#[locked(id = "second", lease = "300ms")]
#[locked(id = "third", lease = "300ms", on_lost = "continue")]
async fn waits() -> Result<(), Error> {
    std::future::pending().await
}

async fn the_loss_of_any_lock_stops_the_body(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    for id in ["first", "second"] {
        let force = async {
            sleep(ms(50)).await;
            assert!(other.lock("third").force_release().await.unwrap());
            sleep(ms(50)).await;
            assert!(other.lock(id).force_release().await.unwrap());
        };
        let (stopped, ()) = tokio::join!(locks.scope(waits()), force);
        let error = stopped.unwrap_err();
        assert_eq!((error.kind(), error.id()), (ErrorKind::Lost, Some(id)));
        for id in ["first", "second"] {
            assert_eq!(other.lock(id).status().await.unwrap(), Status::Free, "{id}");
        }
    }
}

#[debounced(id = "save:{document}", wait = 60)]
#[locked(id = "document:{document}", guard = guard)]
async fn save(document: u32, runs: Arc<AtomicU32>) -> u64 {
    assert!(guard.is_held());
    runs.fetch_add(1, Ordering::SeqCst);
    guard.fencing_token()
}

#[debounced(id = "try:{document}", wait = "30ms", max_wait = 100)]
#[locked(id = "document:{document}", wait = 0, skip)]
#[locked(id = "log", or_else = |_error| Ok(()))]
async fn try_save(document: u32) -> Result<(), Error> {
    Ok(())
}

async fn debounced_runs_take_their_locks(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    let runs = Arc::new(AtomicU32::new(0));
    // The lock is free during the wait of the burst.
    let look = async {
        sleep(ms(20)).await;
        assert_eq!(other.lock("document:7").status().await.unwrap(), Status::Free);
        // The run takes it, and so waits for this guard.
        let guard = other.lock("document:7").acquire().await.unwrap();
        sleep(ms(150)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        guard.release().await.unwrap();
    };
    let (first, last, ()) = locks
        .scope(async { tokio::join!(save(7, Arc::clone(&runs)), save(7, Arc::clone(&runs)), look) })
        .await;
    assert_eq!(first.unwrap(), None);
    assert!(last.unwrap().is_some());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(other.lock("document:7").status().await.unwrap(), Status::Free);

    // Each outcome of the locks: skipped, replaced by `or_else`, and an error of the debounced
    // call.
    let guard = other.lock("document:7").acquire().await.unwrap();
    assert_eq!(locks.scope(try_save(7)).await.unwrap(), Some(()));
    let short = engine.builder().wait(ms(20)).build().await.unwrap();
    let error = short.scope(save(7, runs)).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Busy, Some("document:7")));
    guard.release().await.unwrap();
    let guard = other.lock("log").acquire().await.unwrap();
    assert_eq!(short.scope(try_save(7)).await.unwrap(), Some(()));
    drop(guard);
}
