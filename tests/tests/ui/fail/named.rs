//! Names from other libraries and other languages.
use lock::{Error, debounced, locked};

#[locked(key = "a")]
async fn key() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", timeout = 500)]
async fn timeout() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", locks(self.locks))]
async fn call() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", onLost = "continue")]
async fn camel_case() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", "b")]
async fn two_ids() -> Result<(), Error> {
    Ok(())
}

#[locked(name)]
async fn bare(name: &str) -> Result<(), Error> {
    Ok(())
}

#[debounced(500)]
async fn bare_number() {}

#[locked(id = "a", "wait")]
async fn bare_text() -> Result<(), Error> {
    Ok(())
}

#[debounced("1s")]
async fn bare_duration() {}

#[debounced(delay = 500)]
async fn delay() {}

#[debounced(maxWait = 500)]
async fn max_wait() {}

fn main() {}
