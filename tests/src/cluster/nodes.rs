//! What the nodes of a cluster know about each other: what they are told, and what they say.

use std::fmt::Write as _;

use super::slots::SLOTS;
use crate::RedisServer;

/// One node, as the first nodes of a cluster are told about it when they start.
pub(super) struct Beginner {
    /// The port by which the other nodes know it.
    pub(super) port: u16,
    /// The port on which they talk to it.
    pub(super) bus_port: u16,
}

/// The name of a node on this port.
pub(super) fn name_of(port: u16) -> String {
    format!("{port:040x}")
}

/// The port of the node with this name.
pub(super) fn port_of(name: &[u8]) -> Option<u16> {
    u16::from_str_radix(str::from_utf8(name).ok()?, 16).ok()
}

/// The file of a node that knows no others.
pub(super) fn file_of_stranger(node: &Beginner) -> String {
    let Beginner { port, bus_port } = node;
    let name = name_of(*port);
    format!(
        "{name} 127.0.0.1:{port}@{bus_port} myself,master - 0 0 0 connected\n\
         vars currentEpoch 0 lastVoteEpoch 0\n",
    )
}

/// The file of one of these nodes. The first half are primaries, with equal shares of the slots;
/// the second half are their replicas, in the same order.
pub(super) fn file(nodes: &[Beginner], myself: usize) -> String {
    let primaries = nodes.len() / 2;
    let name = |number: usize| name_of(nodes[number].port);
    let mut text = String::new();
    for (number, Beginner { port, bus_port }) in nodes.iter().enumerate() {
        let shard = number % primaries;
        let first = |shard: usize| usize::from(SLOTS) * shard / primaries;
        let (role, primary, slots) = if shard == number {
            let slots = format!(" {}-{}", first(shard), first(shard + 1) - 1);
            ("master", "-".to_owned(), slots)
        } else {
            ("slave", name(shard), String::new())
        };
        let mark = if number == myself { "myself," } else { "" };
        // Nodes that are not told one make it up.
        let shard_id = if RedisServer::version().is_before(7, 2) {
            String::new()
        } else {
            format!(",,shard-id={:040x}", shard + 1)
        };
        let epoch = shard + 1;
        writeln!(
            text,
            "{} 127.0.0.1:{port}@{bus_port}{shard_id} {mark}{role} {primary} 0 0 {epoch} \
             connected{slots}",
            name(number),
        )
        .expect("a string takes everything");
    }
    text + &format!("vars currentEpoch {primaries} lastVoteEpoch 0\n")
}

/// One node, as another one or it itself says: a line of `CLUSTER NODES`.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) port: u16,
    flags: Vec<String>,
    /// The name of its primary, if it is a replica.
    pub(super) primary: Option<String>,
    pub(super) epoch: u64,
    has_link: bool,
    /// The first and the last slot of each range.
    pub(super) slots: Vec<(u16, u16)>,
}

impl Node {
    /// Reads all lines.
    pub(super) fn parse(text: &str) -> Vec<Self> {
        let line = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            let [name, address, flags, primary, _, _, epoch, link, slots @ ..] = words.as_slice()
            else {
                return None;
            };
            let (_, address) = address.split_once(':')?;
            let (port, _) = address.split_once('@')?;
            let range = |word: &&str| {
                let (first, last) = word.split_once('-').unwrap_or((word, word));
                // A half-moved slot is in brackets, and does not count.
                Some((first.parse().ok()?, last.parse().ok()?))
            };
            Some(Self {
                name: (*name).to_owned(),
                port: port.parse().ok()?,
                flags: flags.split(',').map(str::to_owned).collect(),
                primary: (*primary != "-").then(|| (*primary).to_owned()),
                epoch: epoch.parse().ok()?,
                has_link: *link == "connected",
                slots: slots.iter().filter_map(range).collect(),
            })
        };
        text.lines().map(|text| line(text).unwrap_or_else(|| panic!("{text:?}"))).collect()
    }

    pub(super) fn has(&self, slot: u16) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }

    pub(super) fn is_myself(&self) -> bool {
        self.is("myself")
    }

    pub(super) fn is_replica(&self) -> bool {
        self.is("slave")
    }

    /// Whether the node is known, and not said to be down.
    pub(super) fn is_in_order(&self) -> bool {
        let faults = ["fail", "fail?", "handshake", "noaddr"];
        self.has_link && !faults.iter().any(|fault| self.is(fault))
    }

    fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }
}
