//! Where a node is: at an address that does not change, or wherever Sentinels report it to be.

use std::sync::Arc;

use redis::{Client, ConnectionAddr, ProtocolVersion, RedisResult};
use tokio::sync::watch;

use super::{endpoint::Endpoint, protocol, trouble::Address};

/// One address of a node, and how a server there is reached.
pub(super) struct Place {
    endpoint: Endpoint,
    speaks_resp3: Client,
    address: Address,
}

impl Place {
    pub(super) fn of(endpoint: Endpoint) -> RedisResult<Arc<Self>> {
        let info = endpoint.client().get_connection_info().clone();
        let address = Address::of(info.addr());
        let mut settings = info.redis_settings().clone();
        if !settings.skip_set_lib_name() && settings.lib_name().is_none() {
            settings = settings.set_lib_name(protocol::LIBRARY, protocol::library_version());
        }
        let with = |settings| Client::open(info.clone().set_redis_settings(settings));
        let speaks_resp3 = with(settings.clone().set_protocol(ProtocolVersion::RESP3))?;
        let endpoint = endpoint.with_client(with(settings)?);
        Ok(Arc::new(Self { endpoint, speaks_resp3, address }))
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn speaks_resp3(&self) -> &Client {
        &self.speaks_resp3
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Host and port, if it has them.
    pub(super) fn host_and_port(&self) -> Option<(&str, u16)> {
        match self.endpoint.client().get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some((host, *port))
            }
            _ => None,
        }
    }

    /// The scheme of a URL for the server.
    pub(super) fn scheme(&self) -> &'static str {
        match self.endpoint.client().get_connection_info().addr() {
            ConnectionAddr::TcpTls { .. } => "rediss",
            _ => "redis",
        }
    }
}

/// What a node belongs to, which determines what a server there may be.
#[derive(Clone)]
pub(super) enum Member {
    /// A standalone server. If it turns out to belong to a Cluster, this reports it.
    Alone { of_cluster: watch::Sender<bool> },
    /// A proxy that routes each call to the server that has its keys.
    Proxy,
    /// A primary that Sentinels watch, and that other servers may take over from.
    Watched,
    /// A primary of a Cluster, which has some of the slots.
    OfCluster,
}

/// The successive places of one node. There may be none yet, or none for a moment.
#[derive(Clone)]
pub(super) struct Places {
    now: watch::Receiver<Option<Arc<Place>>>,
    /// The name that errors use while the node has no place.
    unknown: Address,
    member: Member,
}

impl Places {
    /// The places of a node that never moves.
    pub(super) fn only(place: Arc<Place>, member: Member) -> Self {
        let unknown = place.address.clone();
        Self { now: watch::channel(Some(place)).1, unknown, member }
    }

    /// The places of a node that is wherever the sender says.
    pub(super) fn told_by(
        now: watch::Receiver<Option<Arc<Place>>>,
        unknown: Address,
        member: Member,
    ) -> Self {
        Self { now, unknown, member }
    }

    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    /// The address that errors name.
    pub(super) fn address(&self) -> Address {
        self.now.borrow().as_ref().map_or_else(|| self.unknown.clone(), |at| at.address.clone())
    }

    /// The place, once there is one.
    pub(super) async fn current(&mut self) -> Arc<Place> {
        loop {
            if let Some(place) = &*self.now.borrow_and_update() {
                return Arc::clone(place);
            }
            self.moved().await;
        }
    }

    /// Whether the node has moved since [`current`](Self::current) was called.
    pub(super) fn has_moved(&self) -> bool {
        self.now.has_changed().unwrap_or(false)
    }

    /// Waits until it has.
    pub(super) async fn moved(&mut self) {
        // The sender is gone, so no move can be reported.
        if self.now.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
