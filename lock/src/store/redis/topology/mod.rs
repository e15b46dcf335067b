//! Which node serves a key.
//!
//! The store holds one type of this module, which answers the node of each call and does what
//! concerns all nodes: one server, a primary that moves, or the nodes of a Cluster. Nodes, and what
//! they know of their servers, outlive a change of any of these.

mod cluster;
mod discovery;
mod map;
mod one;
mod redirect;
mod reports;
mod sentinels;

use std::sync::{Arc, OnceLock};

use redis::RedisResult;
use tokio::sync::{MutexGuard, watch};

pub(crate) use self::sentinels::Watched;
use self::{
    cluster::{Cluster, Shard},
    map::Peer,
    one::One,
};
use super::{
    admission::Provider,
    endpoint::Endpoint,
    keys::Naming,
    node::{Acknowledgement, Node, Terms},
    place::Places,
    scripts::Invocation,
    slots::Slot,
    trouble::Address,
};
use crate::{
    Error,
    contract::{Delivery, Listener, StoreError},
    warning::Warnings,
};

/// How the servers are laid out, and where to begin.
pub(crate) enum Layout {
    /// One server, or whatever Cluster it turns out to be a node of.
    One(Endpoint),
    /// Something that leads each call to the server which has its keys, if those are in one slot.
    Proxy(Endpoint),
    Watched(Watched),
    /// Nodes of a Cluster, which know the others.
    Cluster(Vec<Endpoint>),
}

impl Layout {
    /// The same with credentials that change.
    pub(super) fn with_provider(self, provider: Option<Provider>) -> Result<Self, Error> {
        let with = |endpoint: Endpoint| endpoint.with_provider(provider.clone());
        Ok(match self {
            Self::One(endpoint) => Self::One(with(endpoint)?),
            Self::Proxy(endpoint) => Self::Proxy(with(endpoint)?),
            Self::Watched(watched) => {
                Self::Watched(Watched { server: with(watched.server)?, ..watched })
            }
            Self::Cluster(seeds) => {
                Self::Cluster(seeds.into_iter().map(with).collect::<Result<_, _>>()?)
            }
        })
    }
}

/// How the nodes are made, whatever leads to them.
#[derive(Clone, Debug)]
pub(super) struct Making {
    pub(super) min_replicas: usize,
    pub(super) warnings: Warnings,
    pub(super) prefix: Arc<str>,
}

impl Making {
    /// The nodes of one server: one for all calls, and another for renewals, where grants wait for
    /// replicas on the first: a renewal must not stand behind that. Nothing else could overtake what
    /// it must not: a renewal makes no key, and one that comes behind its release finds that the lock
    /// is not its token's.
    fn nodes(&self, places: &Places) -> (Arc<Node>, Option<Arc<Node>>) {
        let node = || Node::new(places.clone(), self.min_replicas, self.warnings.clone());
        (node(), (self.min_replicas > 0).then(node))
    }
}

/// The nodes of a store.
#[derive(Debug)]
pub(super) struct Topology {
    naming: Naming,
    making: Making,
    /// The node that has every key, unless it turns out to belong to a Cluster.
    one: Option<One>,
    cluster: OnceLock<Cluster>,
    subscription: OnceLock<(String, Listener)>,
}

/// Calls that go to one node, in one write.
pub(super) struct Part {
    pub(super) route: Route,
    pub(super) calls: Vec<Call>,
}

/// One call of a script, and the items of its batch that it is about.
pub(super) struct Call {
    pub(super) invocation: Invocation,
    pub(super) items: Items,
    /// How many calls were sent for its slot, this one included.
    sent: u32,
}

impl Call {
    pub(super) fn of(invocation: Invocation, items: Items) -> Self {
        Self { invocation, items, sent: 0 }
    }
}

impl AsRef<Invocation> for Call {
    fn as_ref(&self) -> &Invocation {
        &self.invocation
    }
}

/// Which items of a batch.
pub(super) enum Items {
    /// The first so many: all of them.
    All(usize),
    One(usize),
    Some(Vec<usize>),
}

impl Items {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::All(count) => *count,
            Self::One(_) => 1,
            Self::Some(items) => items.len(),
        }
    }

    /// The number of one of them in the batch.
    pub(super) fn number(&self, item: usize) -> usize {
        match self {
            Self::All(_) => item,
            Self::One(number) => *number,
            Self::Some(items) => items[item],
        }
    }
}

/// The way to the node of a part.
pub(super) struct Route {
    node: Arc<Node>,
    /// Where it is among the nodes of a Cluster.
    peer: Option<Peer>,
    /// Says that the node is to be asked no longer.
    retired: Option<watch::Receiver<bool>>,
}

impl Route {
    fn to_shard(shard: &Shard, renews: bool) -> Self {
        let node = shard.renewals.as_ref().filter(|_| renews).unwrap_or(&shard.node);
        Self {
            node: Arc::clone(node),
            peer: Some(shard.peer.clone()),
            retired: Some(shard.retired.subscribe()),
        }
    }

    pub(super) fn address(&self) -> Address {
        self.node.address()
    }

    /// A fence was drawn at the node.
    pub(super) fn found_fence(&self) {
        self.node.found_fence();
    }

    /// As [`Node::invoke`]; ends at once where the node is to be asked no longer. What was sent may
    /// have been done by then, or may not.
    pub(super) async fn invoke<I: AsRef<Invocation>>(
        &mut self,
        calls: &[I],
        terms: Terms,
    ) -> Result<(Vec<redis::Value>, Acknowledgement), StoreError> {
        let Some(retired) = &mut self.retired else { return self.node.invoke(calls, terms).await };
        let is_retired = async {
            // The one who says it is gone: so is the node.
            let _ = retired.wait_for(|retired| *retired).await;
        };
        tokio::select! {
            biased;
            outcome = self.node.invoke(calls, terms) => outcome,
            () = is_retired => Err(self.node.address().moved()),
        }
    }
}

/// What is sent, part by part, and what is to be held until it is.
pub(super) struct Parts<'a> {
    pub(super) parts: Vec<Part>,
    pub(super) gate: Option<MutexGuard<'a, ()>>,
}

impl Topology {
    /// Does no I/O.
    pub(super) fn new(layout: Layout, making: Making) -> RedisResult<Self> {
        let (one, cluster) = match layout {
            Layout::One(endpoint) => (Some(One::alone(endpoint, &making)?), None),
            Layout::Proxy(endpoint) => (Some(One::proxy(endpoint, &making)?), None),
            Layout::Watched(watched) => (Some(One::watched(watched, &making)?), None),
            Layout::Cluster(seeds) => (None, Some(Cluster::new(seeds, making.clone())?)),
        };
        let naming = match &one {
            Some(one) if !one.is_proxy() => Naming::Plain,
            _ => Naming::Slotted { prefix: Arc::clone(&making.prefix) },
        };
        let cluster = cluster.map(OnceLock::from).unwrap_or_default();
        Ok(Self { naming, making, one, cluster, subscription: OnceLock::new() })
    }

    /// The node that has every key, or the Cluster.
    fn current(&self) -> Result<&One, &Cluster> {
        match &self.one {
            Some(one) if !one.of_cluster() => Ok(one),
            Some(one) => Err(self.cluster.get_or_init(|| {
                let cluster = Cluster::new(one.retire().into_iter().collect(), self.making.clone());
                // They were good for a node by itself.
                let cluster = cluster.expect("BUG: the settings of a client contradict each other");
                if let Some((client, listener)) = self.subscription.get() {
                    cluster.will_listen(client, listener);
                }
                cluster
            })),
            None => Err(self.cluster.get().expect("BUG: neither one node nor a Cluster")),
        }
    }

    /// How keys are named.
    pub(super) fn naming(&self) -> Naming {
        match self.current() {
            Ok(_) => self.naming.clone(),
            Err(_) => Naming::Slotted { prefix: Arc::clone(&self.making.prefix) },
        }
    }

    /// Which part of the store a key is in: those of another one may be out of reach while this one
    /// is not.
    pub(super) fn shard(&self, key: &str) -> usize {
        match self.current() {
            Ok(_) => 0,
            Err(cluster) => cluster.shard(self.naming().home(key).slot()),
        }
    }

    /// How notices about the locks of a slot travel at the moment.
    pub(super) fn delivery(&self, slot: Slot) -> Delivery {
        match self.current() {
            Ok(one) => one.node().delivery(),
            Err(cluster) => cluster.delivery_in(slot),
        }
    }

    /// Splits calls by the nodes which they go to. What is returned with them is to be held until each
    /// part has begun: then calls about one key are sent in the order in which they came.
    pub(super) async fn parts(
        &self,
        calls: Vec<Call>,
        renews: bool,
    ) -> Result<Parts<'_>, StoreError> {
        match self.current() {
            Ok(one) => {
                let parts = vec![Part { route: one.route(renews), calls }];
                Ok(Parts { parts, gate: None })
            }
            Err(cluster) => cluster.parts(calls, renews).await,
        }
    }

    /// What comes of a call that its node has answered so: it is sent again if the node has not done
    /// it, and says where to or to come again. `None` where the answer stands.
    pub(super) async fn follow(
        &self,
        route: &Route,
        call: &Call,
        reply: &redis::Value,
        terms: Terms,
    ) -> Option<(Result<(redis::Value, Acknowledgement), StoreError>, Address)> {
        let cluster = self.cluster.get()?;
        cluster.follow(route, call, reply, terms).await
    }

    /// Connects to all nodes for the first time; fails at the first obstacle.
    pub(super) async fn establish(&self) -> Result<(), Error> {
        if let Ok(one) = self.current() {
            let outcome = one.establish().await;
            if outcome.is_ok() || !one.of_cluster() {
                return outcome;
            }
        }
        match self.current() {
            Ok(_) => Ok(()),
            Err(cluster) => cluster.establish().await,
        }
    }

    /// Sends the notices of this client to the listener, from all nodes and from now on.
    pub(super) async fn subscribe(&self, client: &str, listener: Listener) -> Delivery {
        let _ = self.subscription.set((client.to_owned(), listener.clone()));
        match self.current() {
            Ok(one) => one.node().subscribe(client, listener).await,
            Err(cluster) => cluster.subscribe(client, &listener).await,
        }
    }
}
