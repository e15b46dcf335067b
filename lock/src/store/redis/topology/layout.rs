//! How the servers are laid out, and how their nodes are made.

use std::sync::Arc;

use super::{
    super::{admission::Provider, endpoint::Endpoint, node::Node, place::Places},
    sentinels::Watched,
};
use crate::{Error, warning::Warnings};

/// How the servers are laid out, and where to begin.
pub(crate) enum Layout {
    /// One server, or the Cluster that it turns out to be a node of.
    One(Endpoint),
    /// A proxy that routes each call to the server that has its keys, if those are in one slot.
    Proxy(Endpoint),
    Watched(Watched),
    /// Nodes of a Cluster, which know the others.
    Cluster(Vec<Endpoint>),
}

impl Layout {
    /// The same with credentials that change.
    pub(in crate::store::redis) fn with_provider(
        self,
        provider: Option<Provider>,
    ) -> Result<Self, Error> {
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

/// How the nodes are made, in every layout.
#[derive(Clone, Debug)]
pub(in crate::store::redis) struct Making {
    pub(in crate::store::redis) min_replicas: usize,
    pub(in crate::store::redis) warnings: Warnings,
    pub(in crate::store::redis) prefix: Arc<str>,
}

/// One server, over one link. If grants wait for replicas there, renewals have another link,
/// because a renewal must not be stuck behind that. A renewal may overtake other calls and be
/// overtaken: it creates no key, and after its release it finds that its token does not hold the
/// lock.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) node: Arc<Node>,
    renewals: Option<Arc<Node>>,
}

impl Server {
    pub(super) fn new(places: &Places, making: &Making) -> Self {
        let node = || Node::new(places.clone(), making.min_replicas, making.warnings.clone());
        Self { node: node(), renewals: (making.min_replicas > 0).then(node) }
    }

    /// The node for renewals, or for everything else.
    pub(super) fn node_for(&self, renews: bool) -> &Arc<Node> {
        self.renewals.as_ref().filter(|_| renews).unwrap_or(&self.node)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        [&self.node].into_iter().chain(&self.renewals)
    }
}
