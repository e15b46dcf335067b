//! Durable functions: what they may take and return.
#![deny(warnings)]

use lock::{DurableRun, Error, Locks, Receipt, debounced, locked};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct Order {
    id: u64,
}

/// Its documentation stays.
#[debounced(id = "order:{order.id}", wait = "1s", max_wait = "10s", durable, run = run)]
pub async fn ship(mut order: Order, note: Option<String>) -> Result<u64, std::fmt::Error> {
    order.id += run.generation();
    let _ = note;
    if order.id == 0 {
        return Err(std::fmt::Error);
    }
    Ok(order.id)
}

#[debounced(durable)]
async fn without_anything() {}

#[debounced(id = format!("x:{}", number + 1), durable, locks = other())]
pub(crate) async fn expression(number: u64) -> Result<(), String> {
    Err(number.to_string())
}

fn other() -> Locks {
    Locks::in_memory()
}

#[debounced(id = "save:{id}", durable, run = run)]
#[locked(id = "document:{id}", guard = guard)]
async fn under_a_lock(id: u64) -> Result<(), Error> {
    let _: &DurableRun = &run;
    let _ = guard.fencing_token();
    Ok(())
}

#[debounced(id = "two:{id}", durable)]
#[locked(id = "a:{id}")]
#[locked(id = "b:{id}", guard = guard)]
async fn under_two(id: u64) -> Result<(), Error> {
    let _ = guard.fencing_token();
    Ok(())
}

#[cfg(any())]
#[debounced(durable)]
async fn not_there(x: NoType) {}

fn main() {
    #[debounced(durable)]
    async fn local(text: String) {
        drop(text);
    }

    let _ = async {
        let locks = Locks::in_memory();
        ship::register(&locks)?;
        without_anything::register(&locks)?;
        local::register(&locks)?;
        let _: Receipt = ship(Order { id: 7 }, None).await?;
        let _: Receipt = expression(7).await?;
        let _: Receipt = under_a_lock(7).await?;
        let _: Receipt = under_two(7).await?;
        Ok::<_, Error>(local(String::new()).await?)
    };
}
