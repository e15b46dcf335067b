use std::{cell::Cell, fmt::Display, rc::Rc, sync::Arc};

use lock::{debounced, locked};

#[debounced(detached)]
async fn argument(_id: u32, shared: Rc<u32>) -> u32 {
    *shared
}

#[debounced(detached)]
async fn unused(_id: u32, _: Rc<u32>) {}

#[debounced(detached)]
async fn callback(callback: Box<dyn Fn()>) {
    callback();
}

#[debounced(detached)]
async fn generic<T: Display + 'static>(value: T) {
    drop(value.to_string());
}

struct Service(Cell<u32>);

impl Service {
    #[debounced(detached)]
    async fn method(self: Arc<Self>) {
        let _ = self.0;
    }
}

#[debounced(detached)]
async fn body() {
    let shared = Rc::new(1);
    std::future::ready(()).await;
    drop(shared);
}

#[debounced(detached)]
async fn output() -> Result<u32, Box<dyn std::error::Error>> {
    Ok(1)
}

#[debounced(detached)]
#[locked(id = "a")]
async fn output_under_a_lock() -> Result<u32, Box<dyn std::error::Error>> {
    Ok(1)
}

fn main() {}
