use std::io;

use lock::{Error, debounced, locked};

#[locked(id = "a")]
#[debounced(wait = 500)]
async fn wrong_way_round() -> Result<(), Error> {
    Ok(())
}

#[debounced]
#[debounced]
async fn twice() {}

#[debounced(waits = 500)]
#[locked(id = "{}")]
async fn a_mistake_in_each() -> Result<(), Error> {
    Ok(())
}

#[debounced]
#[locked(id = "a")]
async fn no_way_out() -> Result<u32, io::Error> {
    Ok(1)
}

#[debounced]
#[locked(id = "a", or_else = |error| Err(error))]
async fn handler_of_the_new_type() -> u32 {
    1
}

#[debounced]
#[locked(id = "a", skip)]
async fn not_empty() -> u32 {
    1
}

#[debounced]
#[locked(id = "a")]
async fn wrong_body() -> u32 {
    "one"
}

fn main() {}
