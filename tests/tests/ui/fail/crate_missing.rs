//! A missing crate causes one error for each attribute.
use lock::{debounced, locked};

const PREFIX: &str = "a";

#[debounced(id = "{id}", wait = "1s", locks = locks, crate = nowhere)]
async fn not_there(id: u64, locks: &lock::Locks) -> u64 {
    id
}

#[locked(id = "{PREFIX}:{id}", lease = lease, wait = 500, guard = guard, or_else = |_error| 0, crate = ::nowhere)]
async fn neither(id: u64, lease: std::time::Duration) -> u64 {
    guard.fencing_token()
}

#[locked(id = "{MISSING}")]
async fn no_constant() -> Result<(), lock::Error> {
    Ok(())
}

fn main() {}
