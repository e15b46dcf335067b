//! Hand-overs that go wrong: the next waiter hangs, or is not told, or is told too early.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use lock::{
    ErrorKind, Lock, Locks, Status,
    store::{
        AcquireRequest, Acquisition, AdminStore, Answers, DebounceStore, Delivery, ExtendRequest,
        ForceReleaseRequest, Holder, Listener, MemoryStore, Release, ReleaseRequest, RenewRequest,
        Renewal, Store, StoreError, StoreFuture,
    },
};
use lock_tests::{RedisServer, Worker, eventually};
use tokio::sync::watch;

use crate::common::{Engine, WatchedServer, ms};

/// What a busy machine may add to a bound that the library keeps.
const NOISE: Duration = Duration::from_millis(400);

fn worker(url: &str) -> Worker {
    let mut worker = Worker::start(env!("CARGO_BIN_EXE_worker"));
    worker.tell(&format!("connect {url}"));
    worker.expect("ready");
    worker
}

async fn until_waiting(lock: &Lock, count: usize) {
    eventually(ms(8000), async || match lock.status().await.unwrap() {
        Status::Held { waiters, .. } if waiters == count => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn until_held(lock: &Lock) {
    eventually(ms(3000), async || !matches!(lock.status().await.unwrap(), Status::Free)).await;
}

/// The lease of the next caller is much shorter, so the store is asked with the token that holds
/// the lock, and refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_holds_the_lock_is_not_forgotten_when_the_store_refuses() {
    let server = RedisServer::start();
    let (locks, other) = (Engine::locks_of(&server).await, Engine::locks_of(&server).await);
    let guard = locks.lock("a").lease(ms(60_000)).acquire().await.unwrap();
    let waiter = tokio::spawn(locks.lock("a").lease(ms(1000)).acquire());
    until_waiting(&locks.lock("a"), 1).await;
    let mut connection = server.connection().await;
    let mut memory = async |limit: &str| {
        let mut command = redis::cmd("CONFIG");
        let command = command.arg("SET").arg("maxmemory").arg(limit);
        let _: () = command.query_async(&mut connection).await.unwrap();
    };
    memory("1").await;
    drop(guard);
    assert_eq!(waiter.await.unwrap().unwrap_err().kind(), ErrorKind::Rejected);
    memory("0").await;
    locks.flush().await;
    assert_eq!(other.lock("a").status().await.unwrap(), Status::Free);
}

/// Returns how long the second waiter waits when the first one is stopped.
async fn behind_a_stopped_waiter(keep: Duration, shut_down: bool) -> Duration {
    let server = WatchedServer::start(RedisServer::builder());
    let (locks, next) = (Engine::locks_of(&server).await, Engine::locks_of(&server).await);
    let guard = locks.lock("a").hold_at_least(keep).acquire().await.unwrap();
    let held = Instant::now();
    let mut head = worker(&server.locks_url());
    head.tell("wait a 10000 60000");
    until_waiting(&next.lock("a"), 1).await;
    let waiter = tokio::spawn(next.lock("a").wait(ms(60_000)).acquire());
    until_waiting(&next.lock("a"), 2).await;
    head.stop();
    guard.release().await.unwrap();
    let released = Instant::now();
    if shut_down {
        locks.shutdown().await;
        assert!(released.elapsed() < ms(900), "a shutdown does not wait for the claim");
    }
    let guard = waiter.await.unwrap().unwrap();
    // With `keep`, counted from its end.
    let delay = released.elapsed().min(held.elapsed().saturating_sub(keep));
    drop(guard);
    head.go_on();
    delay
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hands_over_and_goes_still_sees_to_it_that_the_lock_is_claimed() {
    let delay = behind_a_stopped_waiter(Duration::ZERO, true).await;
    assert!(delay < ms(1100) + NOISE, "{delay:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_was_kept_is_handed_over_past_a_stopped_waiter() {
    let delay = behind_a_stopped_waiter(ms(1500), false).await;
    assert!(delay < ms(1100) + NOISE, "{delay:?}");
}

/// After a reservation has run out, one newcomer may pass the queue, but not the other callers of
/// its process.
#[tokio::test(flavor = "multi_thread")]
async fn one_newcomer_passes_the_queue_and_not_the_crowd_behind_it() {
    const LEASE: Duration = Duration::from_secs(60);
    let server = WatchedServer::start(RedisServer::builder());
    let (locks, next) = (Engine::locks_of(&server).await, Engine::locks_of(&server).await);
    let crowd = Engine::locks_of(&server).await.lock("a").lease(LEASE).wait(LEASE);
    let guard = locks.lock("a").lease(LEASE).acquire().await.unwrap();
    let mut head = worker(&server.locks_url());
    head.tell("wait a 60000 60000");
    until_waiting(&locks.lock("a"), 1).await;
    let waiter = tokio::spawn(next.lock("a").lease(LEASE).wait(LEASE).acquire());
    until_waiting(&locks.lock("a"), 2).await;
    head.stop();
    guard.release().await.unwrap();
    let released = Instant::now();
    // Succeeds in the moment between the end of the reservation and the look by the former holder.
    // If that is missed, the waiter has the lock, which is just as good.
    let first = loop {
        if waiter.is_finished() {
            break None;
        }
        if let Some(guard) = crowd.try_acquire().await.unwrap() {
            break Some(guard);
        }
    };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let crowd = crowd.clone();
        tasks.spawn(async move {
            loop {
                let _guard = crowd.acquire().await.unwrap();
                tokio::time::sleep(ms(10)).await;
            }
        });
    }
    tokio::time::sleep(ms(100)).await;
    drop(first);
    let guard = waiter.await.unwrap().unwrap();
    let delay = released.elapsed();
    drop(guard);
    head.go_on();
    tasks.shutdown().await;
    assert!(delay < ms(1200) + NOISE, "{delay:?}");
}

/// A store whose answers to acquires are held back, and which blocks its caller in `holder`;
/// operations still take effect at once.
struct Gated {
    inner: MemoryStore,
    open: watch::Receiver<bool>,
    /// How many releases are lost on the way.
    lost_releases: Arc<AtomicU32>,
    /// Each call of `holder` signals that it has started, and waits until it is told to go on.
    stops: Mutex<Vec<(Sender<()>, Receiver<()>)>>,
}

impl Store for Gated {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        Box::pin(async move {
            let answer = self.inner.acquire(batch).await;
            let _ = self.open.clone().wait_for(|open| *open).await;
            answer
        })
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        self.inner.renew(batch)
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        let lost = self
            .lost_releases
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if lost.is_ok() {
            let lost = batch.iter().map(|_| Err(StoreError::unavailable("lost"))).collect();
            return Box::pin(async move { lost });
        }
        self.inner.release(batch)
    }

    fn subscribe<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, Delivery> {
        self.inner.subscribe(client, listener)
    }

    fn admin(&self) -> Option<&dyn AdminStore> {
        Some(self)
    }

    fn debounce(&self) -> Option<&dyn DebounceStore> {
        Some(&self.inner)
    }
}

impl AdminStore for Gated {
    fn extend<'a>(&'a self, batch: &'a [ExtendRequest]) -> Answers<'a, Option<Duration>> {
        self.inner.extend(batch)
    }

    fn holder<'a>(&'a self, batch: &'a [Arc<str>]) -> Answers<'a, Option<Holder>> {
        if let Some((there, go_on)) = self.stops.lock().unwrap().pop() {
            there.send(()).unwrap();
            go_on.recv().unwrap();
        }
        self.inner.holder(batch)
    }

    fn force_release<'a>(&'a self, batch: &'a [ForceReleaseRequest]) -> Answers<'a, Release> {
        self.inner.force_release(batch)
    }
}

/// Answers and notices may arrive in any order: a caller whose lock was released by force before it
/// received its grant must not believe in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_taken_by_force_before_its_grant_was_heard_of_is_not_held() {
    for wait in [ms(0), ms(60_000)] {
        let inner = MemoryStore::new();
        let (open, gate) = watch::channel(false);
        let gated = Gated {
            inner: inner.clone(),
            open: gate,
            lost_releases: Arc::default(),
            stops: Mutex::default(),
        };
        let slow = Locks::builder().store(gated).build().await.unwrap();
        let admin = Locks::builder().store(inner).build().await.unwrap();
        let caller = tokio::spawn(slow.lock("a").wait(wait).acquire());
        until_held(&admin.lock("a")).await;
        assert!(admin.lock("a").force_release().await.unwrap());
        let other = admin.lock("a").try_acquire().await.unwrap().unwrap();
        tokio::time::sleep(ms(100)).await;
        open.send(true).unwrap();
        if wait.is_zero() {
            assert_eq!(caller.await.unwrap().unwrap_err().kind(), ErrorKind::Busy);
        } else {
            until_waiting(&admin.lock("a"), 1).await;
            assert!(!caller.is_finished());
            let token = other.fencing_token();
            drop(other);
            assert!(caller.await.unwrap().unwrap().fencing_token() > token);
        }
    }
}

/// Guarantee 1: the caller asks again with the same token, so no release of that token may be under
/// way.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_taken_by_force_and_granted_again_is_not_released_by_what_went_before() {
    for waits in [false, true] {
        let inner = MemoryStore::new();
        let (open, gate) = watch::channel(false);
        let lost_releases = Arc::<AtomicU32>::default();
        let gated = Gated {
            inner: inner.clone(),
            open: gate,
            lost_releases: Arc::clone(&lost_releases),
            stops: Mutex::default(),
        };
        let slow = Locks::builder().store(gated).build().await.unwrap();
        let admin = Locks::builder().store(inner).build().await.unwrap();
        let lock = slow.lock("a");
        let lock = if waits { lock.wait(ms(60_000)) } else { lock.retry(5, ms(10)) };
        let caller = tokio::spawn(async move { lock.acquire().await });
        until_held(&admin.lock("a")).await;
        assert!(admin.lock("a").force_release().await.unwrap());
        tokio::time::sleep(ms(100)).await;
        lost_releases.store(2, Ordering::Relaxed);
        open.send(true).unwrap();
        let guard = caller.await.unwrap().unwrap();
        // Longer than a release waits before its third try.
        tokio::time::sleep(ms(400)).await;
        assert!(admin.lock("a").try_acquire().await.unwrap().is_none(), "waits: {waits}");
        assert!(guard.is_held());
    }
}

/// A caller that joins and leaves before the store was asked leaves nothing behind: neither in the
/// engine's records, nor a token for the next caller, which would not receive its notices.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_never_asked_for_leaves_no_token_behind() {
    let inner = MemoryStore::new();
    let (open, gate) = watch::channel(false);
    let ((there, is_there), (go_on, goes_on)) = (channel(), channel());
    let ((there_again, is_there_again), (go_on_again, goes_on_again)) = (channel(), channel());
    let stops = Mutex::new(vec![(there_again, goes_on_again), (there, goes_on)]);
    let gated = Gated { inner: inner.clone(), open: gate, lost_releases: Arc::default(), stops };
    let slow = Locks::builder().store(gated).build().await.unwrap();
    let other = Locks::builder().store(inner).build().await.unwrap();
    let attempt = tokio::spawn(slow.lock("a").wait(ms(0)).acquire());
    until_held(&other.lock("a")).await;
    // From here on, the keeper's thread is in a turn, and handles a caller's join in the next one.
    let asked = tokio::spawn({
        let lock = slow.lock("x");
        async move { lock.status().await }
    });
    is_there.recv().unwrap();
    let mut leaving = Box::pin(slow.lock("a").acquire());
    assert!(futures_util::poll!(leaving.as_mut()).is_pending());
    let lock = slow.lock("x");
    let mut asked_again = Box::pin(lock.status());
    assert!(futures_util::poll!(asked_again.as_mut()).is_pending());
    go_on.send(()).unwrap();
    is_there_again.recv().unwrap();
    open.send(true).unwrap();
    tokio::time::sleep(ms(100)).await;
    drop(leaving);
    go_on_again.send(()).unwrap();
    asked.await.unwrap().unwrap();
    asked_again.await.unwrap();

    let held = attempt.await.unwrap().unwrap();
    let first = tokio::spawn(other.lock("a").lease(ms(30_000)).wait(ms(60_000)).acquire());
    until_waiting(&other.lock("a"), 1).await;
    let second = tokio::spawn(slow.lock("a").wait(ms(60_000)).acquire());
    until_waiting(&slow.lock("a"), 2).await;
    drop(held);
    let first = first.await.unwrap().unwrap();
    let released = Instant::now();
    drop(first);
    let second = second.await.unwrap().unwrap();
    assert!(released.elapsed() < ms(700), "it was woken: {:?}", released.elapsed());
    assert!(other.lock("a").force_release().await.unwrap());
    eventually(ms(2000), async || !second.is_held()).await;
}
