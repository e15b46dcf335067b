//! What a cluster is started with.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::{
    Cluster,
    nodes::{Beginner, file},
};
use crate::{Certificates, RedisServer, RedisServerBuilder};

const NODE_TIMEOUT: Duration = Duration::from_secs(2);
const NODES: usize = 6;
/// How often a node may find that one of its ports was taken in between.
const ATTEMPTS: u32 = 10;

/// The settings of a [`Cluster`] that is not started yet.
#[derive(Clone, Debug)]
#[must_use = "the cluster is started by `start`"]
pub struct ClusterBuilder {
    servers: RedisServerBuilder,
    node_timeout: Duration,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self { servers: RedisServer::builder(), node_timeout: NODE_TIMEOUT }
    }
}

impl ClusterBuilder {
    /// What each node is started as. Default: with nothing but the defaults.
    pub fn servers(mut self, servers: RedisServerBuilder) -> Self {
        self.servers = servers;
        self
    }

    /// Has the nodes want a certificate of this authority from whom they talk to, and use TLS among
    /// themselves, too. Only the harness talks to them without.
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        let servers = self.servers.certificates(certificates).tls_auth_clients(true);
        self.servers = servers.flag("--tls-replication", "yes");
        self
    }

    /// How long a node may be silent until the others count it as down. Default: two seconds.
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.node_timeout = timeout;
        self
    }

    /// Starts the nodes, and waits until the cluster is [`settled`](Cluster::settled). That takes two
    /// seconds: primaries that start do not serve sooner.
    ///
    /// # Panics
    ///
    /// When one does not start, or they do not find each other.
    pub async fn start(self) -> Cluster {
        let servers = (0..ATTEMPTS).find_map(|_| self.try_start());
        let servers = servers.expect("ports that were free should stay so");
        let cluster = Cluster { servers: Mutex::new(servers) };
        cluster.settled().await;
        cluster
    }

    /// Starts all nodes, unless a port is taken.
    fn try_start(&self) -> Option<Vec<Arc<RedisServer>>> {
        let servers = self.server();
        let ports: Vec<_> = (0..NODES).map(|_| servers.claim()).collect();
        let nodes: Vec<_> = ports.iter().map(|ports| Beginner::new(ports.known())).collect();
        let start = |(number, ports)| {
            let started = servers.try_start_on(ports, Some(&file(&nodes, number)));
            started.unwrap_or_else(|message| panic!("{message}")).map(Arc::new)
        };
        // At once: each wait is two looks at least.
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

    /// What each node is started as, with what makes it one.
    fn server(&self) -> RedisServerBuilder {
        let timeout = self.node_timeout.as_millis().to_string();
        let own = [
            ["--cluster-node-timeout", &timeout],
            // What a primary waits for, in case more replicas come.
            ["--repl-diskless-sync", "yes"],
            ["--repl-diskless-sync-delay", "0"],
        ];
        self.servers.clone().flags_before(own.into_iter().flatten())
    }
}
