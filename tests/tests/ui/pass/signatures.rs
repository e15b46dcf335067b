//! Generics, lifetimes, patterns, `impl Trait`, conditions, and the parts of an item that are kept.
#![deny(warnings, missing_docs)]
#![allow(dead_code)]

use std::fmt::{Debug, Display};

use lock::{Error, debounced, locked};

struct Point<T> {
    x: T,
    y: (T, T),
}

enum Either {
    Left(u32),
    Right(u32),
}

/// Documented and exported.
#[locked(id = "documented")]
pub async fn documented() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "{value}")]
async fn generic<'a, T, const N: usize>(value: &'a T, all: [&'a str; N]) -> Result<&'a str, Error>
where
    T: Display + ?Sized + 'a,
{
    all.first().copied().map_or_else(|| Ok("none"), Ok)
}

#[locked(id = "{value}")]
async fn opaque(value: impl Display + Clone) -> Result<impl Iterator<Item = u32>, Error> {
    drop(value.clone());
    Ok([1, 2].into_iter())
}

#[locked(id = "opaque", or_else = |_error| vec![])]
async fn opaque_whole() -> impl IntoIterator<Item = impl Debug> {
    vec![1]
}

#[locked(id = "boxed")]
async fn boxed(text: &str) -> Result<Box<dyn Display + '_>, Error> {
    Ok(Box::new(text))
}

#[locked(id = "{a}:{c}:{x}")]
async fn patterns(
    (a, mut b): (u32, u32),
    [c, ..]: [u32; 3],
    &d: &u32,
    Point { x, y: (y, _) }: Point<u32>,
    (Either::Left(e) | Either::Right(e)): Either,
    mut list: Vec<u32>,
    whole @ (_, ref part): (u8, u8),
    _: String,
    _unused: String,
) -> Result<u32, Error> {
    b += 1;
    list.push(b);
    let _ = (whole, part);
    Ok(a + b + c + d + x + y + e)
}

#[locked(id = "{kept}")]
async fn conditions(
    #[cfg(any())] removed: u32,
    #[cfg(not(any()))] kept: u32,
    #[allow(unused_variables)] allowed: u32,
) -> Result<(), Error> {
    Ok(())
}

#[locked(id = "{type}:{r#loop.r#fn}")]
async fn raw(r#type: u32, r#loop: Raw) -> Result<u32, Error> {
    Ok(r#type)
}

struct Raw {
    r#fn: u32,
}

#[locked(id = "r#raw")]
async fn r#async() -> Result<(), Error> {
    Ok(())
}

#[debounced]
async fn r#await() {}

#[debounced]
async fn debounced<T: Display>(value: &T, mut list: Vec<u32>, _: String) -> impl Display {
    list.push(1);
    value.to_string()
}

#[debounced]
async fn debounced_result() -> Result<impl Display, Error> {
    Ok(1)
}

fn main() {}
