//! Which node serves a key.
//!
//! The store holds one type of this module, which answers the node of a key and does what concerns
//! all nodes: one server, or a primary that moves. A map of slots (Cluster) is to be a file beside
//! them. Nodes, and what they know of their servers, outlive a change of either.

mod reports;
mod sentinels;

use std::sync::Arc;

use redis::RedisResult;

use self::sentinels::Sentinels;
pub(crate) use self::sentinels::Watched;
use super::{
    endpoint::Endpoint,
    node::Node,
    place::{Place, Places},
};
use crate::{
    Error,
    contract::{Delivery, Listener},
    warning::Warnings,
};

/// One node, which has every key: at an address that does not change, or wherever Sentinels say.
#[derive(Debug)]
pub(super) struct Topology {
    node: Arc<Node>,
    /// The same server over a link of its own, where grants wait for replicas on the other one: a
    /// renewal must not stand behind that. Nothing else could overtake what it must not: a renewal
    /// makes no key, and one that comes behind its release finds that the lock is not its token's.
    renewals: Option<Arc<Node>>,
    sentinels: Option<Sentinels>,
}

impl Topology {
    pub(super) fn single(
        endpoint: Endpoint,
        min_replicas: usize,
        warnings: Warnings,
    ) -> RedisResult<Self> {
        let places = Places::only(Place::of(endpoint)?);
        Ok(Self::of(places, min_replicas, warnings, None))
    }

    pub(super) fn watched(
        watched: Watched,
        min_replicas: usize,
        warnings: Warnings,
    ) -> RedisResult<Self> {
        let (sentinels, places) = Sentinels::new(watched, warnings.events().clone())?;
        Ok(Self::of(places, min_replicas, warnings, Some(sentinels)))
    }

    fn of(
        places: Places,
        min_replicas: usize,
        warnings: Warnings,
        sentinels: Option<Sentinels>,
    ) -> Self {
        let node = |warnings| Node::new(places.clone(), min_replicas, warnings);
        let renewals = (min_replicas > 0).then(|| node(warnings.clone()));
        Self { node: node(warnings), renewals, sentinels }
    }

    /// The node of every key, so that a batch goes to it in one piece.
    pub(super) fn node(&self) -> &Node {
        if let Some(sentinels) = &self.sentinels {
            sentinels.begin(&self.node);
        }
        &self.node
    }

    /// The node of every key, for renewals.
    pub(super) fn renewals(&self) -> &Node {
        self.renewals.as_deref().unwrap_or_else(|| self.node())
    }

    /// Connects to all nodes for the first time; fails at the first obstacle.
    pub(super) async fn establish(&self) -> Result<(), Error> {
        if let Some(sentinels) = &self.sentinels {
            sentinels.begin(&self.node);
            sentinels.first_answer().await?;
        }
        self.node.establish().await?;
        match &self.renewals {
            Some(renewals) => renewals.establish().await,
            None => Ok(()),
        }
    }

    /// Sends the notices of this client to the listener, from all nodes and from now on.
    pub(super) async fn subscribe(&self, client: &str, listener: Listener) -> Delivery {
        self.node().subscribe(client, listener).await
    }
}
