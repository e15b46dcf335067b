//! A store of your own, in three methods: locks in files, for the processes of one machine.
//!
//!     cargo run --example own_store
//!
//! needs no server. `store.rs` is the store, and passes `lock::test_util::contract::locks`;
//! docs/stores.md explains it. Two clients of one directory exclude each other here, as two
//! processes do: run the example twice at the same time.

mod store;

use std::{env, time::Duration};

use lock::{Error, ErrorKind, Locks};
use tokio::time::sleep;

use self::store::FileStore;

async fn client() -> Result<Locks, Error> {
    let directory = env::temp_dir().join("lock-example");
    let store = FileStore::open(directory).expect("a directory for temporary files");
    Locks::builder().store(store).build().await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (one, other) = (client().await?, client().await?);
    let lock = one.lock("report").lease(Duration::from_secs(1));

    let guard = lock.acquire().await?;
    println!("one client holds the lock, with the fencing token {}", guard.fencing_token());
    let busy = other.lock("report").try_acquire().await?.is_none();
    println!("is it busy for the other one? {busy}");

    let waiter = tokio::spawn(other.lock("report").acquire());
    sleep(Duration::from_secs(2)).await;
    println!("two leases later it is held: {}", guard.is_held());
    guard.release().await?;

    let next = waiter.await.expect("the waiter does not panic")?;
    println!("the other one waited, and got the token {}", next.fencing_token());

    let error = lock.status().await.expect_err("this store has three methods");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    println!("what it does not offer is named: {error}");
    next.release().await
}
