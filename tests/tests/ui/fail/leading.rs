use lock::{Error, debounced, locked};

#[debounced(leading = true)]
async fn value() {}

#[debounced(leading, leading)]
async fn twice() {}

#[debounced(leading(true))]
async fn list() {}

#[locked(id = "a", leading)]
async fn of_the_other() -> Result<(), Error> {
    Ok(())
}

fn main() {}
