//! Which node serves a key.
//!
//! The store holds a `Topology`, which finds the node of each call and does what concerns all
//! nodes: one server, a primary that moves, or the nodes of a Cluster. Nodes, and what they know
//! about their servers, outlive a change of any of these.

mod calls;
mod cluster;
mod discovery;
mod layout;
mod map;
mod one;
mod recovery;
mod redirect;
mod reports;
mod sentinels;
mod words;

use std::sync::{Arc, OnceLock};

use lock_core::contract::{Delivery, StoreError};
use redis::{RedisResult, Value};

pub(super) use self::{
    calls::{Call, Items, Outcome, Part, Parts, Route},
    layout::Making,
};
use self::{cluster::Cluster, one::One};
pub(crate) use self::{layout::Layout, sentinels::Watched};
use super::{keys::Naming, node::Terms, slots::Slot};
use crate::{Error, store::Listener};

/// The nodes of a store.
#[derive(Debug)]
pub(super) struct Topology {
    /// How keys are named if all keys of a call have to be in one slot.
    slotted: Naming,
    making: Making,
    /// The node that has every key, unless it turns out to belong to a Cluster.
    one: Option<One>,
    cluster: OnceLock<Cluster>,
    subscription: OnceLock<(String, Listener)>,
}

/// What currently has the keys.
enum Nodes<'a> {
    One(&'a One),
    Cluster(&'a Cluster),
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
        let slotted = Naming::Slotted { prefix: Arc::clone(&making.prefix) };
        let cluster = cluster.map(OnceLock::from).unwrap_or_default();
        Ok(Self { slotted, making, one, cluster, subscription: OnceLock::new() })
    }

    /// The node that has every key, or the Cluster.
    fn current(&self) -> Nodes<'_> {
        match &self.one {
            Some(one) if !one.of_cluster() => Nodes::One(one),
            Some(one) => Nodes::Cluster(self.cluster.get_or_init(|| {
                let cluster = Cluster::new(one.retire().into_iter().collect(), self.making.clone());
                // They were valid for a standalone node.
                let cluster = cluster.expect("BUG: the settings of a client contradict each other");
                if let Some((client, listener)) = self.subscription.get() {
                    cluster.will_listen(client, listener);
                }
                cluster
            })),
            None => {
                let cluster = self.cluster.get();
                Nodes::Cluster(cluster.expect("BUG: neither one node nor a Cluster"))
            }
        }
    }

    /// How keys are named.
    pub(super) fn naming(&self) -> &Naming {
        match self.current() {
            Nodes::One(one) if !one.is_proxy() => &Naming::Plain,
            _ => &self.slotted,
        }
    }

    /// Which part of the store a key is in: another part may be out of reach while this one is not.
    pub(super) fn shard(&self, key: &str) -> usize {
        match self.current() {
            Nodes::One(_) => 0,
            Nodes::Cluster(cluster) => cluster.shard(self.slotted.home(key).slot()),
        }
    }

    /// A slot of the next node, with nodes in the order of their first slots: the first of these
    /// slots that is not below this one. `None` after the last node.
    pub(super) async fn node_from(&self, slot: Slot) -> Result<Option<Slot>, StoreError> {
        match self.current() {
            Nodes::One(_) => Ok((slot == 0).then_some(0)),
            Nodes::Cluster(cluster) => {
                discovery::begin(cluster);
                cluster.node_from(slot).await
            }
        }
    }

    /// How notices about the locks of a slot currently travel.
    pub(super) fn delivery(&self, slot: Slot) -> Delivery {
        match self.current() {
            Nodes::One(one) => one.node().delivery(),
            Nodes::Cluster(cluster) => cluster.delivery_in(slot),
        }
    }

    /// Splits calls by the nodes that they go to. The gate that is returned with them has to be
    /// held until each part has begun: then calls about one key are sent in the order in which they
    /// came.
    pub(super) async fn parts(
        &self,
        calls: Vec<Call>,
        renews: bool,
    ) -> Result<Parts<'_>, StoreError> {
        match self.current() {
            Nodes::One(one) => {
                let parts = vec![Part { route: one.route(renews), calls }];
                Ok(Parts { parts, gate: None })
            }
            Nodes::Cluster(cluster) => {
                discovery::begin(cluster);
                cluster.parts(calls, renews).await
            }
        }
    }

    /// Follows up a call to which its node has given this reply. The call is sent again if the node
    /// has not carried it out and says where to, or to come again. `None` if the reply stands.
    pub(super) async fn follow(
        &self,
        route: &Route,
        call: &Call,
        reply: &Value,
        terms: Terms,
    ) -> Option<Outcome> {
        let cluster = self.cluster.get()?;
        cluster.follow(route, call, reply, terms).await
    }

    /// Connects to all nodes for the first time; fails on the first error.
    pub(super) async fn establish(&self) -> Result<(), Error> {
        if let Nodes::One(one) = self.current() {
            let outcome = one.establish().await;
            if outcome.is_ok() || !one.of_cluster() {
                return outcome;
            }
        }
        match self.current() {
            Nodes::One(_) => Ok(()),
            Nodes::Cluster(cluster) => {
                discovery::begin(cluster);
                cluster.establish().await
            }
        }
    }

    /// Sends the notices of this client to the listener, from all nodes and from now on.
    pub(super) async fn subscribe(&self, client: &str, listener: Listener) -> Delivery {
        let _ = self.subscription.set((client.to_owned(), listener.clone()));
        match self.current() {
            Nodes::One(one) => one.node().subscribe(client, listener).await,
            Nodes::Cluster(cluster) => cluster.subscribe(client, &listener).await,
        }
    }
}
