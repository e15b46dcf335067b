//! Detached calls: what they may take and return.
#![deny(warnings)]
#![allow(dead_code)]

use std::{borrow::Cow, fmt::Display, sync::Arc};

use lock::{Error, Locks, debounced, locked};

#[debounced(detached)]
async fn nothing() {}

#[debounced(id = "{id}:{name}", wait = "1s", detached, hold_at_most = "1m", leading)]
async fn owned(id: u64, mut name: String, _permit: Box<u8>) -> Result<String, Error> {
    name.push('!');
    std::future::ready(()).await;
    Ok(name)
}

#[debounced(detached, or_else = |_error| Ok(None))]
async fn what_borrows_nothing(
    text: &'static str,
    cow: Cow<'static, str>,
    function: fn(&str) -> usize,
    boxed: Box<dyn Fn(&str) -> usize + Send>,
    display: impl Display + Send + 'static,
) -> std::io::Result<usize> {
    std::fs::read("a")?;
    let text = format!("{text}{display}");
    Ok(function(&text) + boxed(&cow))
}

#[debounced(id = "{value}", detached)]
async fn generic<T: Display + Clone + Send + 'static>(value: T) -> T {
    value
}

trait Job: Send + 'static {
    fn run(&self);
}

#[debounced(detached)]
async fn bounded_by_a_trait<J: Job>(job: J, other: impl Job) -> J {
    other.run();
    job
}

type Choose = for<'x> fn(&'x str, &str, Cow<'_, str>) -> &'x str;

#[debounced(detached)]
async fn what_borrows_when_it_is_called(
    choose: for<'x> fn(&'x str, &str, Cow<'_, str>) -> &'x str,
    boxed: Box<dyn for<'x> Fn(&'x str, Cow<'_, str>) -> &'x str + Send>,
) -> Choose {
    boxed("a", "b".into());
    choose
}

struct Service {
    locks: Locks,
    name: String,
}

impl Service {
    #[debounced(id = "{self.name}", locks = self.locks, detached)]
    #[locked(id = "{self.name}", locks = self.locks, guard = guard, skip)]
    #[locked(id = "other", or_else = |_error| ())]
    async fn in_arc(self: Arc<Self>, early: bool) {
        if early {
            return;
        }
        std::future::ready(guard.fencing_token()).await;
    }
}

async fn types(service: Arc<Service>) {
    let _: Result<Option<()>, Error> = nothing().await;
    let _: Result<Option<String>, Error> = owned(1, String::new(), Box::new(1)).await;
    let _: Result<Option<u8>, Error> = generic(1).await;
    let _: Result<Option<()>, Error> = service.in_arc(true).await;
}

fn is_send<F: Future + Send + 'static>(_: F) {}

fn main() {
    is_send(owned(1, String::new(), Box::new(1)));
}
