use lock::{Error, debounced, locked};

#[locked(id = "a", ttl = 500)]
async fn unknown() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", blocking)]
async fn unknown_flag() -> Result<(), Error> {
    Ok(())
}

#[debounced(lease = 500)]
async fn of_the_other() {}

fn main() {}
