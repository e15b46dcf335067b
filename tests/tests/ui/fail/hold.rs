use lock::{Error, debounced, locked};

#[locked(id = "a", lease = "30s", hold_at_most = "10s")]
async fn under_the_lease() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", lease = "25h")]
async fn lease_too_long() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", hold_at_least = "2h23h")]
async fn twice_the_unit() -> Result<(), Error> {
    Ok(())
}

#[debounced(hold_at_most = order.limit, durable)]
async fn of_an_argument(order: std::time::Duration) {}

#[locked(id = "a", hold_at_least = "100h")]
async fn held_too_long() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", hold_at_most)]
async fn no_value() -> Result<(), Error> {
    Ok(())
}

#[debounced(hold_at_least = "1s")]
async fn of_the_other() {}

fn main() {}
