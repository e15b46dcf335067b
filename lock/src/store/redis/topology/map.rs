//! Which node of a Cluster has which slot, according to its nodes. Pure.
//!
//! Nodes learn of a change one after the other, and a node that is cut off does not learn of it.
//! Each primary has a configuration epoch, which a failover or the move of a slot makes the highest
//! of all. So for each slot, the primary with the highest epoch is believed, as the nodes
//! themselves do it (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>,
//! "Hash slots configuration propagation"). What a node says about itself counts before what others
//! say about it.
//!
//! What was believed before also counts, as long as its primary is well or is still mentioned.
//! Otherwise it does not: a Cluster may have been set up again, with lower epochs.

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
    /// The node that a redirect names. Without a host, it is on the host of the node that
    /// redirects.
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

/// Some nodes do not know their own host, or do not report it.
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

/// What one node reports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct View {
    /// The node that reports it.
    by: Peer,
    /// Slots, from and to, and their primaries.
    ranges: Vec<(Slot, Slot, Primary)>,
}

impl View {
    /// Reads the answers to CLUSTER SLOTS and, for the epochs, to CLUSTER NODES, if the node gives
    /// it.
    pub(super) fn read(slots: Value, nodes: Option<Value>, asked: &Peer) -> Option<Self> {
        let Value::Array(ranges) = slots else { return None };
        let nodes = text(nodes).unwrap_or_default();
        let epochs: HashMap<_, _> = nodes.lines().filter_map(epoch_of).collect();
        let own =
            nodes.lines().find(|line| is_myself(line)).and_then(|line| line.split(' ').next());
        let mut by = asked.clone();
        let mut range = |range| {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), members @ ..] = &parts[..] else {
                return None;
            };
            let slot =
                |number: i64| Slot::try_from(number).ok().filter(|n| usize::from(*n) < SLOTS);
            let members: Vec<_> = members.iter().map(|member| read_peer(member, asked)).collect();
            // Its name may differ from the address at which it was asked.
            let is_own = |id: &Option<String>| own.is_some() && id.as_deref() == own;
            if let Some((peer, _)) = members.iter().flatten().find(|(_, id)| is_own(id)) {
                by = peer.clone();
            }
            let mut peers = members.into_iter();
            let (peer, id) = peers.next()??;
            let epoch = id.and_then(|id| epochs.get(&*id).copied()).unwrap_or(0);
            // A replica that cannot be read could not be asked.
            let replicas = peers.flatten().map(|(peer, _)| peer).collect();
            Some((slot(*first)?, slot(*last)?, Primary { peer, epoch, replicas }))
        };
        let ranges = ranges.into_iter().map(&mut range).collect::<Option<_>>()?;
        Some(Self { by, ranges })
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

/// Whether this line is about the node that reports it.
fn is_myself(line: &str) -> bool {
    line.split(' ').nth(2).is_some_and(|flags| flags.split(',').any(|flag| flag == "myself"))
}

/// A slot that no primary has.
const NOBODY: u16 = u16::MAX;

/// The primary of each slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owners {
    primaries: Vec<Primary>,
    /// Which of them has the slot.
    of: Box<[u16]>,
    /// The epoch of that claim. The epoch of the primary may be higher by now, for another slot.
    since: Box<[u64]>,
}

impl Owners {
    /// Combines several views with what was believed before. `is_well` says whether a primary
    /// answers.
    pub(super) fn of(
        views: &[View],
        believed: Option<&Self>,
        is_well: impl Fn(&Peer) -> bool,
    ) -> Self {
        let mut known = Known::default();
        let mut owners = Self {
            primaries: Vec::new(),
            of: vec![NOBODY; SLOTS].into(),
            since: vec![0; SLOTS].into(),
        };
        let speaks = |peer: &Peer| views.iter().any(|view| view.by == *peer);
        let is_mentioned = |peer: &Peer| {
            let ranges = views.iter().flat_map(|view| &view.ranges);
            ranges.into_iter().any(|(_, _, one)| one.peer == *peer || one.replicas.contains(peer))
        };
        // The numbers of the previous primaries here, and whether their claims still count.
        let before: Vec<_> = match believed {
            Some(believed) => {
                let number = |primary: &Primary| {
                    let peer = &primary.peer;
                    let counts = !speaks(peer) && (is_well(peer) || is_mentioned(peer));
                    (known.number(primary), counts)
                };
                believed.primaries.iter().map(number).collect()
            }
            None => Vec::new(),
        };
        let believed = |slot: usize| {
            let believed = believed?;
            let (number, counts) = before.get(usize::from(believed.of[slot]))?;
            Some((*number, *counts, believed.since[slot]))
        };
        for slot in 0..SLOTS {
            if let Some((number, true, epoch)) = believed(slot) {
                (owners.of[slot], owners.since[slot]) = (number, epoch);
            }
        }
        for view in views {
            for (first, last, primary) in &view.ranges {
                let number = known.number(primary);
                if view.by != primary.peer && speaks(&primary.peer) {
                    continue;
                }
                for slot in usize::from(*first)..=usize::from(*last) {
                    let is_free = owners.of[slot] == NOBODY;
                    let is_newer = primary.epoch > owners.since[slot];
                    // A node with two names keeps the name that it had.
                    let is_kept = primary.epoch == owners.since[slot]
                        && believed(slot).is_some_and(|(believed, ..)| believed == number);
                    if is_free || is_newer || is_kept {
                        (owners.of[slot], owners.since[slot]) = (number, primary.epoch);
                    }
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

    /// The first slot of each primary that has any, in ascending order.
    pub(super) fn first_slots(&self) -> impl Iterator<Item = Slot> {
        let mut seen = vec![false; self.primaries.len()];
        (0..SLOTS as Slot).filter(move |slot| {
            let owner = self.number(*slot).and_then(|number| seen.get_mut(number));
            owner.is_some_and(|seen| !std::mem::replace(seen, true))
        })
    }

    /// Whether this node has a slot that another one had.
    pub(super) fn took_over(&self, peer: &Peer, before: &Self) -> bool {
        self.of.iter().zip(&before.of).any(|(now, before_it)| {
            *now != NOBODY
                && *before_it != NOBODY
                && self.primaries[usize::from(*now)].peer == *peer
                && before.primaries[usize::from(*before_it)].peer != *peer
        })
    }
}

/// The primaries that are known.
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
        // Its replicas may have changed in the same epoch.
        if primary.epoch >= known.epoch {
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

    /// The view of a node that has no slot.
    fn view(ranges: &[(Slot, Slot, u16, u64)]) -> View {
        by(999, ranges)
    }

    fn by(port: u16, ranges: &[(Slot, Slot, u16, u64)]) -> View {
        let range = |(first, last, port, epoch): &_| (*first, *last, primary(*port, *epoch));
        View { by: peer(port), ranges: ranges.iter().map(range).collect() }
    }

    const WELL: fn(&Peer) -> bool = |_| true;
    const GONE: fn(&Peer) -> bool = |_| false;

    fn ports(owners: &Owners, slots: [Slot; 4]) -> [Option<u16>; 4] {
        slots.map(|slot| owners.number(slot).map(|number| owners.primaries()[number].peer.port))
    }

    #[test]
    fn the_highest_epoch_counts_for_each_slot() {
        let before = view(&[(0, 99, 1, 1), (100, 199, 2, 2)]);
        // The primary of 1 has failed over, and the node that is asked first has not learned of it.
        let after = view(&[(0, 99, 101, 3), (100, 199, 2, 2)]);
        let owners = Owners::of(&[before, after], None, WELL);
        assert_eq!(ports(&owners, [0, 99, 100, 200]), [Some(101), Some(101), Some(2), None]);
        assert_eq!(owners.primaries().len(), 2, "the previous one has no slot");
        // A node that was cut off says what it said before.
        let stale = view(&[(0, 99, 1, 1), (100, 199, 2, 2)]);
        let again = Owners::of(&[stale], Some(&owners), GONE);
        assert_eq!(ports(&again, [0, 99, 100, 200]), [Some(101), Some(101), Some(2), None]);
    }

    #[test]
    fn a_slot_that_was_moved_is_the_new_owners() {
        let before = Owners::of(&[view(&[(0, 99, 1, 1), (100, 199, 2, 2)])], None, WELL);
        let moved = view(&[(0, 49, 1, 1), (50, 199, 2, 3)]);
        let after = Owners::of(&[moved], Some(&before), WELL);
        assert_eq!(ports(&after, [49, 50, 99, 100]), [Some(1), Some(2), Some(2), Some(2)]);
        assert!(after.took_over(&peer(2), &before) && !after.took_over(&peer(1), &before));
    }

    #[test]
    fn an_old_claim_is_not_made_newer_by_what_its_primary_got_later() {
        // Slot 0 went from 1 to 2, and then 1 got slot 50: the first view knows of neither.
        let stale = view(&[(0, 49, 1, 1), (50, 99, 2, 2)]);
        let fresh = view(&[(1, 50, 1, 5), (0, 0, 2, 3), (51, 99, 2, 3)]);
        for views in [[stale, fresh], {
            let stale = view(&[(0, 49, 1, 1), (50, 99, 2, 2)]);
            let fresh = view(&[(1, 50, 1, 5), (0, 0, 2, 3), (51, 99, 2, 3)]);
            [fresh, stale]
        }] {
            let owners = Owners::of(&views, None, WELL);
            assert_eq!(ports(&owners, [0, 1, 50, 51]), [Some(2), Some(1), Some(1), Some(2)]);
        }
    }

    #[test]
    fn a_cluster_that_was_set_up_anew_begins_at_its_own_epochs() {
        let before = Owners::of(&[view(&[(0, 199, 1, 70)])], None, WELL);
        let anew = [view(&[(0, 199, 2, 1)])];
        let owner = |owners: Owners| ports(&owners, [0, 1, 2, 199])[0];
        assert_eq!(owner(Owners::of(&anew, Some(&before), WELL)), Some(1), "it still answers");
        assert_eq!(
            owner(Owners::of(&anew, Some(&before), GONE)),
            Some(2),
            "no node mentions it any longer"
        );
        // At the same address, and with other slots.
        let anew = [by(1, &[(100, 199, 1, 2), (0, 99, 2, 1)])];
        assert_eq!(owner(Owners::of(&anew, Some(&before), WELL)), Some(2), "it says so itself");
    }

    #[test]
    fn what_a_node_says_of_itself_counts_before_what_others_have_heard() {
        // The third knows of the epoch that 1 got for slot 50, and not that slot 0 is 2's.
        let one = by(1, &[(1, 50, 1, 6), (0, 0, 2, 5), (51, 99, 2, 5)]);
        let two = by(2, &[(1, 50, 1, 6), (0, 0, 2, 5), (51, 99, 2, 5)]);
        let hearsay = by(3, &[(0, 50, 1, 6), (51, 99, 2, 5)]);
        let owners = Owners::of(&[hearsay, two, one], None, WELL);
        assert_eq!(ports(&owners, [0, 1, 50, 51]), [Some(2), Some(1), Some(1), Some(2)]);
    }

    #[test]
    fn a_node_that_is_called_by_two_names_keeps_the_one_that_is_known() {
        let known = Owners::of(&[view(&[(0, 199, 1, 1)])], None, WELL);
        let both = [view(&[(0, 199, 2, 1)]), view(&[(0, 199, 1, 1)])];
        for is_well in [WELL, GONE] {
            assert_eq!(Owners::of(&both, Some(&known), is_well), known);
        }
        assert_eq!(Owners::of(&both[..1], Some(&known), WELL), known);
        // No node uses its old name any longer, and it does not answer there.
        assert_eq!(ports(&Owners::of(&both[..1], Some(&known), GONE), [0, 1, 2, 199])[0], Some(2));
    }

    #[test]
    fn replicas_that_were_replaced_are_known() {
        let before = Owners::of(&[view(&[(0, 199, 1, 1)])], None, WELL);
        let mut primary = primary(1, 1);
        primary.replicas = vec![peer(7)];
        let views = [View { by: peer(1), ranges: vec![(0, 199, primary)] }];
        let after = Owners::of(&views, Some(&before), WELL);
        assert_eq!(after.primaries()[0].replicas, [peer(7)]);
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
            View {
                by: peer(7000),
                ranges: vec![
                    (0, 99, Primary { peer: peer(7000), epoch: 5, replicas: vec![replica] }),
                    (100, 199, Primary { peer: peer(7002), epoch: 6, replicas: Vec::new() }),
                ],
            }
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
