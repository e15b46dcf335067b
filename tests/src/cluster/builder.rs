//! The settings of a cluster.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::{
    Cluster,
    bus::Bus,
    members::REPLICAS,
    nodes::{Beginner, file, file_of_stranger},
};
use crate::{
    Certificates, RedisServer, RedisServerBuilder,
    server::{Ports, bus_port},
};

const NODE_TIMEOUT: Duration = Duration::from_secs(2);
const NODES: usize = 6;
/// How often the start is tried if one of the ports was taken in between.
const ATTEMPTS: u32 = 10;

/// The settings of a [`Cluster`] that is not started yet.
#[derive(Clone, Debug)]
#[must_use = "the cluster is started by `start`"]
pub struct ClusterBuilder {
    servers: RedisServerBuilder,
    node_timeout: Duration,
    severable: bool,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self { servers: RedisServer::builder(), node_timeout: NODE_TIMEOUT, severable: false }
    }
}

impl ClusterBuilder {
    /// The settings of each node. Default: those of [`RedisServerBuilder`].
    pub fn servers(mut self, servers: RedisServerBuilder) -> Self {
        self.servers = servers;
        self
    }

    /// Makes the nodes require a certificate from this authority of their peers, and use TLS among
    /// themselves as well. Only the harness talks to them without TLS.
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        let servers = self.servers.certificates(certificates).tls_auth_clients(true);
        self.servers = servers.flag("--tls-replication", "yes");
        self
    }

    /// How long a node may be silent before the others count it as down. Default: two seconds.
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.node_timeout = timeout;
        self
    }

    /// Whether nodes can be [cut off](Cluster::cut_off): their bus then goes through relays, and
    /// replicas log in as a user of their own. Not with [`tls`](Self::tls). Default: no.
    pub fn severable(mut self, severable: bool) -> Self {
        self.severable = severable;
        self
    }

    /// Starts the nodes, and waits until the cluster is [`settled`](Cluster::settled). That takes
    /// two seconds: a primary does not serve sooner after its start.
    ///
    /// # Panics
    ///
    /// When a node does not start, or the nodes do not find each other.
    pub async fn start(self) -> Cluster {
        let bus = self.severable.then(Bus::start);
        let servers = (0..ATTEMPTS).find_map(|_| self.try_start(bus.as_ref()));
        let servers = servers.expect("ports that were free should stay so");
        let cluster = Cluster { servers: Mutex::new(servers), bus, builder: self };
        cluster.settled().await;
        cluster
    }

    /// Starts all nodes, unless a port is taken.
    fn try_start(&self, bus: Option<&Bus>) -> Option<Vec<Arc<RedisServer>>> {
        let ports: Vec<_> = (0..NODES).map(|_| self.servers.claim()).collect();
        let nodes: Vec<_> = ports.iter().map(|ports| beginner(ports, bus)).collect();
        let start =
            |(number, ports)| self.try_start_node(ports, &nodes[number], &file(&nodes, number));
        // In parallel: each wait is at least two looks.
        thread::scope(|scope| {
            let starting: Vec<_> = ports
                .into_iter()
                .enumerate()
                .map(|numbered| scope.spawn(|| start(numbered)))
                .collect();
            let started = starting.into_iter().map(|starting| starting.join());
            started.map(|server| server.expect("a node should start")).collect()
        })
    }

    /// Starts a node that knows no others.
    pub(super) fn start_stranger(&self, bus: Option<&Bus>) -> (Arc<RedisServer>, Beginner) {
        let server = (0..ATTEMPTS).find_map(|_| {
            let ports = self.servers.claim();
            let node = beginner(&ports, bus);
            let server = self.try_start_node(ports, &node, &file_of_stranger(&node))?;
            Some((server, node))
        });
        server.expect("ports that were free should stay so")
    }

    fn try_start_node(
        &self,
        ports: Ports,
        node: &Beginner,
        file: &str,
    ) -> Option<Arc<RedisServer>> {
        let timeout = self.node_timeout.as_millis().to_string();
        let bus_port = node.bus_port.to_string();
        let mut own = vec![
            ["--cluster-node-timeout", &timeout],
            ["--cluster-announce-bus-port", &bus_port],
            // Otherwise a primary waits in case more replicas come.
            ["--repl-diskless-sync", "yes"],
            ["--repl-diskless-sync-delay", "0"],
        ];
        let (user, password) = REPLICAS;
        let rights = format!("{user} on >{password} ~* &* +@all");
        let mut rights: Vec<_> = rights.split(' ').collect();
        if self.severable {
            own.extend([["--masteruser", user], ["--masterauth", password]]);
            rights.insert(0, "--user");
        } else {
            rights.clear();
        }
        let servers = self.servers.clone().flags_before(own.concat().into_iter().chain(rights));
        let started = servers.try_start_on(ports, Some(file));
        started.unwrap_or_else(|message| panic!("{message}")).map(Arc::new)
    }
}

fn beginner(ports: &Ports, bus: Option<&Bus>) -> Beginner {
    let port = ports.known();
    let bus_port = bus.map_or_else(|| bus_port(port), |bus| bus.lead_to(port));
    Beginner { port, bus_port }
}
