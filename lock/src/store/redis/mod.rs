//! Locks on a Redis server.
//!
//! A lock is a string key that holds its token, as `SET key token NX PX lease` leaves it, so that
//! other clients of that pattern take part. Each operation is one Lua script, in a file of its
//! own beside this one; time comes from the server only.

mod backoff;
mod codes;
mod durable;
mod endpoint;
#[cfg(feature = "__fuzzing")]
pub(crate) mod fuzzing;
mod handshake;
mod link;
mod node;
mod notices;
mod refusal;
mod round_trip;
mod scripts;
mod server_info;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod topology;
mod trouble;

use std::{sync::Arc, time::Duration};

use redis::{RedisWrite, ToRedisArgs, Value};

pub(crate) use self::endpoint::Endpoint;
#[cfg(feature = "tls")]
pub(crate) use self::tls::Roots;
use self::{
    scripts::{
        ACQUIRE, DEBOUNCE, END_WINDOW, EXTEND, FORCE_RELEASE, HOLDER, Invocation, RELEASE, RENEW,
    },
    topology::Single,
};
use super::{
    AcquireRequest, Acquisition, CLAIM_WINDOW, DebounceReply, DebounceRequest, DurableReply,
    DurableRequest, EndWindowRequest, ExtendRequest, Holder, IfHeld, Listener, Release,
    ReleaseRequest, RenewRequest, Renewal, Store, StoreError, StoreFuture, WakeUps, WindowEnd,
    answer_each,
};
use crate::{
    Error, ErrorKind, Token,
    core::{
        debounce::GRACE,
        queue::{ALIVE, ALIVE_POLLING},
    },
    limits::LONGEST_LEASE,
    warning::Warnings,
};

/// The counter that fences are drawn from: one per database, and the only key without an expiry.
/// No id can name it, for none may begin with a tilde, and no prefix may contain one.
const FENCE: &str = "~fence";

/// The key of a lock's queue. It begins with a tilde, so that no id can name it.
struct QueueOf<'a>(&'a str);

impl ToRedisArgs for QueueOf<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(format_args!("~queue:{}", self.0));
    }
}

/// What a script is told about a lock that another token holds.
struct IfHeldWord<'a>(&'a IfHeld);

impl ToRedisArgs for IfHeldWord<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        match self.0 {
            IfHeld::GiveUp => out.write_arg(b""),
            IfHeld::Wait => out.write_arg(b"w"),
            IfHeld::KeepPlace(place) => {
                out.write_arg_fmt(format_args!("w{}", place.unwrap_or(0)));
            }
            IfHeld::Adopt(token) => out.write_arg_fmt(format_args!("={}", token.as_str())),
        }
    }
}

/// The store on one Redis server.
#[derive(Debug)]
pub(crate) struct RedisStore {
    topology: Single,
}

impl RedisStore {
    /// Does no I/O: the connection is made when it is needed, or by [`connect`](Self::connect).
    pub(crate) fn new(endpoint: Endpoint, warnings: Warnings) -> Result<Self, Error> {
        let topology = Single::new(endpoint, warnings).map_err(|error| {
            let text = "the settings of this Redis client contradict each other: check them";
            Error::new(ErrorKind::Invalid, text).caused_by(Arc::new(error))
        })?;
        Ok(Self { topology })
    }

    /// Connects for the first time; fails at the first obstacle.
    pub(crate) async fn connect(&self) -> Result<(), Error> {
        self.topology.establish().await
    }

    /// Calls one script for a whole batch.
    async fn one<T>(
        &self,
        invocation: Invocation,
        read: impl Fn(Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        let reply = self.topology.node().invoke(&invocation).await?;
        self.answer(reply, read)
    }

    /// Calls a script for each item of a batch, in one write.
    async fn each<T>(
        &self,
        invocations: Vec<Invocation>,
        read: impl Fn(usize, Value) -> Option<T>,
    ) -> Vec<Result<T, StoreError>> {
        let items = invocations.len();
        let answers = match &invocations[..] {
            [invocation] => self.topology.node().invoke(invocation).await.map(|reply| vec![reply]),
            _ => self.topology.node().invoke_all(&invocations).await,
        };
        let read = |(item, reply)| self.answer(reply, |reply| read(item, reply));
        answer_each(
            answers.map(|replies| replies.into_iter().enumerate().map(read).collect()),
            items,
        )
    }

    /// The reply of a script for a whole batch, with one number for each item.
    fn numbers<T>(
        &self,
        reply: Result<Value, StoreError>,
        items: usize,
        read: impl Fn(i64) -> Option<T>,
    ) -> Vec<Result<T, StoreError>> {
        let item = |value| match value {
            Value::Int(number) => read(number),
            _ => None,
        };
        let read = |reply| match reply {
            Value::Array(values) if values.len() == items => {
                Some(values.into_iter().map(|value| self.answer(value, item)).collect())
            }
            _ => None,
        };
        answer_each(reply.and_then(|reply| self.answer(reply, read)), items)
    }

    /// Reads one reply; an answer that makes no sense is an answer that is not known.
    fn answer<T>(&self, reply: Value, read: impl Fn(Value) -> Option<T>) -> Result<T, StoreError> {
        let address = self.topology.node().address();
        match reply {
            Value::ServerError(error) => Err(address.answered_with(error)),
            reply => read(reply).ok_or_else(|| address.makes_no_sense()),
        }
    }
}

impl Store for RedisStore {
    fn acquire<'a>(
        &'a self,
        batch: &'a [AcquireRequest],
    ) -> StoreFuture<'a, Vec<Result<Acquisition, StoreError>>> {
        let (mark, alive) = match self.topology.node().wake_ups() {
            WakeUps::Polling => ("?", ALIVE_POLLING),
            WakeUps::PubSub | WakeUps::Push => ("@", ALIVE),
        };
        let mut invocation = Invocation::of(&ACQUIRE, 2 * batch.len() + 1);
        for request in batch {
            invocation = invocation.arg(&*request.key).arg(QueueOf(&request.key));
        }
        invocation = invocation
            .arg(FENCE)
            .arg(millis(LONGEST_LEASE))
            .arg(millis(CLAIM_WINDOW))
            .arg(millis(alive))
            .arg(mark);
        for request in batch {
            invocation = invocation
                .arg(request.token.as_str())
                .arg(millis(request.lease))
                .arg(IfHeldWord(&request.if_held));
        }
        Box::pin(async move {
            let read = |reply| read_acquired(reply, batch.len());
            let address = self.topology.node().address();
            let answers = self.one(invocation, read).await.map(|answers| {
                let answers = answers.into_iter();
                answers.map(|answer| answer.map_err(|error| address.refused(&error))).collect()
            });
            let answers = answer_each(answers, batch.len());
            if answers.iter().any(|answer| matches!(answer, Ok(Acquisition::Granted { .. }))) {
                self.topology.node().found_fence();
            }
            answers
        })
    }

    fn renew<'a>(
        &'a self,
        batch: &'a [RenewRequest],
    ) -> StoreFuture<'a, Vec<Result<Renewal, StoreError>>> {
        let mut invocation = Invocation::of(&RENEW, 2 * batch.len());
        for request in batch {
            invocation = invocation.arg(&*request.key).arg(QueueOf(&request.key));
        }
        for request in batch {
            invocation = invocation.arg(request.token.as_str()).arg(millis(request.lease));
        }
        // What is answered later than that is answered after the deadline of some lock in it.
        let limit = batch.iter().map(|request| request.lease).min().unwrap_or_default();
        Box::pin(async move {
            let reply = self.topology.node().invoke_patiently(&invocation, limit).await;
            self.numbers(reply, batch.len(), |answer| match answer {
                0 => Some(Renewal::NotOurs),
                1 | 2 => Some(Renewal::Renewed { contended: answer == 2 }),
                _ => None,
            })
        })
    }

    fn release<'a>(
        &'a self,
        batch: &'a [ReleaseRequest],
    ) -> StoreFuture<'a, Vec<Result<Release, StoreError>>> {
        let mut invocation = Invocation::of(&RELEASE, 2 * batch.len());
        for request in batch {
            invocation = invocation.arg(&*request.key).arg(QueueOf(&request.key));
        }
        invocation = invocation.arg(millis(CLAIM_WINDOW));
        for request in batch {
            invocation = invocation.arg(request.token.as_str()).arg(millis(request.keep));
        }
        Box::pin(async move {
            self.numbers(self.topology.node().invoke(&invocation).await, batch.len(), released)
        })
    }

    fn extend<'a>(
        &'a self,
        batch: &'a [ExtendRequest],
    ) -> StoreFuture<'a, Vec<Result<Option<Duration>, StoreError>>> {
        let invocations = batch.iter().map(|request| {
            Invocation::of(&EXTEND, 1)
                .arg(&*request.key)
                .arg(request.token.as_str())
                .arg(millis(request.by))
                .arg(millis(LONGEST_LEASE))
        });
        Box::pin(self.each(invocations.collect(), |_, reply| match reply {
            Value::Int(left) => Some(remaining(left)),
            _ => None,
        }))
    }

    fn holder<'a>(
        &'a self,
        keys: &'a [Arc<str>],
    ) -> StoreFuture<'a, Vec<Result<Option<Holder>, StoreError>>> {
        let invocations =
            keys.iter().map(|key| Invocation::of(&HOLDER, 2).arg(&**key).arg(QueueOf(key)));
        Box::pin(self.each(invocations.collect(), |_, reply| read_holder(reply)))
    }

    fn force_release<'a>(
        &'a self,
        keys: &'a [Arc<str>],
    ) -> StoreFuture<'a, Vec<Result<Release, StoreError>>> {
        let invocations = keys.iter().map(|key| {
            Invocation::of(&FORCE_RELEASE, 2)
                .arg(&**key)
                .arg(QueueOf(key))
                .arg(millis(CLAIM_WINDOW))
        });
        Box::pin(self.each(invocations.collect(), |_, reply| match reply {
            Value::Int(answer) => released(answer),
            _ => None,
        }))
    }

    fn debounce<'a>(
        &'a self,
        batch: &'a [DebounceRequest],
    ) -> StoreFuture<'a, Vec<Result<DebounceReply, StoreError>>> {
        let invocations = batch.iter().map(|request| {
            let limit = request.max_wait.map(|limit| millis(limit).to_string());
            Invocation::of(&DEBOUNCE, 3)
                .arg(&*request.window)
                .arg(&*request.run)
                .arg(FENCE)
                .arg(request.token.as_str())
                .arg(millis(request.age))
                .arg(millis(request.wait))
                .arg(limit.unwrap_or_default())
                .arg(if request.leading { "1" } else { "" })
                .arg(millis(request.lease))
                .arg(millis(request.keep))
                .arg(millis(GRACE))
        });
        Box::pin(self.each(invocations.collect(), |_, reply| read_debounced(reply)))
    }

    fn end_window<'a>(
        &'a self,
        batch: &'a [EndWindowRequest],
    ) -> StoreFuture<'a, Vec<Result<bool, StoreError>>> {
        let invocations = batch.iter().map(|request| {
            let word = match request.end {
                WindowEnd::Flush => "flush",
                WindowEnd::Cancel => "cancel",
            };
            Invocation::of(&END_WINDOW, 1).arg(&*request.window).arg(word)
        });
        Box::pin(self.each(invocations.collect(), |_, reply| match reply {
            Value::Int(waits @ (0 | 1)) => Some(waits == 1),
            _ => None,
        }))
    }

    fn durable<'a>(
        &'a self,
        batch: &'a [DurableRequest],
    ) -> StoreFuture<'a, Vec<Result<DurableReply, StoreError>>> {
        let invocations = batch.iter().map(durable::invocation).collect();
        Box::pin(self.each(invocations, |item, reply| durable::read(&batch[item].step, reply)))
    }

    fn listen<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, WakeUps> {
        Box::pin(self.topology.listen(client, listener))
    }
}

/// An item that failed has the server's error as its answer.
fn read_acquired(reply: Value, items: usize) -> Option<Vec<Result<Acquisition, String>>> {
    let Value::Array(values) = reply else { return None };
    let mut values = values.into_iter();
    let mut fence = fence(&values.next()?)?;
    let answer = |value: Value| match value {
        Value::Int(taken @ (1 | 2)) => {
            fence += 1;
            Some(Ok(Acquisition::Granted { fence: fence - 1, contended: taken == 2 }))
        }
        Value::Array(held) => match &held[..] {
            [Value::Int(left), place, Value::Int(notifies @ (0 | 1))] => {
                Some(Ok(Acquisition::Held {
                    remaining: remaining(*left),
                    place: number(place),
                    notifies: *notifies == 1,
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

fn read_holder(reply: Value) -> Option<Option<Holder>> {
    let values = match reply {
        Value::Nil => return Some(None),
        Value::Array(values) => values,
        _ => return None,
    };
    let [Value::BulkString(token), Value::Int(left), Value::Int(waiters)] = &values[..] else {
        return None;
    };
    // Another client's token may be any bytes.
    let token = Token::from(String::from_utf8_lossy(token).into_owned());
    let waiters = usize::try_from(*waiters).ok()?;
    Some(Some(Holder { token, remaining: remaining(*left), waiters }))
}

fn read_debounced(reply: Value) -> Option<DebounceReply> {
    let Value::Array(values) = reply else { return None };
    let (Value::BulkString(what), rest) = values.split_first()? else { return None };
    match (what.as_slice(), rest) {
        (b"granted", [fence]) => Some(DebounceReply::Granted { fence: self::fence(fence)? }),
        (b"superseded", []) => Some(DebounceReply::Superseded),
        (b"not yet", [Value::Int(left), Value::Int(newest @ (0 | 1))]) => {
            Some(DebounceReply::NotYet { left: remaining(*left)?, newest: *newest == 1 })
        }
        // A run's lock that somebody has made eternal is looked at as often as any other.
        (b"running", [Value::Int(left)]) => {
            Some(DebounceReply::Running(remaining(*left).unwrap_or(LONGEST_LEASE)))
        }
        _ => None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a number of milliseconds means where a negative one means "no end".
fn remaining(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().map(Duration::from_millis)
}

fn released(answer: i64) -> Option<Release> {
    (0..4)
        .contains(&answer)
        .then_some(Release { ours: answer & 1 == 1, handed_over: answer & 2 == 2 })
}

/// A number that a script wrote as text.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// A fence: one that leaves no room for a fencing token is none that a script of ours has drawn.
fn fence(value: &Value) -> Option<u64> {
    const BOUND: u64 = (1 << 53) - 1024;
    number(value).filter(|fence| *fence < BOUND)
}
