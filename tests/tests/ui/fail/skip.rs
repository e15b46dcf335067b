use lock::{Error, locked};

#[locked(id = "a", skip = true)]
async fn value() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", skip)]
async fn not_empty() -> Result<u32, Error> {
    Ok(1)
}

#[locked(id = "a", skip, or_else = |_error| 0)]
async fn not_empty_either() -> u32 {
    1
}

#[locked(id = "a", skip)]
async fn no_way_out() -> Option<u32> {
    Some(1)
}

fn main() {}
