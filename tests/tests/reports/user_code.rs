//! User code that panics or blocks when the library calls it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use lock::{Locks, Warning};
use lock_tests::{RedisServer, Worker, eventually};

use crate::common::ms;

async fn until_it_works(locks: &Locks) {
    eventually(ms(10_000), async || {
        locks.lock("a").acquire().await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

/// The listener is told of a restart; the connection is made in spite of its panic.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_panics_costs_what_it_was_told() {
    let server = RedisServer::builder().cluster_of_one(false).start();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let locks = Locks::builder()
        .url(server.locks_url())
        .on_warning(move |warning: &Warning| {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("a bug in a listener, told of {warning}");
        })
        .build()
        .await
        .unwrap();
    let guard = locks.lock("kept").acquire().await.unwrap();
    for _ in 0..2 {
        tokio::task::block_in_place(|| server.restart());
        until_it_works(&locks).await;
    }
    eventually(ms(5000), async || told.load(Ordering::SeqCst) >= 2).await;
    drop(guard);
}

/// The payload of a panic is also user code.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_panic_panics_again_hears_of_the_next_thing() {
    struct PanicsAgain;
    impl Drop for PanicsAgain {
        fn drop(&mut self) {
            panic!("while it is dropped");
        }
    }

    let server = RedisServer::builder().cluster_of_one(false).start();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let locks = Locks::builder()
        .url(server.locks_url())
        .on_warning(move |_: &Warning| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                std::panic::panic_any(PanicsAgain);
            }
        })
        .build()
        .await
        .unwrap();
    drop(locks.lock("a").acquire().await.unwrap());
    locks.flush().await;
    // Another process, and lost data: two warnings.
    tokio::task::block_in_place(|| server.restart());
    until_it_works(&locks).await;
    eventually(ms(5000), async || told.load(Ordering::SeqCst) >= 2).await;
}

/// A listener may also call the library and wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_blocks_costs_nobody_anything() {
    let server = RedisServer::start();
    let (told, heard) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let locks = Locks::builder()
        .url(server.locks_url())
        .on_warning(move |warning: &Warning| {
            told.send(warning.clone()).unwrap();
            let _ = gate.lock().unwrap().recv();
        })
        .build()
        .await
        .unwrap();
    let guard = locks.lock("kept").lease(ms(2000)).acquire().await.unwrap();
    tokio::task::block_in_place(|| server.restart());
    until_it_works(&locks).await;
    tokio::task::block_in_place(|| heard.recv().unwrap());
    // From here on the listener blocks, while locks come and go.
    for number in 0..10 {
        locks.lock(format!("b{number}")).acquire().await.unwrap().release().await.unwrap();
    }
    locks.flush().await;
    go_on.send(()).unwrap();
    drop((guard, go_on));
}

/// In a process of its own, because the subscriber is global.
#[test]
fn a_subscriber_that_panics_costs_the_event() {
    let server = RedisServer::start();
    let mut worker = Worker::start(env!("CARGO_BIN_EXE_worker"));
    worker.tell("subscribe and panic");
    worker.expect("ready");
    worker.tell(&format!("connect {}", server.url()));
    worker.expect("ready");
    worker.tell("hold a 10000");
    worker.expect("waiting");
    worker.expect("held");
    // Another connection is another event, and a warning.
    server.restart();
    worker.tell("hold b 10000");
    worker.expect("waiting");
    worker.expect("held");
}
