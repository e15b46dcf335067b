//! One node, which has every key: at an address that does not change, or wherever Sentinels say.

use std::sync::Arc;

use redis::RedisResult;
use tokio::sync::watch;

use super::{
    super::{
        endpoint::Endpoint,
        node::Node,
        place::{Member, Place, Places},
    },
    calls::Route,
    layout::{Making, Server},
    sentinels::{Sentinels, Watched},
};
use crate::Error;

#[derive(Debug)]
pub(super) struct One {
    server: Server,
    kind: Kind,
}

enum Kind {
    Alone(Box<Alone>),
    Proxy,
    Watched(Sentinels),
}

/// A server that may turn out to belong to a Cluster.
struct Alone {
    endpoint: Endpoint,
    place: watch::Sender<Option<Arc<Place>>>,
    of_cluster: watch::Sender<bool>,
}

impl One {
    pub(super) fn alone(endpoint: Endpoint, making: &Making) -> RedisResult<Self> {
        let place = Place::of(endpoint.clone())?;
        let of_cluster = watch::Sender::new(false);
        let member = Member::Alone { of_cluster: of_cluster.clone() };
        let unknown = place.address().clone();
        let (place, seen) = watch::channel(Some(place));
        let places = Places::told_by(seen, unknown, member);
        Ok(Self::of(&places, making, Kind::Alone(Box::new(Alone { endpoint, place, of_cluster }))))
    }

    pub(super) fn proxy(endpoint: Endpoint, making: &Making) -> RedisResult<Self> {
        let places = Places::only(Place::of(endpoint)?, Member::Proxy);
        Ok(Self::of(&places, making, Kind::Proxy))
    }

    pub(super) fn watched(watched: Watched, making: &Making) -> RedisResult<Self> {
        let (sentinels, places) = Sentinels::new(watched, making.warnings.events().clone())?;
        Ok(Self::of(&places, making, Kind::Watched(sentinels)))
    }

    fn of(places: &Places, making: &Making, kind: Kind) -> Self {
        Self { server: Server::new(places, making), kind }
    }

    pub(super) fn is_proxy(&self) -> bool {
        matches!(self.kind, Kind::Proxy)
    }

    /// Whether the server has turned out to belong to a Cluster.
    pub(super) fn of_cluster(&self) -> bool {
        matches!(&self.kind, Kind::Alone(alone) if *alone.of_cluster.borrow())
    }

    /// Retires the standalone server, which is then no longer asked. Returns how it was reached.
    pub(super) fn retire(&self) -> Option<Endpoint> {
        let Kind::Alone(alone) = &self.kind else { return None };
        alone.place.send_replace(None);
        Some(alone.endpoint.clone())
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        self.node_for(false)
    }

    fn node_for(&self, renews: bool) -> &Arc<Node> {
        if let Kind::Watched(sentinels) = &self.kind {
            sentinels.begin(&self.server.node);
        }
        self.server.node_for(renews)
    }

    pub(super) fn route(&self, renews: bool) -> Route {
        let node = self.node_for(renews);
        let retired = match &self.kind {
            // Calls that wait for the first connect are told at once if that leads to a Cluster.
            Kind::Alone(alone) if !node.is_well() => Some(alone.of_cluster.subscribe()),
            _ => None,
        };
        Route::new(node, None, retired)
    }

    /// Connects for the first time; fails on the first error.
    pub(super) async fn establish(&self) -> Result<(), Error> {
        if let Kind::Watched(sentinels) = &self.kind {
            sentinels.begin(&self.server.node);
            sentinels.first_answer().await?;
        }
        for node in self.server.nodes() {
            node.establish().await?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An endpoint may carry a password.
        f.write_str(match self {
            Self::Alone(_) => "Alone",
            Self::Proxy => "Proxy",
            Self::Watched(_) => "Watched",
        })
    }
}
