use lock::{Error, debounced, locked};

#[locked(id = "a", lease = "10")]
async fn no_unit() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", wait = "10 s")]
async fn space() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", wait = "1w")]
async fn no_such_unit() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", hold_at_most = "30s5m")]
async fn wrong_order() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", hold_at_least = "")]
async fn empty() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", lease = "0.0001s")]
async fn too_exact() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", lease = 1.5)]
async fn fraction() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", lease = -1)]
async fn negative() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", lease = 10s)]
async fn no_quotes() -> Result<(), Error> {
    Ok(())
}

#[debounced(wait = 99999999999999999999)]
async fn too_long() {}

#[debounced(wait)]
async fn no_value() {}

fn main() {}
