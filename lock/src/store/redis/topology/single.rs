//! One server.

use std::sync::Arc;

use redis::RedisResult;

use crate::{
    Error,
    contract::{Delivery, Listener},
    store::redis::{endpoint::Endpoint, node::Node},
    warning::Warnings,
};

/// One server, at an address that does not change: each key is on its node.
#[derive(Debug)]
pub(in crate::store::redis) struct Single {
    node: Arc<Node>,
}

impl Single {
    pub(in crate::store::redis) fn new(
        endpoint: Endpoint,
        warnings: Warnings,
    ) -> RedisResult<Self> {
        Ok(Self { node: Node::new(endpoint, warnings)? })
    }

    /// The node of every key, so that a batch goes to it in one piece.
    pub(in crate::store::redis) fn node(&self) -> &Node {
        &self.node
    }

    /// Connects to all nodes for the first time; fails at the first obstacle.
    pub(in crate::store::redis) async fn establish(&self) -> Result<(), Error> {
        self.node.establish().await
    }

    /// Sends the notices of this client to the listener, from all nodes and from now on.
    pub(in crate::store::redis) async fn subscribe(
        &self,
        client: &str,
        listener: Listener,
    ) -> Delivery {
        self.node.subscribe(client, listener).await
    }
}
