use lock::{Error, debounced, locked};

#[locked(id = "a", reentrant = true)]
async fn value() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", reentrant, reentrant)]
async fn twice() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", re_entrant)]
async fn misspelt() -> Result<(), Error> {
    Ok(())
}

#[debounced(reentrant)]
async fn of_the_other() {}

fn main() {}
