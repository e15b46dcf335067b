use lock::{Error, debounced, locked};

#[locked(id = "invoice:{}")]
async fn no_name(id: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "invoice:{0}")]
async fn position(id: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "invoice:{id:?}")]
async fn specification(id: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "invoice:{name.len()}")]
async fn call(name: &str) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "invoice:{id + 1}")]
async fn expression(id: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "invoice:{u64::MAX}")]
async fn path(id: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "invoice:{id")]
async fn not_closed(id: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "invoice:id}")]
async fn not_opened(id: u64) -> Result<(), Error> {
    Ok(())
}

#[debounced(id = "{first}{second}")]
async fn not_separated(first: u64, second: u64) {}

#[debounced(id = "{first}-{second}")]
async fn not_separated_enough(first: u64, second: u64) {}

fn main() {}
