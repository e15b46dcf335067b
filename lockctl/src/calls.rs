//! `calls`: durable calls that wait, and those that were set aside.

use lock::{Locks, SetAside};
use serde::Serialize;

use crate::{
    arguments::Calls,
    exit::{Exit, Failure},
    output::{Output, cell, millis, printable, time},
    question,
};

#[derive(Serialize)]
struct Functions<'a> {
    functions: Vec<Function<'a>>,
    more: bool,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    waiting: usize,
    set_aside: usize,
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    /// How many calls wait, including those that are not listed.
    waiting_count: usize,
    waiting: Vec<WaitingRow<'a>>,
    set_aside: Vec<AsideRow<'a>>,
}

#[derive(Serialize)]
struct WaitingRow<'a> {
    id: &'a str,
    due_in_ms: Option<u64>,
}

#[derive(Serialize)]
struct AsideRow<'a> {
    id: &'a str,
    attempts: u32,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a str>,
}

#[derive(Serialize)]
struct Changed<'a> {
    name: &'a str,
    id: &'a str,
    action: &'static str,
    done: bool,
}

pub(crate) async fn calls(
    arguments: &Calls,
    locks: &Locks,
    output: Output,
) -> Result<Exit, Failure> {
    let Some(name) = &arguments.name else {
        return functions(arguments.limit, locks, output).await;
    };
    match (&arguments.run_again, &arguments.forget) {
        (Some(id), _) => change(name, id, true, arguments.yes, locks, output).await,
        (None, Some(id)) => change(name, id, false, arguments.yes, locks, output).await,
        (None, None) => show(name, arguments, locks, output).await,
    }
}

async fn functions(limit: usize, locks: &Locks, output: Output) -> Result<Exit, Failure> {
    let mut names = locks.list_durable(limit.saturating_add(1)).await?;
    let more = names.len() > limit;
    names.truncate(limit);
    let mut counts = Vec::with_capacity(names.len());
    for name in &names {
        let calls = locks.durable_calls(name);
        counts.push((calls.waiting(1).await?.count, calls.set_aside().await?.len()));
    }
    let all = names.iter().zip(counts);
    if output.is_json() {
        let functions =
            all.map(|(name, (waiting, set_aside))| Function { name, waiting, set_aside }).collect();
        output.json(&Functions { functions, more })?;
        return Ok(Exit::Done);
    }
    if names.is_empty() {
        output.line("no function has durable calls")?;
        return Ok(Exit::Done);
    }
    let rows = all.map(|(name, (waiting, set_aside))| {
        vec![cell(name), cell(&waiting.to_string()), cell(&set_aside.to_string())]
    });
    output.table(&["FUNCTION", "WAITING", "SET ASIDE"], rows.collect())?;
    if more {
        output.line("")?;
        output.line(&format!("there are more than {limit}: raise --limit"))?;
    }
    Ok(Exit::Done)
}

async fn show(
    name: &str,
    arguments: &Calls,
    locks: &Locks,
    output: Output,
) -> Result<Exit, Failure> {
    let calls = locks.durable_calls(name);
    let waiting = calls.waiting(arguments.limit).await?;
    let set_aside = calls.set_aside().await?;
    let shows = arguments.arguments;
    if output.is_json() {
        output.json(&Report {
            name,
            waiting_count: waiting.count,
            waiting: waiting
                .calls
                .iter()
                .map(|call| WaitingRow { id: &call.id, due_in_ms: millis(call.due_in) })
                .collect(),
            set_aside: set_aside.iter().map(|call| aside(call, shows)).collect(),
        })?;
    } else {
        people(name, &waiting, &set_aside, shows, output)?;
    }
    let is_there = waiting.count > 0 || !set_aside.is_empty();
    Ok(if is_there { Exit::Done } else { Exit::Nothing })
}

fn aside(call: &SetAside, shows: bool) -> AsideRow<'_> {
    AsideRow {
        id: &call.id,
        attempts: call.attempts,
        error: &call.error,
        arguments: shows.then_some(call.arguments.as_str()),
    }
}

fn people(
    name: &str,
    waiting: &lock::Waiting,
    set_aside: &[SetAside],
    shows: bool,
    output: Output,
) -> Result<(), Failure> {
    let name = printable(name);
    output.line(&format!("{name}: {} wait, {} set aside", waiting.count, set_aside.len()))?;
    if !waiting.calls.is_empty() {
        output.line("")?;
        let rows = waiting.calls.iter().map(|call| vec![cell(&call.id), cell(&time(call.due_in))]);
        output.table(&["WAITING", "DUE IN"], rows.collect())?;
        if waiting.count > waiting.calls.len() {
            output.line(&format!("and {} more", waiting.count - waiting.calls.len()))?;
        }
    }
    if set_aside.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let mut heads = vec!["SET ASIDE", "ATTEMPTS", "ERROR"];
    if shows {
        heads.push("ARGUMENTS");
    }
    let rows = set_aside.iter().map(|call| {
        let mut row = vec![cell(&call.id), cell(&call.attempts.to_string()), cell(&call.error)];
        if shows {
            row.push(cell(&call.arguments));
        }
        row
    });
    output.table(&heads, rows.collect())
}

async fn change(
    name: &str,
    id: &str,
    again: bool,
    yes: bool,
    locks: &Locks,
    output: Output,
) -> Result<Exit, Failure> {
    question::can_ask(yes)?;
    let calls = locks.durable_calls(name);
    let (shown, function) = (printable(id), printable(name));
    let asked = if again {
        format!("Run the call {shown} of {function} again? Its attempts are counted from zero.")
    } else {
        format!(
            "Forget the call {shown} of {function}? Its arguments are deleted, and it never runs."
        )
    };
    question::ask(&asked, yes, Ok(()))?;
    let done = if again { calls.run_again(id).await? } else { calls.forget(id).await? };
    let told = if output.is_json() {
        let action = if again { "run_again" } else { "forget" };
        output.json(&Changed { name, id, action, done })
    } else {
        output.line(match (done, again) {
            (true, true) => {
                "the call is due, and runs in a process that has registered the function"
            }
            (true, false) => "the call was forgotten",
            (false, _) => "no call with this id was set aside",
        })
    };
    // The change is made, even if the output cannot be written: the exit code reports it.
    told.unwrap_or_else(|unsaid| unsaid.say());
    Ok(if done { Exit::Done } else { Exit::Nothing })
}
