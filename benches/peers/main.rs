//! This library beside its peers, on one real server: `cargo bench` prints the table.
//!
//! Absolute figures say little, for other work on the machine moves them from one second to the
//! next. So the contenders take turns, and what counts is the ratio within one turn: its median,
//! and its extremes, which say how far to believe it.
//!
//! - [`contenders`]: each library, used as its authors mean it to be;
//! - [`measure`]: rounds, their order, and what is made of their times;
//! - [`census`]: whether the work was done: no lock may be left behind;
//! - [`placement`]: which cores client and server run on;
//! - [`report`]: the table.
//!
//! `cargo bench -- --split` gives the server a core of its own (Linux).
#![forbid(unsafe_code)]

mod census;
mod contenders;
mod measure;
mod placement;
mod report;

use std::{error::Error, time::Duration};

use lock_tests::RedisServer;

use crate::{
    census::Census,
    contenders::{Bare, Distkit, Ours, Rslock},
    measure::{Load, Rival, Row, rival},
    placement::Split,
};

/// What is measured: many tasks share a connection's writes, one task sees nothing but latency.
const LOADS: [Load; 2] = [Load { tasks: 1, cycles: 500 }, Load { tasks: 64, cycles: 100 }];

/// Threads of the runtime that the contenders share. This library has one of its own besides.
const WORKERS: usize = 2;

/// The lease of every lock. No round takes that long, so none expires.
const LEASE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    // Before the first thread is started: threads inherit it.
    let split = if std::env::args().any(|argument| argument == "--split") {
        Some(Split::begin()?)
    } else {
        None
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    // In a task, for the thread of `block_on` would be one more to hand over to.
    let rows = async { tokio::spawn(compare(split)).await? };
    runtime.block_on(rows).map_err(|error| error as Box<dyn Error>)
}

/// Runs every row, and prints each as soon as it is there.
async fn compare(split: Option<Split>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let server = RedisServer::start();
    if let Some(split) = &split {
        split.place(&server)?;
    }
    let census = Census::of(&server).await;
    println!("{}", report::preamble(&server, split.is_some(), WORKERS, LEASE).await);
    for (number, load) in LOADS.into_iter().enumerate() {
        let ids = load.ids();
        let rivals: Vec<Rival> = vec![
            rival(Ours::connect(&server, ids.clone()).await?),
            rival(Rslock::connect(&server, ids.clone())),
            rival(Distkit::<true>::connect(&server, &ids, census.clone()).await?),
            rival(Distkit::<false>::connect(&server, &ids, census.clone()).await?),
            rival(Bare::connect(&server, ids).await?),
        ];
        if number == 0 {
            println!("{}", report::heading(&rivals));
        }
        let row = Row::measure(load, &rivals, &census).await?;
        println!("{}", report::row(&row));
    }
    Ok(())
}
