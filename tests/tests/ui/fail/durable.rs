//! Invalid durable functions.

use lock::debounced;

struct Service;

impl Service {
    #[debounced(durable)]
    async fn method(&self) {}
}

#[debounced(durable)]
async fn generic<T>(value: T) {
    drop(value);
}

#[debounced(durable)]
async fn borrows(text: &str) {
    let _ = text;
}

#[debounced(durable)]
async fn borrows_inside(texts: Vec<&'static str>) {
    drop(texts);
}

#[debounced(durable)]
async fn any(text: impl Into<String>) {
    let _: String = text.into();
}

#[debounced(durable)]
async fn pattern((a, b): (u64, u64)) {
    let _ = a + b;
}

#[debounced(durable)]
async fn borrows_in_a_type(text: std::borrow::Cow<'_, str>) {
    drop(text);
}

#[debounced(durable)]
async fn borrows_for_a_lifetime<'a>(text: &'a str) {
    let _ = text;
}

#[debounced(durable, leading)]
async fn leads() {}

#[debounced(durable, or_else = |_error| Ok(None))]
async fn recovers() {}

#[debounced(durable = true)]
async fn flag() {}

#[debounced(run = run)]
async fn no_run() {}

#[debounced(durable, run = "run")]
async fn not_a_name() {}

#[debounced(durable, run = Self)]
async fn keyword() {}

#[debounced(durable, run = run)]
async fn run_like_an_argument(run: u64) {
    drop(run);
}

#[debounced(durable, run = run)]
#[lock::locked(id = "a", guard = run)]
async fn run_like_a_guard() -> Result<(), lock::Error> {
    Ok(())
}

struct NotSerde;

#[debounced(durable)]
async fn not_serde(value: NotSerde) {
    drop(value);
}

#[debounced(durable)]
async fn output() -> u64 {
    1
}

#[debounced(durable)]
#[lock::locked(id = "a")]
async fn no_way_out() {}

#[debounced(durable)]
async fn body(text: String) {
    let _: u64 = text;
}

fn main() {}
