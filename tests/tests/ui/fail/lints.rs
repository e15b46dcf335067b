#![deny(unused_must_use, unused_mut, unused_variables, unused_assignments, unreachable_code)]
#![allow(dead_code)]

use lock::{Error, Locks, debounced, locked};

#[locked(id = "a")]
#[must_use = "it is the point"]
async fn must_use() -> Result<u32, Error> {
    Ok(1)
}

#[debounced]
async fn unused_local(mut never_changed: u32) -> u32 {
    let local = 1;
    return never_changed;
    2
}

struct Pair {
    left: u32,
    right: u32,
}

struct Other {
    field: u32,
}

#[locked(id = "{in_id}")]
async fn unused(
    unused: u32,
    mut unused_and_mutable: Vec<u32>,
    (first, second): (u32, u32),
    Pair { left, right }: Pair,
    in_id: u32,
    _allowed: u32,
    #[allow(unused_variables)] allowed: u32,
) -> Result<u32, Error> {
    // A field, and a name in a text, do not count as uses.
    println!("unused");
    let pair = Pair { left: first, right: 2 };
    Ok(pair.right + pair.left + left)
}

#[debounced(id = "{in_id}", hold_at_most = limit)]
#[locked(id = "{in_other}")]
async fn unused_by_a_run(
    unused: u32,
    in_id: u32,
    in_other: u32,
    limit: std::time::Duration,
) -> Result<(), Error> {
    Ok(())
}

#[debounced(id = "{in_id}", detached)]
async fn unused_by_a_detached_run(unused: u32, in_id: u32) {}

#[debounced(id = "{in_id}", durable, run = run)]
async fn unused_by_a_durable_run(unused: u32, in_id: u32) {}

#[debounced(id = "{in_id}", durable)]
#[locked(id = "{in_other}")]
async fn unused_by_a_durable_run_with_a_lock(
    unused: u32,
    in_id: u32,
    in_other: u32,
) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a")]
async fn late_value(mut count: u32) -> Result<(), Error> {
    count += 1;
    let mut other = 1;
    other = 2;
    Ok(())
}

#[locked(id = "a")]
async fn fields(
    (Pair { left: renamed, mut right }, Pair { ref left, .. }): (Pair, Pair),
    Other { ref mut field }: Other,
    ref mut referenced: Pair,
) -> Result<(), Error> {
    Ok(())
}

async fn guards(locks: &Locks) -> Result<(), Error> {
    locks.lock("a").acquire().await?;
    Ok(())
}

async fn caller() {
    must_use();
    unused_local(1).await;
}

fn main() {
    drop(caller());
}
