//! Controls: known faults of other libraries fail the same judge that this library passes. A judge
//! that passed everything would prove nothing.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lock::Locks;
use lock_tests::{History, Proxy, RedisServer, Section, Verdict};
use redis::AsyncCommands;
use tokio::sync::Notify;

use crate::common::ms;

/// Measures times in nanoseconds since the beginning.
#[derive(Clone, Copy)]
struct Watch(Instant);

impl Watch {
    fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap()
    }

    fn later(self, time: Duration) -> u64 {
        self.now() + u64::try_from(time.as_nanos()).unwrap()
    }
}

/// One holder, in the order of the grants.
fn section(number: u64, [asked, granted, valid_until]: [u64; 3]) -> Section {
    Section {
        id: "a".to_owned(),
        client: number,
        token: number,
        asked,
        standing_since: asked,
        granted,
        valid_until,
    }
}

/// The holder of a lock with a lease of ten seconds extends it, and the answer is lost; then
/// another client asks for the lock.
async fn after_a_lost_extension(library: Library) -> Verdict {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let watch = Watch(Instant::now());
    let mut history = History::default();
    let asked = watch.now();
    let lease = Duration::from_secs(10);
    match library {
        Library::Lock => {
            let one = Locks::connect(&proxy.url()).await.unwrap();
            let other = Locks::connect(&server.locks_url()).await.unwrap();
            let guard = one.lock("a").lease(lease).acquire().await.unwrap();
            let granted = watch.now();
            proxy.cut_instead_of_reply(1);
            let _ = guard.extend(lease).await;
            let valid_until = watch.later(guard.remaining());
            history.section(section(1, [asked, granted, valid_until]));
            let asked = watch.now();
            if let Some(second) = other.lock("a").try_acquire().await.unwrap() {
                let granted = watch.now();
                let valid_until = watch.later(second.remaining());
                history.section(section(2, [asked, granted, valid_until]));
            }
        }
        Library::Rslock => {
            let one = rslock::LockManager::new(vec![proxy.url()]);
            let other = rslock::LockManager::new(vec![server.url()]);
            let held = one.lock("a", lease).await.unwrap();
            let granted = watch.now();
            // The grant stands, whatever happens to the extension.
            let valid_until = watch.later(Duration::from_millis(held.validity_time as u64));
            proxy.cut_instead_of_reply(1);
            one.extend(&held, lease).await.map(drop).expect_err("its answer was lost");
            history.section(section(1, [asked, granted, valid_until]));
            let asked = watch.now();
            if let Ok(second) = other.lock("a", lease).await {
                let granted = watch.now();
                let valid_until = watch.later(Duration::from_millis(second.validity_time as u64));
                history.section(section(2, [asked, granted, valid_until]));
            }
        }
    }
    history.judge()
}

enum Library {
    Lock,
    Rslock,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_extension_that_releases_is_found() {
    let ours = after_a_lost_extension(Library::Lock).await;
    assert_eq!((ours.acquisitions, ours.violations.len()), (1, 0), "{ours:?}");
    let theirs = after_a_lost_extension(Library::Rslock).await;
    assert_eq!(theirs.violations.len(), 1, "{theirs:?}");
}

/// Makes two calls; the second comes while the first one's body runs.
async fn runs_of_two_calls<F>(call: impl Fn(Body) -> F) -> Verdict
where
    F: Future<Output = ()> + Send + 'static,
{
    let body = Body { watch: Watch(Instant::now()), runs: Arc::default(), started: Arc::default() };
    let first = tokio::spawn(call(body.clone()));
    // However slow the machine is, this is after the wait of the first call and before the end of
    // its body.
    body.started.notified().await;
    let second = tokio::spawn(call(body.clone()));
    first.await.unwrap();
    second.await.unwrap();
    let mut history = History::default();
    let runs = body.runs.lock().unwrap();
    assert_eq!(runs.len(), 2, "two windows, two runs");
    for (number, [start, end]) in (1..).zip(&*runs) {
        history.section(section(number, [*start, *start, *end]));
    }
    history.judge()
}

/// The body of a debounced call, which takes longer than its wait.
#[derive(Clone)]
struct Body {
    watch: Watch,
    runs: Arc<Mutex<Vec<[u64; 2]>>>,
    started: Arc<Notify>,
}

impl Body {
    const WAIT: Duration = ms(100);

    async fn run(&self) {
        let start = self.watch.now();
        self.started.notify_one();
        tokio::time::sleep(ms(600)).await;
        self.runs.lock().unwrap().push([start, self.watch.now()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debounce_whose_runs_overlap_is_found() {
    let server = RedisServer::start();
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let ours = runs_of_two_calls(|body| {
        let debounce = locks.debounce("a").wait(Body::WAIT);
        async move {
            debounce.call(|| async move { body.run().await }).await.unwrap();
        }
    })
    .await;
    assert!(ours.violations.is_empty(), "{ours:?}");
    // What @upstash/lock does: count the calls, wait, and run if there was no call since.
    let connection = server.connection().await;
    let theirs = runs_of_two_calls(|body| {
        let mut connection = connection.clone();
        async move {
            let number: u64 = connection.incr("seed", 1).await.unwrap();
            tokio::time::sleep(Body::WAIT).await;
            if connection.get::<_, u64>("seed").await.unwrap() == number {
                body.run().await;
            }
        }
    })
    .await;
    assert_eq!(theirs.violations.len(), 1, "{theirs:?}");
}
