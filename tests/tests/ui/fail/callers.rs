//! A mistake in an attribute causes no errors at the callers.

use lock::{Error, Locks, Receipt, debounced, locked};

#[locked(id = "a", laese = 5, guard = guard)]
async fn first() -> Result<u64, Error> {
    Ok(guard.fencing_token())
}

#[debounced(wiat = 5)]
async fn second() -> u32 {
    1
}

#[debounced(durable, run = run, wiat = 5)]
async fn third(id: u64) {
    let _ = run.generation() + id;
}

#[debounced]
#[locked(id = "{id", guard = guard)]
async fn fourth(id: u64) -> Result<u64, Error> {
    Ok(guard.fencing_token() + id)
}

async fn caller(locks: &Locks) -> Result<(), Error> {
    third::register(locks)?;
    let _: u64 = first().await?;
    let _: Option<u32> = second().await?;
    let _: Receipt = third(1).await?;
    let _: Option<u64> = fourth(1).await?;
    Ok(())
}

fn main() {}
