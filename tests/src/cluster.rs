//! A Redis Cluster of servers on this machine.

mod builder;
mod bus;
mod members;
mod moves;
mod nodes;
mod slots;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::{FromRedisValue, RedisError, RedisResult};

pub use self::{builder::ClusterBuilder, moves::SlotMove};
use self::{bus::Bus, nodes::Node};
use crate::{RedisServer, eventually};

/// Bound on what the nodes find out on their own.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bound on the answer of a node that is not known to be down. Longer than a busy machine takes.
const ANSWER: Duration = Duration::from_secs(2);
/// Longer than a failover by command may take before the nodes give it up.
const NEXT_TRY: Duration = Duration::from_secs(6);

/// A Redis Cluster of the test's own: three primaries with a third of all slots each, and a replica
/// of each.
///
/// Nodes are killed, stopped and started again like any [`RedisServer`]. A question to the nodes
/// goes to all that can answer: those that are not killed, stopped or [cut off](Self::cut_off).
/// Ports are those of plain TCP.
///
/// Every method takes `&self`, so one cluster can be shared by the tasks of a test.
#[derive(Debug)]
#[must_use = "the servers are killed when the value is dropped"]
pub struct Cluster {
    servers: Mutex<Vec<Arc<RedisServer>>>,
    bus: Option<Bus>,
    /// The settings with which more nodes are started.
    builder: ClusterBuilder,
}

impl Cluster {
    /// Starts a cluster with the defaults, and waits until it is [`settled`](Self::settled).
    ///
    /// # Panics
    ///
    /// As [`ClusterBuilder::start`].
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// The same, with more flags for each node.
    ///
    /// # Panics
    ///
    /// As [`ClusterBuilder::start`].
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::builder().servers(RedisServer::builder().flags(flags.iter().copied())).start().await
    }

    /// Prepares a cluster with other settings.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// The URL for clients, with all nodes in it.
    pub fn url(&self) -> String {
        let servers = self.servers();
        let host = |server: &Arc<RedisServer>| format!("127.0.0.1:{}", server.known_port());
        let hosts: Vec<_> = servers.iter().map(host).collect();
        let has_tls = servers.iter().any(|server| server.known_port() != server.port());
        let scheme = if has_tls { "rediss" } else { "redis" };
        let password = servers.first().and_then(|server| server.password());
        let login = password.map(|password| format!(":{password}@")).unwrap_or_default();
        format!("{scheme}+cluster://{login}{}", hosts.join(","))
    }

    /// All nodes, primaries and replicas.
    pub fn servers(&self) -> Vec<Arc<RedisServer>> {
        self.locked().clone()
    }

    /// The node on this port.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn at(&self, port: u16) -> Arc<RedisServer> {
        let servers = self.locked();
        let server = servers.iter().find(|server| server.port() == port);
        Arc::clone(server.unwrap_or_else(|| panic!("no node has port {port}")))
    }

    /// The server that all nodes name as the primary of this slot. It may be down: they take a while
    /// to notice, and to name another one.
    ///
    /// # Panics
    ///
    /// When the nodes do not agree.
    pub async fn primary_of(&self, slot: u16) -> Arc<RedisServer> {
        self.at(eventually(PATIENCE, || self.agreed(|view| owner(view, slot))).await)
    }

    /// The port of each slot's primary, by the slot.
    ///
    /// # Panics
    ///
    /// When the nodes do not agree.
    pub async fn ports(&self) -> Vec<u16> {
        let owners = eventually(PATIENCE, || self.agreed(|view| Ok(owners(view)))).await;
        let owner = |slot: u16| owners.range(..=slot).next_back().map(|(_, port)| *port);
        (0..slots::SLOTS).map(|slot| owner(slot).expect("every slot is somewhere")).collect()
    }

    /// All servers that have slots, in the order of their first ones.
    ///
    /// # Panics
    ///
    /// When the nodes do not agree.
    pub async fn primaries(&self) -> Vec<Arc<RedisServer>> {
        let ports = eventually(PATIENCE, || self.agreed(|view| Ok(owners(view)))).await;
        let mut seen = BTreeSet::new();
        let ports = ports.into_values().filter(|port| seen.insert(*port));
        ports.map(|port| self.at(port)).collect()
    }

    /// A replica of this primary, according to all nodes.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub async fn replica_of(&self, primary: &RedisServer) -> Arc<RedisServer> {
        let port = primary.port();
        self.at(eventually(PATIENCE, || self.agreed(|view| replica(view, port))).await)
    }

    /// Waits until every node is up and is linked with all others, until all agree on the owners of
    /// the slots and serve them, and until every replica follows its primary.
    ///
    /// # Panics
    ///
    /// When that takes too long.
    pub async fn settled(&self) {
        eventually(PATIENCE, || async {
            let servers = self.servers();
            for server in &servers {
                let state: String = ask(server, &["CLUSTER", "INFO"]).await.map_err(text)?;
                if !state.contains("cluster_state:ok\r\n") {
                    return Err(format!("{}: {state}", server.port()));
                }
            }
            let view = self.agreed(|view| in_order(view, servers.len())).await?;
            for server in &servers {
                is_linked(server, &servers, &view).await?;
            }
            Ok(())
        })
        .await;
    }

    /// Makes the replica of this slot's primary take over, without loss, and waits until all nodes
    /// say so.
    ///
    /// # Panics
    ///
    /// When the replica refuses, or nothing happens.
    pub async fn fail_over(&self, slot: u16) -> Arc<RedisServer> {
        let old = self.primary_of(slot).await;
        let new = self.replica_of(&old).await;
        let mut asked: Option<Instant> = None;
        let port = eventually(PATIENCE, || {
            // The nodes give a failover up if the replica does not catch up in time.
            let again = asked.is_none_or(|asked| asked.elapsed() > NEXT_TRY);
            if again {
                asked = Some(Instant::now());
            }
            let new = &new;
            let old = old.port();
            async move {
                if again {
                    let answer: RedisResult<()> = ask(new, &["CLUSTER", "FAILOVER"]).await;
                    answer.map_err(text)?;
                }
                self.moved(slot, old).await
            }
        })
        .await;
        self.at(port)
    }

    /// Waits until all nodes name a primary of this slot other than the server on this port.
    ///
    /// # Panics
    ///
    /// When they do not.
    pub async fn moved_from(&self, slot: u16, port: u16) -> Arc<RedisServer> {
        self.at(eventually(PATIENCE, || self.moved(slot, port)).await)
    }

    async fn moved(&self, slot: u16, from: u16) -> Result<u16, String> {
        let now = self.agreed(|view| owner(view, slot)).await?;
        if now == from { Err(format!("it is at {now}")) } else { Ok(now) }
    }

    /// The answer of all nodes that can answer, if it is the same. They are asked one after the
    /// other: a caller that waits for a state asks often, and the first node usually says enough.
    async fn agreed<T, F>(&self, read: F) -> Result<T, String>
    where
        T: Debug + PartialEq,
        F: Fn(&[Node]) -> Result<T, String>,
    {
        let mut agreed = None;
        for server in &self.able() {
            let Ok(view) = view(server).await else { continue };
            let answer = read(&view)?;
            match &agreed {
                Some(agreed) if *agreed != answer => {
                    return Err(format!("{agreed:#?}, and {answer:#?} at {}", server.port()));
                }
                _ => agreed = Some(answer),
            }
        }
        agreed.ok_or_else(|| "nobody answers".to_owned())
    }

    /// All nodes that can answer and are linked with the others.
    fn able(&self) -> Vec<Arc<RedisServer>> {
        let is_able = |server: &Arc<RedisServer>| {
            let bus = self.bus.as_ref();
            server.is_running() && bus.is_none_or(|bus| !bus.is_cut_off(server.port()))
        };
        self.servers().into_iter().filter(is_able).collect()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Arc<RedisServer>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one node says about all nodes, including itself.
async fn view(server: &RedisServer) -> Result<Vec<Node>, String> {
    let view: String = ask(server, &["CLUSTER", "NODES"]).await.map_err(text)?;
    Ok(Node::parse(&view))
}

/// What one node says about all, by port, if it is linked with this many nodes and has no doubts
/// about them.
fn in_order(view: &[Node], nodes: usize) -> Result<BTreeMap<u16, Role>, String> {
    let port = |name: &String| view.iter().find(|node| node.name == *name).map(|node| node.port);
    let role = |node: &Node| Role {
        follows: node.primary.as_ref().and_then(port),
        slots: node.slots.clone(),
        // A replica's epoch is its primary's, and may be out of date.
        epoch: (!node.is_replica()).then_some(node.epoch),
    };
    let roles: BTreeMap<_, _> = view.iter().map(|node| (node.port, role(node))).collect();
    let epochs: Vec<_> = roles.values().filter_map(|role| role.epoch).collect();
    let unique: BTreeSet<_> = epochs.iter().collect();
    let are_linked = roles.len() == nodes && view.iter().all(Node::is_in_order);
    if are_linked && unique.len() == epochs.len() { Ok(roles) } else { Err(format!("{view:#?}")) }
}

/// The role of a node, as the others see it.
#[derive(Debug, PartialEq)]
struct Role {
    follows: Option<u16>,
    slots: Vec<(u16, u16)>,
    epoch: Option<u64>,
}

fn owner(view: &[Node], slot: u16) -> Result<u16, String> {
    let owner = view.iter().find(|node| node.has(slot));
    owner.map(|node| node.port).ok_or_else(|| format!("no node has slot {slot}: {view:#?}"))
}

/// The owners of the slots, by the first slot of each range.
fn owners(view: &[Node]) -> BTreeMap<u16, u16> {
    let ranges =
        |node: &Node| node.slots.iter().map(|(first, _)| (*first, node.port)).collect::<Vec<_>>();
    view.iter().flat_map(ranges).collect()
}

fn replica(view: &[Node], of: u16) -> Result<u16, String> {
    let primary = view.iter().find(|node| node.port == of);
    let name = &primary.ok_or_else(|| format!("no node at {of}: {view:#?}"))?.name;
    let replicas = view.iter().filter(|node| {
        let is_able = node.is_myself() || node.is_in_order();
        is_able && node.is_replica() && node.primary.as_ref() == Some(name)
    });
    let port = replicas.map(|node| node.port).min();
    port.ok_or_else(|| format!("{of} has no replica: {view:#?}"))
}

/// Whether a server follows its primary, or is followed by its replicas.
async fn is_linked(
    server: &RedisServer,
    servers: &[Arc<RedisServer>],
    roles: &BTreeMap<u16, Role>,
) -> Result<(), String> {
    let replication: String = ask(server, &["INFO", "replication"]).await.map_err(text)?;
    let says = |line: &str| replication.lines().any(|said| said == line);
    let follows = roles.get(&server.port()).and_then(|role| role.follows);
    let primary = servers.iter().find(|other| Some(other.port()) == follows);
    let is_linked = if let Some(primary) = primary {
        // Here it names its primary by the port that clients know.
        says(&format!("master_port:{}", primary.known_port())) && says("master_link_status:up")
    } else {
        let replicas = roles.values().filter(|role| role.follows == Some(server.port())).count();
        says("role:master") && replication.matches("state=online").count() == replicas
    };
    if is_linked { Ok(()) } else { Err(format!("{}: {replication}", server.port())) }
}

fn text(error: RedisError) -> String {
    error.to_string()
}

/// Asks a server on a connection of its own.
async fn ask<T: FromRedisValue>(server: &RedisServer, words: &[&str]) -> RedisResult<T> {
    let mut connection = server.try_connection_within(ANSWER).await?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await
}
