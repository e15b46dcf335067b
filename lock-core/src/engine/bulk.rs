//! Requests that may be very numerous, and on which no held lock depends: those of debounced and
//! durable calls, status, extensions, releases by force.
//!
//! They go to the store in batches, with a bound on how many are in flight. So a flood of one kind
//! is served in the order in which it came, each request counted from when it is sent; and a
//! renewal finds no more than that bound ahead of it.

use std::{collections::VecDeque, sync::Arc};

use super::{
    calls::{BATCH, Batch, Call, Said, Sent},
    io::{Acquirer, Aftermath, Caller, HoldName, Query, Refusal, RunClaim},
    outage::Outage,
    shards::Shards,
    shared::Shared,
};
use crate::{
    contract::{
        ClaimRequest, DueRequest, DurableBook, EndWindowRequest, ExtendRequest, FinishRequest,
        ForceReleaseRequest, KeepRequest, ScanRequest, StoreError, TakeBackRequest,
    },
    time::Moment,
};

/// How many of these requests may be in flight to one part of the store: some tens of milliseconds
/// of a Redis server's time, and enough to fill a round trip on any link that is not very slow.
const MOST_ON_THEIR_WAY: usize = 1000;

#[derive(Clone, Default, Hash)]
pub(super) struct Bulk<C>(Shards<Waiting<C>>);

/// The requests that wait to be sent to one part of the store, and how many are in flight. A batch
/// has requests of one kind.
#[derive(Clone, Default, Hash)]
struct Waiting<C> {
    on_their_way: usize,
    /// For how long that part has answered none of them.
    outage: Outage,
    kinds: Kinds<C>,
    /// How many requests wait, of all kinds, and which kind comes first next time.
    count: usize,
    first: usize,
}

#[derive(Clone, Hash)]
struct Kinds<C> {
    extensions: Queue<ExtendRequest, HoldName, C>,
    holders: Queue<Arc<str>, Arc<str>, C>,
    clients: Queue<Arc<str>, (), C>,
    scans: Queue<ScanRequest, (), C>,
    forced: Queue<ForceReleaseRequest, Arc<str>, C>,
    due_in: Queue<Arc<str>, (), C>,
    ends: Queue<EndWindowRequest, bool, C>,
    keep: Queue<KeepRequest, (), C>,
    due: Queue<DueRequest, (), C>,
    waiting: Queue<DueRequest, (), C>,
    finish: Queue<FinishRequest, (), C>,
    set_aside: Queue<DurableBook, (), C>,
    take_back: Queue<TakeBackRequest, (), C>,
    claims: Queue<ClaimRequest, Acquirer<()>, C>,
}

/// Requests of one kind, in the order in which they came, and the call that sends a batch of them.
#[derive(Clone, Hash)]
struct Queue<Q, T, C> {
    waiting: VecDeque<(Q, T, C)>,
    call: ToCall<Q, T, C>,
}

type ToCall<Q, T, C> = fn(Batch<Q, (T, C)>) -> Call<C>;

/// A [`Queue`] of any kind.
trait Kind<C> {
    fn len(&self) -> usize;
    /// Removes all requests; returns the callers, which are not served.
    fn drain(&mut self) -> Vec<C>;
    /// The next batch, and how many are in it.
    fn next(&mut self, room: usize, shard: usize, now: Moment) -> Option<(usize, Call<C>)>;
}

impl<Q, T, C> Queue<Q, T, C> {
    fn new(call: ToCall<Q, T, C>) -> Self {
        Self { waiting: VecDeque::new(), call }
    }

    fn push(&mut self, request: Q, about: T, to: C) {
        self.waiting.push_back((request, about, to));
    }
}

impl<Q, T, C: Caller> Kind<C> for Queue<Q, T, C> {
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn drain(&mut self) -> Vec<C> {
        self.waiting.drain(..).map(|(_, _, to)| to).collect()
    }

    /// Skips requests that nobody waits for any more: a release by force that was given up must not
    /// be carried out later, on another holder.
    fn next(&mut self, room: usize, shard: usize, sent_at: Moment) -> Option<(usize, Call<C>)> {
        let (mut requests, mut asked) = (Vec::new(), Vec::new());
        while requests.len() < room
            && let Some((request, about, to)) = self.waiting.pop_front()
        {
            if !to.is_gone() {
                requests.push(request);
                asked.push((about, to));
            }
        }
        let count = requests.len();
        let batch = Batch { requests, sent: Sent { asked, shard, sent_at } };
        (count > 0).then(|| (count, (self.call)(batch)))
    }
}

impl<C> Default for Kinds<C> {
    fn default() -> Self {
        Self {
            extensions: Queue::new(Call::Extend),
            holders: Queue::new(Call::Holder),
            clients: Queue::new(Call::Client),
            scans: Queue::new(Call::Scan),
            forced: Queue::new(Call::ForceRelease),
            due_in: Queue::new(Call::DueIn),
            ends: Queue::new(Call::EndWindow),
            keep: Queue::new(Call::Keep),
            due: Queue::new(Call::Due),
            waiting: Queue::new(Call::Waiting),
            finish: Queue::new(Call::Finish),
            set_aside: Queue::new(Call::SetAside),
            take_back: Queue::new(Call::TakeBack),
            claims: Queue::new(Call::Claim),
        }
    }
}

impl<C: Caller> Kinds<C> {
    /// All kinds but the extensions.
    fn others(&mut self) -> [&mut dyn Kind<C>; 13] {
        let Self { holders, clients, scans, forced, ends, due_in, .. } = self;
        let Self { keep, due, waiting, finish, set_aside, take_back, claims, .. } = self;
        [
            holders, clients, scans, forced, ends, due_in, keep, due, waiting, finish, set_aside,
            take_back, claims,
        ]
    }
}

impl<C: Caller> Waiting<C> {
    /// How many more requests may go into a batch now.
    fn room(&self) -> usize {
        MOST_ON_THEIR_WAY.saturating_sub(self.on_their_way).min(BATCH)
    }

    fn next_extensions(&mut self, shard: usize, now: Moment) -> Option<Call<C>> {
        let (count, call) = self.kinds.extensions.next(self.room(), shard, now)?;
        self.count -= count;
        self.on_their_way += count;
        Some(call)
    }

    /// The next batch of the other kinds. Each kind comes first in its turn, so that a flood of one
    /// of them, which takes whatever room there is, does not keep the others waiting.
    fn next(&mut self, shard: usize, now: Moment) -> Option<Call<C>> {
        let room = self.room();
        if self.count == 0 || room == 0 {
            return None;
        }
        let extensions = self.kinds.extensions.len();
        let mut kinds = self.kinds.others();
        let count = kinds.len();
        let mut in_turn = (self.first..self.first + count).map(|kind| kind % count);
        let next = in_turn.find_map(|kind| Some((kind + 1, kinds[kind].next(room, shard, now)?)));
        self.count = extensions + kinds.iter().map(|kind| kind.len()).sum::<usize>();
        let (first, (count, call)) = next?;
        self.first = first;
        self.on_their_way += count;
        Some(call)
    }

    fn refuse(&mut self, refusal: impl Fn() -> Refusal, shared: &mut Shared<C>) {
        let extensions: &mut dyn Kind<C> = &mut self.kinds.extensions;
        let mut callers = extensions.drain();
        callers.extend(self.kinds.others().into_iter().flat_map(|kind| kind.drain()));
        callers.into_iter().for_each(|to| shared.refuse(to, refusal()));
        self.count = 0;
    }
}

impl<C: Caller> Bulk<C> {
    pub(super) fn extend(
        &mut self,
        hold: HoldName,
        request: ExtendRequest,
        to: C,
        shared: &Shared<C>,
    ) {
        let shard = self.0.at(shared.shard(&request.key));
        shard.kinds.extensions.push(request, hold, to);
        shard.count += 1;
    }

    pub(super) fn ask(&mut self, query: Query, to: C, shared: &Shared<C>) {
        let shard = self.0.at(shared.shard(query.key()));
        let kinds = &mut shard.kinds;
        match query {
            Query::Holder(key) => kinds.holders.push(Arc::clone(&key), key, to),
            Query::Client(key) => kinds.clients.push(key, (), to),
            Query::Scan(request) => kinds.scans.push(request, (), to),
            Query::ForceRelease(request) => {
                let key = Arc::clone(&request.key);
                kinds.forced.push(request, key, to);
            }
            Query::DueIn { window, .. } => kinds.due_in.push(window, (), to),
            Query::EndWindow { window, end, waited, .. } => {
                kinds.ends.push(EndWindowRequest::new(window, end), waited, to);
            }
            Query::Keep(request) => kinds.keep.push(request, (), to),
            Query::Due(request) => kinds.due.push(request, (), to),
            Query::Waiting(request) => kinds.waiting.push(request, (), to),
            Query::Finish(request) => kinds.finish.push(request, (), to),
            Query::SetAside(book) => kinds.set_aside.push(book, (), to),
            Query::TakeBack(request) => kinds.take_back.push(request, (), to),
        }
        shard.count += 1;
    }

    pub(super) fn claim(&mut self, claim: RunClaim<C>, shared: &Shared<C>) {
        let RunClaim { acquirer: Acquirer { number, key, terms, to }, book, id } = claim;
        let shard = self.0.at(shared.shard(&book.due));
        let token = shared.token(number);
        let request = ClaimRequest::new(book, id, Arc::clone(&key), token, terms.lease);
        shard.kinds.claims.push(request, Acquirer { number, key, terms, to: () }, to);
        shard.count += 1;
    }

    pub(super) fn claims_wait(&self) -> bool {
        self.0.iter().any(|shard| shard.kinds.claims.len() > 0)
    }

    /// How many more requests may go into a batch to this part of the store now.
    pub(super) fn room(&mut self, shard: usize) -> usize {
        self.0.at(shard).room()
    }

    /// Makes a batch of requests that are kept elsewhere; they count against the same bound.
    pub(super) fn batch<Q, T>(
        &mut self,
        (requests, asked): (Vec<Q>, Vec<T>),
        shard: usize,
        sent_at: Moment,
    ) -> Batch<Q, T> {
        self.0.at(shard).on_their_way += asked.len();
        Batch { requests, sent: Sent { asked, shard, sent_at } }
    }

    /// The next call that extends leases. It comes early, because it is about locks that are held.
    pub(super) fn next_extensions(&mut self, now: Moment) -> Option<Call<C>> {
        let mut shards = self.0.iter_mut().enumerate();
        shards.find_map(|(shard, waiting)| waiting.next_extensions(shard, now))
    }

    /// The next of the other calls.
    pub(super) fn next(&mut self, now: Moment) -> Option<Call<C>> {
        self.0.iter_mut().enumerate().find_map(|(shard, waiting)| waiting.next(shard, now))
    }

    /// Could anything be sent now?
    pub(super) fn is_due(&self) -> bool {
        self.0.find(|shard| shard.count > 0 && shard.room() > 0).is_some()
    }

    /// A batch was answered. If the store answers, what waits goes on. If the store has been silent
    /// for as long as a caller may be asked to wait, the requests that wait are refused, since
    /// their turn will not come, and the silence is returned. `others`: more requests wait
    /// elsewhere.
    pub(super) fn answered<T, A>(
        &mut self,
        sent: &Sent<T>,
        answers: &[Said<A>],
        others: bool,
        shared: &mut Shared<C>,
    ) -> Option<StoreError> {
        let shard = self.0.at(sent.shard);
        shard.on_their_way = shard.on_their_way.saturating_sub(sent.asked.len());
        let is_silence = |answer: &Said<A>| answer.as_ref().is_err_and(StoreError::is_silence);
        let silence = answers.first().filter(|_| answers.iter().all(is_silence));
        // If this silence keeps nobody waiting, the next one is counted from its own start.
        let idle = shard.on_their_way == 0 && shard.count == 0 && !others;
        let Some(Err(silence)) = silence.filter(|_| !idle) else {
            shard.outage.end();
            return None;
        };
        shard.outage.failed(sent.sent_at);
        if !shard.outage.is_over_limit(shared.now) {
            return None;
        }
        shard.refuse(|| Refusal::Failed(silence.clone(), Aftermath::NotSent), shared);
        Some(silence.clone())
    }

    pub(super) fn close(&mut self, shared: &mut Shared<C>) {
        self.0.iter_mut().for_each(|shard| shard.refuse(|| Refusal::Closed, shared));
    }
}

#[cfg(test)]
mod tests;
