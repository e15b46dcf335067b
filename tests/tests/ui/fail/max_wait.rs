use lock::{Error, debounced, locked};

#[debounced(wait = "5s", max_wait = "2s")]
async fn under_wait() {}

#[debounced(max_wait = 500)]
async fn under_the_default() {}

#[debounced(max_wait = "48h")]
async fn too_long() {}

#[debounced(max_wait)]
async fn no_value() {}

#[debounced(max_wait = "soon")]
async fn no_duration() {}

#[debounced(wait = 0)]
async fn no_pause() {}

#[locked(id = "a", max_wait = 500)]
async fn of_the_other() -> Result<(), Error> {
    Ok(())
}

fn main() {}
