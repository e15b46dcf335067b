//! Adding, removing and cutting off nodes.

use std::sync::Arc;

use redis::FromRedisValue;

use super::{Cluster, PATIENCE, ask, bus::Bus, nodes::name_of};
use crate::{RedisServer, eventually};

/// The user and the password of the replicas, if nodes can be cut off.
pub(super) const REPLICAS: (&str, &str) = ("replica", "follow");

impl Cluster {
    /// Starts one more node, a primary without slots, and waits until the cluster is
    /// [`settled`](Self::settled) with it.
    ///
    /// # Panics
    ///
    /// When the node does not start, or the nodes do not find each other.
    pub async fn add_node(&self) -> Arc<RedisServer> {
        let (server, node) = self.builder.start_stranger(self.bus.as_ref());
        let (port, bus_port) = (node.port.to_string(), node.bus_port.to_string());
        // Every node is told, because otherwise they learn of it one after the other.
        for other in &self.able() {
            let () = told(other, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]).await;
        }
        self.locked().push(Arc::clone(&server));
        self.settled().await;
        server
    }

    /// Moves the remaining slots of a node to the other primaries, and makes all others forget it.
    /// It is then an empty cluster of its own, which runs until it is dropped. Its replicas follow
    /// other primaries.
    ///
    /// # Panics
    ///
    /// When a node refuses.
    pub async fn remove_node(&self, server: &RedisServer) -> Arc<RedisServer> {
        let port = server.port();
        let server = self.at(port);
        let view = super::view(&server).await.expect("a node that is removed still answers");
        let of_it = view.iter().find(|node| node.port == port).expect("it knows itself");
        let slots: Vec<_> = of_it.slots.iter().flat_map(|(first, last)| *first..=*last).collect();
        let primaries = self.primaries().await;
        let others: Vec<_> = primaries.iter().filter(|other| other.port() != port).collect();
        for (slots, other) in slots.chunks(slots.len().div_ceil(others.len()).max(1)).zip(others) {
            self.move_slots(slots.iter().copied(), other).await;
        }

        let name = name_of(server.known_port());
        self.locked().retain(|other| other.port() != port);
        // A replica does not forget its primary; it follows the node that got the last slot.
        for other in &self.able() {
            eventually(PATIENCE, || async {
                match ask::<()>(other, &["CLUSTER", "FORGET", &name]).await {
                    // Another node that has forgotten it may have told this one.
                    Err(error) if error.to_string().contains("Unknown node") => Ok(()),
                    answer => answer,
                }
            })
            .await;
        }
        let () = told(&server, &["CLUSTER", "RESET", "SOFT"]).await;
        self.settled().await;
        server
    }

    /// Separates a node from all other nodes; clients still reach it. The node and the others
    /// receive nothing from each other: no replica gets a byte from it, and it gets none from a
    /// primary. It must not be started again meanwhile.
    ///
    /// # Panics
    ///
    /// When the node refuses, or the cluster is not [`severable`](super::ClusterBuilder::severable).
    pub async fn cut_off(&self, server: &RedisServer) {
        self.bus().cut_off(server.port(), true);
        let (user, _) = REPLICAS;
        // Its replicas log in to it, and it logs in to its primary.
        let () = told(server, &["ACL", "SETUSER", user, "off"]).await;
        let () = told(server, &["CONFIG", "SET", "masterauth", "cut off"]).await;
        let _: u64 = told(server, &["CLIENT", "KILL", "USER", user]).await;
        let _: u64 = told(server, &["CLIENT", "KILL", "TYPE", "master"]).await;
    }

    /// Ends the separation.
    ///
    /// # Panics
    ///
    /// When the node refuses.
    pub async fn let_in(&self, server: &RedisServer) {
        let (user, password) = REPLICAS;
        let () = told(server, &["ACL", "SETUSER", user, "on"]).await;
        let () = told(server, &["CONFIG", "SET", "masterauth", password]).await;
        self.bus().cut_off(server.port(), false);
    }

    fn bus(&self) -> &Bus {
        self.bus.as_ref().expect("the cluster should have been built with severable(true)")
    }
}

async fn told<T: FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let answer = ask(server, words).await;
    answer.unwrap_or_else(|error| panic!("{words:?} at {}: {error}", server.port()))
}
