//! Invalid detached calls.

use std::{borrow::Cow, fmt::Display, pin::Pin};

use lock::{debounced, locked};

struct Service;

impl Service {
    #[debounced(detached)]
    async fn method(&self) {}

    #[debounced(detached)]
    async fn for_a_lifetime<'a>(&'a mut self) {}

    #[debounced(detached)]
    async fn pinned(self: Pin<&mut Self>) {}
}

#[debounced(detached)]
async fn borrows(id: u64, text: &str) {
    let _ = (id, text);
}

#[debounced(detached)]
async fn borrows_inside(texts: Vec<&str>) {
    drop(texts);
}

#[debounced(detached)]
async fn borrows_in_a_type(text: Cow<'_, str>) {
    drop(text);
}

#[debounced(detached)]
async fn borrows_for_a_lifetime<'a>(text: Box<dyn Display + 'a>) {
    drop(text);
}

trait Takes<'x, 'a> {}

#[debounced(detached)]
async fn borrows_beside_a_name<'a>(taker: Box<dyn for<'x> Takes<'x, 'a> + Send>) {
    drop(taker);
}

#[debounced(detached)]
async fn borrows_in_a_function<'a>(call: for<'x> fn(&'x str, &str) -> &'a str) {
    let _ = call;
}

#[debounced(detached, durable)]
async fn kept() {}

#[debounced(detached = true)]
async fn flag() {}

#[locked(id = "a", detached)]
async fn of_the_other() -> Result<(), lock::Error> {
    Ok(())
}

fn main() {}
