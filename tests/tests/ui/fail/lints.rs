#![deny(unused_must_use, unused_mut, unused_variables, unreachable_code)]

use lock::{Error, debounced, locked};

#[locked(id = "a")]
#[must_use = "it is the point"]
async fn must_use() -> Result<u32, Error> {
    Ok(1)
}

#[debounced]
async fn unused_local(mut never_changed: u32) -> u32 {
    let local = 1;
    return never_changed;
    2
}

async fn caller() {
    must_use();
    unused_local(1).await;
}

fn main() {
    drop(caller());
}
