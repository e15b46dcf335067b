//! `list`: the locks that are held.

use lock::{Holder, Listed, Locks};
use serde::Serialize;

use crate::{
    arguments::List,
    exit::{Exit, Failure},
    holder::{self, Shown},
    output::{Output, cell, millis, plain, time},
};

#[derive(Serialize)]
struct Report<'a> {
    locks: Vec<Row<'a>>,
    /// Whether there are more locks than the limit.
    more: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    holders: Vec<Shown<'a>>,
    remaining_ms: Option<u64>,
    waiters: usize,
}

pub(crate) async fn list(
    List { begin, limit }: &List,
    locks: &Locks,
    output: Output,
) -> Result<Exit, Failure> {
    // One above the limit shows whether there are more.
    let mut found = locks.list(begin, limit.saturating_add(1)).await?;
    let more = found.len() > *limit;
    found.truncate(*limit);
    if output.is_json() {
        output.json(&Report { locks: found.iter().map(row).collect(), more })?;
        return Ok(Exit::Done);
    }
    if found.is_empty() {
        output.line(if begin.is_empty() { "no lock is held" } else { "no such lock is held" })?;
        return Ok(Exit::Done);
    }
    let rows = found.iter().map(|lock| {
        vec![
            cell(&lock.id),
            plain(&holder::all(&lock.holders)),
            cell(&longest(&lock.holders)),
            cell(&time(lock.remaining)),
            cell(&lock.waiters.to_string()),
        ]
    });
    output.table(&["ID", "HOLDER", "HELD FOR", "LEASE LEFT", "WAITERS"], rows.collect())?;
    if more {
        output.line("")?;
        output.line(&format!(
            "there are more than {limit}: give the beginning of their ids, or raise --limit"
        ))?;
    }
    Ok(Exit::Done)
}

fn row(lock: &Listed) -> Row<'_> {
    Row {
        id: &lock.id,
        holders: Shown::all(&lock.holders),
        remaining_ms: millis(lock.remaining),
        waiters: lock.waiters,
    }
}

/// How long the longest of several holders has held the lock.
fn longest(holders: &[Holder]) -> String {
    let longest = holders.iter().max_by_key(|holder| holder.held_for);
    longest.map_or_else(String::new, holder::held_for)
}
