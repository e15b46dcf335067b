//! A worker that stops cleanly: on Ctrl-C it finishes or abandons its work, and its locks are free
//! before the process exits.
//!
//!     cargo run --example graceful_shutdown
//!
//! and press Ctrl-C; or wait three seconds for it to stop on its own.

use std::time::Duration;

use lock::{Error, Locks};
use tokio::{select, time::sleep};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let locks = match std::env::var("LOCK_URL") {
        Ok(url) => Locks::connect(&url).await?,
        Err(_) => Locks::in_memory(),
    };

    let worker = tokio::spawn({
        let locks = locks.clone();
        async move {
            for job in 0.. {
                // The guard is dropped with the task, wherever that is stopped, and releases the
                // lock.
                let guard = match locks.lock(format!("job:{}", job % 3)).acquire().await {
                    Ok(guard) => guard,
                    Err(error) => return println!("the worker ends: {error}"),
                };
                println!("working on {}", guard.id());
                sleep(Duration::from_millis(500)).await;
            }
        }
    });

    select! {
        _ = tokio::signal::ctrl_c() => println!("Ctrl-C: stopping"),
        () = sleep(Duration::from_secs(3)) => println!("three seconds are over: stopping"),
    }

    // Stop the work first: its guards are dropped, and their locks released in the background.
    worker.abort();
    let _ = worker.await;
    // Then wait for those releases. `shutdown` would also end locks that are still held.
    locks.flush().await;
    println!("job:0 is {:?}", locks.lock("job:0").status().await?);
    locks.shutdown().await;
    Ok(())
}
