use lock::{Error, debounced, locked};

#[locked(id = "a", lease = 0)]
async fn no_lease() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", lease = 10)]
async fn seconds_meant() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", hold_at_most = "0s")]
async fn no_time() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", lease = 300)]
async fn milliseconds() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", wait = 5)]
async fn wait() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", hold_at_most = 60)]
async fn hold_at_most() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", hold_at_least = 1)]
async fn hold_at_least() -> Result<(), Error> {
    Ok(())
}

#[debounced(wait = 49)]
async fn pause() {}

#[debounced(wait = 50, max_wait = 10)]
async fn max_wait() {}

#[debounced(hold_at_most = (999))]
async fn run() {}

#[debounced(5)]
async fn without_a_name() {}

fn main() {}
