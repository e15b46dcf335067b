//! Ways to return a lock error, and how `#[debounced]` changes a return type.
#![deny(warnings)]
#![allow(dead_code)]

use lock::{Error, debounced, locked};

struct AppError;

impl From<Error> for AppError {
    fn from(_: Error) -> Self {
        Self
    }
}

impl From<std::io::Error> for AppError {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

mod app {
    pub type Result<T> = std::result::Result<T, super::AppError>;
    pub type Reply = Result<Option<u32>>;
}

#[locked(id = "a")]
async fn own_error(early: bool) -> Result<u32, AppError> {
    if early {
        return Ok(1);
    }
    std::fs::read("a")?;
    Err(AppError)
}

#[locked(id = "a")]
async fn boxed() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Err("boxed")?
}

#[locked(id = "a")]
async fn alias() -> app::Reply {
    Ok(None)
}

#[locked(id = "a", skip, or_else = |error| panic!("{error}"))]
async fn skip_unit() {}

#[locked(id = "a", skip, or_else = |_| Some(1))]
async fn skip_option() -> Option<u32> {
    None
}

#[locked(id = "a", skip)]
async fn skip_result() -> app::Result<()> {
    Ok(())
}

#[locked(id = "a", skip)]
async fn skip_alias() -> app::Reply {
    Ok(None)
}

#[debounced]
async fn unit() {}

#[debounced]
async fn plain(early: bool) -> u32 {
    if early {
        return 1;
    }
    2
}

#[debounced]
async fn result() -> Result<u32, AppError> {
    std::fs::read("a")?;
    Ok(1)
}

#[debounced]
async fn short_result() -> app::Result<u32> {
    Ok(1)
}

#[debounced]
async fn other_alias() -> app::Reply {
    Ok(None)
}

#[debounced]
async fn option() -> Option<u32> {
    None
}

async fn types() {
    let _: Result<Option<()>, Error> = unit().await;
    let _: Result<Option<u32>, Error> = plain(true).await;
    let _: Result<Option<u32>, AppError> = result().await;
    let _: Result<Option<u32>, AppError> = short_result().await;
    let _: Result<Option<app::Reply>, Error> = other_alias().await;
    let _: Result<Option<Option<u32>>, Error> = option().await;
}

fn main() {}
