//! Several attributes on one function.
#![deny(warnings)]
#![allow(dead_code)]

use lock::{Error, Locks, debounced, locked};

#[locked(id = "from:{from}", guard = first, lease = "30s", wait = 500)]
#[locked(id = "to:{to}", guard = second, reentrant)]
async fn transfer(from: u64, to: u64, _amount: Box<u64>) -> Result<(u64, u64), Error> {
    Ok((first.fencing_token(), second.fencing_token()))
}

struct Service {
    locks: Locks,
    others: Locks,
    name: String,
}

impl Service {
    #[lock::locked(id = "{self.name}", locks = self.locks)]
    #[must_use = "it is the point"]
    #[locked(id = "{self.name}", locks = self.others, on_lost = "continue")]
    async fn in_two_stores(&mut self, text: &str) -> Result<&str, Error> {
        self.name.push_str(text);
        Ok(&self.name)
    }

    #[debounced(id = "{self.name}", locks = self.locks, max_wait = "10s", leading)]
    #[locked(id = "{self.name}", locks = self.others, guard = guard)]
    async fn saved(&self, list: Vec<u32>) -> u64 {
        guard.fencing_token() + list.len() as u64
    }
}

#[locked(id = "a", or_else = |_error| 1)]
#[locked(id = "b", or_else = |_error| 2)]
#[locked(id = "c", or_else = |_error| 3)]
async fn own_ways() -> u32 {
    0
}

#[locked(id = "a", wait = 0, skip)]
#[locked(id = "b", wait = 0, skip)]
async fn skipped() -> Result<(), Error> {
    Ok(())
}

#[debounced(or_else = |_error| Ok(None))]
#[locked(id = "a")]
#[locked(id = "b", skip)]
async fn way_of_the_debounce(early: bool) -> std::io::Result<()> {
    if early {
        return Ok(());
    }
    std::fs::read("a")?;
    Ok(())
}

#[debounced]
#[locked(id = "{value}")]
async fn opaque(value: impl std::fmt::Display) -> impl std::fmt::Display {
    value.to_string()
}

async fn types(service: &Service) {
    let _: Result<Option<u64>, Error> = service.saved(vec![]).await;
    let _: std::io::Result<Option<()>> = way_of_the_debounce(true).await;
    let _: u32 = own_ways().await;
}

fn is_send<F: Future + Send>(_: F) {}

fn main() {
    is_send(transfer(1, 2, Box::new(3)));
    is_send(opaque(1));
}
