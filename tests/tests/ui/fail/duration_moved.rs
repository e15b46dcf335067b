//! The body takes the arguments after the attribute, which can only borrow them.

use std::time::Duration;

use lock::{Error, Locks, debounced, locked};

struct Limits(Duration);

impl Limits {
    fn into_wait(self) -> Duration {
        self.0
    }

    fn into_id(self) -> String {
        format!("{:?}", self.0)
    }

    fn into_locks(self) -> Locks {
        Locks::in_memory()
    }
}

#[locked(id = "a", wait = limits.into_wait())]
async fn duration(limits: Limits) -> Result<(), Error> {
    drop(limits);
    Ok(())
}

#[debounced(wait = limits.into_wait(), detached)]
#[locked(id = "a", wait = limits.into_wait())]
async fn twice(limits: Limits) -> Result<(), Error> {
    Ok(())
}

#[locked(id = limits.into_id(), locks = locks.into_locks())]
async fn id_and_locks(limits: Limits, locks: Limits) -> Result<(), Error> {
    Ok(())
}

fn main() {}
