//! The store that fails on command, for users' tests.

use lock::{
    Error, ErrorKind, Locks, Status, debounced, locked,
    store::MemoryStore,
    test_util::{Fault, FaultyStore, Operation},
};
use tokio::time::{Instant, sleep};

use crate::common::ms;

async fn faulty() -> (FaultyStore, Locks) {
    let store = FaultyStore::new(MemoryStore::new());
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    (store, locks)
}

#[locked(id = "report", lease = "3s", wait = 100)]
async fn report() -> Result<(), Error> {
    sleep(ms(10_000)).await;
    Ok(())
}

#[debounced(wait = 100)]
async fn tick() {}

#[tokio::test(start_paused = true)]
async fn each_fault_is_the_error_it_stands_for() {
    let (store, locks) = faulty().await;
    locks.scope(report()).await.unwrap();
    assert_eq!(store.calls(Operation::Acquire), 1);
    assert!(store.calls(Operation::Renew) >= 5, "{store:?}");

    // A request that is lost once is repeated without notice.
    for fault in [Fault::LostReply, Fault::Unavailable] {
        for operation in [Operation::Acquire, Operation::Renew, Operation::Release] {
            store.fail_next(operation, fault, 1);
        }
        locks.scope(report()).await.unwrap();
        locks.flush().await;
        assert_eq!(locks.lock("report").status().await.unwrap(), Status::Free);
    }
    store.fail_next(Operation::Acquire, Fault::Rejected, 1);
    let error = locks.scope(report()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    store.fail_next(Operation::Holder, Fault::Unavailable, 1);
    let error = locks.lock("report").status().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    store.fail_next(Operation::Debounce, Fault::Rejected, 1);
    assert_eq!(locks.scope(tick()).await.unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(locks.scope(tick()).await.unwrap(), Some(()));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_down_loses_the_lock_with_its_lease() {
    let (store, locks) = faulty().await;
    let began = Instant::now();
    let cut = async {
        sleep(ms(500)).await;
        store.go_down();
    };
    let (outcome, ()) = tokio::join!(locks.scope(report()), cut);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Lost);
    assert!(began.elapsed() < ms(6000), "{:?}", began.elapsed());
    let error = locks.scope(report()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    store.come_back();
    locks.scope(report()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stolen_lock_is_lost_with_the_next_renewal_and_a_stranger_s_until_then() {
    let (store, locks) = faulty().await;
    assert!(!store.steal("lock:report").await, "no client holds it");
    let guard = locks.lock("report").lease(ms(3000)).acquire().await.unwrap();
    assert!(store.steal("lock:report").await);
    assert!(guard.is_held(), "the guard is not told");
    let began = Instant::now();
    guard.lost().await;
    assert!(began.elapsed() <= ms(1500), "{:?}", began.elapsed());
    assert_eq!(locks.scope(report()).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    sleep(ms(10_000)).await;
    locks.scope(report()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn slow_answers_take_time_and_change_nothing() {
    let (store, locks) = faulty().await;
    store.delay(ms(200));
    let began = Instant::now();
    let guard = locks.lock("slow").acquire().await.unwrap();
    assert_eq!(began.elapsed(), ms(200));
    guard.release().await.unwrap();
    assert_eq!(began.elapsed(), ms(400));
    store.delay(ms(0));
    drop(locks.lock("slow").acquire().await.unwrap());
    assert_eq!(began.elapsed(), ms(400));
}

/// Only the call itself makes the keeper look for its answer.
#[tokio::test(start_paused = true)]
async fn a_slow_answer_to_the_first_call_of_all_comes() {
    for call in 0..4 {
        let (store, locks) = faulty().await;
        store.delay(ms(200));
        let began = Instant::now();
        let lock = locks.lock("slow");
        let answered = async {
            match call {
                0 => drop(lock.status().await.unwrap()),
                1 => assert!(!lock.force_release().await.unwrap()),
                2 => assert!(!locks.debounce("slow").flush().await.unwrap()),
                _ => assert!(!locks.debounce("slow").end_run().await.unwrap()),
            }
        };
        tokio::time::timeout(ms(10_000), answered).await.expect("its answer is looked for");
        assert_eq!(began.elapsed(), ms(200));
    }
}

#[tokio::test]
async fn slow_answers_outside_of_a_runtime_come_at_once() {
    let (store, locks) = faulty().await;
    let guard = locks.lock("slow").acquire().await.unwrap();
    store.delay(ms(60_000));
    std::thread::spawn(move || drop(guard)).join().unwrap();
    store.delay(ms(0));
    locks.flush().await;
    assert_eq!(locks.lock("slow").status().await.unwrap(), Status::Free);
}
