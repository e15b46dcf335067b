//! From requests to calls of scripts.

use std::{sync::Arc, time::Duration};

use lock_core::{
    Token,
    contract::{
        ALIVE, ALIVE_POLLING, AcquireRequest, ClaimRequest, DebounceRequest, Delivery, DueRequest,
        DurableBook, EndWindowRequest, ExtendRequest, FinishRequest, ForceReleaseRequest, GRACE,
        IfHeld, IntroduceRequest, KeepRequest, RESERVATION, ReleaseRequest, RenewRequest, ScanFor,
        ScanRequest, TakeBackRequest, WindowEnd,
    },
};
use redis::{RedisWrite, ToRedisArgs};

use super::{
    keys::Naming,
    scripts::{
        ACQUIRE, CLIENT, DEBOUNCE, DUE_IN, DURABLE_ASIDE, DURABLE_CALL, DURABLE_CLAIM, DURABLE_DUE,
        DURABLE_FINISH, DURABLE_TAKE_BACK, DURABLE_WAITING, END_WINDOW, EXTEND, FORCE_RELEASE,
        HOLDER, INTRODUCE, Invocation, RELEASE, RENEW, SCAN, Script,
    },
    slots::Slot,
    tokens,
};
use crate::limits::LONGEST_LEASE;

/// More entries than any list on a server has. A script would write a much larger number with an
/// exponent.
const MOST: usize = 1 << 31;

/// The argument that tells a script what to do if another token holds the lock.
struct IfHeldWord<'a>(&'a IfHeld);

impl ToRedisArgs for IfHeldWord<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        match self.0 {
            IfHeld::Wait => out.write_arg(b"w"),
            IfHeld::KeepWaiting(ticket) => {
                out.write_arg_fmt(format_args!("w{}", ticket.unwrap_or(0)));
            }
            IfHeld::Adopt(token) => out.write_arg_fmt(format_args!("={}", token.as_str())),
            // `GiveUp`, and the safe choice for variants that may be added.
            _ => out.write_arg(b""),
        }
    }
}

/// The token that a lock may be taken away from; any token if `None`.
struct OnlyFrom<'a>(Option<&'a Token>);

impl ToRedisArgs for OnlyFrom<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let Some(token) = self.0 else { return out.write_arg(b"") };
        let mut argument = b"=".to_vec();
        argument.extend(tokens::bytes_of(token).iter());
        out.write_arg(&argument);
    }
}

/// One call for all of these requests, whose keys are in one slot. How notices travel decides which
/// mark shows that a waiter is alive.
pub(super) fn acquire(
    batch: &[&AcquireRequest],
    naming: &Naming,
    delivery: impl Fn(Slot) -> Delivery,
) -> Invocation {
    let home = naming.home(batch.first().map_or("", |request| &request.key));
    let delivery = delivery(home.slot());
    let (mark, alive) = match delivery {
        Delivery::PubSub | Delivery::Push => ("@", ALIVE),
        _ => ("?", ALIVE_POLLING),
    };
    let mut invocation = Invocation::of(&ACQUIRE, home.slot(), 2 * batch.len() + 1);
    for request in batch {
        let home = naming.home(&request.key);
        invocation = invocation.arg(home).arg(home.queue());
    }
    invocation = invocation
        .arg(home.fence())
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

/// One call for all of these requests, with one key for each lock. A script with more keys is
/// refused while their slot of a Redis Cluster is being moved, and a lock must not be lost because
/// of that.
pub(super) fn renew(batch: &[&RenewRequest], naming: &Naming) -> Invocation {
    let home = naming.home(batch.first().map_or("", |request| &request.key));
    let mut invocation = Invocation::of(&RENEW, home.slot(), batch.len());
    for request in batch {
        invocation = invocation.arg(naming.home(&request.key));
    }
    for request in batch {
        invocation = invocation
            .arg(request.token.as_str())
            .arg(millis(request.lease))
            .arg(naming.home(&request.key).queue());
    }
    invocation
}

/// One call for all of these requests, whose keys are in one slot.
pub(super) fn release(batch: &[&ReleaseRequest], naming: &Naming) -> Invocation {
    let home = naming.home(batch.first().map_or("", |request| &request.key));
    let mut invocation = Invocation::of(&RELEASE, home.slot(), 2 * batch.len());
    for request in batch {
        let home = naming.home(&request.key);
        invocation = invocation.arg(home).arg(home.queue());
    }
    invocation = invocation.arg(millis(RESERVATION));
    for request in batch {
        invocation = invocation.arg(request.token.as_str()).arg(millis(request.keep));
    }
    invocation
}

pub(super) fn extend(request: &ExtendRequest, naming: &Naming) -> Invocation {
    let home = naming.home(&request.key);
    Invocation::of(&EXTEND, home.slot(), 1)
        .arg(home)
        .arg(request.token.as_str())
        .arg(millis(request.by))
        .arg(millis(LONGEST_LEASE))
}

/// One call for all of these locks, whose keys are in one slot.
pub(super) fn holders(keys: &[&Arc<str>], naming: &Naming) -> Invocation {
    let slot = naming.home(keys.first().map_or("", |key| key)).slot();
    let mut invocation = Invocation::of(&HOLDER, slot, 2 * keys.len());
    for key in keys {
        let home = naming.home(key);
        invocation = invocation.arg(home).arg(home.queue());
    }
    invocation
}

/// One call for one lock, without its queue.
pub(super) fn holder_alone(key: &Arc<str>, naming: &Naming) -> Invocation {
    let home = naming.home(key);
    Invocation::of(&HOLDER, home.slot(), 1).arg(home).arg("alone")
}

pub(super) fn force_release(request: &ForceReleaseRequest, naming: &Naming) -> Invocation {
    let home = naming.home(&request.key);
    Invocation::of(&FORCE_RELEASE, home.slot(), 2)
        .arg(home)
        .arg(home.queue())
        .arg(millis(RESERVATION))
        .arg(OnlyFrom(request.holder.as_ref()))
}

pub(super) fn introduce(request: &IntroduceRequest, naming: &Naming) -> Invocation {
    let home = naming.home(&request.key);
    let invocation = Invocation::of(&INTRODUCE, home.slot(), 1).arg(home).arg(millis(request.keep));
    let record = &request.record;
    let pid = record.pid.map(|pid| pid.to_string());
    let says = [
        ("name", record.name.as_deref()),
        ("host", record.host.as_deref()),
        ("pid", pid.as_deref()),
        ("version", record.version.as_deref()),
    ];
    says.into_iter()
        .filter_map(|(field, value)| Some((field, value?)))
        .fold(invocation, |invocation, (field, value)| invocation.arg(field).arg(value))
}

pub(super) fn client(key: &Arc<str>, naming: &Naming) -> Invocation {
    let home = naming.home(key);
    Invocation::of(&CLIENT, home.slot(), 1).arg(home)
}

/// One page of the node that has this slot.
pub(super) fn scan(
    request: &ScanRequest,
    (slot, cursor): (Slot, &str),
    naming: &Naming,
) -> Invocation {
    let ScanRequest { what, prefix, ids, count, .. } = request;
    let kind = match what {
        ScanFor::Debounces | ScanFor::SetAside => "hash",
        ScanFor::Waiting => "zset",
        _ => "string",
    };
    Invocation::of(&SCAN, slot, 0)
        .arg(cursor)
        .arg(naming.pattern(&format!("{prefix}{}{ids}", what.infix())))
        .arg((*count).max(1))
        .arg(kind)
}

pub(super) fn due_in(window: &Arc<str>, naming: &Naming) -> Invocation {
    let home = naming.home(window);
    Invocation::of(&DUE_IN, home.slot(), 1).arg(home)
}

pub(super) fn waiting(request: &DueRequest, naming: &Naming) -> Invocation {
    of_book(&DURABLE_WAITING, 1, &request.book, naming).arg(request.limit.min(MOST))
}

pub(super) fn register(request: &DebounceRequest, naming: &Naming) -> Invocation {
    let run = naming.home(&request.run);
    Invocation::of(&DEBOUNCE, run.slot(), 3)
        .arg(naming.home(&request.window))
        .arg(run)
        .arg(run.fence())
        .arg(request.token.as_str())
        .arg(millis(request.age))
        .arg(millis(request.wait))
        .arg(limit(request.max_wait))
        .arg(flag(request.leading))
        .arg(millis(request.lease))
        .arg(millis(request.keep))
        .arg(millis(GRACE))
}

pub(super) fn end_window(request: &EndWindowRequest, naming: &Naming) -> Invocation {
    let word = match request.end {
        WindowEnd::Cancel => "cancel",
        _ => "flush",
    };
    let home = naming.home(&request.window);
    Invocation::of(&END_WINDOW, home.slot(), 1).arg(home).arg(word)
}

pub(super) fn keep(request: &KeepRequest, naming: &Naming) -> Invocation {
    of_book(&DURABLE_CALL, 2, &request.book, naming)
        .arg(naming.home(&request.book.calls))
        .arg(&*request.id)
        .arg(&*request.arguments)
        .arg(millis(request.wait))
        .arg(limit(request.max_wait))
        .arg(request.attempts)
        .arg(millis(request.pause))
}

pub(super) fn due(request: &DueRequest, naming: &Naming) -> Invocation {
    of_book(&DURABLE_DUE, 1, &request.book, naming).arg(request.limit.min(MOST))
}

pub(super) fn claim(request: &ClaimRequest, naming: &Naming) -> Invocation {
    let run = naming.home(&request.run);
    of_book(&DURABLE_CLAIM, 4, &request.book, naming)
        .arg(naming.home(&request.book.calls))
        .arg(run)
        .arg(run.fence())
        .arg(&*request.id)
        .arg(request.token.as_str())
        .arg(millis(request.lease))
}

pub(super) fn finish(request: &FinishRequest, naming: &Naming) -> Invocation {
    of_book(&DURABLE_FINISH, 4, &request.book, naming)
        .arg(naming.home(&request.book.calls))
        .arg(naming.home(&request.book.aside))
        .arg(naming.home(&request.run))
        .arg(&*request.id)
        .arg(request.token.as_str())
        .arg(request.call)
        .arg(request.generation)
        .arg(flag(request.error.is_some()))
        .arg(request.error.as_deref().unwrap_or_default())
}

pub(super) fn set_aside(book: &DurableBook, naming: &Naming) -> Invocation {
    let home = naming.home(&book.aside);
    Invocation::of(&DURABLE_ASIDE, home.slot(), 1).arg(home)
}

pub(super) fn take_back(request: &TakeBackRequest, naming: &Naming) -> Invocation {
    of_book(&DURABLE_TAKE_BACK, 3, &request.book, naming)
        .arg(naming.home(&request.book.calls))
        .arg(naming.home(&request.book.aside))
        .arg(&*request.id)
        .arg(flag(request.again))
}

/// A call about durable calls: its first key is the order in which they are due.
fn of_book(
    script: &'static Script,
    keys: usize,
    book: &DurableBook,
    naming: &Naming,
) -> Invocation {
    let home = naming.home(&book.due);
    Invocation::of(script, home.slot(), keys).arg(home)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An optional bound; empty if there is none.
fn limit(duration: Option<Duration>) -> String {
    duration.map(|limit| millis(limit).to_string()).unwrap_or_default()
}

fn flag(yes: bool) -> &'static str {
    if yes { "1" } else { "" }
}
