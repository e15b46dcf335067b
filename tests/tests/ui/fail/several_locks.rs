use lock::{Error, locked};

#[locked(id = "a", lease = "10")]
#[locked(id = "b", ttl = 5)]
#[locked(wait = 500)]
async fn each_its_own() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", guard = guard)]
#[locked(id = "b", guard = guard)]
async fn one_name_for_two_guards() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a")]
#[locked(id = "b", guard = order)]
async fn guard_like_an_argument(order: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a")]
#[locked(id = "b")]
async fn no_way_out() -> u32 {
    1
}

#[locked(id = "a", or_else = |_error| 0)]
#[locked(id = "b")]
async fn one_way_out() -> u32 {
    1
}

#[locked(id = "a")]
#[locked(id = "b", skip)]
async fn not_empty() -> Result<u32, Error> {
    Ok(1)
}

#[locked(id = "a")]
#[locked = "b"]
async fn no_parentheses() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a")]
#[locked(id = "b")]
fn not_async() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a")]
#[locked(id = "b", guard = guard)]
async fn wrong_body() -> Result<String, Error> {
    Ok(guard.fencing_token())
}

fn main() {}
