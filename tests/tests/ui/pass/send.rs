//! `Send` is inferred, in both directions.
#![deny(warnings)]

use std::rc::Rc;

use lock::{Error, debounced, locked};

#[locked(id = "{name}", guard = guard)]
async fn locked_send(name: String, list: &mut Vec<u32>) -> Result<u64, Error> {
    list.push(1);
    std::future::ready(()).await;
    Ok(guard.fencing_token())
}

#[debounced(id = "{name}")]
async fn debounced_send(name: &str, list: &mut Vec<u32>) -> Result<usize, Error> {
    std::future::ready(()).await;
    Ok(list.len())
}

#[locked(id = "not_send")]
async fn not_send() -> Result<Rc<u32>, Error> {
    let shared = Rc::new(1);
    std::future::ready(()).await;
    Ok(shared)
}

#[debounced]
async fn debounced_not_send(shared: Rc<u32>) -> Rc<u32> {
    std::future::ready(()).await;
    shared
}

fn is_send<F: Future + Send>(_: F) {}

fn main() {
    let mut list = Vec::new();
    is_send(locked_send(String::new(), &mut list));
    is_send(debounced_send("", &mut list));
    drop(not_send());
    drop(debounced_not_send(Rc::new(1)));
}
