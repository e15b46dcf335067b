//! Further processes of a test.

use lock_tests::{RedisServer, Worker};

#[test]
fn a_worker_answers_and_can_be_stopped_continued_and_killed() {
    let server = RedisServer::start();
    let mut worker = Worker::start(env!("CARGO_BIN_EXE_worker"));
    worker.tell(&format!("connect {}", server.url()));
    assert!(worker.expect("ready").is_empty());
    worker.stop();
    worker.tell("hold a 10000");
    worker.go_on();
    worker.expect("waiting");
    let [token, at] = worker.expect("held")[..] else { panic!("a token and a time") };
    assert!(token > 0 && at > 0);
    worker.kill();
    let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.hear()));
    assert!(gone.is_err(), "it has ended");
}
