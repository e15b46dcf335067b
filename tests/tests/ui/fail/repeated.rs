use lock::{Error, debounced, locked};

#[locked(id = "a", wait = 500, wait = 600)]
async fn twice() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", skip, skip)]
async fn flag() -> Result<(), Error> {
    Ok(())
}

#[debounced(wait = 500, r#wait = 600, wait = 700)]
async fn three_times() {}

fn main() {}
