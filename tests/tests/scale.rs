//! Many locks at once.

use std::time::{Duration, Instant};

use lock::{Locks, Status};
use tokio::task::JoinSet;

use crate::common::{Engine, may_stay};

const GUARDS: usize = 10_000;
const LEASE: Duration = Duration::from_secs(3);
const HELD_FOR: Duration = Duration::from_secs(30);

/// Ten thousand guards, held for ten leases: none is lost, renewals are sent in full batches, and
/// nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_guards_are_renewed_in_batches() {
    let Engine::Redis(server) = Engine::redis_alone() else { unreachable!() };
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let mut acquires = JoinSet::new();
    for number in 0..GUARDS {
        let lock = locks.lock(format!("a{number}")).lease(LEASE);
        acquires.spawn(async move { lock.acquire().await.unwrap() });
    }
    let guards = acquires.join_all().await;
    let before = server.commands().await;
    let began = Instant::now();
    tokio::time::sleep(HELD_FOR).await;
    let counts = server.commands().await.minus(&before);
    let periods = began.elapsed().as_secs_f64() / (LEASE.as_secs_f64() / 3.0);
    // Everything a client of this library sends is a script. Only the harness's watch sends EVAL,
    // because every script of the library was loaded with the connection.
    let commands = counts.calls("evalsha");
    let per_period = commands as f64 / periods;
    println!(
        "{GUARDS} guards: {commands} commands in {periods:.1} periods, {per_period:.1} a period"
    );
    let lost = guards.iter().filter(|guard| !guard.is_held()).count();
    assert_eq!(lost, 0, "of {GUARDS} guards {lost} were lost");
    assert!(per_period <= 105.0, "{per_period:.1} commands a period");
    assert!(counts.calls("pexpire") as usize >= GUARDS * 8, "each was renewed all the time");
    let sample = locks.lock("a7").status().await.unwrap();
    assert!(matches!(sample, Status::Held { by_us: true, .. }));

    drop(guards);
    let began = Instant::now();
    locks.flush().await;
    println!("{GUARDS} guards released in {:?}", began.elapsed());
    let left = server.keys().await;
    let left: Vec<_> = left.iter().filter(|(key, ..)| !may_stay(key)).take(5).collect();
    assert!(left.is_empty(), "left: {left:?}");
}
