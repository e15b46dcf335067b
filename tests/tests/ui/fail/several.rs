use lock::{Error, debounced, locked};

#[locked(id = "{}", lease = "10", waits = 500, skip = true, on_lost = "stay", guard = 1 + 1)]
async fn six() -> Result<(), Error> {
    Ok(())
}

#[debounced(id = "}", wait = "soon")]
fn three() {}

fn main() {}
