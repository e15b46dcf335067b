//! `show`: who holds one lock.

use lock::{Locks, Status};
use serde::Serialize;

use crate::{
    arguments::Show,
    exit::{Exit, Failure},
    holder::{self, Shown},
    output::{Output, millis, printable, time},
};

/// A lock for programs, which `watch` also prints in each line.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    id: &'a str,
    /// `free` or `held`.
    pub(crate) state: &'static str,
    holders: Vec<Shown<'a>>,
    remaining_ms: Option<u64>,
    waiters: usize,
}

impl<'a> Report<'a> {
    pub(crate) fn new(id: &'a str, status: &'a Status) -> Self {
        match status {
            Status::Held { holders, remaining, waiters, .. } => Self {
                id,
                state: "held",
                holders: Shown::all(holders),
                remaining_ms: millis(*remaining),
                waiters: *waiters,
            },
            _ => Self { id, state: "free", holders: Vec::new(), remaining_ms: None, waiters: 0 },
        }
    }
}

pub(crate) async fn show(
    Show { id }: &Show,
    locks: &Locks,
    output: Output,
) -> Result<Exit, Failure> {
    let status = locks.lock(id).status().await?;
    if output.is_json() {
        output.json(&Report::new(id, &status))?;
    } else {
        people(id, &status, output)?;
    }
    Ok(if matches!(status, Status::Held { .. }) { Exit::Done } else { Exit::Nothing })
}

/// What `show` and `release` print for people.
pub(crate) fn people(id: &str, status: &Status, output: Output) -> Result<(), Failure> {
    let id = printable(id);
    let Status::Held { holders, remaining, waiters, .. } = status else {
        return output.line(&format!("{id} is free"));
    };
    output.line(&format!("{id} is held"))?;
    for holder in holders {
        output.line(&format!("  by          {}", holder::words(holder)))?;
        if let Some(version) = &holder.version {
            output.line(&format!("  version     {}", printable(version)))?;
        }
        output.line(&format!("  held for    {}", holder::held_for(holder)))?;
    }
    output.line(&format!("  lease left  {}", time(*remaining)))?;
    output.line(&format!("  waiters     {waiters}"))
}
