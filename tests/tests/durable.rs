//! Durable debounce: a call that was made is run, whichever process dies.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use lock::{
    Durable, DurableRun, ErrorKind, Locks, debounced,
    test_util::{Fault, FaultyStore, Operation},
};
use lock_tests::{RedisServer, Worker, eventually};
use serde::{Deserialize, Serialize};

use crate::common::{Engine, may_stay, ms, on_both_stores};

on_both_stores! {
    the_last_arguments_of_a_burst_run_once,
    another_process_runs_the_call_of_one_that_died,
    a_process_that_only_registered_runs_it_too,
    failures_are_tried_again_and_set_aside,
    a_panic_and_arguments_that_cannot_be_read_are_failures,
    a_call_during_a_run_is_run_after_it,
    max_wait_bounds_a_stream,
    generations_grow_and_runs_do_not_overlap,
    a_run_is_renewed_beyond_its_lease,
    a_call_that_was_made_during_a_run_comes_right_after_it,
    an_answer_to_the_end_of_a_run_that_was_lost_counts_once,
    a_retry_belongs_to_the_calls_of_its_value,
    what_does_not_read_back_is_refused_and_not_kept,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Document {
    number: u64,
    text: String,
}

fn document(number: u64) -> Document {
    Document { number, text: "\"two\"\nlines: €".to_owned() }
}

/// Waits up to ten seconds of tokio's time, which a paused clock skips.
async fn soon(happened: impl AsyncFn() -> bool) {
    for _ in 0..2000 {
        if happened().await {
            return;
        }
        tokio::time::sleep(ms(5)).await;
    }
    panic!("it does not happen");
}

/// The arguments that were run, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Document>>>);

impl Seen {
    fn register(&self, locks: &Locks, wait: Duration) -> Durable<Document> {
        let seen = self.clone();
        let run = move |document: Document, _: DurableRun| {
            let seen = seen.clone();
            async move { seen.0.lock().unwrap().push(document) }
        };
        locks.debounce("any").wait(wait).durable("reindex", run).unwrap()
    }

    fn until_now(&self) -> Vec<Document> {
        self.0.lock().unwrap().clone()
    }

    async fn until(&self, count: usize) -> Vec<Document> {
        soon(async || self.0.lock().unwrap().len() >= count).await;
        self.0.lock().unwrap().clone()
    }
}

async fn the_last_arguments_of_a_burst_run_once(engine: &Engine) {
    let locks = engine.locks().await;
    let seen = Seen::default();
    let reindex = seen.register(&locks, ms(150)).id("a");
    let mut last = 0;
    for number in 0..10 {
        let receipt = reindex.call(&document(number)).await.unwrap();
        assert!(receipt.call() > last && receipt.due_in() <= ms(150));
        last = receipt.call();
    }
    assert_eq!(seen.until(1).await, [document(9)]);
    tokio::time::sleep(ms(400)).await;
    assert_eq!(seen.until(1).await.len(), 1);
    // Nothing is left: neither a call nor a lock.
    if let Engine::Redis(server) = engine {
        let left: Vec<_> =
            server.keys().await.into_iter().filter(|(key, ..)| !may_stay(key)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(reindex.set_aside().await.unwrap().is_empty());
}

async fn another_process_runs_the_call_of_one_that_died(engine: &Engine) {
    let (dying, other) = (engine.locks().await, engine.locks().await);
    let seen = Seen::default();
    let _registered = seen.register(&other, ms(200));
    let never = Seen::default();
    never.register(&dying, ms(200)).id("a").call(&document(7)).await.unwrap();
    // Its worker ends with it.
    dying.shutdown().await;
    assert_eq!(seen.until(1).await, [document(7)]);
    assert!(never.0.lock().unwrap().is_empty());
}

async fn a_process_that_only_registered_runs_it_too(engine: &Engine) {
    let (caller, worker) = (engine.locks().await, engine.locks().await);
    let seen = Seen::default();
    let reindex = Seen::default().register(&caller, ms(100)).id("a");
    reindex.call(&document(1)).await.unwrap();
    caller.shutdown().await;
    // The worker comes when the call has long been due.
    tokio::time::sleep(ms(300)).await;
    let _registered = seen.register(&worker, ms(100));
    assert_eq!(seen.until(1).await, [document(1)]);
}

async fn failures_are_tried_again_and_set_aside(engine: &Engine) {
    let locks = engine.locks().await;
    let (tries, healthy) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let run = {
        let (tries, healthy) = (Arc::clone(&tries), Arc::clone(&healthy));
        move |_: u64, run: DurableRun| {
            let try_ = tries.fetch_add(1, Ordering::SeqCst) + 1;
            let result = if healthy.load(Ordering::SeqCst) {
                Ok(())
            } else {
                assert_eq!(run.attempt(), (try_ - 1) % 3 + 1);
                Err("no: it is \"ill\"")
            };
            async move { result }
        }
    };
    let debounce = locks.debounce("a").wait(ms(20));
    let durable = debounce.durable("fails", run).unwrap().retry(3, ms(50));
    durable.call(&7).await.unwrap();
    soon(async || !durable.set_aside().await.unwrap().is_empty()).await;
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    let aside = durable.set_aside().await.unwrap();
    assert_eq!((&*aside[0].id, aside[0].attempts, &*aside[0].arguments), ("a", 3, "7"));
    assert_eq!(aside[0].error, "no: it is \"ill\"");
    assert!(aside[0].generation > 0);

    // It fails again, is set aside once more, and can be forgotten.
    assert!(durable.run_again().await.unwrap());
    soon(async || !durable.set_aside().await.unwrap().is_empty()).await;
    assert!(durable.forget().await.unwrap());
    assert!(!durable.forget().await.unwrap() && !durable.run_again().await.unwrap());

    healthy.store(true, Ordering::SeqCst);
    let before = tries.load(Ordering::SeqCst);
    durable.call(&8).await.unwrap();
    soon(async || tries.load(Ordering::SeqCst) == before + 1).await;
    tokio::time::sleep(ms(200)).await;
    assert!(durable.set_aside().await.unwrap().is_empty());
}

async fn a_panic_and_arguments_that_cannot_be_read_are_failures(engine: &Engine) {
    let (old, new) = (engine.locks().await, engine.locks().await);
    let panics =
        old.debounce("a").wait(ms(10)).durable("panics", |_: u64, run: DurableRun| async move {
            assert!(run.generation() == 0, "it panics");
        });
    let panics = panics.unwrap().retry(1, ms(10));
    panics.call(&1).await.unwrap();
    soon(async || !panics.set_aside().await.unwrap().is_empty()).await;
    assert!(panics.set_aside().await.unwrap()[0].error.contains("panicked"));

    // An older version of the function, with arguments of another type.
    let call = old.debounce("a").wait(ms(10)).durable("read", |_: u64, _| async {}).unwrap();
    call.retry(1, ms(10)).call(&1).await.unwrap();
    old.shutdown().await;
    let read = new.debounce("a").wait(ms(10)).durable("read", |_: String, _| async {});
    let read = read.unwrap();
    soon(async || !read.set_aside().await.unwrap().is_empty()).await;
    assert!(read.set_aside().await.unwrap()[0].error.contains("cannot be deserialized"));
}

async fn a_call_during_a_run_is_run_after_it(engine: &Engine) {
    let locks = engine.locks().await;
    let (started, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let run = {
        let (started, ended) = (Arc::clone(&started), Arc::clone(&ended));
        move |argument: u64, _: DurableRun| {
            let (started, ended) = (Arc::clone(&started), Arc::clone(&ended));
            async move {
                started.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(ms(if argument == 1 { 500 } else { 0 })).await;
                ended.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let durable = locks.debounce("a").wait(ms(50)).durable("during", run).unwrap();
    durable.call(&1).await.unwrap();
    soon(async || started.load(Ordering::SeqCst) == 1).await;
    durable.call(&2).await.unwrap();
    tokio::time::sleep(ms(200)).await;
    assert_eq!(started.load(Ordering::SeqCst), 1, "it waits for the current run");
    soon(async || ended.load(Ordering::SeqCst) == 2).await;
}

async fn max_wait_bounds_a_stream(engine: &Engine) {
    let locks = engine.locks().await;
    let runs = Arc::new(AtomicU32::new(0));
    let run = {
        let runs = Arc::clone(&runs);
        move |_: u64, _: DurableRun| {
            runs.fetch_add(1, Ordering::SeqCst);
            async {}
        }
    };
    let debounce = locks.debounce("a").wait(ms(200)).max_wait(ms(500));
    let durable = debounce.durable("stream", run).unwrap();
    for number in 0..30 {
        durable.call(&number).await.unwrap();
        tokio::time::sleep(ms(50)).await;
    }
    let during = runs.load(Ordering::SeqCst);
    assert!((1..=3).contains(&during), "{during} runs in a second and a half");
}

async fn generations_grow_and_runs_do_not_overlap(engine: &Engine) {
    let last = Arc::new(Mutex::new(0));
    let inside = Arc::new(AtomicU32::new(0));
    let runs = Arc::new(AtomicU32::new(0));
    let mut processes = Vec::new();
    for _ in 0..3 {
        let (last, inside, runs) = (Arc::clone(&last), Arc::clone(&inside), Arc::clone(&runs));
        let run = move |_: u64, run: DurableRun| {
            let (last, inside, runs) = (Arc::clone(&last), Arc::clone(&inside), Arc::clone(&runs));
            async move {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                let before = std::mem::replace(&mut *last.lock().unwrap(), run.generation());
                assert!(run.generation() > before);
                tokio::time::sleep(ms(40)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                runs.fetch_add(1, Ordering::SeqCst);
            }
        };
        let locks = engine.locks().await;
        processes.push(locks.debounce("a").wait(ms(10)).durable("grow", run).unwrap());
    }
    for number in 0..40 {
        processes[number as usize % 3].call(&number).await.unwrap();
        tokio::time::sleep(ms(15)).await;
    }
    soon(async || runs.load(Ordering::SeqCst) >= 3).await;
    tokio::time::sleep(ms(300)).await;
    for durable in &processes {
        assert!(durable.set_aside().await.unwrap().is_empty(), "no assertion has failed in a run");
    }
}

async fn a_run_is_renewed_beyond_its_lease(engine: &Engine) {
    let build = || async { engine.builder().lease(ms(200)).build().await.unwrap() };
    let (one, other) = (build().await, build().await);
    let runs = Arc::new(AtomicU32::new(0));
    let register = |locks: &Locks| {
        let runs = Arc::clone(&runs);
        let run = move |_: u64, _: DurableRun| {
            runs.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(ms(900))
        };
        locks.debounce("a").wait(ms(10)).durable("long", run).unwrap()
    };
    let (durable, _other) = (register(&one), register(&other));
    durable.call(&1).await.unwrap();
    tokio::time::sleep(ms(1800)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1, "no other worker has taken it over");
}

/// And not a lease later: the end of the run also frees its lock, so that no worker finds it taken
/// in between.
async fn a_call_that_was_made_during_a_run_comes_right_after_it(engine: &Engine) {
    let build = || async { engine.builder().lease(ms(60_000)).build().await.unwrap() };
    let runs = Arc::new(AtomicU32::new(0));
    let mut processes = Vec::new();
    for _ in 0..3 {
        let runs = Arc::clone(&runs);
        let run = move |_: u64, _: DurableRun| {
            let runs = Arc::clone(&runs);
            async move {
                tokio::time::sleep(ms(10)).await;
                runs.fetch_add(1, Ordering::SeqCst);
            }
        };
        processes.push(build().await.debounce("a").wait(ms(5)).durable("after", run).unwrap());
    }
    for number in 0..30 {
        let id = format!("id-{number}");
        processes[0].id(&*id).call(&1).await.unwrap();
        tokio::time::sleep(ms(8)).await;
        processes[1].id(&*id).call(&2).await.unwrap();
    }
    let before = tokio::time::Instant::now();
    soon(async || {
        runs.load(Ordering::SeqCst) >= 30
            && processes[0].id("id-0").run_again().await.is_ok_and(|taken| !taken)
    })
    .await;
    if let Engine::Redis(server) = engine {
        soon(async || server.keys().await.iter().all(|(key, ..)| may_stay(key))).await;
    }
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
}

async fn an_answer_to_the_end_of_a_run_that_was_lost_counts_once(engine: &Engine) {
    let Engine::Memory(store) = engine else { return };
    let store = FaultyStore::new(store.clone());
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let run = {
        let (runs, store) = (Arc::clone(&runs), store.clone());
        move |_: u64, _: DurableRun| {
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                store.fail_next(Operation::Durable, Fault::LostReply, 1);
            }
            async { Err::<(), _>("no") }
        }
    };
    let durable = locks.debounce("a").wait(ms(10)).durable("lost", run).unwrap().retry(2, ms(20));
    durable.call(&1).await.unwrap();
    soon(async || !durable.set_aside().await.unwrap().is_empty()).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(durable.set_aside().await.unwrap()[0].attempts, 2);
}

async fn a_retry_belongs_to_the_calls_of_its_value(engine: &Engine) {
    let fails = |locks: &Locks| {
        let run = |_: u64, _: DurableRun| async { Err::<(), _>("no") };
        locks.debounce("any").wait(ms(10)).durable("fails", run).unwrap()
    };
    let (caller, worker) = (engine.locks().await, engine.locks().await);
    let durable = fails(&caller).retry(2, ms(10));
    let (once, thrice) = (durable.clone().retry(1, ms(10)), durable.id("3").retry(3, ms(10)));
    once.id("1").call(&0).await.unwrap();
    thrice.call(&0).await.unwrap();
    durable.id("2").call(&0).await.unwrap();
    // Another process, with another value of its own, uses the caller's.
    caller.shutdown().await;
    let durable = fails(&worker).retry(7, ms(10));
    let aside = async || {
        let mut aside = durable.set_aside().await.unwrap();
        aside.sort_by(|one, other| one.id.cmp(&other.id));
        aside.into_iter().map(|call| (call.id, call.attempts)).collect::<Vec<_>>()
    };
    soon(async || aside().await.len() == 3).await;
    assert_eq!(aside().await, [1, 2, 3].map(|tries| (tries.to_string(), tries)));
    // The same when it is run again.
    assert!(durable.id("2").run_again().await.unwrap());
    soon(async || aside().await.len() == 3).await;
    assert_eq!(aside().await[1], ("2".to_owned(), 2));
}

/// Cannot read what it has written.
#[derive(Debug, Serialize, Deserialize)]
struct Renamed {
    #[serde(rename(serialize = "after", deserialize = "before"), default)]
    number: u64,
}

async fn what_does_not_read_back_is_refused_and_not_kept(engine: &Engine) {
    let locks = engine.locks().await;
    let runs = Arc::new(AtomicU32::new(0));
    fn register<A: Serialize + serde::de::DeserializeOwned + Send + 'static>(
        locks: &Locks,
        runs: &Arc<AtomicU32>,
    ) -> Durable<A> {
        let runs = Arc::clone(runs);
        let run = move |_: A, _: DurableRun| {
            runs.fetch_add(1, Ordering::SeqCst);
            async {}
        };
        let name = std::any::type_name::<A>();
        locks.debounce("a").wait(ms(10)).durable(name, run).unwrap()
    }
    let mut errors = Vec::new();
    for number in [f64::NAN, f64::INFINITY] {
        errors.push(register(&locks, &runs).call(&number).await.unwrap_err());
    }
    let nested = vec![Some(vec![1.0, f64::NEG_INFINITY])];
    errors.push(register(&locks, &runs).call(&nested).await.unwrap_err());
    let pairs = HashMap::from([((1_u8, 2_u8), 3_u8)]);
    errors.push(register(&locks, &runs).call(&pairs).await.unwrap_err());
    errors.push(register(&locks, &runs).call(&Renamed { number: 7 }).await.unwrap_err());
    for error in errors {
        assert_eq!((error.kind(), error.id()), (ErrorKind::Invalid, Some("a")), "{error}");
    }
    tokio::time::sleep(ms(100)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 0, "one of them was kept");
    // Values without an order, or with many digits, read back.
    let set: HashSet<u64> = (0..100).collect();
    let map: HashMap<u64, HashSet<String>> =
        (0..50).map(|number| (number, HashSet::from(["a".into(), format!("{number}")]))).collect();
    register(&locks, &runs).call(&(set, map)).await.unwrap();
    for number in 1..200_i32 {
        let number = f64::from(number).sqrt() * 10_f64.powi(number % 60 - 30);
        register(&locks, &runs).call(&(number, number as f32, u128::MAX)).await.unwrap();
    }
    // As JSON, it is the same as `None`, which is documented.
    register(&locks, &runs).call(&Some(None::<u64>)).await.unwrap();
    soon(async || runs.load(Ordering::SeqCst) >= 3).await;
}

#[debounced(id = "measure", wait = "10ms", durable)]
async fn measure(value: f64) {
    assert!(value.is_finite());
}

#[tokio::test(start_paused = true)]
async fn the_attribute_refuses_what_does_not_read_back() {
    let locks = Locks::in_memory();
    let error = locks.scope(measure(f64::NAN)).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Invalid, Some("measure")), "{error}");
    locks.scope(measure(1.0)).await.unwrap();
}

#[tokio::test]
async fn a_name_means_one_function() {
    let locks = Locks::in_memory();
    let debounce = locks.debounce("a");
    let first = || debounce.durable("one", |_: f64, _| async {});
    drop((first().unwrap(), first().unwrap()));
    let other_arguments = debounce.durable("one", |_: String, _| async {}).unwrap_err();
    let other_handler = debounce.durable("one", |_: f64, _| async { Err::<(), _>("no") });
    for (error, what) in [(other_arguments, "f64"), (other_handler.unwrap_err(), "handler")] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let message = error.to_string();
        assert!(message.contains("`one`") && message.contains(what), "{message}");
    }
    let leading = debounce.clone().leading(true).durable("two", |_: f64, _| async {}).unwrap_err();
    assert_eq!((leading.kind(), leading.id()), (ErrorKind::Invalid, Some("a")));
    assert!(leading.to_string().contains("leading"), "{leading}");
    // Another `Locks` has its own names.
    drop(Locks::in_memory().debounce("a").durable("one", |_: String, _| async {}).unwrap());
    // A `Locks` that was shut down would never run it.
    locks.shutdown().await;
    let closed = debounce.durable("three", |_: f64, _| async {}).unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);
}

/// A worker runs on the runtime that registered it; when it is registered again on another one, it
/// runs there.
#[test]
fn a_function_that_is_registered_again_runs_on_the_runtime_that_is_left() {
    let server = RedisServer::start();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    };
    let (gone, left) = (runtime(), runtime());
    let seen = Seen::default();
    let locks = gone.block_on(async { Locks::connect(&server.locks_url()).await.unwrap() });
    drop(gone.block_on(async { seen.register(&locks, ms(20)) }));
    gone.shutdown_background();
    left.block_on(async {
        // The other runtime takes a while to end: until then its worker is alive.
        let number = AtomicU32::new(0);
        eventually(ms(5000), async || {
            let id = format!("id-{}", number.fetch_add(1, Ordering::SeqCst));
            seen.register(&locks, ms(20)).id(id).call(&document(1)).await.unwrap();
            !seen.until_now().is_empty()
        })
        .await;
    });
    let timeless = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let refused = timeless.block_on(async {
        let debounce = locks.debounce("a");
        debounce.durable("timeless", |_: u64, _| async {}).map(drop).unwrap_err()
    });
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

/// A fault of one id does not keep later ones from running.
#[tokio::test]
async fn an_id_that_cannot_be_run_is_passed_over() {
    let server = RedisServer::start();
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let mut connection = server.connection().await;
    let _: i64 = redis::cmd("LPUSH")
        .arg("lock:~durable:7:reindex:bad")
        .arg("x")
        .query_async(&mut connection)
        .await
        .unwrap();
    let seen = Seen::default();
    let reindex = seen.register(&locks, ms(20));
    reindex.id("bad").call(&document(0)).await.unwrap();
    tokio::time::sleep(ms(50)).await;
    for number in 1..4 {
        reindex.id(format!("good-{number}")).call(&document(number)).await.unwrap();
    }
    seen.until(3).await;
}

/// A handler that contains a `Locks` is dropped with the shutdown.
#[tokio::test]
async fn a_handler_is_dropped_after_the_shutdown() {
    let locks = Locks::in_memory();
    let held = Arc::new(());
    let run = {
        let (locks, held) = (locks.clone(), Arc::clone(&held));
        move |_: u64, _: DurableRun| {
            let _ = (&locks, &held);
            async {}
        }
    };
    drop(locks.debounce("a").durable("cycle", run).unwrap());
    locks.shutdown().await;
    eventually(ms(10_000), async || Arc::strong_count(&held) == 1).await;
}

#[tokio::test]
async fn commands_do_not_depend_on_superseded_calls() {
    let server = RedisServer::start();
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let seen = Seen::default();
    let reindex = seen.register(&locks, ms(400)).id("a");
    let before = server.commands().await;
    for number in 0..300 {
        reindex.call(&document(number)).await.unwrap();
    }
    seen.until(1).await;
    let commands = server.commands().await.minus(&before).client_commands(&["evalsha", "eval"]);
    println!("{commands} commands for 300 calls and a run");
    assert!(commands <= 320, "{commands}: one for each call, and a few for the run");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let locks = Locks::in_memory();
    let durable = |name: &str| locks.debounce("a").durable(name, |_: String, _| async {});
    assert_eq!(durable("").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(durable("~x").unwrap_err().kind(), ErrorKind::Invalid);
    let durable = durable("x").unwrap();
    let error = durable.call(&"x".repeat(2 << 20)).await.unwrap_err();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Invalid, Some("a")));
    assert_eq!(durable.id("").call(&String::new()).await.unwrap_err().kind(), ErrorKind::Invalid);
    let zero = locks.debounce("a").wait(Duration::ZERO).durable("y", |_: String, _| async {});
    assert_eq!(zero.unwrap_err().kind(), ErrorKind::Invalid);
    let outside = std::thread::spawn({
        let locks = locks.clone();
        move || locks.debounce("a").durable("z", |_: String, _| async {}).unwrap_err().kind()
    });
    assert_eq!(outside.join().unwrap(), ErrorKind::Invalid);
}

/// One entry of the log that the workers write.
#[derive(Debug)]
struct Entry {
    started: bool,
    process: u32,
    argument: u64,
    generation: u64,
    at: u64,
}

/// Over ten thousand bursts; callers and runners are killed at random moments.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_bursts_survive_whoever_is_killed() {
    const BURSTS: u64 = 12_000;
    const WAIT: u64 = 100;
    let server = RedisServer::start();
    let url = server.url();
    let killed = Arc::new(Mutex::new(HashSet::new()));
    // The last acknowledged call of each id: its argument and its number.
    let drive = {
        let killed = Arc::clone(&killed);
        move || {
            let start = || {
                let mut worker = Worker::start(env!("CARGO_BIN_EXE_worker"));
                worker.tell(&format!("durable {url} 1000 {WAIT}"));
                worker.expect("ready");
                (worker, 0_u64)
            };
            let mut workers: Vec<_> = (0..4).map(|_| start()).collect();
            let mut receipts: HashMap<String, (u64, u64)> = HashMap::new();
            let mut random = u64::from(std::process::id());
            println!("seed {random}");
            let mut below = move |bound: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % bound
            };
            let mut hear = |(worker, open): &mut (Worker, u64), patient: bool| {
                while *open > 0 {
                    let Some(words) = worker.hear_now(patient) else { return };
                    *open -= 1;
                    if words[0] == "called" {
                        let of = |place: usize| words[place].parse::<u64>().unwrap();
                        let last = receipts.entry(words[1].clone()).or_default();
                        *last = (*last).max((of(2), of(3)));
                    }
                }
            };
            for burst in 0..BURSTS {
                let place = below(4) as usize;
                for call in 0..=below(3) {
                    workers[place].0.tell(&format!("call id-{burst} {call}"));
                    workers[place].1 += 1;
                }
                let patient = workers[place].1 > 50;
                hear(&mut workers[place], patient);
                if below(240) == 0 {
                    let place = below(4) as usize;
                    killed.lock().unwrap().insert(workers[place].0.id());
                    workers[place].0.kill();
                    hear(&mut workers[place], true);
                    workers[place] = start();
                }
            }
            for worker in &mut workers {
                hear(worker, true);
            }
            (workers, receipts)
        }
    };
    let (workers, receipts) = tokio::task::spawn_blocking(drive).await.unwrap();
    let killed = killed.lock().unwrap().clone();
    let mut connection = server.connection().await;
    eventually(ms(60_000), async || {
        let keys = server.keys().await;
        let left: Vec<_> = keys.into_iter().map(|(key, ..)| key).collect();
        let left: Vec<_> = left.into_iter().filter(|key| !may_stay(key) && key != "log").collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    drop(workers);
    let log: Vec<String> =
        redis::cmd("LRANGE").arg("log").arg(0).arg(-1).query_async(&mut connection).await.unwrap();
    let mut by_id: HashMap<String, Vec<Entry>> = HashMap::new();
    for line in &log {
        let words: Vec<&str> = line.split(' ').collect();
        let of = |place: usize| words[place].parse::<u64>().unwrap();
        by_id.entry(words[2].to_owned()).or_default().push(Entry {
            started: words[0] == "start",
            process: of(1) as u32,
            argument: of(3),
            generation: of(4),
            at: of(5),
        });
    }
    let (mut duplicates, mut runs) = (0, 0);
    for (id, (argument, number)) in &receipts {
        let entries = by_id.get(id).unwrap_or_else(|| panic!("the burst of {id} is lost"));
        let last = entries.iter().filter(|entry| !entry.started).map(|entry| entry.argument).max();
        assert!(
            last >= Some(*argument),
            "{id}: the last call, {argument}, was not run: {entries:?}"
        );
        let mut running: Option<&Entry> = None;
        let mut generation = 0;
        for entry in entries {
            if !entry.started {
                running = None;
                continue;
            }
            runs += 1;
            if let Some(before) = running {
                assert!(killed.contains(&before.process), "{id}: two runs at once: {entries:?}");
            }
            assert!(entry.generation > generation, "{id}: {entries:?}");
            generation = entry.generation;
            // Only for calls whose number is known.
            if entry.argument == *argument {
                assert!(entry.at >= number + WAIT * 1000, "{id}: early: {entries:?}");
            }
            let before = entries.iter().filter(|other| {
                other.started
                    && other.argument == entry.argument
                    && other.generation < entry.generation
            });
            for other in before {
                duplicates += 1;
                assert!(killed.contains(&other.process), "{id}: run twice: {entries:?}");
            }
            running = Some(entry);
        }
    }
    println!(
        "{} bursts with a receipt, {runs} runs, {} processes killed, {duplicates} runs repeated",
        receipts.len(),
        killed.len()
    );
    assert!(receipts.len() >= 10_000 && killed.len() > 10 && duplicates > 0);
}

static SHIPPED: Mutex<Vec<(u64, String, bool)>> = Mutex::new(Vec::new());

#[debounced(id = "ship:{number}", wait = 50, durable, run = run)]
async fn ship(number: u64, address: String) -> Result<(), String> {
    let entry = (number, address.clone(), run.generation() > 0 && run.id() == "ship:7");
    SHIPPED.lock().unwrap().push(entry);
    if run.attempt() == 1 && address == "twice" { Err("not yet".to_owned()) } else { Ok(()) }
}

#[tokio::test]
async fn a_durable_function_is_run_by_whoever_has_registered_it() {
    let store = lock::store::MemoryStore::new();
    let build = || async { Locks::builder().store(store.clone()).build().await.unwrap() };
    let (caller, worker) = (build().await, build().await);
    let shipped = async |count: usize| {
        eventually(ms(10_000), async || SHIPPED.lock().unwrap().len() >= count).await;
        std::mem::take(&mut *SHIPPED.lock().unwrap())
    };
    for address in ["one", "last"] {
        let receipt = caller.scope(ship(7, address.to_owned())).await.unwrap();
        assert!(receipt.due_in() <= ms(50));
    }
    assert_eq!(shipped(1).await, [(7, "last".to_owned(), true)]);
    caller.scope(ship(7, "of a dead caller".to_owned())).await.unwrap();
    caller.shutdown().await;
    ship::register(&worker).unwrap();
    assert_eq!(shipped(1).await, [(7, "of a dead caller".to_owned(), true)]);
    worker.scope(ship(7, "twice".to_owned())).await.unwrap();
    assert_eq!(shipped(2).await.len(), 2, "it is tried again");
    assert_eq!(ship(7, String::new()).await.unwrap_err().kind(), ErrorKind::NotInstalled);
}
