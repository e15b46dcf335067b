//! Debounced calls whose callers go away: no call returns `None` unless another call runs.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use lock::{
    Debounce, Error, ErrorKind, Locks,
    store::MemoryStore,
    test_util::{Fault, FaultyStore, Operation},
};
use lock_tests::Random;
use tokio::{task::JoinSet, time::Instant};

use crate::common::{Engine, ms, on_both_stores};

on_both_stores! {
    the_first_of_two_calls_runs_if_the_second_is_dropped,
    the_newest_that_is_left_runs,
    a_call_that_the_store_has_heard_of_is_replaced_by_an_older_one,
    a_newer_call_of_another_process_is_not_overtaken,
    a_call_of_another_process_runs_if_the_newest_is_dropped,
    a_run_whose_caller_does_not_take_it_is_the_next_ones,
    a_run_that_nobody_takes_is_undone,
    of_ten_thousand_calls_the_newest_that_is_left_runs,
}

type Call = Pin<Box<dyn Future<Output = Result<Option<u32>, Error>> + Send>>;

/// A call with a body that returns this number, so that the output shows which body ran.
fn call(debounce: &Debounce, number: u32) -> Call {
    Box::pin(debounce.call(move || async move { number }))
}

/// Starts a call, without waiting for it.
fn begin(call: &mut Call) {
    assert!(is_pending(call), "it has to wait");
}

fn is_pending(call: &mut Call) -> bool {
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => true,
        Poll::Ready(outcome) => panic!("{outcome:?}"),
    }
}

async fn ended(call: Call) -> Option<u32> {
    tokio::time::timeout(Duration::from_secs(20), call).await.expect("it ends").unwrap()
}

async fn the_first_of_two_calls_runs_if_the_second_is_dropped(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(200));
    let (mut first, mut second) = (call(&debounce, 1), call(&debounce, 2));
    begin(&mut first);
    tokio::time::sleep(ms(50)).await;
    begin(&mut second);
    assert!(is_pending(&mut first), "no call has run");
    let began = Instant::now();
    drop(second);
    assert_eq!(ended(first).await, Some(1));
    // The store only knows the first call: it is as if there were no other.
    assert!(began.elapsed() < ms(1000), "{:?}", began.elapsed());
}

async fn the_newest_that_is_left_runs(engine: &Engine) {
    let locks = engine.locks().await;
    for (number, dropped, runs) in [(0, vec![3], 2), (1, vec![3, 2], 1), (2, vec![2], 3)] {
        let debounce = locks.debounce(format!("a{number}")).wait(ms(200));
        let mut calls: Vec<_> = (1..4).map(|number| Some(call(&debounce, number))).collect();
        calls.iter_mut().flatten().for_each(begin);
        tokio::time::sleep(ms(50)).await;
        for number in &dropped {
            calls[number - 1] = None;
        }
        let outcomes: Vec<_> =
            futures_util::future::join_all(calls.into_iter().flatten().map(ended)).await;
        let ran: Vec<_> = outcomes.iter().copied().flatten().collect();
        assert_eq!(ran, [runs], "without {dropped:?}: {outcomes:?}");
        assert_eq!(outcomes.len(), 3 - dropped.len());
    }
}

/// It runs later than the dropped one would have: see the next test.
async fn a_call_that_the_store_has_heard_of_is_replaced_by_an_older_one(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(300));
    let (mut first, mut second) = (call(&debounce, 1), call(&debounce, 2));
    begin(&mut first);
    tokio::time::sleep(ms(200)).await;
    begin(&mut second);
    // By now the store knows the second, as the first was due.
    tokio::time::sleep(ms(200)).await;
    let began = Instant::now();
    drop(second);
    assert_eq!(ended(first).await, Some(1));
    assert!(began.elapsed() < ms(3000), "{:?}", began.elapsed());
}

async fn a_newer_call_of_another_process_is_not_overtaken(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let (near, far) = (one.debounce("a").wait(ms(300)), other.debounce("a").wait(ms(300)));
    let mut oldest = call(&near, 1);
    begin(&mut oldest);
    tokio::time::sleep(ms(50)).await;
    let newer = tokio::spawn(call(&far, 2));
    tokio::time::sleep(ms(150)).await;
    let mut newest = call(&near, 3);
    begin(&mut newest);
    // By now the store knows the newest, as the oldest was due.
    tokio::time::sleep(ms(200)).await;
    drop(newest);
    assert_eq!(ended(oldest).await, None, "a newer call is left elsewhere");
    assert_eq!(newer.await.unwrap().unwrap(), Some(2));
}

async fn a_call_of_another_process_runs_if_the_newest_is_dropped(engine: &Engine) {
    let (one, other) = (engine.locks().await, engine.locks().await);
    let (near, far) = (one.debounce("a").wait(ms(200)), other.debounce("a").wait(ms(200)));
    let (mut first, mut second, mut third) = (call(&near, 1), call(&near, 2), call(&far, 3));
    for call in [&mut first, &mut second, &mut third] {
        begin(call);
        tokio::time::sleep(ms(20)).await;
    }
    drop(third);
    let (first, second) = tokio::join!(ended(first), ended(second));
    assert_eq!((first, second), (None, Some(2)));
}

/// Two calls of one process. The second was granted the run, but has not been polled since.
async fn granted(debounce: &Debounce) -> (Call, Call) {
    let (mut first, mut second) = (call(debounce, 1), call(debounce, 2));
    begin(&mut first);
    begin(&mut second);
    tokio::time::sleep(ms(1500)).await;
    assert!(is_pending(&mut first), "the other may not run yet");
    (first, second)
}

async fn a_run_whose_caller_does_not_take_it_is_the_next_ones(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(100));
    let (first, second) = granted(&debounce).await;
    drop(second);
    assert_eq!(ended(first).await, Some(1));

    let (mut first, second) = granted(&debounce).await;
    assert!(is_pending(&mut first), "even when it is polled again");
    assert_eq!(ended(second).await, Some(2));
    assert_eq!(ended(first).await, None);

    // The older call returns as soon as the run has begun, and not when it is over.
    let mut first = call(&debounce, 1);
    begin(&mut first);
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let second = debounce.call(|| async move {
        begun.send(()).unwrap();
        std::future::pending::<u32>().await
    });
    let second = tokio::spawn(second);
    has_begun.await.unwrap();
    assert_eq!(ended(first).await, None);
    second.abort();
}

async fn a_run_that_nobody_takes_is_undone(engine: &Engine) {
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(100));
    let (first, second) = granted(&debounce).await;
    // The older call is dropped first, and then the newer one.
    drop((first, second));
    let (first, second) = granted(&debounce).await;
    drop((second, first));
    locks.flush().await;
    // There is no lock of a run left to wait for.
    let began = Instant::now();
    assert_eq!(ended(call(&debounce, 3)).await, Some(3));
    assert!(began.elapsed() < ms(2000), "{:?}", began.elapsed());
}

async fn of_ten_thousand_calls_the_newest_that_is_left_runs(engine: &Engine) {
    const CALLS: u32 = 10_000;
    let locks = engine.locks().await;
    let debounce = locks.debounce("a").wait(ms(800));
    let mut random = Random::new(7);
    let runs = Arc::new(Mutex::new(Vec::new()));
    let (told, mut calls, mut living) = (Arc::new(AtomicU32::new(0)), JoinSet::new(), Vec::new());
    for number in 0..CALLS {
        let (debounce, runs, told) = (debounce.clone(), Arc::clone(&runs), Arc::clone(&told));
        let handle = calls.spawn(async move {
            let ran = debounce.call(|| async { runs.lock().unwrap().push(number) }).await;
            if ran.unwrap().is_none() {
                assert!(!runs.lock().unwrap().is_empty(), "told of a run that has not begun");
                told.fetch_add(1, Ordering::Relaxed);
            }
        });
        living.push((number, handle));
        if number % 20 == 0 {
            tokio::task::yield_now().await;
        }
        if number % 500 == 0 {
            tokio::time::sleep(ms(20)).await;
        }
        // The newest is dropped as often as a random one.
        let newest = living.len() - 1;
        match random.below(4) {
            0 => living.swap_remove(random.below(newest as u64 + 1) as usize).1.abort(),
            1 => living.swap_remove(newest).1.abort(),
            _ => {}
        }
    }
    tokio::time::sleep(ms(20)).await;
    for _ in 0..100 {
        let newest = (0..living.len()).max_by_key(|place| living[*place].0).unwrap();
        living.swap_remove(newest).1.abort();
    }
    let newest = living.iter().map(|(number, _)| *number).max().unwrap();
    let mut left = 0;
    while let Some(ended) = calls.join_next().await {
        left += u32::from(ended.is_ok());
    }
    assert_eq!(left as usize, living.len());
    assert_eq!(*runs.lock().unwrap(), [newest]);
    assert_eq!(told.load(Ordering::Relaxed), left - 1);
}

/// A memory store whose answers can be late or lost.
async fn faulty() -> (FaultyStore, Locks) {
    let store = FaultyStore::new(MemoryStore::new());
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    (store, locks)
}

#[tokio::test(start_paused = true)]
async fn callers_that_go_away_while_the_store_is_asked() {
    // The request that is granted the run is on its way from 100 to 200 ms.
    for (dropped, runs) in [(vec![3], vec![2]), (vec![3, 2], vec![1]), (vec![1, 2, 3], vec![])] {
        let (store, locks) = faulty().await;
        let debounce = locks.debounce("a").wait(ms(100));
        store.delay(ms(100));
        let mut calls: Vec<_> = (1..4).map(|number| Some(call(&debounce, number))).collect();
        // The first call is sent at once; when it is answered, the last one is sent for all.
        calls.iter_mut().flatten().for_each(begin);
        tokio::time::sleep(ms(150)).await;
        for number in &dropped {
            calls[number - 1] = None;
        }
        let outcomes = futures_util::future::join_all(calls.into_iter().flatten().map(ended)).await;
        let ran: Vec<_> = outcomes.iter().copied().flatten().collect();
        assert_eq!((ran, outcomes.len()), (runs, 3 - dropped.len()), "without {dropped:?}");
        store.delay(Duration::ZERO);
        locks.flush().await;
        assert_eq!(ended(call(&debounce, 4)).await, Some(4), "the next window is right");
    }
}

/// A claim without an answer is repeated, for the newest remaining call.
#[tokio::test(start_paused = true)]
async fn a_grant_whose_answer_was_lost_is_for_the_newest_that_is_left() {
    let (store, locks) = faulty().await;
    let debounce = locks.debounce("a").wait(ms(100));
    let (mut first, mut second) = (call(&debounce, 1), call(&debounce, 2));
    begin(&mut first);
    begin(&mut second);
    tokio::time::sleep(ms(10)).await;
    store.fail_next(Operation::Debounce, Fault::LostReply, 2);
    // Until part of the pause after the second failure has passed.
    while store.calls(Operation::Debounce) < 3 {
        tokio::time::sleep(ms(1)).await;
    }
    drop(second);
    assert_eq!(ended(first).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_lock_is_lost_before_it_is_taken_supersedes_nobody() {
    let (store, locks) = faulty().await;
    let debounce = locks.debounce("a").wait(ms(100));
    let (first, second) = granted(&debounce).await;
    assert!(store.steal("lock:~run:a").await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Neither body runs. The older call is not repeated: a newer one may have run since.
    let newer = call(&debounce, 4);
    assert_eq!(second.await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(first.await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(ended(newer).await, Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tells_those_that_wait_for_a_run_to_begin() {
    let (_, locks) = faulty().await;
    let debounce = locks.debounce("a").wait(ms(100));
    let (first, second) = granted(&debounce).await;
    locks.shutdown().await;
    assert_eq!(first.await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(second.await.unwrap_err().kind(), ErrorKind::Lost);
}

/// However often callers come and go, there is one run, and there are few requests.
#[tokio::test(start_paused = true)]
async fn callers_that_come_and_go_cost_no_questions() {
    let (store, locks) = faulty().await;
    let debounce = locks.debounce("a").wait(ms(100));
    let mut first = call(&debounce, 0);
    begin(&mut first);
    for number in 1..10_000 {
        let mut next = call(&debounce, number);
        begin(&mut next);
    }
    assert_eq!(ended(first).await, Some(0));
    assert!(store.calls(Operation::Debounce) <= 4, "{}", store.calls(Operation::Debounce));
}
