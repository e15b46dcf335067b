//! `#[debounced]`: a burst of calls, across all instances, becomes one run of the last call.
//!
//!     cargo run --example debounced

use std::time::Duration;

use lock::{Error, Locks, debounced};
use tokio::{task::JoinSet, time::sleep};

// Returns `Some` if this call ran, `None` if a newer one took its place. Calls for different
// documents do not wait for each other.
#[debounced(id = "reindex:{document}", wait = "300ms")]
async fn reindex(document: u32, text: String) -> Result<usize, Error> {
    println!("  indexing document {document}: {text:?}");
    Ok(text.len())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Two instances of a service that share one store.
    let store = lock::store::MemoryStore::new();
    let mut instances = Vec::new();
    for _ in 0..2 {
        instances.push(Locks::builder().store(store.clone()).build().await?);
    }

    println!("typing into two documents, on two instances");
    let mut calls = JoinSet::new();
    let mut text = String::new();
    for (number, letter) in "debounce".chars().enumerate() {
        text.push(letter);
        let locks = instances[number % 2].clone();
        for document in [1, 2] {
            let (locks, text) = (locks.clone(), text.clone());
            calls.spawn(async move { locks.scope(reindex(document, text)).await });
        }
        sleep(Duration::from_millis(50)).await;
    }
    let outcomes: Result<Vec<_>, _> = calls.join_all().await.into_iter().collect();
    let ran = outcomes?.into_iter().flatten().count();
    println!("sixteen calls, {ran} runs");
    Ok(())
}
