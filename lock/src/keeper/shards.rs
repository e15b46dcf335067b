//! The parts of the store, and what waits to be sent to each: one that is silent delays no other.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{attempts::Asker, bulk::Bulk, task::Task};
use crate::contained::contained;

/// More parts than that share what they have.
const MOST: usize = 1024;

/// What the next turn sends to one part of the store, and what is on its way there.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) to_release: Vec<u64>,
    pub(super) to_acquire: Vec<Asker>,
    /// How many acquires are on their way.
    pub(super) acquiring: usize,
    /// Bursts that want to be asked about.
    pub(super) to_ask: VecDeque<Arc<str>>,
    /// What may wait until there is room for it.
    pub(super) bulk: Bulk,
    /// Renewals that are due, the longest waiting first: the numbers of the locks, and for how long.
    pub(super) due: Vec<(u64, Duration)>,
}

/// All of them, by their numbers.
pub(super) struct Shards(Vec<Shard>);

impl Default for Shards {
    fn default() -> Self {
        Self(vec![Shard::default()])
    }
}

impl Shards {
    /// One of them; they are there once they are asked for.
    pub(super) fn at(&mut self, number: usize) -> &mut Shard {
        if number >= self.0.len() {
            self.0.resize_with(number + 1, Shard::default);
        }
        &mut self.0[number]
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Shard> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.0.iter_mut()
    }

    /// Does anything wait that could be sent now?
    pub(super) fn want_to_send(&self) -> bool {
        self.0.iter().any(|shard| {
            !shard.to_release.is_empty()
                || !shard.to_acquire.is_empty()
                || !shard.to_ask.is_empty()
                || shard.bulk.wants_to_send()
        })
    }
}

impl Task {
    /// The number of the part that this key is in.
    pub(super) fn shard_of(&self, key: &str) -> usize {
        if self.is_embedded {
            return 0;
        }
        // It is the store's code.
        contained(|| self.store.shard(key)).unwrap_or(0) % MOST
    }

    /// The part that this key is in.
    pub(super) fn shard(&mut self, key: &str) -> &mut Shard {
        let number = self.shard_of(key);
        self.shards.at(number)
    }
}
