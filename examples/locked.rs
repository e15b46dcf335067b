//! `#[locked]` on the handlers of a service: ids from arguments and fields, what happens when a
//! lock is busy, and the guard inside the body.
//!
//!     cargo run --example locked

use std::{sync::Arc, time::Duration};

use lock::{Error, Locks, locked};

/// The service's own error, into which lock errors are converted.
#[derive(Debug)]
#[expect(dead_code, reason = "a real service would answer its caller with it")]
enum ServiceError {
    Lock(Error),
    NothingToShip,
}

impl From<Error> for ServiceError {
    fn from(error: Error) -> Self {
        Self::Lock(error)
    }
}

struct Order {
    id: u64,
    items: u32,
}

struct Service {
    locks: Locks,
    tenant: String,
}

impl Service {
    // One shipment of an order at a time, across all instances of the service. The guard's fencing
    // token goes along with the write, so that a storage that checks it refuses a stale write.
    #[locked(id = "{self.tenant}:order:{order.id}", locks = self.locks, guard = guard)]
    async fn ship(&self, order: &Order) -> Result<String, ServiceError> {
        if order.items == 0 {
            return Err(ServiceError::NothingToShip);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(format!("order {} shipped with token {}", order.id, guard.fencing_token()))
    }

    // A job that every instance starts: the one that gets the lock runs it, the others skip it.
    #[locked(id = "{self.tenant}:cleanup", wait = 0, skip, locks = self.locks)]
    async fn clean_up(&self) -> Result<Option<u32>, ServiceError> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(Some(42))
    }

    // A return type without room for an error: `or_else` says what to return instead.
    #[locked(id = "{self.tenant}:count", wait = "100ms", locks = self.locks, or_else = |_error| 0)]
    async fn count(&self) -> u32 {
        7
    }
}

#[tokio::main]
async fn main() -> Result<(), ServiceError> {
    let service = Arc::new(Service { locks: Locks::in_memory(), tenant: "acme".to_owned() });

    let order = Order { id: 7, items: 2 };
    let (first, second) = tokio::try_join!(service.ship(&order), service.ship(&order))?;
    println!("{first}");
    println!("{second}");

    let empty = service.ship(&Order { id: 8, items: 0 }).await;
    println!("an empty order: {:?}", empty.expect_err("there is nothing to ship"));

    let (one, other) = tokio::try_join!(service.clean_up(), service.clean_up())?;
    println!("one instance cleaned up: {one:?}, the other skipped it: {other:?}");

    let guard = service.locks.lock("acme:count").acquire().await?;
    println!("counted while somebody holds the lock: {}", service.count().await);
    drop(guard);
    println!("counted: {}", service.count().await);
    Ok(())
}
