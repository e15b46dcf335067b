//! The attributes at work.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use lock::{Error, ErrorKind, LockGuard, Locks, Status, debounced, locked};
use tokio::time::Instant;

use crate::common::{Engine, ms, on_both_stores};

on_both_stores! {
    functions_exclude_each_other,
    methods_take_their_own_locks,
    bursts_run_once,
    bodies_are_stopped_when_the_lock_is_lost,
}

#[derive(Debug)]
#[expect(dead_code, reason = "shown when an assertion fails")]
enum Failure {
    Lock(Error),
    Own(&'static str),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Lock(error)
    }
}

static INSIDE: AtomicU32 = AtomicU32::new(0);

#[locked(id = "exclude:{name}", lease = "300ms")]
async fn exclusive(name: &str, inside: Arc<AtomicU32>) -> Result<u32, Error> {
    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two bodies of `{name}` at once");
    tokio::time::sleep(ms(20)).await;
    inside.fetch_sub(1, Ordering::SeqCst);
    Ok(INSIDE.fetch_add(1, Ordering::SeqCst))
}

async fn functions_exclude_each_other(engine: &Engine) {
    let inside = Arc::new(AtomicU32::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let locks = engine.locks().await;
        for _ in 0..3 {
            let (locks, inside) = (locks.clone(), Arc::clone(&inside));
            tasks.spawn(async move { locks.scope(exclusive("a", inside)).await.unwrap() });
        }
    }
    assert_eq!(tasks.join_all().await.len(), 9);
}

struct Service {
    locks: Locks,
    tenant: String,
    calls: u32,
}

impl Service {
    #[locked(id = "tenant:{self.tenant}:{order.0}", locks = self.locks, guard = held)]
    async fn ship(&mut self, order: (u64, &str)) -> Result<(String, u64), Failure> {
        self.calls += 1;
        if order.1.is_empty() {
            return Err(Failure::Own("nothing to ship"));
        }
        assert!(held.is_held());
        Ok((held.id().to_owned(), held.fencing_token()))
    }

    #[locked(id = "tenant:{self.tenant}:7", wait = 0, skip, locks = self.locks)]
    async fn skipping(self: Arc<Self>) -> Result<Option<u32>, Error> {
        Ok(Some(self.calls))
    }

    #[locked(id = "tenant:{self.tenant}:7", wait = 0, locks = self.locks, or_else = |error| error.kind() == ErrorKind::Busy)]
    async fn is_busy(&self) -> bool {
        false
    }
}

async fn methods_take_their_own_locks(engine: &Engine) {
    let locks = engine.locks().await;
    let mut service = Service { locks: locks.clone(), tenant: "a:b".to_owned(), calls: 0 };
    let (id, first) = service.ship((7, "book")).await.unwrap();
    assert_eq!(id, "tenant:a%3Ab:7", "values are escaped");
    let (_, second) = service.ship((7, "book")).await.unwrap();
    assert!(second > first);
    let failed = service.ship((7, "")).await;
    assert!(matches!(failed, Err(Failure::Own(_))), "a body's own error is its own: {failed:?}");
    assert_eq!(service.calls, 3);

    let guard = locks.lock(&id).acquire().await.unwrap();
    let service = Arc::new(service);
    assert_eq!(Arc::clone(&service).skipping().await.unwrap(), None);
    assert!(service.is_busy().await);
    drop(guard);
    assert_eq!(Arc::clone(&service).skipping().await.unwrap(), Some(3));
    assert!(!service.is_busy().await);
    assert_eq!(locks.lock(&id).status().await.unwrap(), Status::Free, "released on return");
}

#[debounced(id = "index:{document}", wait = 150)]
async fn index(document: u32, version: u32, runs: Arc<AtomicU32>) -> Result<u32, Failure> {
    runs.fetch_add(1, Ordering::SeqCst);
    if version == 0 { Err(Failure::Own("no version")) } else { Ok(version) }
}

#[debounced(wait = "50ms")]
async fn tick() -> &'static str {
    "tock"
}

async fn bursts_run_once(engine: &Engine) {
    let locks = engine.locks().await;
    let runs = Arc::new(AtomicU32::new(0));
    let calls = (1..=5).map(|version| locks.scope(index(7, version, Arc::clone(&runs))));
    let others = locks.scope(index(8, 1, Arc::new(AtomicU32::new(0))));
    let (outcomes, other) = tokio::join!(futures_util::future::join_all(calls), others);
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [None, None, None, None, Some(5)]);
    assert_eq!((runs.load(Ordering::SeqCst), other.unwrap()), (1, Some(1)));
    let failed = locks.scope(index(7, 0, runs)).await;
    assert!(matches!(failed, Err(Failure::Own(_))), "{failed:?}");
    assert_eq!(locks.scope(tick()).await.unwrap(), Some("tock"));
}

/// Records when it is dropped.
struct Dropped(&'static str, Arc<Mutex<Vec<&'static str>>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[locked(id = "stop", lease = "300ms", on_lost = "stop")]
async fn stopped(_mine: Dropped) -> Result<(), Error> {
    std::future::pending().await
}

#[locked(id = "continue", lease = "300ms", on_lost = "continue", guard = guard)]
async fn continued() -> Result<bool, Error> {
    guard.lost().await;
    tokio::task::yield_now().await;
    Ok(guard.is_held())
}

async fn bodies_are_stopped_when_the_lock_is_lost(engine: &Engine) {
    let (locks, other) = (engine.locks().await, engine.locks().await);
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let mine = Dropped("argument", Arc::clone(&dropped));
    let force = async {
        tokio::time::sleep(ms(50)).await;
        assert!(other.lock("stop").force_release().await.unwrap());
        assert!(other.lock("continue").force_release().await.unwrap());
    };
    let (stopped, continued, ()) =
        tokio::join!(locks.scope(stopped(mine)), locks.scope(continued()), force);
    let error = stopped.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Lost, Some("stop")));
    assert_eq!(*dropped.lock().unwrap(), ["argument"]);
    assert!(!continued.unwrap());
}

#[locked(id = "order")]
async fn drops_its_arguments(
    _used: Dropped,
    _: Dropped,
    #[allow(unused_variables)] idle: Dropped,
    log: Arc<Mutex<Vec<&'static str>>>,
) -> Result<(), Error> {
    log.lock().unwrap().push("body");
    Ok(())
}

#[tokio::test]
async fn arguments_are_dropped_before_the_release() {
    let locks = Locks::in_memory();
    let log = Arc::new(Mutex::new(Vec::new()));
    let waiting = tokio::spawn({
        let (locks, log) = (locks.clone(), Arc::clone(&log));
        async move {
            tokio::task::yield_now().await;
            let _guard: LockGuard = locks.lock("order").acquire().await.unwrap();
            log.lock().unwrap().push("next holder");
        }
    });
    let [used, unused, idle] =
        ["used", "unused", "idle"].map(|name| Dropped(name, Arc::clone(&log)));
    locks.scope(drops_its_arguments(used, unused, idle, Arc::clone(&log))).await.unwrap();
    waiting.await.unwrap();
    let log = log.lock().unwrap();
    assert_eq!(log[0], "body");
    assert_eq!(log.last(), Some(&"next holder"), "{log:?}");
    assert_eq!(log.len(), 5);
}

/// Takes a while to drop, and blocks its thread meanwhile.
struct Slow(Arc<AtomicU32>);

impl Drop for Slow {
    fn drop(&mut self) {
        std::thread::sleep(ms(150));
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[debounced(id = "slow", wait = "5ms")]
async fn drops_slowly(slow: Slow, ends: bool) -> Result<(), Error> {
    assert_eq!(slow.0.fetch_add(1, Ordering::SeqCst), 0, "two runs at once");
    if ends { Ok(()) } else { std::future::pending().await }
}

#[debounced(id = "slow", wait = "5ms")]
#[locked(id = "slowly")]
async fn drops_slowly_under_a_lock(slow: Slow) -> Result<(), Error> {
    assert_eq!(slow.0.fetch_add(1, Ordering::SeqCst), 0, "two runs at once");
    std::future::pending().await
}

/// An abandoned run lasts until its arguments are dropped. Tested on the store whose keeper has a
/// thread of its own, and so could release meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn arguments_are_dropped_before_a_cancelled_run_is_over() {
    let engine = Engine::redis();
    let (locks, other) = (engine.locks().await, engine.locks().await);
    for under_a_lock in [false, true] {
        let inside = Arc::new(AtomicU32::new(0));
        let slow = Slow(Arc::clone(&inside));
        let first = if under_a_lock {
            tokio::spawn(locks.scope(drops_slowly_under_a_lock(slow)))
        } else {
            tokio::spawn(locks.scope(drops_slowly(slow, false)))
        };
        while inside.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(ms(5)).await;
        }
        let next = tokio::spawn(other.scope(drops_slowly(Slow(inside), true)));
        tokio::time::sleep(ms(50)).await;
        first.abort();
        assert_eq!(next.await.expect("they overlap").unwrap(), Some(()));
    }
}

struct Patient {
    locks: Locks,
    asked: AtomicU32,
}

impl Patient {
    #[locked(id = "patient", lease = lease, wait = self.patience(), hold_at_most = HOLD, locks = self.locks, guard = guard)]
    async fn try_it(&self, lease: Duration) -> Result<Duration, Error> {
        Ok(guard.remaining())
    }

    #[debounced(wait = wait, max_wait = wait * 2, hold_at_most = HOLD, locks = self.locks)]
    async fn pause(&self, wait: Duration) -> Instant {
        Instant::now()
    }

    #[debounced(wait = "1s", max_wait = max_wait, locks = self.locks)]
    async fn pause_at_most(&self, max_wait: Duration) {}

    fn patience(&self) -> Duration {
        ms(1000 * u64::from(self.asked.fetch_add(1, Ordering::SeqCst)))
    }
}

const HOLD: Duration = Duration::from_secs(60);

/// A duration may be any expression: it is evaluated at each call, in the scope of the body.
#[tokio::test(start_paused = true)]
async fn durations_can_be_expressions() {
    let locks = Locks::in_memory();
    let patient = Patient { locks: locks.clone(), asked: AtomicU32::new(0) };
    let remaining = patient.try_it(ms(20_000)).await.unwrap();
    assert!(ms(19_000) < remaining && remaining <= ms(20_000), "{remaining:?}");
    let _guard = locks.lock("patient").acquire().await.unwrap();
    for seconds in 1..4 {
        let began = Instant::now();
        assert_eq!(patient.try_it(ms(500)).await.unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
    let began = Instant::now();
    let ran = patient.pause(ms(3000)).await.unwrap().unwrap();
    assert_eq!((ran - began).as_secs(), 3);

    // Invalid values are reported at run time, as for a `Lock` and a `Debounce`.
    let error = patient.try_it(ms(61_000)).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Invalid, Some("patient")));
    assert_eq!(patient.pause(ms(0)).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(patient.pause_at_most(ms(999)).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(patient.pause_at_most(ms(1000)).await.unwrap(), Some(()));
}

#[tokio::test]
async fn without_a_client_the_error_names_the_line_to_add() {
    // No test of this process installs a client: they use scopes.
    let error = tick().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
    assert!(error.to_string().contains("locks.install()"), "{error}");
    // A reader who sees this in a test usually has a scope, and has spawned a task.
    assert!(error.to_string().contains("spawned tasks"), "{error}");
}

#[tokio::test]
async fn ids_that_cannot_be_are_errors_at_run_time() {
    #[locked(id = format!("{name}"))]
    async fn named(name: &str) -> Result<(), Error> {
        Ok(())
    }
    // A template in parentheses is still a template.
    #[locked(id = ("in:{name}"), guard = guard)]
    async fn in_parentheses(name: &str) -> Result<(), Error> {
        assert_eq!(guard.id(), format!("in:{name}"));
        Ok(())
    }
    let locks = Locks::in_memory();
    locks.scope(in_parentheses("a")).await.unwrap();
    let error = locks.scope(named("")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    locks.scope(named("a:b")).await.unwrap();
}

/// Different arguments never give one id, whatever they contain.
#[tokio::test]
async fn different_arguments_are_different_locks() {
    #[locked(id = "{a}:{b}", guard = guard)]
    async fn id(a: impl fmt::Display, b: impl fmt::Display) -> Result<String, Error> {
        Ok(guard.id().to_owned())
    }
    let locks = Locks::in_memory();
    let values = ["", "a", ":", "a:b", "%", "%3A", "a%3Ab", "~", "{", "é", "\u{7f}", "-", "."];
    let mut seen = std::collections::HashSet::new();
    for a in values {
        for b in values {
            let id = locks.scope(id(a, b)).await.unwrap();
            assert!(seen.insert(id.clone()), "{a:?} and {b:?} give {id:?} again");
        }
    }
}

fn is_send<F: Future + Send>(future: F) -> F {
    future
}

/// The size that the attribute adds to the future of a function with small arguments.
#[tokio::test]
async fn futures_are_hardly_larger_than_by_hand() {
    #[locked(id = "size:{number}")]
    async fn attribute(number: u64) -> Result<u64, Error> {
        tokio::task::yield_now().await;
        Ok(number)
    }
    #[locked(id = "size:{number}", wait = 500, guard = guard, reentrant)]
    async fn with_arguments(number: u64) -> Result<u64, Error> {
        tokio::task::yield_now().await;
        Ok(guard.fencing_token() + number)
    }
    /// The same guarantees: the body is dropped when the lock is lost, the release is awaited.
    async fn by_hand(locks: Locks, number: u64) -> Result<u64, Error> {
        let guard = locks.lock(format!("size:{number}")).acquire().await?;
        let outcome = tokio::select! {
            biased;
            () = guard.lost() => return Err(guard.release().await.expect_err("it is not ours")),
            outcome = async {
                tokio::task::yield_now().await;
                Ok(number)
            } => outcome,
        };
        let _ = guard.release().await;
        outcome
    }
    #[debounced(id = "size:{number}")]
    async fn debounced(number: u64) -> Result<u64, Error> {
        tokio::task::yield_now().await;
        Ok(number)
    }
    async fn debounced_by_hand(locks: Locks, number: u64) -> Result<Option<u64>, Error> {
        let call = locks.debounce(format!("size:{number}")).call(|| async {
            tokio::task::yield_now().await;
            Ok(number)
        });
        call.await?.transpose()
    }
    let locks = Locks::in_memory();
    let ours = size_of_val(&debounced(1));
    let theirs = size_of_val(&debounced_by_hand(locks.clone(), 1));
    println!("future of #[debounced]: {ours} bytes, by hand: {theirs} bytes");
    assert!(ours * 10 <= theirs * 11, "{ours} bytes, by hand {theirs}");
    let theirs = size_of_val(&by_hand(locks.clone(), 1));
    for ours in [size_of_val(&attribute(1)), size_of_val(&with_arguments(1))] {
        println!("future of #[locked]: {ours} bytes, by hand: {theirs} bytes");
        assert!(ours * 10 <= theirs * 11, "{ours} bytes, by hand {theirs}");
    }
    locks.scope(async { attribute(1).await.and(with_arguments(2).await) }).await.unwrap();
    by_hand(locks, 1).await.unwrap();
}

/// The attribute costs little: no second copy of the arguments in the future.
#[tokio::test]
async fn futures_stay_small_and_send() {
    #[locked(id = "size:{name}")]
    async fn attribute(name: u8, big: [u8; 1024]) -> Result<usize, Error> {
        tokio::task::yield_now().await;
        Ok(big.len() + usize::from(name))
    }
    async fn by_hand(locks: &Locks, name: u8, big: [u8; 1024]) -> Result<usize, Error> {
        let guard = locks.lock(format!("size:{name}")).acquire().await?;
        let body = async move {
            tokio::task::yield_now().await;
            Ok(big.len() + usize::from(name))
        };
        let outcome = body.await;
        guard.release().await?;
        outcome
    }
    let locks = Locks::in_memory();
    let (attribute, by_hand) = (attribute(1, [0; 1024]), by_hand(&locks, 1, [0; 1024]));
    let (ours, theirs) = (size_of_val(&attribute), size_of_val(&by_hand));
    println!("future of #[locked]: {ours} bytes, by hand: {theirs} bytes");
    assert!(ours * 10 <= theirs * 11, "{ours} bytes, by hand {theirs}");
    assert_eq!(is_send(locks.scope(attribute)).await.unwrap(), 1025);
    drop(by_hand);
}
