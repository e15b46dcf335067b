#![deny(dead_code)]

use lock::{Error, debounced, locked};

#[locked(id = "a")]
async fn never_called() -> Result<(), Error> {
    Ok(())
}

#[debounced]
async fn never_called_either() {}

fn main() {}
