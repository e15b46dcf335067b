//! Which node of a Cluster has which slot, by what its nodes say. Pure.
//!
//! Nodes learn of a change one after the other, and one that is cut off does not. Each primary has a
//! configuration epoch, which a failover and a slot that is moved make the highest of all: so for each
//! slot, the primary with the highest epoch is believed in, as the nodes themselves do it
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>, "Hash slots
//! configuration propagation"). What was believed before counts as well, unless all that were asked
//! have answered: then the Cluster may have been set up anew.

use std::{collections::HashMap, fmt};

use redis::Value;

use super::super::{
    server_info::text,
    slots::{SLOTS, Slot},
    trouble::Address,
};

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Peer {
    /// The node that a redirect names. Without a host, it is on that of the one who redirects.
    pub(super) fn of_redirect(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: named(host, &asked.host), port: port.parse().ok()? })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Address::of_tcp(&self.host, self.port).fmt(f)
    }
}

/// Some nodes do not know their own host, or do not tell it.
fn named(host: &str, asked: &str) -> String {
    if matches!(host, "" | "?") { asked.to_owned() } else { host.to_owned() }
}

/// A primary, as one node or several describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) peer: Peer,
    pub(super) epoch: u64,
    pub(super) replicas: Vec<Peer>,
}

/// What one node says: ranges of slots, from and to, and their primaries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct View(Vec<(Slot, Slot, Primary)>);

impl View {
    /// Of the answers to CLUSTER SLOTS and CLUSTER NODES, which have the epochs, if they are told.
    pub(super) fn read(slots: Value, nodes: Option<Value>, asked: &Peer) -> Option<Self> {
        let Value::Array(ranges) = slots else { return None };
        let nodes = text(nodes).unwrap_or_default();
        let epochs: HashMap<_, _> = nodes.lines().filter_map(epoch_of).collect();
        let range = |range| {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), members @ ..] = &parts[..] else {
                return None;
            };
            let slot =
                |number: i64| Slot::try_from(number).ok().filter(|n| usize::from(*n) < SLOTS);
            let mut peers = members.iter().map(|member| read_peer(member, asked));
            let (peer, id) = peers.next()??;
            let epoch = id.and_then(|id| epochs.get(&*id).copied()).unwrap_or(0);
            // One that cannot be read is none that could be asked.
            let replicas = peers.flatten().map(|(peer, _)| peer).collect();
            Some((slot(*first)?, slot(*last)?, Primary { peer, epoch, replicas }))
        };
        ranges.into_iter().map(range).collect::<Option<_>>().map(Self)
    }
}

/// `[host, port, id, ..]`; servers before Redis 4 have no id.
fn read_peer(member: &Value, asked: &Peer) -> Option<(Peer, Option<String>)> {
    let Value::Array(parts) = member else { return None };
    let [host, Value::Int(port), rest @ ..] = &parts[..] else { return None };
    let host = text(Some(host.clone())).unwrap_or_default();
    let peer = Peer { host: named(&host, &asked.host), port: u16::try_from(*port).ok()? };
    Some((peer, rest.first().and_then(|id| text(Some(id.clone())))))
}

/// `id address flags primary ping-sent pong-received config-epoch link-state slot..`
fn epoch_of(line: &str) -> Option<(&str, u64)> {
    let mut words = line.split(' ');
    Some((words.next()?, words.nth(5)?.parse().ok()?))
}

/// A slot that no primary has.
const NOBODY: u16 = u16::MAX;

/// The primary of each slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owners {
    primaries: Vec<Primary>,
    /// Which of them has the slot.
    of: Box<[u16]>,
    /// The epoch in which it said so. That of the primary may be higher by now, for another slot.
    since: Box<[u64]>,
}

impl Owners {
    /// What several views come to, and what was believed before. That counts for itself unless `all`
    /// have answered that were asked; and where two primaries say the same, in any case.
    pub(super) fn of(views: &[View], believed: Option<&Self>, all: bool) -> Self {
        let mut known = Known::default();
        let mut owners = Self {
            primaries: Vec::new(),
            of: vec![NOBODY; SLOTS].into(),
            since: vec![0; SLOTS].into(),
        };
        // By their numbers here, as far as they are known.
        let before: Vec<_> = match believed {
            Some(believed) => believed.primaries.iter().map(|one| known.number(one)).collect(),
            None => Vec::new(),
        };
        let believed = |slot: usize| {
            let believed = believed?;
            let number = before.get(usize::from(believed.of[slot]))?;
            Some((*number, believed.since[slot]))
        };
        if !all {
            for slot in 0..SLOTS {
                if let Some((number, epoch)) = believed(slot) {
                    (owners.of[slot], owners.since[slot]) = (number, epoch);
                }
            }
        }
        for (first, last, primary) in views.iter().flat_map(|view| &view.0) {
            let number = known.number(primary);
            for slot in usize::from(*first)..=usize::from(*last) {
                let is_free = owners.of[slot] == NOBODY;
                let is_newer = primary.epoch > owners.since[slot];
                let is_kept = primary.epoch == owners.since[slot]
                    && believed(slot).is_some_and(|(believed, _)| believed == number);
                if is_free || is_newer || is_kept {
                    (owners.of[slot], owners.since[slot]) = (number, primary.epoch);
                }
            }
        }
        Self { primaries: known.primaries, ..owners }.without_idle()
    }

    /// Without the primaries that have no slot.
    fn without_idle(self) -> Self {
        let mut numbers = vec![NOBODY; self.primaries.len()];
        for owner in self.of.iter().filter(|owner| **owner != NOBODY) {
            numbers[usize::from(*owner)] = 0;
        }
        let mut primaries = Vec::new();
        for (number, primary) in numbers.iter_mut().zip(self.primaries) {
            if *number != NOBODY {
                *number = primaries.len() as u16;
                primaries.push(primary);
            }
        }
        let mut of = self.of;
        for owner in of.iter_mut().filter(|owner| **owner != NOBODY) {
            *owner = numbers[usize::from(*owner)];
        }
        Self { primaries, of, since: self.since }
    }

    pub(super) fn primaries(&self) -> &[Primary] {
        &self.primaries
    }

    /// Which of the primaries has the slot.
    pub(super) fn number(&self, slot: Slot) -> Option<usize> {
        let number = *self.of.get(usize::from(slot))?;
        (number != NOBODY).then_some(usize::from(number))
    }

    /// Has this node a slot that another one had?
    pub(super) fn took_over(&self, peer: &Peer, before: &Self) -> bool {
        self.of.iter().zip(&before.of).any(|(now, before_it)| {
            *now != NOBODY
                && *before_it != NOBODY
                && self.primaries[usize::from(*now)].peer == *peer
                && before.primaries[usize::from(*before_it)].peer != *peer
        })
    }
}

/// The primaries that have been heard of.
#[derive(Default)]
struct Known {
    primaries: Vec<Primary>,
    numbers: HashMap<Peer, u16>,
}

impl Known {
    fn number(&mut self, primary: &Primary) -> u16 {
        let number = *self.numbers.entry(primary.peer.clone()).or_insert_with(|| {
            self.primaries.push(primary.clone());
            // A Cluster has no more nodes than slots.
            (self.primaries.len() - 1) as u16
        });
        let known = &mut self.primaries[usize::from(number)];
        if primary.epoch > known.epoch {
            *known = primary.clone();
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> Peer {
        Peer { host: "h".into(), port }
    }

    fn primary(port: u16, epoch: u64) -> Primary {
        Primary { peer: peer(port), epoch, replicas: vec![peer(port + 100)] }
    }

    fn view(ranges: &[(Slot, Slot, u16, u64)]) -> View {
        let range = |(first, last, port, epoch): &_| (*first, *last, primary(*port, *epoch));
        View(ranges.iter().map(range).collect())
    }

    fn ports(owners: &Owners, slots: [Slot; 4]) -> [Option<u16>; 4] {
        slots.map(|slot| owners.number(slot).map(|number| owners.primaries()[number].peer.port))
    }

    #[test]
    fn the_highest_epoch_counts_for_each_slot() {
        let before = view(&[(0, 99, 1, 1), (100, 199, 2, 2)]);
        // The primary of 1 has failed over, and the node that is asked first has not heard of it.
        let after = view(&[(0, 99, 101, 3), (100, 199, 2, 2)]);
        let owners = Owners::of(&[before, after], None, true);
        assert_eq!(ports(&owners, [0, 99, 100, 200]), [Some(101), Some(101), Some(2), None]);
        assert_eq!(owners.primaries().len(), 2, "the one of before has no slot");
        // One that was cut off says what it said before.
        let stale = view(&[(0, 99, 1, 1), (100, 199, 2, 2)]);
        let again = Owners::of(&[stale], Some(&owners), false);
        assert_eq!(ports(&again, [0, 99, 100, 200]), [Some(101), Some(101), Some(2), None]);
    }

    #[test]
    fn a_slot_that_was_moved_is_the_new_owners() {
        let before = Owners::of(&[view(&[(0, 99, 1, 1), (100, 199, 2, 2)])], None, true);
        let moved = view(&[(0, 49, 1, 1), (50, 199, 2, 3)]);
        let after = Owners::of(&[moved], Some(&before), false);
        assert_eq!(ports(&after, [49, 50, 99, 100]), [Some(1), Some(2), Some(2), Some(2)]);
        assert!(after.took_over(&peer(2), &before) && !after.took_over(&peer(1), &before));
    }

    #[test]
    fn an_old_claim_is_not_made_newer_by_what_its_primary_got_later() {
        // Slot 0 went from 1 to 2, and then 1 got slot 50: the first view has heard of neither.
        let stale = view(&[(0, 49, 1, 1), (50, 99, 2, 2)]);
        let fresh = view(&[(1, 50, 1, 5), (0, 0, 2, 3), (51, 99, 2, 3)]);
        for views in [[stale, fresh], {
            let stale = view(&[(0, 49, 1, 1), (50, 99, 2, 2)]);
            let fresh = view(&[(1, 50, 1, 5), (0, 0, 2, 3), (51, 99, 2, 3)]);
            [fresh, stale]
        }] {
            let owners = Owners::of(&views, None, true);
            assert_eq!(ports(&owners, [0, 1, 50, 51]), [Some(2), Some(1), Some(1), Some(2)]);
        }
    }

    #[test]
    fn a_cluster_that_was_set_up_anew_begins_at_its_own_epochs() {
        let before = Owners::of(&[view(&[(0, 199, 1, 70)])], None, true);
        let anew = [view(&[(0, 199, 2, 1)])];
        assert_eq!(ports(&Owners::of(&anew, Some(&before), false), [0, 1, 2, 199])[0], Some(1));
        assert_eq!(ports(&Owners::of(&anew, Some(&before), true), [0, 1, 2, 199])[0], Some(2));
    }

    #[test]
    fn a_node_that_is_called_by_two_names_keeps_the_one_that_is_known() {
        let [one, other] = [1, 2].map(|port| [view(&[(0, 199, port, 1)])]);
        let known = Owners::of(&one, None, true);
        for all in [true, false] {
            let both = [view(&[(0, 199, 2, 1)]), view(&[(0, 199, 1, 1)])];
            assert_eq!(Owners::of(&both, Some(&known), all), known);
        }
        assert_eq!(Owners::of(&other, Some(&known), false), known);
        // It is not called so by anybody any more.
        assert_eq!(ports(&Owners::of(&other, Some(&known), true), [0, 1, 2, 199])[0], Some(2));
    }

    #[test]
    fn answers_of_all_versions_are_read() {
        let parse = |text: &str| redis::parse_redis_value(text.as_bytes()).unwrap();
        let slots = "*2\r\n*4\r\n:0\r\n:99\r\n*3\r\n$0\r\n\r\n:7000\r\n$1\r\na\r\n\
                     *4\r\n$9\r\n10.0.0.12\r\n:7001\r\n$1\r\nb\r\n*0\r\n\
                     *3\r\n:100\r\n:199\r\n*4\r\n$-1\r\n:7002\r\n$1\r\nc\r\n*2\r\n$8\r\nhostname\r\n$1\r\nx\r\n";
        let nodes = "a :7000@17000 myself,master - 0 0 5 connected 0-99\n\
                     b 10.0.0.12:7001@17001 slave a 0 1 5 connected\n\
                     c :7002@17002,x master - 0 1 6 connected 100-199\n";
        let nodes = format!("${}\r\n{nodes}\r\n", nodes.len());
        let read = View::read(parse(slots), Some(parse(&nodes)), &peer(7000)).unwrap();
        let replica = Peer { host: "10.0.0.12".into(), port: 7001 };
        assert_eq!(
            read,
            View(vec![
                (0, 99, Primary { peer: peer(7000), epoch: 5, replicas: vec![replica] }),
                (100, 199, Primary { peer: peer(7002), epoch: 6, replicas: Vec::new() }),
            ])
        );
        assert!(View::read(parse(slots), None, &peer(7000)).is_some(), "without the epochs");
        for other in ["*1\r\n:1\r\n", "+OK\r\n", "*1\r\n*2\r\n:0\r\n:1\r\n"] {
            assert_eq!(View::read(parse(other), None, &peer(7000)), None, "{other:?}");
        }
    }

    #[test]
    fn a_redirect_may_leave_out_the_host() {
        let named = |text| Peer::of_redirect(text, &peer(1));
        assert_eq!(named("127.0.0.1:7000"), Some(Peer { host: "127.0.0.1".into(), port: 7000 }));
        assert_eq!(named("::1:7000"), Some(Peer { host: "::1".into(), port: 7000 }));
        assert_eq!(named(":7000"), Some(peer(7000)));
        assert_eq!(named("?:7000"), Some(peer(7000)));
        assert_eq!(named("7000"), None);
    }
}
