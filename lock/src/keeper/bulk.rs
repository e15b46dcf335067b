//! Requests that there may be very many of, and that no held lock depends on: what debounced and
//! durable calls ask, status, extensions, releases by force.
//!
//! They go to the store in batches, with a bound on what is on its way. So a flood of one kind is
//! served in the order in which it came, each counted from when it is sent; and a renewal finds no
//! more than that bound ahead of it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

#[cfg(feature = "durable")]
use super::durable::{Claiming, Step, Steps};
use super::{
    NOT_SENT, NOTHING, UNKNOWN,
    held::HoldName,
    holds::Extended,
    reply::Reply,
    store_calls::Ask,
    store_error,
    task::{BATCH, Done, Task},
};
use crate::{
    Error, Status,
    contract::{
        EndWindowRequest, ExtendRequest, Holder, RESERVATION, Release, StoreError, WindowEnd,
    },
    core::{Moment, outage::Outage},
    id::Named,
    store::Store,
};

/// How many of these requests may be on their way to one part of the store: some tens of milliseconds
/// of a Redis server's time, and a round trip's worth on any link that is not very slow.
const MOST_ON_THEIR_WAY: usize = 1000;

/// What is sent in batches of its own.
#[derive(Clone, Copy)]
enum Kind {
    Statuses,
    Forced,
    Ends,
    #[cfg(feature = "durable")]
    Keep,
    #[cfg(feature = "durable")]
    Due,
    #[cfg(feature = "durable")]
    Finish,
    #[cfg(feature = "durable")]
    SetAside,
    #[cfg(feature = "durable")]
    TakeBack,
    #[cfg(feature = "durable")]
    Claims,
}

const KINDS: &[Kind] = &[
    Kind::Statuses,
    Kind::Forced,
    Kind::Ends,
    #[cfg(feature = "durable")]
    Kind::Keep,
    #[cfg(feature = "durable")]
    Kind::Due,
    #[cfg(feature = "durable")]
    Kind::Finish,
    #[cfg(feature = "durable")]
    Kind::SetAside,
    #[cfg(feature = "durable")]
    Kind::TakeBack,
    #[cfg(feature = "durable")]
    Kind::Claims,
];

/// What waits to be sent to one part of the store, and how much is on its way.
#[derive(Default)]
pub(super) struct Bulk {
    on_their_way: usize,
    /// Which of [`KINDS`] comes first next time.
    turn: usize,
    /// That part has answered none of them.
    outage: Outage,
    extensions: Waiting<(HoldName, Duration), ()>,
    statuses: Waiting<Named, Status>,
    forced: Waiting<Named, bool>,
    ends: Waiting<End, bool>,
    #[cfg(feature = "durable")]
    steps: Steps,
    #[cfg(feature = "durable")]
    claims: VecDeque<Box<Claiming>>,
}

/// What one caller asks.
pub(super) struct Asked<Q, T> {
    pub(super) question: Q,
    pub(super) reply: Reply<Result<T, Error>>,
}

/// A window that is to end before its time, and whether calls of this process waited for it.
type End = (EndWindowRequest, bool);

/// Requests of one kind, in the order in which they came.
pub(super) struct Waiting<Q, T>(VecDeque<Asked<Q, T>>);

impl<Q, T> Default for Waiting<Q, T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<Q, T> Waiting<Q, T> {
    pub(super) fn push(&mut self, question: Q, reply: Reply<Result<T, Error>>) {
        self.0.push_back(Asked { question, reply });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// No more than one batch of them, and nothing that nobody waits for any more: a release by
    /// force that was given up must not be carried out later, on another holder.
    pub(super) fn next(&mut self, room: usize) -> Vec<Asked<Q, T>> {
        let mut batch = Vec::with_capacity(room.min(self.0.len()));
        while batch.len() < room
            && let Some(next) = self.0.pop_front()
        {
            if !next.reply.is_closed() {
                batch.push(next);
            }
        }
        batch
    }

    pub(super) fn refuse(&mut self, error: impl Fn() -> Error) {
        for Asked { reply, .. } in self.0.drain(..) {
            let _ = reply.send(Err(error()));
        }
    }
}

/// How many of the requests were on their way together, and whether the store has answered any.
pub(super) struct Load {
    shard: usize,
    items: usize,
    sent_at: Moment,
    silence: Option<StoreError>,
}

/// The answers to one batch.
pub(super) enum Answered {
    Statuses(Vec<Asked<Named, Status>>, Vec<Result<Option<Holder>, StoreError>>),
    Forced(Vec<Asked<Named, bool>>, Vec<Result<Release, StoreError>>),
    Ends(Vec<Asked<End, bool>>, Vec<Result<bool, StoreError>>),
    /// Those who have asked have their answers.
    #[cfg(feature = "durable")]
    Told,
}

impl Bulk {
    /// How many more requests may go into a batch now.
    pub(super) fn room(&self) -> usize {
        MOST_ON_THEIR_WAY.saturating_sub(self.on_their_way).min(BATCH)
    }

    pub(super) fn extend(&mut self, name: HoldName, by: Duration, reply: Reply<Result<(), Error>>) {
        self.extensions.push((name, by), reply);
    }

    pub(super) fn status(&mut self, lock: Named, reply: Reply<Result<Status, Error>>) {
        self.statuses.push(lock, reply);
    }

    pub(super) fn force_release(&mut self, lock: Named, reply: Reply<Result<bool, Error>>) {
        self.forced.push(lock, reply);
    }

    pub(super) fn end_window(
        &mut self,
        window: Arc<str>,
        end: WindowEnd,
        waited: bool,
        reply: Reply<Result<bool, Error>>,
    ) {
        self.ends.push((EndWindowRequest::new(window, end), waited), reply);
    }

    /// Does anything wait that could be sent now?
    pub(super) fn wants_to_send(&self) -> bool {
        self.waits() && self.room() > 0
    }

    fn waits(&self) -> bool {
        let waits = !self.extensions.is_empty()
            || !self.statuses.is_empty()
            || !self.forced.is_empty()
            || !self.ends.is_empty();
        #[cfg(feature = "durable")]
        let waits = waits || !self.steps.is_empty() || !self.claims.is_empty();
        waits
    }

    /// Answers all that wait with an error.
    fn refuse(&mut self, error: impl Fn() -> Error) {
        self.extensions.refuse(&error);
        self.statuses.refuse(&error);
        self.forced.refuse(&error);
        self.ends.refuse(&error);
        #[cfg(feature = "durable")]
        self.steps.refuse(&error);
        #[cfg(feature = "durable")]
        for claiming in self.claims.drain(..) {
            claiming.refuse(error());
        }
    }
}

impl Task {
    /// A batch whose answers tell whether the store is there.
    pub(super) fn call_in_bulk<R, A, D>(
        &mut self,
        shard: usize,
        batch: Vec<R>,
        ask: Ask<R, A>,
        done: D,
    ) where
        R: Send + Sync + 'static,
        A: 'static,
        D: FnOnce(Vec<Result<A, StoreError>>) -> Done + Send + 'static,
    {
        let (sent_at, items) = (self.now, batch.len());
        self.shards.at(shard).bulk.on_their_way += items;
        self.call_store(batch, ask, move |answers| {
            let is_silence =
                |answer: &Result<A, StoreError>| answer.as_ref().is_err_and(StoreError::is_silence);
            let silence = match answers.first() {
                Some(Err(error)) if answers.iter().all(is_silence) => Some(error.clone()),
                _ => None,
            };
            Done::Bulk(Load { shard, items, sent_at, silence }, Box::new(done(answers)))
        });
    }

    /// What waits in bulk goes on if the store answers; if it has been silent for as long as a
    /// caller may be asked to wait for an answer, nobody waits for a turn that will not come.
    pub(super) fn take_load(&mut self, load: Load) {
        let shard = self.shards.at(load.shard);
        shard.bulk.on_their_way = shard.bulk.on_their_way.saturating_sub(load.items);
        let Some(silence) = load.silence else {
            shard.bulk.outage.end();
            return;
        };
        if shard.bulk.on_their_way == 0 && !shard.bulk.waits() && shard.to_ask.is_empty() {
            // Nobody is kept waiting by this silence; the next one begins anew.
            shard.bulk.outage.end();
            return;
        }
        shard.bulk.outage.failed(load.sent_at);
        if shard.bulk.outage.is_borne(self.now) {
            shard.bulk.refuse(|| store_error(&silence, NOT_SENT));
            self.give_up_questions(load.shard, &silence);
        }
    }

    pub(super) fn close_bulk(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.bulk.refuse(Error::closed));
    }

    #[cfg(feature = "durable")]
    pub(super) fn durable(&mut self, step: Step) {
        self.shard(&Arc::clone(step.key())).bulk.steps.push(step);
    }

    #[cfg(feature = "durable")]
    pub(super) fn claim(&mut self, claiming: Box<Claiming>) {
        self.shard(&Arc::clone(claiming.key())).bulk.claims.push_back(claiming);
    }

    #[cfg(feature = "durable")]
    pub(super) fn claims_wait(&self) -> bool {
        self.shards.iter().any(|shard| !shard.bulk.claims.is_empty())
    }

    /// Sends extensions: they are about locks that are held.
    pub(super) fn send_extensions(&mut self) {
        for shard in 0..self.shards.count() {
            self.send_extensions_to(shard);
        }
    }

    fn send_extensions_to(&mut self, shard: usize) {
        loop {
            let bulk = &mut self.shards.at(shard).bulk;
            let batch = bulk.extensions.next(bulk.room());
            if batch.is_empty() {
                return;
            }
            let mut asked = Vec::with_capacity(batch.len());
            let mut requests = Vec::with_capacity(batch.len());
            for Asked { question: (name, by), reply } in batch {
                match self.extendable(name, by) {
                    Ok((key, token)) => {
                        asked.push((name, reply));
                        requests.push(ExtendRequest { key, token, by });
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            if requests.is_empty() {
                continue;
            }
            let sent_at = self.now;
            self.call_in_bulk(shard, requests, <dyn Store>::extend, move |answers| {
                Done::Extended(Extended { asked, sent_at, answers })
            });
        }
    }

    /// Sends what else waits. Each kind comes first in its turn, so that a flood of one of them, which
    /// takes whatever room there is, does not keep the others waiting.
    pub(super) fn send_bulk(&mut self) {
        for shard in 0..self.shards.count() {
            self.send_bulk_to(shard);
        }
    }

    fn send_bulk_to(&mut self, shard: usize) {
        loop {
            let bulk = &mut self.shards.at(shard).bulk;
            if !bulk.wants_to_send() || !bulk.extensions.is_empty() {
                return;
            }
            let first = bulk.turn;
            bulk.turn = (first + 1) % KINDS.len();
            for kind in KINDS.iter().cycle().skip(first).take(KINDS.len()) {
                self.send_kind(shard, *kind);
            }
        }
    }

    fn send_kind(&mut self, shard: usize, kind: Kind) {
        let bulk = &mut self.shards.at(shard).bulk;
        let room = bulk.room();
        match kind {
            Kind::Statuses => {
                let batch = bulk.statuses.next(room);
                self.send_batch(
                    shard,
                    batch,
                    |lock| Arc::clone(&lock.key),
                    <dyn Store>::holder,
                    Answered::Statuses,
                );
            }
            Kind::Forced => {
                let batch = bulk.forced.next(room);
                self.send_batch(
                    shard,
                    batch,
                    |lock| Arc::clone(&lock.key),
                    <dyn Store>::force_release,
                    Answered::Forced,
                );
            }
            Kind::Ends => {
                let batch = bulk.ends.next(room);
                self.send_batch(
                    shard,
                    batch,
                    |(request, _)| request.clone(),
                    <dyn Store>::end_window,
                    Answered::Ends,
                );
            }
            #[cfg(feature = "durable")]
            Kind::Keep => {
                let batch = bulk.steps.keep.next(room);
                self.pass_on(shard, batch, <dyn Store>::keep);
            }
            #[cfg(feature = "durable")]
            Kind::Due => {
                let batch = bulk.steps.due.next(room);
                self.pass_on(shard, batch, <dyn Store>::due);
            }
            #[cfg(feature = "durable")]
            Kind::Finish => {
                let batch = bulk.steps.finish.next(room);
                self.pass_on(shard, batch, <dyn Store>::finish);
            }
            #[cfg(feature = "durable")]
            Kind::SetAside => {
                let batch = bulk.steps.set_aside.next(room);
                self.pass_on(shard, batch, <dyn Store>::set_aside);
            }
            #[cfg(feature = "durable")]
            Kind::TakeBack => {
                let batch = bulk.steps.take_back.next(room);
                self.pass_on(shard, batch, <dyn Store>::take_back);
            }
            #[cfg(feature = "durable")]
            Kind::Claims => {
                for _ in 0..room {
                    let Some(claiming) = self.shards.at(shard).bulk.claims.pop_front() else {
                        break;
                    };
                    self.send_claim(shard, claiming);
                }
            }
        }
    }

    fn send_batch<Q, T, R, A, G>(
        &mut self,
        shard: usize,
        batch: Vec<Asked<Q, T>>,
        request: impl Fn(&Q) -> R,
        ask: Ask<R, A>,
        answered: G,
    ) where
        Q: Send + 'static,
        T: Send + 'static,
        R: Send + Sync + 'static,
        A: 'static,
        G: FnOnce(Vec<Asked<Q, T>>, Vec<Result<A, StoreError>>) -> Answered + Send + 'static,
    {
        if batch.is_empty() {
            return;
        }
        let requests = batch.iter().map(|asked| request(&asked.question)).collect();
        self.call_in_bulk(shard, requests, ask, move |answers| {
            Done::InBulk(answered(batch, answers))
        });
    }

    pub(super) fn take_bulk(&mut self, answered: Answered) {
        match answered {
            Answered::Statuses(batch, answers) => {
                for (Asked { question: lock, reply }, holder) in batch.into_iter().zip(answers) {
                    let status = holder.map(|holder| self.status_of(&lock, holder));
                    let _ = reply.send(status.map_err(|error| store_error(&error, NOTHING)));
                }
            }
            Answered::Forced(batch, answers) => {
                for (Asked { question: lock, reply }, freed) in batch.into_iter().zip(answers) {
                    if let Ok(answer) = freed {
                        self.take_forced(&lock, answer);
                    }
                    let freed = freed.map(|answer| answer.ours);
                    let _ = reply.send(freed.map_err(|error| store_error(&error, UNKNOWN)));
                }
            }
            Answered::Ends(batch, answers) => {
                for (Asked { question: (_, waited), reply }, answer) in
                    batch.into_iter().zip(answers)
                {
                    let answer = answer.map(|waits| waits || waited);
                    let _ = reply.send(answer.map_err(|error| store_error(&error, UNKNOWN)));
                }
            }
            #[cfg(feature = "durable")]
            Answered::Told => {}
        }
    }

    /// Sends what its callers wait for and nothing else depends on.
    #[cfg(feature = "durable")]
    fn pass_on<Q, T>(&mut self, shard: usize, batch: Vec<Asked<Q, T>>, ask: Ask<Q, T>)
    where
        Q: Clone + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.send_batch(shard, batch, Q::clone, ask, |batch, answers| {
            for (Asked { reply, .. }, answer) in batch.into_iter().zip(answers) {
                let _ = reply.send(answer.map_err(|error| store_error(&error, UNKNOWN)));
            }
            Answered::Told
        });
    }

    fn take_forced(&mut self, lock: &Named, answer: Release) {
        if answer.ours {
            self.lose_key(&lock.key);
            self.recheck_if_polling(&lock.key);
        }
        if answer.handed_over {
            let (number, token) = self.nobody();
            self.await_claim(lock, number, token, self.now + RESERVATION);
        }
    }
}
