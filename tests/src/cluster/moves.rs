//! Slots that move to another node, key by key, as `redis-cli --cluster reshard` has them move.

use std::sync::Arc;

use redis::{FromRedisValue, RedisResult};

use super::{Cluster, PATIENCE, ask};
use crate::{RedisServer, eventually};

/// How many keys go with one command, and how many are written with one pipeline.
const BATCH: usize = 100;
const PIPELINE: usize = 1_000;
/// How long one command may take, in milliseconds.
const TIMEOUT: &str = "10000";
/// Keys of a test that has ended go by themselves.
const TIME_TO_LIVE: u64 = 3_600;

/// A slot that has begun to move: its keys are at two nodes. It stays so when this is dropped. There
/// is no way back: keys are missed on it.
#[derive(Debug)]
#[must_use = "the slot stays half moved until `finish`"]
pub struct SlotMove<'a> {
    cluster: &'a Cluster,
    slot: u16,
    from: Arc<RedisServer>,
    to: Arc<RedisServer>,
}

impl Cluster {
    /// Moves a slot to this primary, with all keys, and waits until all nodes say so. Does nothing
    /// if it is there.
    ///
    /// # Panics
    ///
    /// When a node refuses.
    pub async fn move_slot(&self, slot: u16, to: &RedisServer) {
        if self.primary_of(slot).await.port() != to.port() {
            self.begin_move(slot, to).await.finish().await;
        }
    }

    /// Opens a slot for its way to this primary: keys that are missing are looked for there from
    /// now on. None has moved yet.
    ///
    /// # Panics
    ///
    /// When a node refuses, or the slot is there.
    pub async fn begin_move(&self, slot: u16, to: &RedisServer) -> SlotMove<'_> {
        let (from, to) = (self.primary_of(slot).await, self.at(to.port()));
        let this = SlotMove { cluster: self, slot, from, to };
        this.set_slot(&this.to, &["IMPORTING", &name(&this.from).await]).await;
        this.set_slot(&this.from, &["MIGRATING", &name(&this.to).await]).await;
        this
    }

    /// Writes so many small keys into a slot: `fill:{word}:0` and so on, with the slot's
    /// [word](Self::word_of). They have an hour to live.
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
    /// From where it moves.
    pub fn from(&self) -> &RedisServer {
        &self.from
    }

    /// Where it moves to.
    pub fn to(&self) -> &RedisServer {
        &self.to
    }

    /// Moves so many keys, in batches, and says how many there were.
    ///
    /// # Panics
    ///
    /// When a node refuses.
    pub async fn move_keys(&self, keys: usize) -> usize {
        let mut moved = 0;
        while moved < keys {
            let count = (keys - moved).min(BATCH).to_string();
            let slot = self.slot.to_string();
            let question = ["CLUSTER", "GETKEYSINSLOT", &slot, &count];
            // Not as text: any bytes are a key.
            let batch: Vec<Vec<u8>> = told(&self.from, &question).await;
            if batch.is_empty() {
                break;
            }
            self.migrate(&batch).await;
            moved += batch.len();
        }
        moved
    }

    async fn migrate(&self, keys: &[Vec<u8>]) {
        let mut command = redis::cmd("MIGRATE");
        command.arg("127.0.0.1").arg(self.to.known_port()).arg("").arg(0).arg(TIMEOUT);
        if let Some(password) = self.to.password() {
            command.arg("AUTH").arg(password);
        }
        command.arg("KEYS").arg(keys);
        let mut connection = self.from.connection().await;
        // `NOKEY`, if all have expired meanwhile, is an answer, too.
        let moved: RedisResult<String> = command.query_async(&mut connection).await;
        moved.unwrap_or_else(|error| panic!("MIGRATE: {error}"));
    }

    /// Moves the keys that are left, closes the slot, and waits until all nodes say where it is.
    ///
    /// # Panics
    ///
    /// When a node refuses.
    pub async fn finish(self) {
        let owner = name(&self.to).await;
        self.move_keys(usize::MAX).await;
        // This one first: the old one sends clients to it as soon as it is told.
        self.set_slot(&self.to, &["NODE", &owner]).await;
        self.set_slot(&self.from, &["NODE", &owner]).await;
        for other in self.cluster.servers().iter().filter(|server| server.is_running()) {
            // A replica is told by its primary, and refuses to be told by somebody else.
            let _: RedisResult<()> = self.slot_command(other, &["NODE", &owner]).await;
        }
        let to = self.to.port();
        let is_there = || async {
            let at = self.cluster.agreed(|view| super::owner(view, self.slot)).await?;
            if at == to { Ok(()) } else { Err(format!("it is at {at}")) }
        };
        eventually(PATIENCE, is_there).await;
    }

    async fn set_slot(&self, server: &RedisServer, words: &[&str]) {
        let answer = self.slot_command(server, words).await;
        let port = server.port();
        answer.unwrap_or_else(|error| panic!("{words:?} of slot {} at {port}: {error}", self.slot));
    }

    async fn slot_command(&self, server: &RedisServer, words: &[&str]) -> RedisResult<()> {
        let slot = self.slot.to_string();
        let command = [&["CLUSTER", "SETSLOT", &slot], words].concat();
        ask(server, &command).await
    }
}

/// What the nodes call this one.
pub(super) async fn name(server: &RedisServer) -> String {
    told(server, &["CLUSTER", "MYID"]).await
}

pub(super) async fn told<T: FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let answer = ask(server, words).await;
    answer.unwrap_or_else(|error| panic!("{words:?} at {}: {error}", server.port()))
}
