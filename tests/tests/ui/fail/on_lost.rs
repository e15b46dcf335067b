use lock::{Error, locked};

#[locked(id = "a", on_lost = "wait")]
async fn other() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", on_lost = continue)]
async fn keyword() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a", on_lost)]
async fn no_value() -> Result<(), Error> {
    Ok(())
}

fn main() {}
