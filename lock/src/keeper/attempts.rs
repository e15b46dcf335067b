//! Callers that ask for themselves: single attempts, the seed's polling, and adoption. And what
//! they have in common with those in line: requests go to the store in batches.

use std::{mem, sync::Arc};

use super::{
    Acquire, Held,
    holds::{Grant, comes_too_late},
    task::{BATCH, Done, Task},
    timers::Timer,
};
use crate::{
    Error,
    contract::{AcquireRequest, Acquisition, IfHeld, StoreError},
    core::{
        Moment,
        wait::{Next, Outcome, Patience, Wait},
    },
    keeper::{UNDONE, store_error},
    mutant,
    store::Store,
};

/// How many acquires may be on their way to one part of the store: a renewal finds no more ahead of
/// it, which is a tenth of a second of a Redis server's time.
const MOST_ON_THEIR_WAY: usize = 10_000;

/// One caller that asks for itself.
pub(super) struct Attempt {
    acquire: Box<Acquire>,
    started: Moment,
    wait: Wait,
    in_flight: bool,
    /// Nobody waits for it any more; it is here until it is answered.
    abandoned: bool,
    timer: Moment,
    failure: Option<StoreError>,
    /// What was heard of its grant before the grant itself: others want it, or it was taken away.
    wanted: bool,
    taken: bool,
    /// Its token may hold the lock, by a grant that was not believed.
    may_hold: bool,
}

impl Attempt {
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }
}

/// On whose behalf the store is asked for a lock.
pub(super) enum Asker {
    Line(Arc<str>),
    Attempt(u64),
}

/// A batch of requests and its answers.
pub(super) struct Acquired {
    shard: usize,
    askers: Vec<(Asker, u64)>,
    sent_at: Moment,
    answers: Vec<Result<Acquisition, StoreError>>,
}

impl Task {
    pub(super) fn acquire(&mut self, acquire: Box<Acquire>) {
        match acquire.terms.patience {
            Patience::For(wait) if acquire.adopt.is_none() && !wait.is_zero() => {
                self.join(acquire, wait);
            }
            patience => {
                let number = acquire.number;
                let key = Arc::clone(&acquire.lock.key);
                let attempt = Attempt {
                    acquire,
                    started: self.now,
                    wait: Wait::new(patience, self.jitter(number)),
                    in_flight: false,
                    abandoned: false,
                    timer: Moment::NEVER,
                    failure: None,
                    wanted: false,
                    taken: false,
                    may_hold: false,
                };
                self.attempts.insert(number, attempt);
                self.shard(&key).to_acquire.push(Asker::Attempt(number));
            }
        }
    }

    pub(super) fn send_acquires(&mut self) {
        for shard in 0..self.shards.count() {
            self.send_acquires_to(shard);
        }
    }

    fn send_acquires_to(&mut self, shard: usize) {
        let now = self.now;
        let mut askers = mem::take(&mut self.shards.at(shard).to_acquire).into_iter().peekable();
        while askers.peek().is_some() && self.shards.at(shard).acquiring < MOST_ON_THEIR_WAY {
            let batch = askers.by_ref().filter_map(|asker| match asker {
                Asker::Line(key) => {
                    let request = self.line_request(&key, now)?;
                    let number = self.entry_of(&key)?;
                    Some(((Asker::Line(key), number), request))
                }
                Asker::Attempt(number) => {
                    let request = self.attempt_request(number)?;
                    Some(((Asker::Attempt(number), number), request))
                }
            });
            let (askers, requests): (Vec<_>, Vec<_>) = batch.take(BATCH).unzip();
            if requests.is_empty() {
                continue;
            }
            self.shards.at(shard).acquiring += requests.len();
            // Every lease of the batch counts from here: before the first byte is sent.
            self.call_now_or_later(
                requests,
                (|store, batch, answers| store.acquire_now(batch, answers), <dyn Store>::acquire),
                move |answers| Done::Acquired(Acquired { shard, askers, sent_at: now, answers }),
            );
        }
        // The others go when there is room for them.
        self.shards.at(shard).to_acquire.extend(askers);
    }

    pub(super) fn take_acquired(&mut self, acquired: Acquired) {
        self.shards.at(acquired.shard).acquiring -= acquired.askers.len();
        for ((asker, number), answer) in acquired.askers.into_iter().zip(acquired.answers) {
            match asker {
                Asker::Line(key) => self.take_entry_answer(&key, number, acquired.sent_at, answer),
                Asker::Attempt(number) => self.take_attempt(number, acquired.sent_at, answer),
            }
        }
    }

    fn attempt_request(&mut self, number: u64) -> Option<AcquireRequest> {
        let attempt = self.attempts.get_mut(&number).filter(|attempt| !attempt.in_flight)?;
        attempt.in_flight = true;
        let timer = mem::replace(&mut attempt.timer, Moment::NEVER);
        self.timers.cancel(Timer::Attempt(number), timer);
        let acquire = &attempt.acquire;
        Some(AcquireRequest {
            key: Arc::clone(&acquire.lock.key),
            token: acquire.token.clone(),
            lease: acquire.terms.lease,
            if_held: acquire.adopt.clone().map_or(IfHeld::GiveUp, IfHeld::Adopt),
        })
    }

    fn take_attempt(
        &mut self,
        number: u64,
        sent_at: Moment,
        answer: Result<Acquisition, StoreError>,
    ) {
        let now = self.now;
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        attempt.in_flight = false;
        if attempt.abandoned {
            // Nobody is there to hold what was granted, or may have been granted: by this attempt,
            // or by one before it that had no answer.
            let held = matches!(answer, Ok(Acquisition::Held { .. }));
            let refused = answer.as_ref().is_err_and(StoreError::is_refusal);
            let undone = held || (refused && attempt.failure.is_none() && !attempt.may_hold);
            if !undone && !mutant::is("cancelled acquire is not undone") {
                let (lock, token) = (attempt.acquire.lock.clone(), attempt.acquire.token.clone());
                self.begin_release(number, &lock, &token, Moment::default(), None);
            }
            self.attempts.remove(&number);
            return;
        }
        let next = match answer {
            Ok(Acquisition::Granted { fence, contended }) => {
                let lease = attempt.acquire.terms.lease;
                if comes_too_late(sent_at, lease, now) {
                    let late = "the answer came after the lease had run out";
                    self.unanswered_attempt(number, sent_at, StoreError::unavailable(late))
                } else if attempt.taken {
                    // Granted, and taken away by force before that was heard of. If it was not
                    // this grant, the next attempt is granted it: the token is the same, and is
                    // released only where there is none.
                    attempt.taken = false;
                    attempt.may_hold = true;
                    attempt.wait.step(Outcome::Held, now)
                } else {
                    let contended = contended || attempt.wanted;
                    return self.grant_attempt(number, sent_at, (fence, contended));
                }
            }
            Ok(Acquisition::Held { .. }) if attempt.acquire.adopt.is_some() => {
                let error = Error::lost("the store does not hold it for this token");
                return self.finish_attempt(number, Err(error));
            }
            Ok(Acquisition::Held { .. }) => {
                // It answers for the attempts before it, too: they came first.
                attempt.failure = None;
                attempt.may_hold = false;
                attempt.wait.step(Outcome::Held, now)
            }
            Err(error) if error.is_refusal() => {
                self.undo_attempt(number);
                return self.finish_attempt(number, Err(store_error(&error, UNDONE)));
            }
            Err(error) => self.unanswered_attempt(number, sent_at, error),
        };
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        match next {
            Next::TryAt(at) => self.timers.reset(Timer::Attempt(number), &mut attempt.timer, at),
            Next::Busy => {
                self.undo_attempt(number);
                let Some(attempt) = self.attempts.get(&number) else { return };
                let took = now.after(attempt.started);
                let error = Error::busy_at_each(attempt.wait.answers(), took);
                self.finish_attempt(number, Err(error));
            }
            Next::Unavailable => {
                let failure = attempt.failure.take();
                let failure = failure.unwrap_or_else(|| StoreError::unavailable("no answer"));
                self.undo_attempt(number);
                self.finish_attempt(number, Err(store_error(&failure, UNDONE)));
            }
        }
    }

    fn unanswered_attempt(&mut self, number: u64, asked_at: Moment, error: StoreError) -> Next {
        let now = self.now;
        let Some(attempt) = self.attempts.get_mut(&number) else { return Next::Busy };
        attempt.failure = Some(error);
        attempt.wait.step(Outcome::Unknown { asked_at }, now)
    }

    fn grant_attempt(&mut self, number: u64, sent_at: Moment, (fence, contended): (u64, bool)) {
        let Some(attempt) = self.attempts.remove(&number) else { return };
        let Attempt { acquire, .. } = attempt;
        let lease = acquire.terms.lease;
        self.lose_key(&acquire.lock.key);
        let line = self.line(&acquire.lock);
        let fencing_token = line.queue.taken_by(number, fence, contended);
        let token = acquire.token.clone();
        let grant = Grant { ownership: number, token, sent_at, lease, fencing_token };
        let held = self.begin_hold(&*acquire, grant);
        if let Err(Ok(unclaimed)) = acquire.reply.send(Ok(held)) {
            unclaimed.defuse();
            self.unclaimed.push((number, number));
        }
    }

    /// An attempt without an answer may have taken the lock, or one that was not believed.
    fn undo_attempt(&mut self, number: u64) {
        if let Some(attempt) = self.attempts.get(&number)
            && (attempt.may_hold || attempt.wait.silent_since().is_some())
        {
            let (lock, token) = (attempt.acquire.lock.clone(), attempt.acquire.token.clone());
            self.begin_release(number, &lock, &token, Moment::default(), None);
        }
    }

    fn finish_attempt(&mut self, number: u64, answer: Result<Held, Error>) {
        let Some(attempt) = self.attempts.remove(&number) else { return };
        self.timers.cancel(Timer::Attempt(number), attempt.timer);
        let _ = attempt.acquire.reply.send(answer);
    }

    /// Others wait for the lock that this attempt may have got.
    pub(super) fn attempt_wanted(&mut self, number: u64) {
        if let Some(attempt) = self.attempts.get_mut(&number) {
            attempt.wanted = true;
        }
    }

    /// The lock that this attempt may have got was released by force: true if there is one.
    pub(super) fn attempt_taken(&mut self, number: u64) -> bool {
        let attempt = self.attempts.get_mut(&number).filter(|attempt| attempt.in_flight);
        attempt.map(|attempt| attempt.taken = true).is_some()
    }

    pub(super) fn cancel_attempt(&mut self, number: u64) {
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        attempt.abandoned = true;
        let timer = mem::replace(&mut attempt.timer, Moment::NEVER);
        self.timers.cancel(Timer::Attempt(number), timer);
        if !attempt.in_flight {
            self.undo_attempt(number);
            self.attempts.remove(&number);
        }
    }

    pub(super) fn attempt_timer(&mut self, number: u64) {
        if let Some(attempt) = self.attempts.get_mut(&number) {
            attempt.timer = Moment::NEVER;
            let key = Arc::clone(&attempt.acquire.lock.key);
            self.shard(&key).to_acquire.push(Asker::Attempt(number));
        }
    }

    pub(super) fn close_attempts(&mut self) {
        for number in self.attempts.keys().copied().collect::<Vec<_>>() {
            let Some(attempt) = self.attempts.get_mut(&number) else { continue };
            // The attempt itself stays if it is in flight.
            let _ = attempt.acquire.reply.take().send(Err(Error::closed()));
            self.cancel_attempt(number);
        }
    }
}
