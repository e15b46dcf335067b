//! After `fork()`, the child has neither the keeper's thread nor any lock.

use lock_tests::{RedisServer, Worker};

/// Expects what the worker prints: see worker/fork.rs.
fn forked(url: &str) {
    let mut worker = Worker::start(env!("CARGO_BIN_EXE_worker"));
    worker.tell(&format!("fork {url}"));
    let next = || worker.hear().join(" ");
    for call in ["wait", "acquire", "status", "force_release", "debounce", "extend"] {
        assert_eq!(next(), format!("child {call} Closed forked"), "{url}");
    }
    assert_eq!(next(), "child held false");
    // A guard and a `Locks` that are dropped in the child release nothing.
    assert_eq!(next(), "child dropped");
    assert_eq!(next(), "child another true");
    assert_eq!(next(), "parent held true");
    // The parent's keeper goes on.
    assert_eq!(next(), "parent renewed true");
    assert_eq!(next(), "done");
}

#[test]
fn a_child_is_told_at_once_and_may_connect_anew() {
    let server = RedisServer::start();
    forked(&server.url());
}

#[test]
fn so_is_one_of_an_embedded_store() {
    forked("memory:");
}
