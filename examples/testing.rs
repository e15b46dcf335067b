//! How to test code that takes locks: what it does when the lock is busy, when it loses the lock,
//! and when the store is down. The tests need no server and take no time: the clock is paused.
//!
//!     cargo test --example testing

use std::time::Duration;

use lock::{Error, ErrorKind, locked};

/// The code under test: a handler that answers with a status code.
async fn handle(invoice_id: u64) -> u16 {
    match charge(invoice_id).await {
        Ok(()) => 200,
        Err(error) => match error.kind() {
            ErrorKind::Busy => 423,
            ErrorKind::Unavailable => 503,
            _ => 500,
        },
    }
}

#[locked(id = "invoice:{invoice_id}", lease = "10s", wait = "5s")]
async fn charge(invoice_id: u64) -> Result<(), Error> {
    // Talks to the bank.
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    println!("without a client: {}", handle(7).await);
    println!("its tests: cargo test --example testing");
    Ok(())
}

#[cfg(test)]
mod tests {
    use lock::{
        Locks,
        store::MemoryStore,
        test_util::{Fault, FaultyStore, Operation},
    };
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_charge_that_somebody_else_makes_is_busy() -> Result<(), Error> {
        let locks = Locks::in_memory();
        let guard = locks.lock("invoice:7").acquire().await?;
        let began = Instant::now();
        assert_eq!(locks.scope(handle(7)).await, 423);
        assert!(began.elapsed() >= Duration::from_secs(5), "it waits before it gives up");
        assert_eq!(locks.scope(handle(8)).await, 200, "another invoice is another lock");
        guard.release().await?;
        assert_eq!(locks.scope(handle(7)).await, 200);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_charge_stops_when_its_lock_is_lost() -> Result<(), Error> {
        let store = FaultyStore::new(MemoryStore::new());
        let locks = Locks::builder().store(store.clone()).build().await?;
        let steal = async {
            sleep(Duration::from_secs(1)).await;
            assert!(store.steal("lock:invoice:7").await);
        };
        let began = Instant::now();
        let (status, ()) = tokio::join!(locks.scope(handle(7)), steal);
        assert_eq!(status, 500);
        assert!(began.elapsed() < Duration::from_secs(10), "with the next renewal, not at the end");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_store_there_is_no_charge() -> Result<(), Error> {
        let store = FaultyStore::new(MemoryStore::new());
        let locks = Locks::builder().store(store.clone()).build().await?;
        store.go_down();
        assert_eq!(locks.scope(handle(7)).await, 503);
        store.come_back();
        assert_eq!(locks.scope(handle(7)).await, 200);

        // The library asks again for a lost answer.
        store.fail_next(Operation::Acquire, Fault::LostReply, 1);
        assert_eq!(locks.scope(handle(7)).await, 200);
        Ok(())
    }
}
