//! Generic types that might borrow in a detached call: one error each, with the bound to add.

use std::{fmt::Display, sync::Arc};

use lock::{debounced, locked};

#[debounced(detached)]
async fn opaque(_id: u32, value: impl Display + Send) -> String {
    value.to_string()
}

#[debounced(detached)]
#[locked(id = "a")]
async fn generic<T: Display + Send>(value: T) -> Result<T, lock::Error> {
    Ok(value)
}

#[debounced(detached)]
async fn generic_inside<T, U>(known: Option<U>, values: Vec<Option<T>>)
where
    T: Send,
    U: Send + 'static,
{
    drop((known, values));
}

struct Service<T>(T);

impl<T: Send + Sync> Service<T> {
    #[debounced(detached)]
    async fn method(self: Arc<Self>) {}
}

struct Borrows<'a>(&'a str);

impl<'a> Borrows<'a> {
    #[debounced(detached)]
    async fn method(self) {
        let _ = self.0;
    }
}

fn main() {}
