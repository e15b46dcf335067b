#![deny(unused_variables)]

use lock::{Error, LockGuard, locked};

#[locked(id = "a", guard = "g")]
async fn text() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", guard = a::b)]
async fn path() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", guard = self)]
async fn keyword() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", guard = Self)]
async fn other_keyword() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", guard)]
async fn no_name() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", guard = order)]
async fn argument(order: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", guard = r#order)]
async fn raw_argument(order: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", guard = g)]
async fn unused() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", guard = g)]
async fn borrowed() -> Result<(), Error> {
    let _taken: LockGuard = *g;
    Ok(())
}

fn main() {}
