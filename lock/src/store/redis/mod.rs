//! Locks on a Redis server.
//!
//! A lock is a string key that holds its token, as `SET key token NX PX lease` leaves it, so that
//! other clients of that pattern take part. Each operation is one Lua script, in a file of its
//! own beside this one; time comes from the server only.

mod connection;
mod durable;
#[cfg(feature = "__fuzzing")]
pub(crate) mod fuzzing;
mod script;
mod wake;

use std::{sync::Arc, time::Duration};

use redis::{Client, RedisWrite, ToRedisArgs, Value};

use self::{
    connection::{CALL_LIMIT, Connection, HEALTHY},
    script::{
        ACQUIRE, DEBOUNCE, END_WINDOW, EXTEND, FORCE_RELEASE, HOLDER, Invocation, RELEASE, RENEW,
    },
};
use super::{
    AcquireRequest, Acquisition, CLAIM_WINDOW, DebounceReply, DebounceRequest, DurableReply,
    DurableRequest, Holder, IfHeld, Listener, Release, ReleaseRequest, RenewRequest, Renewal,
    Store, StoreError, StoreFuture, WakeUps, WindowEnd,
};
use crate::{
    Error, ErrorKind, Token,
    core::{debounce::GRACE, queue::HEARTBEAT},
    limits::LONGEST_LEASE,
    warning::Warnings,
};

/// The counter that fences are drawn from: one per database, and the only key without an expiry.
/// No id can name it, for none may begin with a tilde, and no prefix may contain one.
const FENCE: &str = "~fence";

/// A waiter that has not been heard of for so long is dead, if its client listens: it looks at
/// least every [`HEARTBEAT`](crate::core::queue::HEARTBEAT).
const ALIVE: Duration = Duration::from_millis(2 * HEARTBEAT.as_millis() as u64);

/// The same if its client polls, which it does several times a second.
const ALIVE_POLLING: Duration = Duration::from_secs(2);

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
    connection: Arc<Connection>,
}

impl RedisStore {
    pub(crate) async fn connect(client: Client, warnings: Warnings) -> Result<Self, Error> {
        let connection = Connection::establish(client, warnings).await.map_err(connect_error)?;
        Ok(Self { connection })
    }

    async fn one<T>(
        &self,
        invocation: Invocation,
        read: impl Fn(Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        self.within(CALL_LIMIT, invocation, read).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        invocation: Invocation,
        read: impl Fn(Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        answer(self.connection.invoke(&invocation, limit).await?, read)
    }

    /// Calls one script for a whole batch; its reply has one number for each item.
    async fn all<T>(
        &self,
        invocation: Invocation,
        items: usize,
        limit: Duration,
        read: impl Fn(i64) -> Option<T>,
    ) -> Vec<Result<T, StoreError>> {
        let item = |value| match value {
            Value::Int(number) => read(number),
            _ => None,
        };
        let read = |reply| match reply {
            Value::Array(values) if values.len() == items => {
                Some(values.into_iter().map(|value| answer(value, item)).collect())
            }
            _ => None,
        };
        for_each(self.within(limit, invocation, read).await, items)
    }
}

/// A call that failed has failed for each item of its batch.
fn for_each<T>(
    answers: Result<Vec<Result<T, StoreError>>, StoreError>,
    items: usize,
) -> Vec<Result<T, StoreError>> {
    answers.unwrap_or_else(|error| (0..items).map(|_| Err(error.clone())).collect())
}

impl Store for RedisStore {
    fn acquire<'a>(
        &'a self,
        batch: &'a [AcquireRequest],
    ) -> StoreFuture<'a, Vec<Result<Acquisition, StoreError>>> {
        let (mark, alive) = match self.connection.wake_ups() {
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
            let answers = for_each(self.one(invocation, read).await, batch.len());
            if answers.iter().any(|answer| matches!(answer, Ok(Acquisition::Granted { .. }))) {
                self.connection.has_fence();
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
        // A renewal that hangs must leave time for others in the two thirds of the lease that are
        // left when it is sent; but not so little that a slow link could never answer.
        let shortest = batch.iter().map(|request| request.lease).min().unwrap_or(CALL_LIMIT);
        let limit = (shortest / 6).max(HEALTHY).min(shortest / 3).min(CALL_LIMIT);
        Box::pin(self.all(invocation, batch.len(), limit, |answer| match answer {
            0 => Some(Renewal::NotOurs),
            1 | 2 => Some(Renewal::Renewed { contended: answer == 2 }),
            _ => None,
        }))
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
        Box::pin(self.all(invocation, batch.len(), CALL_LIMIT, released))
    }

    fn extend<'a>(
        &'a self,
        key: &'a str,
        token: &'a Token,
        by: Duration,
    ) -> StoreFuture<'a, Result<Option<Duration>, StoreError>> {
        let invocation = Invocation::of(&EXTEND, 1)
            .arg(key)
            .arg(token.as_str())
            .arg(millis(by))
            .arg(millis(LONGEST_LEASE));
        Box::pin(self.one(invocation, |reply| match reply {
            Value::Int(left) => Some(remaining(left)),
            _ => None,
        }))
    }

    fn holder<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Result<Option<Holder>, StoreError>> {
        let invocation = Invocation::of(&HOLDER, 2).arg(key).arg(QueueOf(key));
        Box::pin(self.one(invocation, read_holder))
    }

    fn force_release<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Result<Release, StoreError>> {
        let invocation =
            Invocation::of(&FORCE_RELEASE, 2).arg(key).arg(QueueOf(key)).arg(millis(CLAIM_WINDOW));
        Box::pin(self.one(invocation, |reply| match reply {
            Value::Int(answer) => released(answer),
            _ => None,
        }))
    }

    fn debounce<'a>(
        &'a self,
        request: &'a DebounceRequest,
    ) -> StoreFuture<'a, Result<DebounceReply, StoreError>> {
        let limit = request.max_wait.map(|limit| millis(limit).to_string());
        let invocation = Invocation::of(&DEBOUNCE, 3)
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
            .arg(millis(GRACE));
        Box::pin(self.one(invocation, read_debounced))
    }

    fn end_window<'a>(
        &'a self,
        window: &'a str,
        end: WindowEnd,
    ) -> StoreFuture<'a, Result<bool, StoreError>> {
        let word = match end {
            WindowEnd::Flush => "flush",
            WindowEnd::Cancel => "cancel",
        };
        let invocation = Invocation::of(&END_WINDOW, 1).arg(window).arg(word);
        Box::pin(self.one(invocation, |reply| match reply {
            Value::Int(waits @ (0 | 1)) => Some(waits == 1),
            _ => None,
        }))
    }

    fn durable<'a>(
        &'a self,
        request: &'a DurableRequest,
    ) -> StoreFuture<'a, Result<DurableReply, StoreError>> {
        let read = |reply| durable::read(&request.step, reply);
        Box::pin(self.one(durable::invocation(request), read))
    }

    fn listen<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, WakeUps> {
        Box::pin(self.connection.listen(client, listener))
    }
}

fn read_acquired(reply: Value, items: usize) -> Option<Vec<Result<Acquisition, StoreError>>> {
    let Value::Array(values) = reply else { return None };
    let mut values = values.into_iter();
    let mut fence = fence(&values.next()?)?;
    let answer = |value: Value| match value {
        Value::Int(taken @ (1 | 2)) => {
            fence += 1;
            Some(Ok(Acquisition::Granted { fence: fence - 1, contended: taken == 2 }))
        }
        Value::Array(held) => match &held[..] {
            [Value::Int(left), place] => {
                Some(Ok(Acquisition::Held { remaining: remaining(*left), place: number(place) }))
            }
            _ => None,
        },
        Value::BulkString(error) => {
            Some(Err(StoreError::rejected(String::from_utf8_lossy(&error).into_owned())))
        }
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

/// Reads one reply; an answer that makes no sense is an answer that is not known.
fn answer<T>(reply: Value, read: impl Fn(Value) -> Option<T>) -> Result<T, StoreError> {
    match reply {
        Value::ServerError(error) => {
            // The server is there, but cannot serve yet, or for the moment: worth another try.
            let passing =
                ["LOADING", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS"];
            let passing = passing.contains(&error.code());
            // A server without scripts repeats the command, and with it the token.
            let error: Arc<dyn std::error::Error + Send + Sync> = match error.details() {
                Some(details) if details.starts_with("unknown command") => Arc::from(Box::from(
                    "this server does not know EVALSHA, which every operation needs",
                )),
                _ => Arc::new(redis::RedisError::from(error)),
            };
            Err(if passing { StoreError::Unavailable(error) } else { StoreError::Rejected(error) })
        }
        reply => read(reply).ok_or_else(|| {
            StoreError::unavailable("the server's reply is none that this script gives")
        }),
    }
}

/// What to tell about a first connection that failed. Redis's own words carry no password.
fn connect_error(error: redis::RedisError) -> Error {
    use redis::{ErrorKind as RedisErrorKind, ServerErrorKind};

    let kind = match error.kind() {
        RedisErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown)
        | RedisErrorKind::Io => ErrorKind::Unavailable,
        RedisErrorKind::InvalidClientConfig => ErrorKind::Invalid,
        _ => ErrorKind::Rejected,
    };
    let message = match kind {
        ErrorKind::Unavailable => format!(
            "the Redis server cannot be reached ({error}): check host, port and TLS, and that it runs"
        ),
        ErrorKind::Invalid => format!("this connection cannot be made: {error}"),
        _ => format!(
            "the Redis server refused the connection ({error}): check user, password and database"
        ),
    };
    Error::new(kind, message).caused_by(Some(Arc::new(error)))
}
