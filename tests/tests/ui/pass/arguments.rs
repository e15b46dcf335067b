//! Every argument, in every form.
#![deny(warnings)]
#![allow(dead_code, non_upper_case_globals)]

use std::time::Duration;

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

const LIMIT: Duration = Duration::from_secs(60);

struct Service {
    locks: Locks,
    patience: Duration,
}

impl Service {
    #[locked(
        id = "order:{order.id}",
        lease = Duration::from_secs(3),
        wait = self.patience(),
        hold_at_most = LIMIT.max(patience),
        hold_at_least = { self.patience / 2 },
        locks = self.locks,
    )]
    #[locked(id = "second", wait = self.patience, hold_at_least = Default::default())]
    async fn by_expressions(&mut self, order: Order, patience: Duration) -> Result<(), Error> {
        drop(order);
        Ok(())
    }

    #[debounced(wait = self.patience(), max_wait = (LIMIT), hold_at_most = patience.into(), leading)]
    async fn debounced_by_expressions(&self, patience: Short) -> u32 {
        1
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

#[derive(Clone, Copy)]
struct Short;

impl From<Short> for Duration {
    fn from(_: Short) -> Self {
        LIMIT
    }
}

#[locked(id = "a", lease = "1d", wait = "1.5s", hold_at_most = "1d1.25h", hold_at_least = 0)]
async fn units() -> Result<(), Error> {
    Ok(())
}

// These arguments are `Copy`, and so are still available.
#[locked(id = "a", or_else = |_error| number + shared.len())]
async fn copies(number: usize, shared: &str) -> usize {
    number + shared.len()
}

// A closure may define its own names.
#[locked(id = "a", or_else = |error| { let name = error.to_string(); name })]
async fn own_names(name: String, error: u32) -> String {
    format!("{name}{error}")
}

static tenant: u32 = 1;
const region: Region = Region { name: "a" };

struct Region {
    name: &'static str,
}

#[locked(id = "{tenant}:{region.name}:{id}")]
async fn constants_in_lower_case(id: u32) -> Result<(), Error> {
    Ok(())
}

fn main() {}
