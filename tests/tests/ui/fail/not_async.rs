use std::{future::Future, pin::Pin};

use lock::{Error, debounced, locked};

#[locked(id = "a")]
fn plain() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a")]
fn as_async_trait_makes_it<'a>() -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
    Box::pin(async move { Ok(()) })
}

#[locked(id = "a")]
fn future_by_hand() -> impl Future<Output = Result<(), Error>> {
    async { Ok(()) }
}

#[debounced]
const fn constant() {}

#[debounced]
struct NoFunction;

trait Handler {
    #[locked(id = "a")]
    async fn no_body(&self) -> Result<(), Error>;
}

fn main() {}
