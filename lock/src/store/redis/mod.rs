//! Locks on a Redis server.
//!
//! A lock is a string key that holds its token, as `SET key token NX PX lease` leaves it, so that
//! other clients of that pattern take part. Each operation is one Lua script, in a file of its
//! own beside this one; time comes from the server only.

mod admission;
mod backoff;
mod codes;
mod decode;
mod encode;
mod endpoint;
#[cfg(feature = "__fuzzing")]
pub(crate) mod fuzzing;
mod handshake;
mod keys;
mod link;
mod node;
mod notices;
mod place;
mod protocol;
mod refusal;
mod round_trip;
mod scripts;
mod server_info;
mod servers;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod topology;
mod trouble;

use std::{sync::Arc, time::Duration};

use redis::{RedisResult, Value};

#[cfg(feature = "tls")]
pub(crate) use self::tls::{ClientCertificate, Roots, TlsSettings};
pub(crate) use self::{
    admission::{Ask, Provider},
    endpoint::Endpoint,
    servers::Servers,
    topology::Watched,
};

use self::{node::Acknowledgement, scripts::Invocation, topology::Topology};
use super::{AdminStore, Answers, DebounceStore, DurableStore, Store, StoreFuture};
use crate::{
    Error, ErrorKind,
    contract::{
        AcquireRequest, Acquisition, ClaimRequest, DebounceReply, DebounceRequest, Delivery,
        DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish, EndWindowRequest,
        ExtendRequest, FinishRequest, Holder, KeepRequest, Kept, Listener, Release, ReleaseRequest,
        RenewRequest, Renewal, SetAside, StoreError, TakeBackRequest, answer_each,
    },
};

/// The store on a Redis server, or on one after the other.
#[derive(Debug)]
pub(crate) struct RedisStore {
    topology: Topology,
}

impl RedisStore {
    /// One server. Does no I/O: the connection is made when it is needed, or by
    /// [`connect`](Self::connect).
    pub(crate) fn new(endpoint: Endpoint, servers: Servers) -> Result<Self, Error> {
        let Servers { min_replicas, provider, warnings } = servers;
        let endpoint = endpoint.with_provider(provider)?;
        Self::of(Topology::single(endpoint, min_replicas, warnings))
    }

    /// A primary that Sentinels watch; like [`new`](Self::new).
    pub(crate) fn watched(mut watched: Watched, servers: Servers) -> Result<Self, Error> {
        let Servers { min_replicas, provider, warnings } = servers;
        watched.server = watched.server.with_provider(provider)?;
        Self::of(Topology::watched(watched, min_replicas, warnings))
    }

    fn of(topology: RedisResult<Topology>) -> Result<Self, Error> {
        let topology = topology.map_err(|error| {
            let text = "the settings of this Redis client contradict each other: check them";
            Error::new(ErrorKind::Invalid, text).caused_by(Arc::new(error))
        })?;
        Ok(Self { topology })
    }

    /// Connects for the first time; fails at the first obstacle.
    pub(crate) async fn connect(&self) -> Result<(), Error> {
        self.topology.establish().await
    }

    /// Calls a script for each item of a batch, in one write.
    fn each<'a, Q, T>(
        &'a self,
        batch: &'a [Q],
        write: impl Fn(&Q) -> Invocation,
        read: impl Fn(Value) -> Option<T> + Send + Sync + 'a,
    ) -> impl Future<Output = Vec<Result<T, StoreError>>> + Send + 'a
    where
        T: Send + 'a,
        Q: Sync,
    {
        self.each_granting(batch, write, read, None, |_| false)
    }

    /// The same where a script may grant a lock, the shortest of which has this lease.
    // Not an `async fn`: the call is written when it is made, like every other.
    fn each_granting<'a, Q, T>(
        &'a self,
        batch: &'a [Q],
        write: impl Fn(&Q) -> Invocation,
        read: impl Fn(Value) -> Option<T> + Send + Sync + 'a,
        lease: Option<Duration>,
        is_grant: impl Fn(&T) -> bool + Send + 'a,
    ) -> impl Future<Output = Vec<Result<T, StoreError>>> + Send + 'a
    where
        T: Send + 'a,
        Q: Sync,
    {
        let invocations: Vec<_> = batch.iter().map(write).collect();
        async move {
            let node = self.topology.node();
            let answers = match &invocations[..] {
                [invocation] => {
                    let answer = node.invoke_granting(invocation, lease).await;
                    answer.map(|(reply, acknowledgement)| (vec![reply], acknowledgement))
                }
                _ => node.invoke_all(&invocations, lease).await,
            };
            let read = |reply| self.answer(reply, &read);
            let answers = answers.map(|(replies, acknowledgement)| {
                (replies.into_iter().map(read).collect(), acknowledgement)
            });
            acknowledged(answers, batch.len(), is_grant).await
        }
    }

    /// The reply of a script for a whole batch, with one number for each item.
    fn numbers<T>(
        &self,
        reply: Result<Value, StoreError>,
        items: usize,
        read: impl Fn(i64) -> Option<T>,
    ) -> Vec<Result<T, StoreError>> {
        let item = |value| decode::integer(value).and_then(&read);
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
        let address = || self.topology.node().address();
        match reply {
            Value::ServerError(error) => Err(address().answered_with(error)),
            reply => read(reply).ok_or_else(|| address().makes_no_sense()),
        }
    }
}

impl Store for RedisStore {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        let invocation = encode::acquire(batch, self.topology.node().delivery());
        Box::pin(async move {
            let read = |reply| decode::acquired(reply, batch.len());
            let node = self.topology.node();
            let lease = batch.iter().map(|request| request.lease).min();
            let answers = match node.invoke_granting(&invocation, lease).await {
                Ok((reply, acknowledgement)) => self.answer(reply, read).map(|answers| {
                    let refused = |error: String| node.address().refused(&error);
                    let answers = answers.into_iter().map(|answer| answer.map_err(refused));
                    (answers.collect::<Vec<_>>(), acknowledgement)
                }),
                Err(error) => Err(error),
            };
            let is_grant = |answer: &Acquisition| matches!(answer, Acquisition::Granted { .. });
            if let Ok((answers, _)) = &answers
                && answers.iter().flatten().any(is_grant)
            {
                node.found_fence();
            }
            acknowledged(answers, batch.len(), is_grant).await
        })
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        let invocation = encode::renew(batch);
        // What is answered later than that is answered after the deadline of some lock in it.
        let limit = batch.iter().map(|request| request.lease).min().unwrap_or_default();
        Box::pin(async move {
            let reply = self.topology.renewals().invoke_patiently(&invocation, limit).await;
            self.numbers(reply, batch.len(), decode::renewed)
        })
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        let invocation = encode::release(batch);
        Box::pin(async move {
            let reply = self.topology.node().invoke(&invocation).await;
            self.numbers(reply, batch.len(), decode::released)
        })
    }

    fn subscribe<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, Delivery> {
        Box::pin(self.topology.subscribe(client, listener))
    }

    fn admin(&self) -> Option<&dyn AdminStore> {
        Some(self)
    }

    fn debounce(&self) -> Option<&dyn DebounceStore> {
        Some(self)
    }

    fn durable(&self) -> Option<&dyn DurableStore> {
        Some(self)
    }
}

impl AdminStore for RedisStore {
    fn extend<'a>(&'a self, batch: &'a [ExtendRequest]) -> Answers<'a, Option<Duration>> {
        Box::pin(self.each(batch, encode::extend, decode::extended))
    }

    fn holder<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<Holder>> {
        Box::pin(self.each(keys, encode::holder, decode::holder))
    }

    fn force_release<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Release> {
        let read = |reply| decode::integer(reply).and_then(decode::released);
        Box::pin(self.each(keys, encode::force_release, read))
    }
}

impl DebounceStore for RedisStore {
    fn register<'a>(&'a self, batch: &'a [DebounceRequest]) -> Answers<'a, DebounceReply> {
        let lease = batch.iter().map(|request| request.lease).min();
        let is_grant = |reply: &DebounceReply| matches!(reply, DebounceReply::Granted { .. });
        Box::pin(self.each_granting(batch, encode::register, decode::debounced, lease, is_grant))
    }

    fn end_window<'a>(&'a self, batch: &'a [EndWindowRequest]) -> Answers<'a, bool> {
        Box::pin(self.each(batch, encode::end_window, decode::was_there))
    }
}

impl DurableStore for RedisStore {
    fn keep<'a>(&'a self, batch: &'a [KeepRequest]) -> Answers<'a, Kept> {
        Box::pin(self.each(batch, encode::keep, decode::kept))
    }

    fn due<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, DueCalls> {
        Box::pin(self.each(batch, encode::due, decode::due))
    }

    fn claim<'a>(&'a self, batch: &'a [ClaimRequest]) -> Answers<'a, DurableClaim> {
        let lease = batch.iter().map(|request| request.lease).min();
        let is_grant = |claim: &DurableClaim| matches!(claim, DurableClaim::Granted { .. });
        Box::pin(self.each_granting(batch, encode::claim, decode::claimed, lease, is_grant))
    }

    fn finish<'a>(&'a self, batch: &'a [FinishRequest]) -> Answers<'a, DurableFinish> {
        Box::pin(self.each(batch, encode::finish, decode::finished))
    }

    fn set_aside<'a>(&'a self, books: &'a [DurableBook]) -> Answers<'a, Vec<SetAside>> {
        Box::pin(self.each(books, encode::set_aside, decode::set_aside))
    }

    fn take_back<'a>(&'a self, batch: &'a [TakeBackRequest]) -> Answers<'a, bool> {
        Box::pin(self.each(batch, encode::take_back, decode::was_there))
    }
}

/// The answers to a batch, with one for each item: a grant that too few replicas have is one that is
/// not known, so that the engine undoes it, or asks for it again.
async fn acknowledged<T>(
    answers: Result<(Vec<Result<T, StoreError>>, Acknowledgement), StoreError>,
    items: usize,
    is_grant: impl Fn(&T) -> bool,
) -> Vec<Result<T, StoreError>> {
    let (mut answers, acknowledgement) = match answers {
        Ok((answers, acknowledgement)) => (answer_each(Ok(answers), items), acknowledgement),
        Err(error) => return answer_each(Err(error), items),
    };
    if answers.iter().flatten().any(&is_grant)
        && let Err(error) = acknowledgement.arrived().await
    {
        for answer in &mut answers {
            if answer.as_ref().is_ok_and(&is_grant) {
                *answer = Err(error.clone());
            }
        }
    }
    answers
}
