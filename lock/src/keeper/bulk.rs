//! Requests that there may be very many of, and that no held lock depends on: what debounced and
//! durable calls ask, status, extensions, releases by force.
//!
//! They go to the store in batches, with a bound on what is on its way. So a flood of them is
//! served in the order in which it came, each counted from when it is sent; and a renewal finds no
//! more than that bound ahead of it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    HoldName, NOT_SENT, NOTHING, SILENCE_LIMIT, UNKNOWN,
    holds::Extended,
    reply::Reply,
    store_error,
    task::{BATCH, Done, Task, each},
};
#[cfg(feature = "durable")]
use crate::store::{DurableReply, DurableRequest};
use crate::{
    Error, Status,
    core::Moment,
    id::Named,
    store::{
        self, CLAIM_WINDOW, EndWindowRequest, ExtendRequest, Holder, Store, StoreError, WindowEnd,
    },
};

/// How many of these requests may be on their way to the store: some tens of milliseconds of a
/// Redis server's time, and a round trip's worth on any link that is not very slow.
const MOST_ON_THEIR_WAY: usize = 1000;

/// What waits to be sent, and how much is on its way.
#[derive(Default)]
pub(super) struct Bulk {
    on_their_way: usize,
    /// Since when the store has answered none of them.
    silent_since: Option<Moment>,
    extensions: VecDeque<Extension>,
    statuses: VecDeque<Asked<Status>>,
    forced: VecDeque<Asked<bool>>,
    ends: VecDeque<End>,
    #[cfg(feature = "durable")]
    steps: VecDeque<Step>,
    #[cfg(feature = "durable")]
    claims: VecDeque<Box<super::durable::Claiming>>,
}

pub(super) struct Asked<T> {
    lock: Named,
    reply: Reply<Result<T, Error>>,
}

struct Extension {
    name: HoldName,
    by: Duration,
    reply: Reply<Result<(), Error>>,
}

/// A window that is to end before its time.
pub(super) struct End {
    window: Arc<str>,
    end: WindowEnd,
    /// Calls of this process waited for it.
    waited: bool,
    reply: Reply<Result<bool, Error>>,
}

#[cfg(feature = "durable")]
pub(super) struct Step {
    request: Box<DurableRequest>,
    reply: Reply<Result<DurableReply, Error>>,
}

/// Something that somebody waits for, or has given up.
trait Waiting {
    fn is_given_up(&self) -> bool;
}

impl<T> Waiting for Asked<T> {
    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }
}

impl Waiting for Extension {
    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }
}

impl Waiting for End {
    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }
}

#[cfg(feature = "durable")]
impl Waiting for Step {
    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }
}

/// How many of the requests were on their way together, and whether the store has answered any.
pub(super) struct Load {
    pub(super) items: usize,
    sent_at: Moment,
    silence: Option<StoreError>,
}

/// The answers to one batch.
pub(super) enum Answered {
    Statuses(Vec<Asked<Status>>, Vec<Result<Option<Holder>, StoreError>>),
    Forced(Vec<Asked<bool>>, Vec<Result<store::Release, StoreError>>),
    Ends(Vec<End>, Vec<Result<bool, StoreError>>),
    #[cfg(feature = "durable")]
    Steps(Vec<Step>, Vec<Result<DurableReply, StoreError>>),
}

impl Bulk {
    fn room(&self) -> usize {
        MOST_ON_THEIR_WAY.saturating_sub(self.on_their_way).min(BATCH)
    }

    pub(super) fn extend(&mut self, name: HoldName, by: Duration, reply: Reply<Result<(), Error>>) {
        self.extensions.push_back(Extension { name, by, reply });
    }

    pub(super) fn status(&mut self, lock: Named, reply: Reply<Result<Status, Error>>) {
        self.statuses.push_back(Asked { lock, reply });
    }

    pub(super) fn force_release(&mut self, lock: Named, reply: Reply<Result<bool, Error>>) {
        self.forced.push_back(Asked { lock, reply });
    }

    pub(super) fn end_window(
        &mut self,
        window: Arc<str>,
        end: WindowEnd,
        waited: bool,
        reply: Reply<Result<bool, Error>>,
    ) {
        self.ends.push_back(End { window, end, waited, reply });
    }

    #[cfg(feature = "durable")]
    pub(super) fn durable(
        &mut self,
        request: Box<DurableRequest>,
        reply: Reply<Result<DurableReply, Error>>,
    ) {
        self.steps.push_back(Step { request, reply });
    }

    #[cfg(feature = "durable")]
    pub(super) fn claim(&mut self, claiming: Box<super::durable::Claiming>) {
        self.claims.push_back(claiming);
    }

    #[cfg(feature = "durable")]
    pub(super) fn claims_wait(&self) -> bool {
        !self.claims.is_empty()
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
        for Extension { reply, .. } in self.extensions.drain(..) {
            let _ = reply.send(Err(error()));
        }
        for Asked { reply, .. } in self.statuses.drain(..) {
            let _ = reply.send(Err(error()));
        }
        for Asked { reply, .. } in self.forced.drain(..) {
            let _ = reply.send(Err(error()));
        }
        for End { reply, .. } in self.ends.drain(..) {
            let _ = reply.send(Err(error()));
        }
        #[cfg(feature = "durable")]
        for Step { reply, .. } in self.steps.drain(..) {
            let _ = reply.send(Err(error()));
        }
        #[cfg(feature = "durable")]
        for claiming in self.claims.drain(..) {
            claiming.refuse(error());
        }
    }

    /// No more than one batch of what waits, and nothing that nobody waits for any more: a release
    /// by force that was given up must not be carried out later, on another holder.
    fn next<T: Waiting>(room: usize, waiting: &mut VecDeque<T>) -> Vec<T> {
        let mut batch = Vec::with_capacity(room.min(waiting.len()));
        while batch.len() < room
            && let Some(next) = waiting.pop_front()
        {
            if !next.is_given_up() {
                batch.push(next);
            }
        }
        batch
    }
}

impl Task {
    /// A batch whose answers tell whether the store is there.
    pub(super) fn call_in_bulk<A, F, Fut, D>(&mut self, items: usize, call: F, done: D)
    where
        A: 'static,
        F: FnOnce(Arc<dyn Store>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Result<A, StoreError>>> + Send,
        D: FnOnce(Vec<Result<A, StoreError>>) -> Done + Send + 'static,
    {
        let sent_at = self.now;
        self.bulk.on_their_way += items;
        self.call_store(call, move |answers| {
            let answers = each(answers, items);
            let silence = match answers.first() {
                Some(Err(error @ StoreError::Unavailable(_))) => Some(error.clone()),
                _ => None,
            };
            Done::Bulk(Load { items, sent_at, silence }, Box::new(done(answers)))
        });
    }

    /// What waits in bulk goes on if the store answers; if it has been silent for as long as a
    /// caller may be asked to wait for an answer, nobody waits for a turn that will not come.
    pub(super) fn take_load(&mut self, load: Load) {
        self.bulk.on_their_way = self.bulk.on_their_way.saturating_sub(load.items);
        let Some(silence) = load.silence else {
            self.bulk.silent_since = None;
            return;
        };
        if self.bulk.on_their_way == 0 && !self.bulk.waits() && self.to_ask.is_empty() {
            // Nobody is kept waiting by this silence; the next one begins anew.
            self.bulk.silent_since = None;
            return;
        }
        let since = *self.bulk.silent_since.get_or_insert(load.sent_at);
        if self.now >= since + SILENCE_LIMIT {
            self.bulk.refuse(|| store_error(&silence, NOT_SENT));
            self.give_up_questions(&silence);
        }
    }

    pub(super) fn close_bulk(&mut self) {
        self.bulk.refuse(Error::closed);
    }

    /// How many more requests may go into a batch now.
    pub(super) fn room_in_bulk(&self) -> usize {
        self.bulk.room()
    }

    /// Sends extensions: they are about locks that are held.
    pub(super) fn send_extensions(&mut self) {
        loop {
            let room = self.bulk.room();
            let batch = Bulk::next(room, &mut self.bulk.extensions);
            if batch.is_empty() {
                return;
            }
            let mut asked = Vec::with_capacity(batch.len());
            let mut requests = Vec::with_capacity(batch.len());
            for Extension { name, by, reply } in batch {
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
            self.call_in_bulk(
                requests.len(),
                move |store| async move { store.extend(&requests).await },
                move |answers| Done::Extended(Extended { asked, sent_at, answers }),
            );
        }
    }

    /// Sends what else waits, each kind in its turn.
    pub(super) fn send_bulk(&mut self) {
        while self.bulk.wants_to_send() && self.bulk.extensions.is_empty() {
            self.send_statuses();
            self.send_forced();
            self.send_ends();
            #[cfg(feature = "durable")]
            self.send_steps();
            #[cfg(feature = "durable")]
            while self.bulk.room() > 0
                && let Some(claiming) = self.bulk.claims.pop_front()
            {
                self.send_claim(claiming);
            }
        }
    }

    fn send_statuses(&mut self) {
        let batch = Bulk::next(self.bulk.room(), &mut self.bulk.statuses);
        if batch.is_empty() {
            return;
        }
        let keys: Vec<_> = batch.iter().map(|asked| Arc::clone(&asked.lock.key)).collect();
        self.call_in_bulk(
            batch.len(),
            move |store| async move { store.holder(&keys).await },
            move |answers| Done::InBulk(Answered::Statuses(batch, answers)),
        );
    }

    fn send_forced(&mut self) {
        let batch = Bulk::next(self.bulk.room(), &mut self.bulk.forced);
        if batch.is_empty() {
            return;
        }
        let keys: Vec<_> = batch.iter().map(|asked| Arc::clone(&asked.lock.key)).collect();
        self.call_in_bulk(
            batch.len(),
            move |store| async move { store.force_release(&keys).await },
            move |answers| Done::InBulk(Answered::Forced(batch, answers)),
        );
    }

    fn send_ends(&mut self) {
        let batch = Bulk::next(self.bulk.room(), &mut self.bulk.ends);
        if batch.is_empty() {
            return;
        }
        let requests: Vec<_> = batch
            .iter()
            .map(|end| EndWindowRequest::new(Arc::clone(&end.window), end.end))
            .collect();
        self.call_in_bulk(
            batch.len(),
            move |store| async move { store.end_window(&requests).await },
            move |answers| Done::InBulk(Answered::Ends(batch, answers)),
        );
    }

    #[cfg(feature = "durable")]
    fn send_steps(&mut self) {
        let batch = Bulk::next(self.bulk.room(), &mut self.bulk.steps);
        if batch.is_empty() {
            return;
        }
        let requests: Vec<_> = batch.iter().map(|step| (*step.request).clone()).collect();
        self.call_in_bulk(
            batch.len(),
            move |store| async move { store.durable(&requests).await },
            move |answers| Done::InBulk(Answered::Steps(batch, answers)),
        );
    }

    pub(super) fn take_bulk(&mut self, answered: Answered) {
        match answered {
            Answered::Statuses(batch, answers) => {
                for (Asked { lock, reply }, holder) in batch.into_iter().zip(answers) {
                    let status = holder.map(|holder| self.status_of(&lock, holder));
                    let _ = reply.send(status.map_err(|error| store_error(&error, NOTHING)));
                }
            }
            Answered::Forced(batch, answers) => {
                for (Asked { lock, reply }, freed) in batch.into_iter().zip(answers) {
                    if let Ok(answer) = freed {
                        self.take_forced(&lock, answer);
                    }
                    let freed = freed.map(|answer| answer.ours);
                    let _ = reply.send(freed.map_err(|error| store_error(&error, UNKNOWN)));
                }
            }
            Answered::Ends(batch, answers) => {
                for (End { waited, reply, .. }, answer) in batch.into_iter().zip(answers) {
                    let answer = answer.map(|waits| waits || waited);
                    let _ = reply.send(answer.map_err(|error| store_error(&error, UNKNOWN)));
                }
            }
            #[cfg(feature = "durable")]
            Answered::Steps(batch, answers) => {
                for (Step { reply, .. }, answer) in batch.into_iter().zip(answers) {
                    let _ = reply.send(answer.map_err(|error| store_error(&error, UNKNOWN)));
                }
            }
        }
    }

    fn take_forced(&mut self, lock: &Named, answer: store::Release) {
        if answer.ours {
            self.lose_key(&lock.key);
            self.look_if_polling(&lock.key);
        }
        if answer.handed_over {
            let (number, token) = self.nobody();
            self.await_claim(lock, number, token, self.now + CLAIM_WINDOW);
        }
    }
}
