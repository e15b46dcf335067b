//! From requests to calls of scripts.

use std::{sync::Arc, time::Duration};

use redis::{RedisWrite, ToRedisArgs};

use super::{
    keys::{FENCE, QueueOf},
    scripts::{
        ACQUIRE, DEBOUNCE, DURABLE_ASIDE, DURABLE_CALL, DURABLE_CLAIM, DURABLE_DUE, DURABLE_FINISH,
        DURABLE_TAKE_BACK, END_WINDOW, EXTEND, FORCE_RELEASE, HOLDER, Invocation, RELEASE, RENEW,
    },
};
use crate::{
    contract::{
        ALIVE, ALIVE_POLLING, AcquireRequest, ClaimRequest, DebounceRequest, Delivery, DueRequest,
        DurableBook, EndWindowRequest, ExtendRequest, FinishRequest, GRACE, IfHeld, KeepRequest,
        RESERVATION, ReleaseRequest, RenewRequest, TakeBackRequest, WindowEnd,
    },
    limits::LONGEST_LEASE,
};

/// What a script is told about a lock that another token holds.
struct IfHeldWord<'a>(&'a IfHeld);

impl ToRedisArgs for IfHeldWord<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        match self.0 {
            IfHeld::GiveUp => out.write_arg(b""),
            IfHeld::Wait => out.write_arg(b"w"),
            IfHeld::KeepWaiting(ticket) => {
                out.write_arg_fmt(format_args!("w{}", ticket.unwrap_or(0)));
            }
            IfHeld::Adopt(token) => out.write_arg_fmt(format_args!("={}", token.as_str())),
        }
    }
}

/// One call for the whole batch. How notices travel decides how a waiter is known to be alive.
pub(super) fn acquire(batch: &[AcquireRequest], delivery: Delivery) -> Invocation {
    let (mark, alive) = match delivery {
        Delivery::Polling => ("?", ALIVE_POLLING),
        Delivery::PubSub | Delivery::Push => ("@", ALIVE),
    };
    let mut invocation = Invocation::of(&ACQUIRE, 2 * batch.len() + 1);
    for request in batch {
        invocation = invocation.arg(&*request.key).arg(QueueOf(&request.key));
    }
    invocation = invocation
        .arg(FENCE)
        .arg(millis(LONGEST_LEASE))
        .arg(millis(RESERVATION))
        .arg(millis(alive))
        .arg(mark);
    for request in batch {
        invocation = invocation
            .arg(request.token.as_str())
            .arg(millis(request.lease))
            .arg(IfHeldWord(&request.if_held));
    }
    invocation
}

/// One call for the whole batch, with one key for each lock: a script with more is refused while
/// their slot of a Redis Cluster is being moved, and a lock must not be lost by that.
pub(super) fn renew(batch: &[RenewRequest]) -> Invocation {
    let mut invocation = Invocation::of(&RENEW, batch.len());
    for request in batch {
        invocation = invocation.arg(&*request.key);
    }
    for request in batch {
        invocation = invocation
            .arg(request.token.as_str())
            .arg(millis(request.lease))
            .arg(QueueOf(&request.key));
    }
    invocation
}

/// One call for the whole batch.
pub(super) fn release(batch: &[ReleaseRequest]) -> Invocation {
    let mut invocation = Invocation::of(&RELEASE, 2 * batch.len());
    for request in batch {
        invocation = invocation.arg(&*request.key).arg(QueueOf(&request.key));
    }
    invocation = invocation.arg(millis(RESERVATION));
    for request in batch {
        invocation = invocation.arg(request.token.as_str()).arg(millis(request.keep));
    }
    invocation
}

pub(super) fn extend(request: &ExtendRequest) -> Invocation {
    Invocation::of(&EXTEND, 1)
        .arg(&*request.key)
        .arg(request.token.as_str())
        .arg(millis(request.by))
        .arg(millis(LONGEST_LEASE))
}

pub(super) fn holder(key: &Arc<str>) -> Invocation {
    Invocation::of(&HOLDER, 2).arg(&**key).arg(QueueOf(key))
}

pub(super) fn force_release(key: &Arc<str>) -> Invocation {
    Invocation::of(&FORCE_RELEASE, 2).arg(&**key).arg(QueueOf(key)).arg(millis(RESERVATION))
}

pub(super) fn register(request: &DebounceRequest) -> Invocation {
    Invocation::of(&DEBOUNCE, 3)
        .arg(&*request.window)
        .arg(&*request.run)
        .arg(FENCE)
        .arg(request.token.as_str())
        .arg(millis(request.age))
        .arg(millis(request.wait))
        .arg(limit(request.max_wait))
        .arg(flag(request.leading))
        .arg(millis(request.lease))
        .arg(millis(request.keep))
        .arg(millis(GRACE))
}

pub(super) fn end_window(request: &EndWindowRequest) -> Invocation {
    let word = match request.end {
        WindowEnd::Flush => "flush",
        WindowEnd::Cancel => "cancel",
    };
    Invocation::of(&END_WINDOW, 1).arg(&*request.window).arg(word)
}

pub(super) fn keep(request: &KeepRequest) -> Invocation {
    Invocation::of(&DURABLE_CALL, 2)
        .arg(&*request.book.due)
        .arg(&*request.book.calls)
        .arg(&*request.id)
        .arg(&*request.arguments)
        .arg(millis(request.wait))
        .arg(limit(request.max_wait))
        .arg(request.attempts)
        .arg(millis(request.pause))
}

pub(super) fn due(request: &DueRequest) -> Invocation {
    Invocation::of(&DURABLE_DUE, 1).arg(&*request.book.due).arg(request.limit)
}

pub(super) fn claim(request: &ClaimRequest) -> Invocation {
    Invocation::of(&DURABLE_CLAIM, 4)
        .arg(&*request.book.due)
        .arg(&*request.book.calls)
        .arg(&*request.run)
        .arg(FENCE)
        .arg(&*request.id)
        .arg(request.token.as_str())
        .arg(millis(request.lease))
}

pub(super) fn finish(request: &FinishRequest) -> Invocation {
    Invocation::of(&DURABLE_FINISH, 4)
        .arg(&*request.book.due)
        .arg(&*request.book.calls)
        .arg(&*request.book.aside)
        .arg(&*request.run)
        .arg(&*request.id)
        .arg(request.token.as_str())
        .arg(request.call)
        .arg(request.generation)
        .arg(flag(request.error.is_some()))
        .arg(request.error.as_deref().unwrap_or_default())
}

pub(super) fn set_aside(book: &DurableBook) -> Invocation {
    Invocation::of(&DURABLE_ASIDE, 1).arg(&*book.aside)
}

pub(super) fn take_back(request: &TakeBackRequest) -> Invocation {
    Invocation::of(&DURABLE_TAKE_BACK, 3)
        .arg(&*request.book.due)
        .arg(&*request.book.calls)
        .arg(&*request.book.aside)
        .arg(&*request.id)
        .arg(flag(request.again))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A bound that there may not be.
fn limit(duration: Option<Duration>) -> String {
    duration.map(|limit| millis(limit).to_string()).unwrap_or_default()
}

fn flag(yes: bool) -> &'static str {
    if yes { "1" } else { "" }
}
