use lock::{Error, locked};

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

fn main() {}
