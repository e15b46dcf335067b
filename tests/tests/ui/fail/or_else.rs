use std::fmt::Display;

use lock::{debounced, locked};

#[locked(id = "a", or_else = 0)]
async fn value() -> u32 {
    1
}

#[locked(id = "a", or_else = |_error| "none")]
async fn wrong_type() -> u32 {
    1
}

#[locked(id = "a", or_else = || 0)]
async fn no_argument() -> u32 {
    1
}

#[locked(id = "a", or_else = |_error, _id| 0)]
async fn two_arguments() -> u32 {
    1
}

#[locked(id = "a", or_else = async |_error| 0)]
async fn not_awaited() -> u32 {
    1
}

#[debounced(or_else = |_error| 0)]
async fn old_type() -> u32 {
    1
}

#[locked(id = "{name}", or_else = |_error| name)]
async fn argument(name: String) -> String {
    name
}

struct Order {
    id: u64,
}

#[debounced(or_else = |_error| Ok(Some(order.id)))]
async fn field(order: Order) -> u64 {
    order.id
}

#[locked(id = "a", or_else = |error| error.to_string())]
async fn another_type_than_the_body() -> impl Display {
    1
}

fn main() {}
