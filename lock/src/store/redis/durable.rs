//! Durable calls on Redis: each step one script.

use redis::Value;

use super::{
    FENCE, millis, number, remaining,
    scripts::{
        DURABLE_ASIDE, DURABLE_CALL, DURABLE_CLAIM, DURABLE_DUE, DURABLE_FINISH, DURABLE_TAKE_BACK,
        Invocation,
    },
};
use crate::store::{
    DurableClaim, DurableFinish, DurableReply, DurableRequest, DurableStep, SetAside,
};

pub(super) fn invocation(request: &DurableRequest) -> Invocation {
    let book = &request.book;
    let (due, calls, aside) = (&*book.due, &*book.calls, &*book.aside);
    match &request.step {
        DurableStep::Call { id, arguments, wait, max_wait, attempts, pause } => {
            Invocation::of(&DURABLE_CALL, 2)
                .arg(due)
                .arg(calls)
                .arg(&**id)
                .arg(&**arguments)
                .arg(millis(*wait))
                .arg(max_wait.map(|limit| millis(limit).to_string()).unwrap_or_default())
                .arg(*attempts)
                .arg(millis(*pause))
        }
        DurableStep::Due { limit } => Invocation::of(&DURABLE_DUE, 1).arg(due).arg(*limit),
        DurableStep::Claim { id, run, token, lease } => Invocation::of(&DURABLE_CLAIM, 4)
            .arg(due)
            .arg(calls)
            .arg(&**run)
            .arg(FENCE)
            .arg(&**id)
            .arg(token.as_str())
            .arg(millis(*lease)),
        DurableStep::Finish { id, run, token, call, generation, error } => {
            Invocation::of(&DURABLE_FINISH, 4)
                .arg(due)
                .arg(calls)
                .arg(aside)
                .arg(&**run)
                .arg(&**id)
                .arg(token.as_str())
                .arg(*call)
                .arg(*generation)
                .arg(if error.is_some() { "1" } else { "" })
                .arg(error.as_deref().unwrap_or_default())
        }
        DurableStep::Aside => Invocation::of(&DURABLE_ASIDE, 1).arg(aside),
        DurableStep::TakeBack { id, again } => Invocation::of(&DURABLE_TAKE_BACK, 3)
            .arg(due)
            .arg(calls)
            .arg(aside)
            .arg(&**id)
            .arg(if *again { "1" } else { "" }),
    }
}

pub(super) fn read(step: &DurableStep, reply: Value) -> Option<DurableReply> {
    match step {
        DurableStep::Call { .. } => match array(reply)?.as_slice() {
            [call, Value::Int(due_in)] => {
                let due_in = remaining(*due_in)?;
                Some(DurableReply::Called { call: number(call)?, due_in })
            }
            _ => None,
        },
        DurableStep::Due { .. } => {
            let values = array(reply)?;
            let (Value::Int(next), ids) = values.split_first()? else { return None };
            let ids = ids.iter().map(text).collect::<Option<_>>()?;
            Some(DurableReply::Due { ids, next: remaining(*next) })
        }
        DurableStep::Claim { .. } => read_claim(&array(reply)?).map(DurableReply::Claimed),
        DurableStep::Finish { .. } => Some(DurableReply::Finished(match reply {
            Value::Int(pause) => DurableFinish::Retry(remaining(pause)?),
            reply => match text(&reply)?.as_str() {
                "lost" => DurableFinish::Lost,
                "done" => DurableFinish::Done,
                "again" => DurableFinish::Again,
                "aside" => DurableFinish::SetAside,
                _ => return None,
            },
        })),
        DurableStep::Aside => {
            let values = match reply {
                Value::Map(pairs) => pairs.into_iter().flat_map(|(id, text)| [id, text]).collect(),
                reply => array(reply)?,
            };
            let pairs = values.chunks_exact(2);
            let aside = pairs.map(|pair| set_aside(text(&pair[0])?, &text(&pair[1])?));
            Some(DurableReply::Aside(aside.collect::<Option<_>>()?))
        }
        DurableStep::TakeBack { .. } => match reply {
            Value::Int(taken @ (0 | 1)) => Some(DurableReply::Taken(taken == 1)),
            _ => None,
        },
    }
}

fn read_claim(values: &[Value]) -> Option<DurableClaim> {
    let (what, rest) = values.split_first()?;
    match (text(what)?.as_str(), rest) {
        ("gone", []) => Some(DurableClaim::Gone),
        ("not yet", [Value::Int(left)]) => Some(DurableClaim::NotYet(remaining(*left)?)),
        ("running", [Value::Int(left)]) => {
            Some(DurableClaim::Running(remaining(*left).unwrap_or(crate::limits::LONGEST_LEASE)))
        }
        ("granted", [fence, call, Value::Int(attempt), arguments]) => Some(DurableClaim::Granted {
            fence: super::fence(fence)?,
            call: number(call)?,
            attempt: u32::try_from(*attempt).ok()?,
            arguments: text(arguments)?,
        }),
        _ => None,
    }
}

/// What durable_finish.lua has written: "attempts generation limit pause length-of-reason reason
/// arguments".
fn set_aside(id: String, written: &str) -> Option<SetAside> {
    let (attempts, rest) = written.split_once(' ')?;
    let (generation, rest) = rest.split_once(' ')?;
    let (_limit, rest) = rest.split_once(' ')?;
    let (_pause, rest) = rest.split_once(' ')?;
    let (length, rest) = rest.split_once(' ')?;
    let (error, arguments) = rest.split_at_checked(length.parse().ok()?)?;
    Some(SetAside {
        id,
        attempts: attempts.parse().ok()?,
        generation: generation.parse().ok()?,
        error: error.to_owned(),
        arguments: arguments.to_owned(),
    })
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
