//! From the replies of scripts to answers: `None` for a reply that the script never gives.

use std::time::Duration;

use lock_core::contract::{
    Acquisition, ClientRecord, DebounceReply, DueCalls, DurableClaim, DurableFinish, Holder, Kept,
    Release, Renewal, SetAside, WaitingCalls,
};
use redis::Value;

use super::tokens;
use crate::limits::LONGEST_LEASE;

/// An item that failed has the server's error as its answer.
pub(super) fn acquired(reply: Value, items: usize) -> Option<Vec<Result<Acquisition, String>>> {
    let Value::Array(values) = reply else { return None };
    let mut values = values.into_iter();
    let mut fence = fence(&values.next()?)?;
    let answer = |value: Value| match value {
        Value::Int(taken @ (1 | 2)) => {
            fence += 1;
            Some(Ok(Acquisition::granted(fence - 1).contended(taken == 2)))
        }
        Value::Array(held) => match &held[..] {
            [Value::Int(left), ticket, Value::Int(notifies @ (0 | 1))] => {
                let held = Acquisition::held(remaining(*left));
                Some(Ok(match number(ticket) {
                    Some(ticket) => held.waiting(ticket, *notifies == 1),
                    None => held,
                }))
            }
            _ => None,
        },
        Value::BulkString(error) => Some(Err(String::from_utf8_lossy(&error).into_owned())),
        _ => None,
    };
    let answers: Vec<_> = values.map(answer).collect::<Option<_>>()?;
    (answers.len() == items).then_some(answers)
}

/// An item that failed has the server's error as its answer.
pub(super) fn holders(reply: Value, items: usize) -> Option<Vec<Result<Option<Holder>, String>>> {
    let mut values = array(reply)?.into_iter();
    let now = remaining(integer(values.next()?)?)?;
    let answer = |value: Value| match value {
        Value::Nil => Some(Ok(None)),
        Value::Array(held) => match &held[..] {
            [Value::BulkString(token), Value::Int(left), Value::Int(waiters)] => {
                let token = tokens::token_of(token);
                let waiters = usize::try_from(*waiters).ok()?;
                let holder = Holder::new(token, remaining(*left)).waiters(waiters);
                Some(Ok(Some(holder.seen_at(now))))
            }
            _ => None,
        },
        Value::BulkString(error) => Some(Err(String::from_utf8_lossy(&error).into_owned())),
        _ => None,
    };
    let answers: Vec<_> = values.map(answer).collect::<Option<_>>()?;
    (answers.len() == items).then_some(answers)
}

/// The pairs of a map, for which RESP3 has a type of its own.
fn pairs(reply: Value) -> Option<Vec<(Value, Value)>> {
    match reply {
        Value::Map(pairs) => Some(pairs),
        reply => {
            let mut values = array(reply)?.into_iter();
            let pairs = std::iter::from_fn(|| Some((values.next()?, values.next()?)));
            Some(pairs.collect())
        }
    }
}

pub(super) fn client(reply: Value) -> Option<Option<ClientRecord>> {
    let fields = pairs(reply)?;
    if fields.is_empty() {
        return Some(None);
    }
    let (mut record, mut host, mut pid) = (ClientRecord::unknown(), None, None);
    for (field, value) in fields {
        // Anybody may have written it: a value that cannot be read counts as unknown.
        let value = text(&value);
        match text(&field).as_deref() {
            Some("name") => record = record.name(value),
            Some("host") => host = value,
            Some("pid") => pid = value.and_then(|pid| pid.parse().ok()),
            Some("version") => record = record.version(value),
            // Fields that later versions may add.
            _ => {}
        }
    }
    Some(Some(record.process(host, pid)))
}

/// A page of names, and the server's cursor.
pub(super) fn scanned(reply: Value) -> Option<(String, Vec<String>)> {
    match array(reply)?.as_slice() {
        [cursor, Value::Array(names)] => {
            // The names of our own keys are all text.
            Some((text(cursor)?, names.iter().filter_map(text).collect()))
        }
        _ => None,
    }
}

pub(super) fn due_in(reply: Value) -> Option<Option<Duration>> {
    integer(reply).map(remaining)
}

pub(super) fn waiting(reply: Value) -> Option<WaitingCalls> {
    let mut values = array(reply)?.into_iter();
    let count = usize::try_from(integer(values.next()?)?).ok()?;
    let mut calls = Vec::new();
    while let Some(id) = values.next() {
        calls.push((text(&id)?, remaining(integer(values.next()?)?)?));
    }
    Some(WaitingCalls::new(count, calls))
}

pub(super) fn debounced(reply: Value) -> Option<DebounceReply> {
    let Value::Array(values) = reply else { return None };
    let (Value::BulkString(what), rest) = values.split_first()? else { return None };
    match (what.as_slice(), rest) {
        (b"granted", [fence]) => Some(DebounceReply::granted(self::fence(fence)?)),
        (b"superseded", []) => Some(DebounceReply::Superseded),
        (b"not yet", [Value::Int(left), Value::Int(newest @ (0 | 1))]) => {
            Some(DebounceReply::not_yet(remaining(*left)?, *newest == 1))
        }
        // A run's lock without an expiry is looked at as often as one with the longest lease.
        (b"running", [Value::Int(left)]) => {
            Some(DebounceReply::Running(remaining(*left).unwrap_or(LONGEST_LEASE)))
        }
        _ => None,
    }
}

pub(super) fn renewed(answer: i64) -> Option<Renewal> {
    match answer {
        0 => Some(Renewal::not_ours()),
        1 | 2 => Some(Renewal::renewed().contended(answer == 2)),
        _ => None,
    }
}

pub(super) fn released(answer: i64) -> Option<Release> {
    (0..4)
        .contains(&answer)
        .then(|| if answer & 1 == 1 { Release::freed() } else { Release::not_ours() })
        .map(|release| release.handed_over(answer & 2 == 2))
}

pub(super) fn extended(reply: Value) -> Option<Option<Duration>> {
    integer(reply).map(remaining)
}

pub(super) fn was_there(reply: Value) -> Option<bool> {
    match reply {
        Value::Int(there @ (0 | 1)) => Some(there == 1),
        _ => None,
    }
}

pub(super) fn kept(reply: Value) -> Option<Kept> {
    match array(reply)?.as_slice() {
        [call, Value::Int(due_in)] => Some(Kept::new(number(call)?, remaining(*due_in)?)),
        _ => None,
    }
}

pub(super) fn due(reply: Value) -> Option<DueCalls> {
    let values = array(reply)?;
    let [Value::Int(next), Value::Int(kept), ids @ ..] = values.as_slice() else { return None };
    let ids = ids.iter().map(text).collect::<Option<_>>()?;
    Some(DueCalls::new(ids, remaining(*next)).of(u64::try_from(*kept).ok()?))
}

pub(super) fn claimed(reply: Value) -> Option<DurableClaim> {
    let values = array(reply)?;
    let (what, rest) = values.split_first()?;
    match (text(what)?.as_str(), rest) {
        ("gone", []) => Some(DurableClaim::Gone),
        ("not yet", [Value::Int(left)]) => Some(DurableClaim::NotYet(remaining(*left)?)),
        ("running", [Value::Int(left)]) => {
            Some(DurableClaim::Running(remaining(*left).unwrap_or(LONGEST_LEASE)))
        }
        ("granted", [fence, call, Value::Int(attempt), arguments]) => {
            let attempt = u32::try_from(*attempt).ok()?;
            Some(DurableClaim::granted(
                self::fence(fence)?,
                number(call)?,
                attempt,
                text(arguments)?,
            ))
        }
        _ => None,
    }
}

pub(super) fn finished(reply: Value) -> Option<DurableFinish> {
    if let Value::Int(pause) = reply {
        return Some(DurableFinish::Retry(remaining(pause)?));
    }
    match text(&reply)?.as_str() {
        "lost" => Some(DurableFinish::Lost),
        "done" => Some(DurableFinish::Done),
        "again" => Some(DurableFinish::Again),
        "aside" => Some(DurableFinish::SetAside),
        _ => None,
    }
}

pub(super) fn set_aside(reply: Value) -> Option<Vec<SetAside>> {
    let calls = pairs(reply)?.into_iter();
    calls.map(|(id, written)| read_set_aside(text(&id)?, &text(&written)?)).collect()
}

/// What durable_finish.lua has written: "attempts generation limit pause length-of-reason reason
/// arguments".
fn read_set_aside(id: String, written: &str) -> Option<SetAside> {
    let (attempts, rest) = written.split_once(' ')?;
    let (generation, rest) = rest.split_once(' ')?;
    let (_limit, rest) = rest.split_once(' ')?;
    let (_pause, rest) = rest.split_once(' ')?;
    let (length, rest) = rest.split_once(' ')?;
    let (error, arguments) = rest.split_at_checked(length.parse().ok()?)?;
    Some(SetAside::new(
        id,
        attempts.parse().ok()?,
        generation.parse().ok()?,
        error.to_owned(),
        arguments.to_owned(),
    ))
}

pub(super) fn integer(reply: Value) -> Option<i64> {
    match reply {
        Value::Int(number) => Some(number),
        _ => None,
    }
}

fn array(reply: Value) -> Option<Vec<Value>> {
    match reply {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

/// What a number of milliseconds means where a negative one means "no end".
fn remaining(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().map(Duration::from_millis)
}

/// A number that a script wrote as text.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// Reads a fence. One that leaves no room for a fencing token was not drawn by a script of ours.
fn fence(value: &Value) -> Option<u64> {
    const BOUND: u64 = (1 << 53) - 1024;
    number(value).filter(|fence| *fence < BOUND)
}
