//! Every argument, in every form.
#![deny(warnings)]
#![allow(dead_code)]

use lock::{Error, Locks, debounced, locked};

const REGION: &str = "eu";

struct Order {
    id: u64,
    pair: (u32, (String, char)),
}

#[locked(id = "nightly")]
async fn text() -> Result<(), Error> {
    Ok(())
}

#[locked(id = ("nightly:{order.id}"))]
async fn in_parentheses(order: &Order) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "{order.id}:{order.pair.1.0}/{REGION} {{}}")]
async fn template(order: &Order) -> Result<(), Error> {
    Ok(())
}

#[locked(id = format!("order-{}", order.id + 1))]
async fn expression(order: &Order) -> Result<(), Error> {
    Ok(())
}

#[locked(id = order)]
async fn display(order: u64) -> Result<(), Error> {
    Ok(())
}

#[locked(
    r#id = "all",
    lease = "30s",
    wait = 0,
    hold_at_most = "1h30m",
    hold_at_least = 1_000,
    locks = locks.clone(),
    guard = guard,
    or_else = |error| Err(error.to_string()),
    skip,
    on_lost = "continue",
    reentrant,
    crate = ::lock,
)]
async fn all(locks: Locks) -> Result<Option<u64>, String> {
    Ok(Some(guard.fencing_token()))
}

#[locked(id = "a", on_lost = "stop", or_else = from_error)]
async fn path() -> String {
    String::new()
}

fn from_error(error: Error) -> String {
    error.to_string()
}

#[debounced()]
async fn none() {}

#[debounced(id = "{name}", wait = "1s", max_wait = "10s", leading, locks = locks, or_else = |_| Ok(None), crate = lock)]
async fn debounced_all(name: &str, locks: &Locks) -> Result<u32, String> {
    Ok(1)
}

fn main() {}
