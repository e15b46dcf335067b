use std::{fmt::Display, rc::Rc};

use lock::debounced;

#[debounced(detached)]
async fn argument(shared: Rc<u32>) -> u32 {
    *shared
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
async fn opaque(value: impl Display + Send) -> String {
    value.to_string()
}

fn main() {}
