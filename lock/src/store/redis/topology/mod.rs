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
    sentinels: Option<Sentinels>,
}

impl Topology {
    pub(super) fn single(
        endpoint: Endpoint,
        min_replicas: usize,
        warnings: Warnings,
    ) -> RedisResult<Self> {
        let places = Places::only(Place::of(endpoint)?);
        Ok(Self { node: Node::new(places, min_replicas, warnings), sentinels: None })
    }

    pub(super) fn watched(
        watched: Watched,
        min_replicas: usize,
        warnings: Warnings,
    ) -> RedisResult<Self> {
        let (sentinels, places) = Sentinels::new(watched, warnings.events().clone())?;
        let node = Node::new(places, min_replicas, warnings);
        Ok(Self { node, sentinels: Some(sentinels) })
    }

    /// The node of every key, so that a batch goes to it in one piece.
    pub(super) fn node(&self) -> &Node {
        if let Some(sentinels) = &self.sentinels {
            sentinels.begin(&self.node);
        }
        &self.node
    }

    /// Connects to all nodes for the first time; fails at the first obstacle.
    pub(super) async fn establish(&self) -> Result<(), Error> {
        if let Some(sentinels) = &self.sentinels {
            sentinels.begin(&self.node);
            sentinels.first_answer().await?;
        }
        self.node.establish().await
    }

    /// Sends the notices of this client to the listener, from all nodes and from now on.
    pub(super) async fn subscribe(&self, client: &str, listener: Listener) -> Delivery {
        self.node().subscribe(client, listener).await
    }
}
