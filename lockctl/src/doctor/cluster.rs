//! A Redis Cluster: whether it serves every slot, and whether its nodes can be reached from here.

use redis::{RedisError, Value};

use super::{
    findings::Findings,
    replicas,
    server::{Info, Server, setting, text},
    store::Store,
};

const CHECK: &str = "cluster";
const SLOTS: u64 = 16_384;
/// A failover takes up to 2.5 s longer than this, and has to be shorter than 0.57 of the default
/// lease: see docs/deploying.md.
const LATE_MILLIS: u64 = 3_000;

/// Connects to the nodes of the URL, and returns the first that answers. If none does, returns the
/// last error.
pub(crate) async fn seed(store: &Store, findings: &mut Findings) -> Result<Server, RedisError> {
    let mut first = None;
    let mut last = None;
    for info in &store.named {
        match Server::connect(store, info).await {
            Ok(server) => first = first.or(Some(server)),
            Err(error) => {
                findings.warning(
                    CHECK,
                    &info.addr().to_string(),
                    format!("this node of the URL accepts no connection: {error}"),
                    "start it, or name another one",
                );
                last = Some(error);
            }
        }
    }
    match (first, last) {
        (Some(server), _) => Ok(server),
        (None, Some(error)) => Err(error),
        (None, None) => Err(std::io::Error::other("the URL names no node").into()),
    }
}

/// Checks the Cluster as one of its nodes sees it, and connects to each primary that has slots, and to
/// the replicas.
pub(crate) async fn check(
    store: &Store,
    seed: Server,
    findings: &mut Findings,
) -> Result<Vec<Server>, RedisError> {
    let questions: [&[&str]; 2] = [&["CLUSTER", "INFO"], &["CLUSTER", "NODES"]];
    let mut answers = seed.ask(&questions).await?.into_iter();
    state(answers.next(), findings);
    settings(&seed, findings).await;
    let Some(nodes) = answers.next().and_then(text) else {
        findings.warning(
            CHECK,
            &seed.address,
            "this user may not ask for the nodes (CLUSTER NODES), so only one is checked",
            "allow `+cluster|nodes`",
        );
        return Ok(vec![seed]);
    };
    let nodes: Vec<_> = nodes.lines().filter_map(Node::parse).collect();
    let (host, port) = match seed.client.get_connection_info().addr() {
        redis::ConnectionAddr::Tcp(host, port)
        | redis::ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port),
        _ => return Ok(vec![seed]),
    };
    let mut primaries = Vec::new();
    for node in &nodes {
        if node.has("fail") || node.has("fail?") {
            findings.warning(
                CHECK,
                &node.shown(&host),
                "the other nodes count it as down",
                "start it, or check the network between them; CLUSTER FORGET it if it is gone for good",
            );
        }
        // A replica keeps no locks of its own, nor does a primary whose slots have moved to others.
        if !node.has_slots {
            continue;
        }
        let address = (node.host.clone().unwrap_or_else(|| host.clone()), node.port);
        let follows = |other: &&Node| other.primary == node.name && !other.has("fail");
        let replicas = nodes.iter().filter(follows).count();
        if replicas == 0 {
            findings.warning(
                CHECK,
                &node.shown(&host),
                "this primary has no replica: while it is down, the locks that it keeps cannot be acquired",
                "add a replica",
            );
        }
        let is_seed = node.has("myself") && address.1 == port;
        if is_seed {
            continue;
        }
        match Server::connect(store, &store.server_at(&address.0, address.1)).await {
            Ok(server) => primaries.push(server),
            Err(error) => findings.failure(
                CHECK,
                &node.shown(&host),
                format!(
                    "this node keeps some of the locks, but accepts no connection from here: \
                     {error}"
                ),
                "start it, or configure it to announce an address that clients can reach \
                 (`cluster-announce-ip`, `cluster-announce-hostname`)",
            ),
        }
    }
    let seed_has_slots = nodes.iter().any(|node| node.has("myself") && node.has_slots);
    if seed_has_slots {
        primaries.insert(0, seed);
    }
    if !primaries.is_empty() {
        findings.ok(CHECK, "", format!("{} primaries can be reached from here", primaries.len()));
    }
    // Those that count as down were reported above.
    let is_up = |node: &&Node| node.has("slave") && !node.has("fail");
    let address = |node: &Node| (node.host.clone().unwrap_or_else(|| host.clone()), node.port);
    let known = nodes.iter().filter(is_up).map(address).collect();
    primaries.extend(replicas::connect(store, known, findings).await);
    Ok(primaries)
}

fn state(answer: Option<Value>, findings: &mut Findings) {
    let Some(info) = answer.and_then(text).map(Info::new) else {
        return findings.warning(
            CHECK,
            "",
            "this user may not ask for the state of the Cluster (CLUSTER INFO)",
            "allow `+cluster|info`",
        );
    };
    let assigned = info.number("cluster_slots_assigned").unwrap_or(0);
    if assigned < SLOTS {
        findings.failure(
            CHECK,
            "",
            format!(
                "{} of {SLOTS} slots belong to no node: locks in them cannot be acquired",
                SLOTS - assigned
            ),
            "give them to a node (`redis-cli --cluster fix`)",
        );
    }
    let failing = info.number("cluster_slots_fail").unwrap_or(0);
    if failing > 0 {
        findings.failure(
            CHECK,
            "",
            format!("{failing} slots are on nodes that are down"),
            "wait for the failover, or start these nodes",
        );
    }
    match info.field("cluster_state") {
        Some("ok") => findings.ok(CHECK, "", format!("its state is ok, {assigned} slots are served")),
        _ => findings.failure(
            CHECK,
            "",
            "its state is `fail`: it refuses commands, and with `cluster-require-full-coverage yes` also \
             those for slots that are served",
            "restore the slots and nodes that are missing",
        ),
    }
}

async fn settings(seed: &Server, findings: &mut Findings) {
    // A user that may not ask for these settings gets no warning.
    if setting(seed, "cluster-require-full-coverage").await.as_deref() == Some("yes") {
        findings.warning(
            CHECK,
            "",
            "when one part of the Cluster is down, the other parts also refuse all commands \
             (cluster-require-full-coverage yes)",
            "set `cluster-require-full-coverage no` on all nodes",
        );
    }
    let timeout = setting(seed, "cluster-node-timeout").await.and_then(|value| value.parse().ok());
    if let Some(millis) = timeout.filter(|millis: &u64| *millis > LATE_MILLIS) {
        findings.warning(
            CHECK,
            "",
            format!(
                "a node counts as down only after {millis} ms (cluster-node-timeout): locks with the \
                 default lease of 10 s may be lost in a failover"
            ),
            "set `cluster-node-timeout 3000` or less on all nodes, or choose longer leases",
        );
    }
}

/// A line of CLUSTER NODES.
struct Node {
    name: String,
    /// None if the node does not know its own address.
    host: Option<String>,
    port: u16,
    flags: Vec<String>,
    primary: String,
    has_slots: bool,
}

impl Node {
    /// `NAME HOST:PORT@BUS[,HOSTNAME] FLAGS PRIMARY PING PONG EPOCH LINK SLOT..`
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let [name, address, flags, primary, _, _, _, _, slots @ ..] = &words[..] else {
            return None;
        };
        let address = address.split(['@', ',']).next()?;
        let (host, port) = address.rsplit_once(':')?;
        let flags: Vec<_> = flags.split(',').map(str::to_owned).collect();
        if flags.iter().any(|flag| flag == "noaddr" || flag == "handshake") {
            return None;
        }
        let is_primary = flags.iter().any(|flag| flag == "master");
        Some(Self {
            name: (*name).to_owned(),
            host: Some(host.to_owned()).filter(|host| !host.is_empty()),
            port: port.parse().ok()?,
            flags,
            primary: (*primary).to_owned(),
            // Slots that are being moved are in brackets.
            has_slots: is_primary && slots.iter().any(|slot| !slot.starts_with('[')),
        })
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }

    fn shown(&self, own: &str) -> String {
        format!("{}:{}", self.host.as_deref().unwrap_or(own), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_nodes_are_read() {
        let node = |line| Node::parse(line).expect("the line is a node");
        let own =
            node("a1 127.0.0.1:7001@17001,h myself,master - 0 0 1 connected 0-5460 [93-<-b2]");
        assert_eq!(
            (own.shown("h"), own.has_slots, own.has("myself")),
            ("127.0.0.1:7001".to_owned(), true, true)
        );
        let replica = node("b2 ::1:7002@17002 slave,fail a1 0 0 1 connected");
        assert_eq!((replica.shown("h"), replica.has_slots), ("::1:7002".to_owned(), false));
        assert_eq!((replica.primary.as_str(), replica.has("fail")), ("a1", true));
        assert_eq!(node("a :7003@17003 master - 0 0 3 connected 5").shown("h"), "h:7003");
        assert!(Node::parse("a :0@0 master,noaddr - 0 0 3 disconnected").is_none());
        assert!(Node::parse("").is_none());
    }
}
