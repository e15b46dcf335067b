use lock::{debounced, locked};

#[locked(id = "a", crate = "lock")]
async fn text() -> Result<(), lock::Error> {
    Ok(())
}

#[debounced(crate)]
async fn no_value() {}

fn main() {}
