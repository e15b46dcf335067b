//! What happens to work whose lock is lost: it is stopped, and a storage that checks fencing tokens
//! refuses what it still writes.
//!
//!     cargo run --example lost_lock
//!
//! A lock is lost when its store loses its data, or stays out of reach for longer than the lease.
//! Here an operator takes it away by force, which looks the same to its holder.

use std::time::Duration;

use lock::{Error, ErrorKind, Locks};
use tokio::time::sleep;

/// A storage that remembers the largest fencing token it has seen.
#[derive(Default)]
struct Storage {
    newest: u64,
    text: String,
}

impl Storage {
    fn write(&mut self, token: u64, text: &str) -> Result<(), String> {
        if token < self.newest {
            return Err(format!("refused: {token} is older than {}", self.newest));
        }
        (self.newest, self.text) = (token, text.to_owned());
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let locks = Locks::in_memory();
    let mut storage = Storage::default();

    println!("A body is dropped when its lock is lost:");
    let lock = locks.lock("ledger");
    let body = lock.with(|guard| async move {
        println!("  working with token {}", guard.fencing_token());
        sleep(Duration::from_secs(3600)).await;
    });
    let operator = async {
        sleep(Duration::from_millis(200)).await;
        locks.lock("ledger").force_release().await
    };
    let (outcome, forced) = tokio::join!(body, operator);
    forced?;
    let error = outcome.expect_err("the lock was taken away");
    assert_eq!(error.kind(), ErrorKind::Lost);
    println!("  {error}");

    println!("Code that holds a guard can watch for it:");
    let stale = lock.acquire().await?;
    let lost = stale.lost();
    lock.force_release().await?;
    lost.await;
    println!("  lost; is it held? {}", stale.is_held());

    println!("And code that does not watch is stopped by the storage:");
    let current = lock.acquire().await?;
    println!("  the next holder: {:?}", storage.write(current.fencing_token(), "new"));
    println!("  the stale one:   {:?}", storage.write(stale.fencing_token(), "old"));
    assert_eq!(storage.text, "new");
    Ok(())
}
