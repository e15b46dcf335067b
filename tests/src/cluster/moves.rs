//! Moves slots to another node, key by key, as `redis-cli --cluster reshard` does.

use std::{collections::BTreeMap, iter, sync::Arc};

use redis::{RedisResult, aio::MultiplexedConnection};

use super::{
    ANSWER, Cluster, PATIENCE,
    nodes::{Node, name_of},
};
use crate::{RedisServer, eventually};

const SLOTS_AT_ONCE: usize = 200;
/// How many keys move with one command, and how many are written with one pipeline.
const BATCH: usize = 100;
const PIPELINE: usize = 1_000;
/// How long one command may take, in milliseconds.
const TIMEOUT: &str = "10000";
/// The lifetime of keys in seconds, so that those of a test that has ended expire.
const TIME_TO_LIVE: u64 = 3_600;

/// Slots that have begun to move: their keys are on two nodes, and stay there when this is dropped.
/// Moving them back would leave a time in which a key is missed.
#[derive(Debug)]
#[must_use = "the slot stays half moved until `finish`"]
pub struct SlotMove<'a> {
    cluster: &'a Cluster,
    slots: Vec<u16>,
    from: Arc<RedisServer>,
    to: Arc<RedisServer>,
}

impl Cluster {
    /// Moves a slot with all its keys to this primary, and waits until all nodes say so. Does
    /// nothing if it is already there.
    ///
    /// # Panics
    ///
    /// When a node refuses.
    pub async fn move_slot(&self, slot: u16, to: &RedisServer) {
        let from = self.primary_of(slot).await;
        if from.port() != to.port() {
            self.begin(vec![slot], from, to).await.finish().await;
        }
    }

    /// The same for many slots: some hundred at a time, or all of them [at
    /// once](crate::ServerVersion::moves_slots_at_once) where the servers can do that.
    ///
    /// # Panics
    ///
    /// When a node refuses.
    pub async fn move_slots(&self, slots: impl IntoIterator<Item = u16>, to: &RedisServer) {
        let ports = self.ports().await;
        let mut by_owner: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
        for slot in slots {
            by_owner.entry(ports[usize::from(slot)]).or_default().push(slot);
        }
        by_owner.remove(&to.port());
        for (from, slots) in by_owner {
            let from = self.at(from);
            if RedisServer::version().moves_slots_at_once() {
                self.move_at_once(&slots, &from, to).await;
                continue;
            }
            for slots in slots.chunks(SLOTS_AT_ONCE) {
                self.begin(slots.to_vec(), Arc::clone(&from), to).await.finish().await;
            }
        }
    }

    async fn move_at_once(&self, slots: &[u16], from: &RedisServer, to: &RedisServer) {
        let mut connection = from.connection().await;
        let mut command = redis::cmd("CLUSTER");
        command.arg("MIGRATESLOTS").arg("SLOTSRANGE");
        for range in slots.chunk_by(|one, next| one + 1 == *next) {
            command.arg(range[0]).arg(range[range.len() - 1]);
        }
        let begun = command.arg("NODE").arg(name(to)).exec_async(&mut connection).await;
        begun.unwrap_or_else(|error| panic!("CLUSTER MIGRATESLOTS: {error}"));
        self.arrived(slots, to).await;
    }

    /// Waits until all nodes say that these slots are there.
    async fn arrived(&self, slots: &[u16], at: &RedisServer) {
        let are_there = |view: &[Node]| {
            let node = view.iter().find(|node| node.port == at.port());
            let left = slots.iter().find(|slot| node.is_none_or(|node| !node.has(**slot)));
            left.map_or(Ok(()), |slot| Err(format!("{slot} is not there: {view:#?}")))
        };
        eventually(PATIENCE, || self.agreed(are_there)).await;
    }

    /// Begins to move a slot to this primary: from now on, clients are sent there for missing keys.
    /// No key has moved yet.
    ///
    /// # Panics
    ///
    /// When a node refuses, or the slot is already there.
    pub async fn begin_move(&self, slot: u16, to: &RedisServer) -> SlotMove<'_> {
        let from = self.primary_of(slot).await;
        self.begin(vec![slot], from, to).await
    }

    async fn begin(
        &self,
        slots: Vec<u16>,
        from: Arc<RedisServer>,
        to: &RedisServer,
    ) -> SlotMove<'_> {
        let this = SlotMove { cluster: self, slots, from, to: self.at(to.port()) };
        this.set_slots(&this.to, &["IMPORTING", &name(&this.from)]).await;
        this.set_slots(&this.from, &["MIGRATING", &name(&this.to)]).await;
        this
    }

    /// Writes this many small keys into a slot: `fill:{word}:0` and so on, with the slot's
    /// [word](Self::word_of). They expire after an hour.
    ///
    /// # Panics
    ///
    /// When its primary does not take them.
    pub async fn fill_slot(&self, slot: u16, keys: usize) {
        let mut connection = self.primary_of(slot).await.connection().await;
        let word = Self::word_of(slot);
        let numbers: Vec<_> = (0..keys).collect();
        for numbers in numbers.chunks(PIPELINE) {
            let mut writes = redis::pipe();
            for number in numbers {
                let key = format!("fill:{{{word}}}:{number}");
                writes.cmd("SET").arg(key).arg(number).arg("EX").arg(TIME_TO_LIVE).ignore();
            }
            let written: RedisResult<()> = writes.query_async(&mut connection).await;
            written.expect("a primary takes what belongs to its slots");
        }
    }
}

impl SlotMove<'_> {
    /// The node that it moves from.
    pub fn from(&self) -> &RedisServer {
        &self.from
    }

    /// The node that it moves to.
    pub fn to(&self) -> &RedisServer {
        &self.to
    }

    /// Moves up to this many keys, in batches, and returns how many there were.
    ///
    /// # Panics
    ///
    /// When a node refuses.
    pub async fn move_keys(&self, keys: usize) -> usize {
        let mut moved = 0;
        let mut connection = self.from.connection().await;
        for slot in &self.slots {
            while moved < keys {
                let mut question = redis::cmd("CLUSTER");
                question.arg("GETKEYSINSLOT").arg(slot).arg((keys - moved).min(BATCH));
                let batch: RedisResult<Vec<Vec<u8>>> = question.query_async(&mut connection).await;
                let batch = batch.expect("a node knows what is in a slot");
                if batch.is_empty() {
                    break;
                }
                self.migrate(&mut connection, &batch).await;
                moved += batch.len();
            }
        }
        moved
    }

    async fn migrate(&self, connection: &mut MultiplexedConnection, keys: &[Vec<u8>]) {
        let mut command = redis::cmd("MIGRATE");
        command.arg("127.0.0.1").arg(self.to.known_port()).arg("").arg(0).arg(TIMEOUT);
        if let Some(password) = self.to.password() {
            command.arg("AUTH").arg(password);
        }
        command.arg("KEYS").arg(keys);
        // `NOKEY`, if all have expired meanwhile, is also a valid answer.
        let moved: RedisResult<String> = command.query_async(connection).await;
        moved.unwrap_or_else(|error| panic!("MIGRATE: {error}"));
    }

    /// Moves the remaining keys, closes the slots, and waits until all nodes say where they are.
    ///
    /// # Panics
    ///
    /// When a node refuses.
    pub async fn finish(self) {
        self.move_keys(usize::MAX).await;
        let owner = name(&self.to);
        // The new owner first: the old one sends clients to it as soon as it is told.
        self.set_slots(&self.to, &["NODE", &owner]).await;
        let others = self.cluster.able();
        let others = others.iter().filter(|other| other.port() != self.from.port());
        for other in iter::once(&self.from).chain(others) {
            // Replicas refuse: they learn it from the others. So does the old owner if it has
            // already learned it and, without slots, become a replica.
            let _: RedisResult<()> = self.tell(other, &["NODE", &owner]).await;
        }
        self.cluster.arrived(&self.slots, &self.to).await;
    }

    async fn set_slots(&self, server: &RedisServer, words: &[&str]) {
        let told = self.tell(server, words).await;
        let port = server.port();
        told.unwrap_or_else(|error| panic!("{words:?} of {:?} at {port}: {error}", self.slots));
    }

    async fn tell(&self, server: &RedisServer, words: &[&str]) -> RedisResult<()> {
        let mut connection = server.try_connection_within(ANSWER).await?;
        let mut commands = redis::pipe();
        for slot in &self.slots {
            commands.cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(words).ignore();
        }
        commands.query_async(&mut connection).await
    }
}

/// The name of this node.
fn name(server: &RedisServer) -> String {
    name_of(server.known_port())
}
