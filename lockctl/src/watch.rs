//! `watch`: a line for each change of one lock.

use std::time::{Duration, SystemTime};

use lock::{Error, ErrorKind, Holder, Locks, Status, Token};
use serde::Serialize;
use tokio::{
    signal,
    time::{MissedTickBehavior, interval},
};

use crate::{
    arguments::Watch,
    exit::{Exit, Failure, in_full, without_passwords},
    holder,
    output::{Output, printable, time},
    show::Report,
};

#[derive(Serialize)]
struct Line<'a> {
    /// When it was seen, in UTC (RFC 3339).
    at: String,
    #[serde(flatten)]
    seen: Seen<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Seen<'a> {
    Lock(Report<'a>),
    Trouble { id: &'a str, state: &'static str, error: String },
}

/// What is compared: a line is printed if it differs. The remaining lease is left out, because it
/// is renewed all the time.
#[derive(PartialEq)]
enum State {
    Free,
    Held { holders: Vec<Token>, waiters: usize },
    Unreachable,
}

pub(crate) async fn watch(
    Watch { id, interval: step }: &Watch,
    locks: &Locks,
    output: Output,
) -> Result<Exit, Failure> {
    let mut ticks = interval(*step);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupted = std::pin::pin!(signal::ctrl_c());
    let mut before = None;
    loop {
        let look = async {
            ticks.tick().await;
            locks.lock(id).status().await
        };
        // An interrupt also ends the wait for a store that does not answer.
        let seen = tokio::select! {
            _ = &mut interrupted => return Ok(Exit::Done),
            seen = look => seen,
        };
        let now = state(&seen)?;
        if before.as_ref() != Some(&now) {
            say(id, &seen, output)?;
            before = Some(now);
        }
    }
}

fn state(seen: &Result<Status, Error>) -> Result<State, Failure> {
    match seen {
        Ok(Status::Held { holders, waiters, .. }) => Ok(State::Held {
            holders: holders.iter().map(|holder: &Holder| holder.token.clone()).collect(),
            waiters: *waiters,
        }),
        Ok(_) => Ok(State::Free),
        // The store may come back; any other error would persist.
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(State::Unreachable),
        Err(error) => Err(error.into()),
    }
}

fn say(id: &str, seen: &Result<Status, Error>, output: Output) -> Result<(), Failure> {
    let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    if output.is_json() {
        let seen = match seen {
            Ok(status) => Seen::Lock(Report::new(id, status)),
            Err(error) => {
                let error = without_passwords(&in_full(error));
                Seen::Trouble { id, state: "unreachable", error }
            }
        };
        return output.json(&Line { at, seen });
    }
    let said = match seen {
        Ok(Status::Held { holders, waiters, .. }) => {
            let since: Vec<_> = holders.iter().filter_map(|holder| holder.held_for).collect();
            let since = since.into_iter().max().filter(|since| *since >= Duration::from_secs(1));
            let since = since.map(|since| format!(" for {}", time(since))).unwrap_or_default();
            format!("held by {}{since}, waiters {waiters}", holder::all(holders))
        }
        Ok(_) => "free".to_owned(),
        Err(error) => printable(&without_passwords(&in_full(error))),
    };
    output.line(&format!("{at}  {said}"))
}
