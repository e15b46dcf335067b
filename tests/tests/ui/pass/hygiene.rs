//! Names that generated code could mistake for its own.
#![deny(warnings)]
#![allow(dead_code, non_upper_case_globals, non_camel_case_types)]

use lock::{debounced as deb, locked as l};

mod core {}
mod std {}

struct Ok;
struct Err;
struct Some;
struct None;
struct Option;
struct String;

const lock_guard: u32 = 1;
const v: u32 = 1;

#[l(id = "{__lock_id}:{core}:{lock}")]
async fn names(__lock_id: u32, core: u32, lock: u32) -> Result<u32, lock::Error> {
    let __lock_result = lock_guard + v;
    Result::Ok(__lock_id + core + lock + __lock_result)
}

#[deb(id = "{__lock_called}")]
async fn debounced(__lock_called: u32, __lock_body: u32) -> u32 {
    __lock_called + __lock_body + lock_guard
}

fn main() {}
