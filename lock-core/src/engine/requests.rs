//! Requests for locks on their way to the store, in batches.

use std::collections::VecDeque;

use super::{
    calls::{Asker, BATCH, Batch, Sent},
    shards::Shards,
};
use crate::{contract::AcquireRequest, time::Moment};

/// How many acquires may be in flight to one part of the store. A renewal finds at most this many
/// ahead of it, which take a Redis server a tenth of a second.
const MOST_ON_THEIR_WAY: usize = 10_000;

#[derive(Clone, Default, Hash)]
pub(super) struct Requests(Shards<Waiting>);

#[derive(Clone, Default, Hash)]
struct Waiting {
    askers: VecDeque<Asker>,
    on_their_way: usize,
}

impl Waiting {
    fn is_due(&self) -> bool {
        !self.askers.is_empty() && self.on_their_way < MOST_ON_THEIR_WAY
    }
}

impl Requests {
    pub(super) fn push(&mut self, shard: usize, asker: Asker) {
        self.0.at(shard).askers.push_back(asker);
    }

    pub(super) fn are_due(&self) -> bool {
        self.0.iter().any(Waiting::is_due)
    }

    /// The next batch. `request` returns what an asker asks for, if it still asks; every lease
    /// counts from `now`, before the first byte is sent.
    pub(super) fn next(
        &mut self,
        now: Moment,
        mut request: impl FnMut(&Asker) -> Option<(u64, AcquireRequest)>,
    ) -> Option<Batch<AcquireRequest, (Asker, u64)>> {
        while let Some(shard) = self.0.find(Waiting::is_due) {
            let waiting = self.0.at(shard);
            let (mut asked, mut requests) = (Vec::new(), Vec::new());
            let room = BATCH.min(MOST_ON_THEIR_WAY - waiting.on_their_way);
            while requests.len() < room
                && let Some(asker) = waiting.askers.pop_front()
            {
                if let Some((number, request)) = request(&asker) {
                    asked.push((asker, number));
                    requests.push(request);
                }
            }
            if !requests.is_empty() {
                waiting.on_their_way += requests.len();
                return Some(Batch { requests, sent: Sent { asked, shard, sent_at: now } });
            }
        }
        None
    }

    pub(super) fn answered(&mut self, sent: &Sent<(Asker, u64)>) {
        self.0.at(sent.shard).on_their_way -= sent.asked.len();
    }

    pub(super) fn close(&mut self) {
        self.0.iter_mut().for_each(|waiting| waiting.askers.clear());
    }
}
