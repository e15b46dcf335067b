//! A name in a template that is not an argument may be a constant, which only the compiler knows.

use lock::{Error, debounced, locked};

#[debounced(id = "order:{ordre}")]
async fn no_such_argument(order: u64) {}

#[locked(id = "a")]
#[lock::locked(id = "{b}")]
async fn nor_below() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "order:{id}")]
async fn no_arguments() -> Result<(), Error> {
    Ok(())
}

fn main() {}
