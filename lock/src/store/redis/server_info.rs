//! What a server reports about itself, and what in it leads to a refusal or a warning.

use std::sync::atomic::{AtomicBool, Ordering};

use redis::Value;

use super::{link::Identity, place::Member, refusal::Refusal, trouble::Address};
use crate::{
    ErrorKind,
    warning::{Warning, Warnings},
};

/// What a connect has found out about the server, as far as this user may know it.
pub(super) struct ServerInfo {
    pub(super) server: Option<String>,
    pub(super) memory: Option<String>,
    pub(super) replication: Option<String>,
    pub(super) has_fence: Option<bool>,
    /// It is another process than before.
    pub(super) is_other: bool,
}

impl ServerInfo {
    /// `had_fence` is what earlier connects found.
    pub(super) fn warn(
        &self,
        member: &Member,
        (warnings, server): (&Warnings, &Address),
        had_fence: &AtomicBool,
        min_replicas: usize,
    ) {
        let replicas = field(self.replication.as_deref(), "connected_slaves:");
        if replicas
            .and_then(|count| count.parse().ok())
            .is_some_and(|count: usize| count < min_replicas)
        {
            warnings.say(Warning::TooFewReplicas { wanted: min_replicas }, server);
        }
        // The field is there only if writes need replicas.
        let needs_replicas = |known: &str| field(Some(known), "min_slaves_good_slaves:").is_some();
        // A primary of a Cluster stops on its own when it is cut off from most of the others.
        if matches!(member, Member::Watched)
            && self.replication.as_deref().is_some_and(|known| !needs_replicas(known))
        {
            warnings.say(Warning::MayServeAlone, server);
        }
        let memory = |name| field(self.memory.as_deref(), name);
        if let (Some(limit), Some(policy)) = (memory("maxmemory:"), memory("maxmemory_policy:"))
            && limit != "0"
            && policy != "noeviction"
        {
            warnings.say(Warning::MayEvict { policy: policy.to_owned() }, server);
        }
        if self.is_other {
            warnings.say(Warning::Restarted, server);
        }
        match self.has_fence {
            Some(true) => had_fence.store(true, Ordering::Relaxed),
            Some(false) if had_fence.swap(false, Ordering::Relaxed) => {
                warnings.say(Warning::Wiped, server);
            }
            _ => {}
        }
    }

    /// Whether the server is a read-only replica. One that accepts writes serves as well as any
    /// primary; that is rare, and not the default. Dragonfly calls the role `replica`.
    pub(super) fn is_replica(&self) -> bool {
        let replication = |name| field(self.replication.as_deref(), name);
        matches!(replication("role:"), Some("slave" | "replica"))
            && replication("slave_read_only:") != Some("0")
    }

    pub(super) fn is_of_cluster(&self) -> bool {
        self.mode() == Some("cluster")
    }

    fn mode(&self) -> Option<&str> {
        let server = |name| field(self.server.as_deref(), name);
        // Valkey 9 has a name of its own for it.
        server("redis_mode:").or_else(|| server("server_mode:"))
    }

    /// Refuses a server that cannot keep locks, whatever is asked of it. `scheme` is that of the
    /// URL that has led to it.
    pub(super) fn refuse(
        &self,
        member: &Member,
        scheme: &str,
        address: &Address,
    ) -> Result<(), Refusal> {
        let replication = |name| field(self.replication.as_deref(), name);
        let text = match (self.mode(), member) {
            (Some("sentinel"), _) => {
                format!(
                    "it is a Sentinel, which keeps no locks, so name the primary that it watches: \
                     {scheme}+sentinel://{address}/NAME, with the name that SENTINEL MASTERS reports"
                )
            }
            (_, Member::Proxy) => return Ok(()),
            (Some("cluster"), Member::Alone { of_cluster }) => {
                of_cluster.send_replace(true);
                "it is a node of a Redis Cluster, whose other nodes are being looked for".to_owned()
            }
            (Some("cluster"), Member::Watched) => {
                format!(
                    "it is a node of a Redis Cluster, which needs no Sentinels, so use \
                     {scheme}+cluster://{address}"
                )
            }
            (Some(mode), Member::OfCluster) if mode != "cluster" => {
                let text = "it is no longer a node of a Redis Cluster, so another server may have its \
                            address; the node that has taken over is being looked for";
                return Err(Refusal::new(ErrorKind::Unavailable, text));
            }
            (_, Member::OfCluster) if self.is_replica() => {
                let text =
                    "it is now a replica, so another node has taken over and is being looked for";
                return Err(Refusal::new(ErrorKind::Unavailable, text));
            }
            _ if self.is_replica() => {
                match (replication("master_host:"), replication("master_port:")) {
                    (Some(host), Some(port)) => {
                        let primary = Address::of_tcp(host, port);
                        format!(
                            "it is a read-only replica, so connect to its primary, which it knows as \
                             {scheme}://{primary}/"
                        )
                    }
                    _ => "it is a read-only replica, so connect to its primary".to_owned(),
                }
            }
            _ => return Ok(()),
        };
        Err(Refusal::new(ErrorKind::Rejected, text))
    }
}

/// The value of one line of INFO.
pub(super) fn field<'a>(info: Option<&'a str>, name: &str) -> Option<&'a str> {
    info?.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

pub(super) fn text(reply: Option<Value>) -> Option<String> {
    match reply? {
        Value::BulkString(text) => String::from_utf8(text).ok(),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

pub(super) fn identity(number: Option<Value>, info: Option<&str>) -> Option<Identity> {
    let Value::Int(number) = number? else { return None };
    let process = field(info, "run_id:")?.to_owned();
    Some(Identity { process, number })
}
