//! Processes of this version beside those of the previous one. The histories also run with both.

use lock::Locks;
use lock_tests::{RedisServer, Worker, eventually, ms, now, worker_of_version_before};
use tokio::{io::AsyncReadExt, net::TcpListener, task::block_in_place};

use crate::common::WatchedServer;

/// Waiters queue in order, whatever their versions are, and a release of either version wakes the
/// next.
#[tokio::test(flavor = "multi_thread")]
async fn waiters_of_two_versions_are_served_in_the_order_in_which_they_came() {
    let Some(before) = worker_of_version_before() else { return };
    let server = WatchedServer::start(RedisServer::builder().cluster_of_one(false));
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let lock = locks.lock("a");
    let mut waiting: Vec<Worker> = Vec::new();
    for round in 0..2 {
        let first = lock.acquire().await.unwrap();
        for number in 0..6 {
            // Another order in each round.
            let is_old = (number + round) % 2 == 0 || number == 3;
            let mut worker = if is_old {
                Worker::start(&before)
            } else {
                Worker::start(env!("CARGO_BIN_EXE_worker"))
            };
            worker.tell(&format!("connect {}", server.url()));
            assert_eq!(worker.hear(), ["ready"]);
            worker.tell("wait a 10000 60000");
            assert_eq!(worker.hear(), ["waiting"]);
            waiting.push(worker);
            eventually(ms(10_000), async || {
                let status = format!("{:?}", lock.status().await.unwrap());
                if status.contains(&format!("waiters: {}", number + 1)) {
                    Ok(())
                } else {
                    Err(status)
                }
            })
            .await;
        }
        // The next waiter may hold the lock before the previous holder knows that its release was
        // executed.
        let mut last = (first.fencing_token(), now());
        first.release().await.unwrap();
        for mut worker in waiting.drain(..) {
            let held = block_in_place(|| worker.expect("held"));
            assert!(held[0] > last.0 && held[1] >= last.1, "{held:?} after {last:?}");
            last = (held[0], now());
            worker.tell("release");
            block_in_place(|| worker.expect("released"));
        }
    }
}

/// A server's list of clients (`CLIENT LIST`, from Redis 7.2 on) shows their versions of the
/// library.
#[tokio::test]
async fn a_connection_says_which_version_it_is_of() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let said = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = String::new();
        while !said.contains("protocol.") {
            let mut part = [0; 1024];
            let read = stream.read(&mut part).await.unwrap();
            assert!(read > 0, "{said}");
            said.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        said
    };
    let said = tokio::select! {
        said = said => said,
        built = Locks::connect(&url) => panic!("{built:?}"),
    };
    let version = format!("{}+protocol.1", env!("CARGO_PKG_VERSION"));
    assert!(said.contains("LIB-NAME") && said.contains("\r\nlock\r\n"), "{said}");
    assert!(said.contains(&version), "{said}");
}
