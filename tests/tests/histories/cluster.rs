//! The world with a Cluster: three primaries with a replica each, over which the ids are spread.
//!
//! - **Failovers** (`cluster/failovers.rs`): replication is asynchronous, so grants on the shard
//!   may be lost from the beginning of the fault until the new primary serves and the old one does
//!   not. That is recorded as a loss of data for the ids of this shard only. A failover by command
//!   is not recorded at all: there, the replica has received everything.
//! - **Slots that move**, and **nodes that come and go** (`cluster/moves.rs`): the data moves with
//!   them, so there are no excuses.
//!
//! One prober takes locks in the affected slots, and another one in all others, where clients must
//! not notice anything.

mod failovers;
mod moves;

use std::{
    iter, mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lock::Locks;
use lock_tests::{Cluster, Random, RedisServer, WorkIds, eventually, ms, now};
use tokio::time::sleep;

use super::{
    end::End,
    prober::Prober,
    timings::Timings,
    world::{Clocks, Versions, World},
};

/// How many processes lock.
const CLIENTS: usize = 3;

/// The kinds of events.
pub(super) const KINDS: [&str; 6] = [
    "failover by command",
    "primary killed",
    "primary stopped",
    "primary cut off",
    "slots moved",
    "node exchanged",
];

/// An additional failover, begun by the nodes because they took a slow one for dead.
const UNASKED: &str = "failover that nobody asked for";

/// A further measurement, besides the next lock on a new primary.
pub(super) const ELSEWHERE: &str = "longest acquire on the other shards";

/// The minimum of holds between two events, while all is well.
const HOLDS_BETWEEN: usize = 300;

/// How many other keys are in the slots of the contended ids.
const OTHER_KEYS: usize = 20_000;

pub(super) struct Shards {
    seed: u64,
    world: World,
    cluster: Cluster,
    ids: WorkIds,
    /// In the affected slots.
    concerned: Prober,
    /// Everywhere else.
    elsewhere: Prober,
    /// Two clients: one holds locks, and the other waits for them, while their slots move.
    holder: Locks,
    successor: Locks,
    timings: Mutex<Timings>,
    /// Where each slot was at the last look, and the time of that look.
    known: Mutex<(Vec<u16>, u64)>,
    outages: Mutex<Vec<Outage>>,
}

/// Locks that could not be renewed, and when.
struct Outage {
    ids: Vec<String>,
    from: u64,
    to: u64,
}

impl Shards {
    pub(super) async fn start(seed: u64) -> Self {
        let servers = RedisServer::builder().flag("--cluster-require-full-coverage", "no");
        let cluster = Cluster::builder().severable(true).servers(servers).start().await;
        let ids = WorkIds::all();
        for id in &ids.hot {
            cluster.fill_slot(slot_of(id), OTHER_KEYS).await;
        }
        let url = cluster.url();
        let versions = Versions::One { min_replicas: 0 };
        let known = Mutex::new((cluster.ports().await, now()));
        Self {
            seed,
            world: World::start(
                seed,
                iter::repeat_n(url.clone(), CLIENTS),
                versions,
                Clocks::Shared,
            ),
            ids,
            concerned: Prober::start(url.clone()),
            elsewhere: Prober::start(url.clone()),
            holder: Locks::connect(&url).await.unwrap(),
            successor: Locks::connect(&url).await.unwrap(),
            cluster,
            timings: Mutex::default(),
            known,
            outages: Mutex::default(),
        }
    }

    /// Runs this many events of each kind.
    pub(super) async fn run(&self, each: u64) {
        self.world.ready().await;
        let mut random = Random::new(self.seed);
        let mut bag = Vec::new();
        for _ in 0..each * KINDS.len() as u64 {
            let kind = random.draw(&mut bag, || KINDS.to_vec());
            let event = async {
                self.is_well(&mut random).await;
                match kind {
                    "slots moved" => self.move_slots(kind, &mut random).await,
                    "node exchanged" => self.exchange_node(kind, &mut random).await,
                    _ => self.fail_over(kind, &mut random).await,
                }
            };
            self.world.listen_until(event).await;
            self.world.count(kind);
        }
        self.world.listen_until(self.is_well(&mut random)).await;
    }

    /// Lets all clients finish, and checks what is left. Also returns the holds that ran out
    /// although their shard was available.
    pub(super) async fn end(self) -> (End, Timings, Vec<(String, u64)>) {
        self.cluster.settled().await;
        self.concerned.finish();
        self.elsewhere.finish();
        self.holder.shutdown().await;
        self.successor.shutdown().await;
        self.world.finish().await;
        let primaries = self.cluster.primaries().await;
        let primaries: Vec<_> = primaries.iter().map(|primary| &**primary).collect();
        let end = self.world.end(&primaries, &self.cluster.url(), ms(2000)).await;
        let outages = self.outages.into_inner().unwrap_or_else(PoisonError::into_inner);
        let is_explained = |id: &String, at: u64| {
            outages
                .iter()
                .any(|outage| (outage.from..=outage.to).contains(&at) && outage.ids.contains(id))
        };
        let mut starved = end.ran_out.clone();
        starved.retain(|(id, at)| !is_explained(id, *at));
        let timings = self.timings.into_inner().unwrap_or_else(PoisonError::into_inner);
        (end, timings, starved)
    }

    /// Waits until the cluster is in order, and has then been used for a while.
    async fn is_well(&self, random: &mut Random) {
        self.cluster.settled().await;
        for primary in self.cluster.primaries().await {
            // When a node is exchanged, a replica also moves.
            self.cluster.replica_of(&primary).await;
        }
        let before = self.world.acquisitions();
        sleep(ms(500 + random.below(500))).await;
        eventually(ms(20_000), async || {
            let since = self.world.acquisitions() - before;
            if since >= HOLDS_BETWEEN { Ok(()) } else { Err(format!("{since} holds")) }
        })
        .await;
    }

    /// Aims the probers: at the slots of these ids, and at all others.
    async fn aim(&self, concerns: impl Fn(&str) -> bool) -> Vec<String> {
        let ids = self.ids.iter().cloned();
        let (concerned, others): (Vec<_>, Vec<_>) = ids.partition(|id| concerns(id));
        let keys = |ids: &[String]| ids.iter().map(|id| key_of(id)).collect();
        self.concerned.aim(keys(&concerned)).await;
        self.elsewhere.aim(keys(&others)).await;
        concerned
    }

    /// Checks and records how the other slots fared since the probers were aimed.
    async fn look_elsewhere(&self, kind: &'static str) {
        let others = self.elsewhere.aimed().await;
        self.time(ELSEWHERE, kind, others.longest);
        for failure in others.failures {
            self.world.violation(format!("{kind}: on another shard: {failure}"));
        }
    }

    /// Compares where the slots are and were with what was done; `was_done` gets the slot, its old
    /// port and its new port. If the nodes have done something on their own, anything may have been
    /// lost since the last look.
    async fn account_for(&self, was_done: impl Fn(u16, u16, u16) -> bool) {
        let at = now();
        let ports = self.cluster.ports().await;
        let (before, since) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            mem::replace(&mut *known, (ports.clone(), at))
        };
        let strayed = self.ids.iter().find(|id| {
            let slot = slot_of(id);
            let [before, now] = [&before, &ports].map(|ports| ports[usize::from(slot)]);
            !was_done(slot, before, now)
        });
        if strayed.is_some() {
            self.world.count(UNASKED);
            self.world.forgetting(since);
        }
    }

    fn time(&self, what: &'static str, kind: &'static str, time: Duration) {
        self.timings.lock().unwrap_or_else(PoisonError::into_inner).add(what, kind, time);
    }

    /// A primary other than this one.
    async fn another_primary(&self, than: u16, random: &mut Random) -> Arc<RedisServer> {
        let mut others = self.cluster.primaries().await;
        others.retain(|primary| primary.port() != than);
        let place = random.below(others.len() as u64) as usize;
        others.swap_remove(place)
    }
}

/// The key of the lock of an id.
fn key_of(id: &str) -> String {
    format!("lock:{id}")
}

fn slot_of(id: &str) -> u16 {
    Cluster::slot_of(key_of(id))
}

/// A random one of these ids.
fn any<'a>(ids: &'a [String], random: &mut Random) -> &'a String {
    &ids[random.below(ids.len() as u64) as usize]
}
