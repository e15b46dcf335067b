//! `debounce`: bursts of calls that wait, and their runs.

use lock::{DebounceStatus, Locks};
use serde::Serialize;

use crate::{
    arguments::Debounce,
    exit::{Exit, Failure},
    holder::{self, Shown},
    output::{Output, cell, millis, plain, printable, time},
    question,
};

#[derive(Serialize)]
struct Report<'a> {
    debounces: Vec<Row<'a>>,
    more: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    /// Whether a call waits, which is due in `due_in_ms`.
    waits: bool,
    due_in_ms: Option<u64>,
    running: Option<Shown<'a>>,
    remaining_ms: Option<u64>,
}

#[derive(Serialize)]
struct Changed<'a> {
    id: &'a str,
    action: &'static str,
    done: bool,
}

impl<'a> Row<'a> {
    fn new(id: &'a str, status: &'a DebounceStatus) -> Self {
        Self {
            id,
            waits: status.waiting.is_some(),
            due_in_ms: status.waiting.and_then(millis),
            running: status.running.as_ref().map(Shown::new),
            remaining_ms: status.remaining.and_then(millis),
        }
    }
}

pub(crate) async fn debounce(
    arguments: &Debounce,
    locks: &Locks,
    output: Output,
) -> Result<Exit, Failure> {
    let Some(id) = &arguments.id else { return list(arguments.limit, locks, output).await };
    match change(arguments) {
        Some(change) => carry_out(id, change, arguments.yes, locks, output).await,
        None => show(id, locks, output).await,
    }
}

async fn list(limit: usize, locks: &Locks, output: Output) -> Result<Exit, Failure> {
    let mut found = locks.list_debounces("", limit.saturating_add(1)).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    if output.is_json() {
        let debounces = found.iter().map(|one| Row::new(&one.id, &one.status)).collect();
        output.json(&Report { debounces, more })?;
        return Ok(Exit::Done);
    }
    if found.is_empty() {
        output.line("no debounced call waits or runs")?;
        return Ok(Exit::Done);
    }
    let rows = found.iter().map(|one| {
        let running = one.status.running.as_ref();
        vec![
            cell(&one.id),
            cell(&one.status.waiting.map_or_else(|| "-".to_owned(), time)),
            plain(&running.map_or_else(|| "-".to_owned(), holder::words)),
            cell(&running.map_or_else(String::new, holder::held_for)),
        ]
    });
    output.table(&["ID", "DUE IN", "RUNS AT", "RUNS FOR"], rows.collect())?;
    if more {
        output.line("")?;
        output.line(&format!("there are more than {limit}: raise --limit"))?;
    }
    Ok(Exit::Done)
}

async fn show(id: &str, locks: &Locks, output: Output) -> Result<Exit, Failure> {
    let status = locks.debounce(id).status().await?;
    if output.is_json() {
        output.json(&Row::new(id, &status))?;
    } else {
        people(id, &status, output)?;
    }
    let is_there = status.waiting.is_some() || status.running.is_some();
    Ok(if is_there { Exit::Done } else { Exit::Nothing })
}

fn people(id: &str, status: &DebounceStatus, output: Output) -> Result<(), Failure> {
    let id = printable(id);
    match status.waiting {
        Some(due) => output.line(&format!("{id}: a call waits, and is due in {}", time(due)))?,
        None => output.line(&format!("{id}: no call waits"))?,
    }
    let Some(running) = &status.running else { return output.line("  nothing runs") };
    output.line(&format!("  runs at     {}", holder::words(running)))?;
    output.line(&format!("  runs for    {}", holder::held_for(running)))?;
    match status.remaining {
        Some(remaining) => output.line(&format!("  lease left  {}", time(remaining))),
        None => Ok(()),
    }
}

/// A change to make, with the texts before and after it.
#[derive(Clone, Copy)]
enum Change {
    Flush,
    Cancel,
    EndRun,
}

fn change(arguments: &Debounce) -> Option<Change> {
    if arguments.flush {
        Some(Change::Flush)
    } else if arguments.cancel {
        Some(Change::Cancel)
    } else if arguments.end_run {
        Some(Change::EndRun)
    } else {
        None
    }
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Cancel => "cancel",
            Self::EndRun => "end_run",
        }
    }

    fn question(self, id: &str) -> String {
        match self {
            Self::Flush => format!("Run the waiting call of {id} now?"),
            Self::Cancel => {
                format!("Drop the waiting calls of {id}? Their callers are told that nothing ran.")
            }
            Self::EndRun => format!(
                "End the run of {id}? It stops at its next .await, and its caller is told that the \
                 run was lost."
            ),
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Flush => "the call runs now",
            Self::Cancel => "the waiting calls were dropped",
            Self::EndRun => "the run was ended",
        }
    }

    fn nothing(self) -> &'static str {
        match self {
            Self::Flush | Self::Cancel => "no call waits",
            Self::EndRun => "nothing runs",
        }
    }
}

async fn carry_out(
    id: &str,
    change: Change,
    yes: bool,
    locks: &Locks,
    output: Output,
) -> Result<Exit, Failure> {
    question::can_ask(yes)?;
    let debounce = locks.debounce(id);
    let shown = match output.is_json() {
        true => Ok(()),
        false => people(id, &debounce.status().await?, output),
    };
    question::ask(&change.question(&printable(id)), yes, shown)?;
    let done = match change {
        Change::Flush => debounce.flush().await?,
        Change::Cancel => debounce.cancel().await?,
        Change::EndRun => debounce.end_run().await?,
    };
    let told = if output.is_json() {
        output.json(&Changed { id, action: change.name(), done })
    } else {
        output.line(if done { change.done() } else { change.nothing() })
    };
    // The change is made, even if the output cannot be written: the exit code reports it.
    told.unwrap_or_else(|unsaid| unsaid.say());
    Ok(if done { Exit::Done } else { Exit::Nothing })
}
