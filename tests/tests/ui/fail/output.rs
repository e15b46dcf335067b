use std::{fmt::Display, io};

use lock::{debounced, locked};

#[locked(id = "a")]
async fn plain() -> u32 {
    1
}

#[locked(id = "a")]
async fn nothing() {}

#[locked(id = "a")]
async fn other_error() -> Result<u32, io::Error> {
    Ok(1)
}

#[locked(id = "a")]
async fn alias() -> io::Result<u32> {
    Ok(1)
}

#[locked(id = "a")]
async fn opaque() -> impl Display {
    1
}

#[locked(id = "a")]
async fn generic<T, E>(output: Result<T, E>) -> Result<T, E> {
    output
}

#[locked(id = "a")]
async fn never() -> ! {
    loop {}
}

#[debounced]
async fn debounced_other_error() -> Result<u32, io::Error> {
    Ok(1)
}

fn main() {}
