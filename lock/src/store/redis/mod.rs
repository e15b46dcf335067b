//! Locks on a Redis server.
//!
//! A lock is a string key that holds its token, as `SET key token NX PX lease` leaves it, so that
//! clients of other libraries that use this pattern can take part. Each operation is one Lua
//! script, in a file of its own beside this one. Time comes only from the server.

mod admission;
mod backoff;
mod batches;
mod codes;
mod decode;
mod encode;
mod endpoint;
#[cfg(any(fuzzing, lock_mutants))]
pub(crate) mod fuzzing;
mod handshake;
mod keys;
mod link;
#[cfg(lock_mutants)]
mod mutants;
mod node;
mod notices;
mod place;
mod protocol;
mod refusal;
mod round_trip;
mod scripts;
mod server_info;
mod servers;
mod slots;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod tokens;
mod topology;
mod trouble;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use lock_core::contract::{
    AcquireRequest, Acquisition, ClaimRequest, ClientRecord, DebounceReply, DebounceRequest,
    Delivery, DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish, EndWindowRequest,
    ExtendRequest, FinishRequest, ForceReleaseRequest, Holder, IntroduceRequest, KeepRequest, Kept,
    Release, ReleaseRequest, RenewRequest, Renewal, ScanPage, ScanRequest, SetAside, StoreError,
    TakeBackRequest, WaitingCalls,
};
use redis::Value;

#[cfg(feature = "tls")]
pub(crate) use self::tls::{ClientCertificate, Roots, TlsSettings};
pub(crate) use self::{
    admission::{Ask, Provider},
    endpoint::Endpoint,
    servers::Servers,
    topology::{Layout, Watched},
};

use self::{
    batches::{Reading, each_or_error, numbers, one, one_for_each, one_for_each_slot},
    keys::Naming,
    node::Terms,
    scripts::Invocation,
    topology::{Making, Topology},
};
use super::{AdminStore, Answers, DebounceStore, DurableStore, Store, StoreFuture};
use crate::{Error, ErrorKind, store::Listener};

/// The store on Redis: one server, a primary that moves, or a Cluster.
#[derive(Debug)]
pub(crate) struct RedisStore {
    topology: Topology,
}

impl RedisStore {
    /// Does no I/O: connections are made when they are needed, or by [`connect`](Self::connect).
    pub(crate) fn new(layout: Layout, servers: Servers) -> Result<Self, Error> {
        let Servers { min_replicas, provider, prefix, warnings } = servers;
        let layout = layout.with_provider(provider)?;
        let topology = Topology::new(layout, Making { min_replicas, warnings, prefix });
        let topology = topology.map_err(|error| {
            let text = "the settings of this Redis client contradict each other: check them";
            Error::new(ErrorKind::Invalid, text).caused_by(Arc::new(error))
        })?;
        Ok(Self { topology })
    }

    /// Connects for the first time; fails on the first error.
    pub(crate) async fn connect(&self) -> Result<(), Error> {
        self.topology.establish().await
    }

    /// Calls a script for each item of a batch, in one write to each node. The engine does not
    /// retry these calls, so they are retried here.
    async fn each<Q, T>(
        &self,
        batch: &[Q],
        in_any_order: bool,
        write: impl Fn(&Q, &Naming) -> Invocation,
        read: impl Fn(Value) -> Option<T>,
    ) -> Vec<Result<T, StoreError>> {
        let calls = |naming: &Naming| one_for_each(batch, |request| write(request, naming));
        let terms = Terms { in_any_order, ..Terms::tried(batch.len()) };
        let reading = Reading { read: one(read), is_grant: |_: &T| false };
        self.topology.perform(calls, batch.len(), terms, reading).await
    }

    /// The same for scripts that may grant a lock; the engine retries these calls.
    async fn each_granting<Q, T>(
        &self,
        batch: &[Q],
        write: impl Fn(&Q, &Naming) -> Invocation,
        read: impl Fn(Value) -> Option<T>,
        lease: impl Fn(&Q) -> Duration,
        is_grant: impl Fn(&T) -> bool,
    ) -> Vec<Result<T, StoreError>> {
        let calls = |naming: &Naming| one_for_each(batch, |request| write(request, naming));
        let terms = Terms { grants: batch.iter().map(lease).min(), ..Terms::default() };
        self.topology
            .perform(calls, batch.len(), terms, Reading { read: one(read), is_grant })
            .await
    }

    /// One page of one node. The cursor is a slot of that node, followed by the node's own cursor.
    async fn scan_page(&self, request: &ScanRequest) -> Result<ScanPage, StoreError> {
        let at = request.cursor.as_deref().and_then(|cursor| cursor.split_once(':'));
        let at = at.and_then(|(slot, cursor)| Some((slot.parse().ok()?, cursor)));
        let (slot, cursor) = match at {
            Some(at) => at,
            None => match self.topology.node_from(0).await? {
                Some(slot) => (slot, "0"),
                None => return Ok(ScanPage::default()),
            },
        };
        let write =
            |request: &ScanRequest, naming: &Naming| encode::scan(request, (slot, cursor), naming);
        let page = self.each(std::slice::from_ref(request), true, write, decode::scanned).await;
        let page = page.into_iter().next();
        let missing = || Err(StoreError::unavailable("the store gave no answer for this item"));
        let (next, names) = page.unwrap_or_else(missing)?;
        let next = match next.as_str() {
            "0" => self.topology.node_from(slot + 1).await?.map(|slot| format!("{slot}:0")),
            next => Some(format!("{slot}:{next}")),
        };
        let naming = self.topology.naming();
        let ids = names.iter().filter_map(|name| request.id_in(naming.untagged(name)));
        Ok(ScanPage::new(ids.map(Into::into).collect(), next.map(Into::into)))
    }
}

impl Store for RedisStore {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        Box::pin(async move {
            let calls = |naming: &Naming| {
                let delivery = |slot| self.topology.delivery(slot);
                one_for_each_slot(
                    batch,
                    naming,
                    |request| &request.key,
                    |batch| encode::acquire(batch, naming, delivery),
                )
            };
            let lease = batch.iter().map(|request| request.lease).min();
            let terms = Terms { grants: lease, ..Terms::default() };
            let is_grant = |answer: &Acquisition| matches!(answer, Acquisition::Granted { .. });
            let reading = Reading { read: each_or_error(decode::acquired), is_grant };
            self.topology.perform(calls, batch.len(), terms, reading).await
        })
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        Box::pin(async move {
            let calls = |naming: &Naming| {
                if naming.is_slotted() {
                    // One lock per call: of two keys, one may have been moved already and the other
                    // not.
                    return one_for_each(batch, |request| encode::renew(&[request], naming));
                }
                one_for_each_slot(
                    batch,
                    naming,
                    |request| &request.key,
                    |batch| encode::renew(batch, naming),
                )
            };
            // An answer that takes longer than this comes after the deadline of some lock in the
            // batch.
            let limit = batch.iter().map(|request| request.lease).min();
            let terms = Terms { renews: limit, in_any_order: true, ..Terms::default() };
            let reading = Reading { read: numbers(decode::renewed), is_grant: |_: &_| false };
            self.topology.perform(calls, batch.len(), terms, reading).await
        })
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        Box::pin(async move {
            let calls = |naming: &Naming| {
                one_for_each_slot(
                    batch,
                    naming,
                    |request| &request.key,
                    |batch| encode::release(batch, naming),
                )
            };
            let reading = Reading { read: numbers(decode::released), is_grant: |_: &_| false };
            self.topology.perform(calls, batch.len(), Terms::default(), reading).await
        })
    }

    fn shard(&self, key: &str) -> usize {
        self.topology.shard(key)
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
        Box::pin(self.each(batch, true, encode::extend, decode::extended))
    }

    fn holder<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<Holder>> {
        Box::pin(async move {
            let calls = |naming: &Naming| {
                let write = |keys: &[&Arc<str>]| encode::holders(keys, naming);
                one_for_each_slot(keys, naming, |key| key, write)
            };
            let reading = Reading { read: each_or_error(decode::holders), is_grant: |_: &_| false };
            let terms = Terms { in_any_order: true, ..Terms::tried(keys.len()) };
            let mut answers = self.topology.perform(calls, keys.len(), terms, reading).await;
            // The lock of a slot that stays half moved still exists, so it is asked about without
            // its queue.
            let is_unknown =
                |item: &usize| matches!(answers[*item], Err(StoreError::Unavailable(_)));
            let unknown: Vec<_> = (0..keys.len()).filter(is_unknown).collect();
            if self.topology.naming().is_slotted() && !unknown.is_empty() {
                let alone: Vec<_> = unknown.iter().map(|item| Arc::clone(&keys[*item])).collect();
                let read = |reply| decode::holders(reply, 1)?.pop()?.ok();
                let again = self.each(&alone, true, encode::holder_alone, read).await;
                for (item, answer) in unknown.into_iter().zip(again) {
                    answers[item] = answer;
                }
            }
            answers
        })
    }

    fn force_release<'a>(&'a self, batch: &'a [ForceReleaseRequest]) -> Answers<'a, Release> {
        let read = |reply| decode::integer(reply).and_then(decode::released);
        Box::pin(self.each(batch, false, encode::force_release, read))
    }

    fn introduce<'a>(&'a self, batch: &'a [IntroduceRequest]) -> Answers<'a, ()> {
        let read = |reply| decode::was_there(reply).map(drop);
        Box::pin(self.each(batch, true, encode::introduce, read))
    }

    fn client<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<ClientRecord>> {
        Box::pin(self.each(keys, true, encode::client, decode::client))
    }

    fn scan<'a>(&'a self, batch: &'a [ScanRequest]) -> Answers<'a, ScanPage> {
        Box::pin(join_all(batch.iter().map(|request| self.scan_page(request))))
    }
}

impl DebounceStore for RedisStore {
    fn register<'a>(&'a self, batch: &'a [DebounceRequest]) -> Answers<'a, DebounceReply> {
        let is_grant = |reply: &DebounceReply| matches!(reply, DebounceReply::Granted { .. });
        let lease = |request: &DebounceRequest| request.lease;
        Box::pin(self.each_granting(batch, encode::register, decode::debounced, lease, is_grant))
    }

    fn end_window<'a>(&'a self, batch: &'a [EndWindowRequest]) -> Answers<'a, bool> {
        Box::pin(self.each(batch, false, encode::end_window, decode::was_there))
    }

    fn due_in<'a>(&'a self, windows: &'a [Arc<str>]) -> Answers<'a, Option<Duration>> {
        Box::pin(self.each(windows, true, encode::due_in, decode::due_in))
    }
}

impl DurableStore for RedisStore {
    fn keep<'a>(&'a self, batch: &'a [KeepRequest]) -> Answers<'a, Kept> {
        Box::pin(self.each(batch, false, encode::keep, decode::kept))
    }

    fn due<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, DueCalls> {
        Box::pin(self.each(batch, true, encode::due, decode::due))
    }

    fn waiting<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, WaitingCalls> {
        Box::pin(self.each(batch, true, encode::waiting, decode::waiting))
    }

    fn claim<'a>(&'a self, batch: &'a [ClaimRequest]) -> Answers<'a, DurableClaim> {
        let lease = |request: &ClaimRequest| request.lease;
        let is_grant = |claim: &DurableClaim| matches!(claim, DurableClaim::Granted { .. });
        Box::pin(self.each_granting(batch, encode::claim, decode::claimed, lease, is_grant))
    }

    fn finish<'a>(&'a self, batch: &'a [FinishRequest]) -> Answers<'a, DurableFinish> {
        Box::pin(self.each(batch, false, encode::finish, decode::finished))
    }

    fn set_aside<'a>(&'a self, books: &'a [DurableBook]) -> Answers<'a, Vec<SetAside>> {
        Box::pin(self.each(books, true, encode::set_aside, decode::set_aside))
    }

    fn take_back<'a>(&'a self, batch: &'a [TakeBackRequest]) -> Answers<'a, bool> {
        Box::pin(self.each(batch, false, encode::take_back, decode::was_there))
    }
}
