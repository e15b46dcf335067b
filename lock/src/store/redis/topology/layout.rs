//! How the servers are laid out, and how their nodes are made.

use std::sync::Arc;

use super::{
    super::{admission::Provider, endpoint::Endpoint, node::Node, place::Places},
    sentinels::Watched,
};
use crate::{Error, warning::Warnings};

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

/// How the nodes are made, whatever leads to them.
#[derive(Clone, Debug)]
pub(in crate::store::redis) struct Making {
    pub(in crate::store::redis) min_replicas: usize,
    pub(in crate::store::redis) warnings: Warnings,
    pub(in crate::store::redis) prefix: Arc<str>,
}

impl Making {
    /// The nodes of one server: one for all calls, and another for renewals, where grants wait for
    /// replicas on the first: a renewal must not stand behind that. Nothing else could overtake what
    /// it must not: a renewal makes no key, and one that comes behind its release finds that the lock
    /// is not its token's.
    pub(super) fn nodes(&self, places: &Places) -> (Arc<Node>, Option<Arc<Node>>) {
        let node = || Node::new(places.clone(), self.min_replicas, self.warnings.clone());
        (node(), (self.min_replicas > 0).then(node))
    }
}
