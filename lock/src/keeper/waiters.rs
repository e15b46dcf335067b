//! Acquires on their way to a guard.
//!
//! Those that wait for one key stand in line, in the order in which they came, and only the first
//! of them asks the store. A single attempt, and the seed's polling, ask for themselves.

use std::{mem, sync::Arc, time::Duration};

use super::{
    Acquire, SILENCE_LIMIT,
    task::{BATCH, Done, Task},
    timers::Timer,
};
use crate::{
    Error,
    core::{
        Moment,
        wait::{Next, Outcome, Patience, Wait},
    },
    keeper::store_error,
    store::{AcquireRequest, Acquisition, StoreError},
};

/// A store that has not answered for so long is silent, not busy.
const ANSWER_EXPECTED: Duration = Duration::from_millis(250);

/// One acquire that has not been answered.
pub(super) struct Waiter {
    acquire: Acquire,
    wait: Wait,
    /// Stands in the line of its key.
    queues: bool,
    in_flight: bool,
    /// When the last attempt was sent.
    asked_at: Moment,
    /// The lock was freed while an attempt was in flight, so its answer may be out of date.
    again: bool,
    /// Nobody waits for it any more; it is here until its attempt is answered.
    abandoned: bool,
    timer: Moment,
    failure: Option<StoreError>,
}

impl Waiter {
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }
}

/// A batch of attempts and its answers.
pub(super) struct Acquired {
    numbers: Vec<u64>,
    sent_at: Moment,
    answers: Vec<Result<Acquisition, StoreError>>,
}

impl Task {
    pub(super) fn acquire(&mut self, acquire: Acquire) {
        let number = acquire.number;
        let patience = acquire.terms.patience;
        let wait = Wait::new(self.clock.now(), patience, SILENCE_LIMIT, self.jitter(number));
        let queues =
            acquire.adopt.is_none() && matches!(patience, Patience::For(wait) if !wait.is_zero());
        let mut waiter = Waiter {
            acquire,
            wait,
            queues,
            in_flight: false,
            asked_at: Moment::default(),
            again: false,
            abandoned: false,
            timer: Moment::NEVER,
            failure: None,
        };
        let mut is_first = true;
        if queues {
            let line = self.lines.entry(Arc::clone(&waiter.acquire.lock.key)).or_default();
            line.push_back(number);
            is_first = line.len() == 1;
        }
        if is_first {
            self.to_acquire.push(number);
        } else {
            let give_up_at = waiter.wait.give_up_at();
            self.timers.reset(Timer::Waiter(number), &mut waiter.timer, give_up_at);
        }
        self.waiters.insert(number, waiter);
    }

    pub(super) fn send_acquires(&mut self) {
        let now = self.clock.now();
        for numbers in mem::take(&mut self.to_acquire).chunks(BATCH) {
            let requests = numbers.iter().filter_map(|number| {
                let waiter = self.waiters.get_mut(number).filter(|waiter| !waiter.in_flight)?;
                waiter.in_flight = true;
                waiter.asked_at = now;
                self.timers
                    .cancel(Timer::Waiter(*number), mem::replace(&mut waiter.timer, Moment::NEVER));
                let acquire = &waiter.acquire;
                let (key, token) = (Arc::clone(&acquire.lock.key), acquire.token.clone());
                let (lease, adopt) = (acquire.terms.lease, acquire.adopt.clone());
                Some((*number, AcquireRequest { key, token, lease, adopt }))
            });
            let (numbers, requests): (Vec<_>, Vec<_>) = requests.unzip();
            if numbers.is_empty() {
                continue;
            }
            // Every lease of the batch counts from here: before the first byte is sent.
            self.call_store(move |store| async move {
                let answers = store.acquire(&requests).await;
                Done::Acquired(Acquired { numbers, sent_at: now, answers })
            });
        }
    }

    pub(super) fn take_acquired(&mut self, acquired: Acquired) {
        let mut answers = acquired.answers.into_iter();
        for number in acquired.numbers {
            let answer = answers.next().unwrap_or_else(|| {
                Err(StoreError::unavailable("the store gave fewer answers than it was asked for"))
            });
            self.take_attempt(number, acquired.sent_at, answer);
        }
    }

    fn take_attempt(
        &mut self,
        number: u64,
        sent_at: Moment,
        answer: Result<Acquisition, StoreError>,
    ) {
        let Some(waiter) = self.waiters.get_mut(&number) else { return };
        waiter.in_flight = false;
        if waiter.abandoned {
            // Nobody is there to hold what was granted, or may have been granted: by this attempt,
            // or by one before it that had no answer.
            let held = matches!(answer, Ok(Acquisition::Held { .. }));
            let refused = matches!(answer, Err(StoreError::Rejected(_)));
            let undone = held || (refused && waiter.failure.is_none());
            if !undone {
                let (lock, token) = (waiter.acquire.lock.clone(), waiter.acquire.token.clone());
                self.begin_release(number, &lock, &token, Moment::default(), None);
            }
            self.waiters.remove(&number);
            return;
        }
        let now = self.clock.now();
        let next = match answer {
            Ok(Acquisition::Granted { fence }) => {
                let acquire = &waiter.acquire;
                let (lock, token) = (acquire.lock.clone(), acquire.token.clone());
                let (terms, client) = (acquire.terms.clone(), Arc::clone(&acquire.client));
                match self.hold(number, &lock, &token, &terms, (sent_at, fence), &client) {
                    Some(guard) => return self.finish(number, Ok(guard)),
                    None => self.too_late(number, sent_at),
                }
            }
            Ok(Acquisition::Held { .. }) if waiter.acquire.adopt.is_some() => {
                let error = Error::lost("the store does not hold it for this token");
                return self.finish(number, Err(error));
            }
            Ok(Acquisition::Held { .. }) if mem::take(&mut waiter.again) => {
                self.to_acquire.push(number);
                return;
            }
            Ok(Acquisition::Held { remaining }) => {
                // It answers for the attempts before it, too: they came first.
                waiter.failure = None;
                waiter.wait.step(Outcome::Held { remaining }, now)
            }
            Err(error @ StoreError::Rejected(_)) => {
                self.undo(number);
                return self.finish(number, Err(store_error(&error)));
            }
            Err(error @ StoreError::Unavailable(_)) => {
                waiter.failure = Some(error);
                waiter.wait.step(Outcome::Unknown { asked_at: sent_at }, now)
            }
        };
        self.go_on(number, next);
    }

    /// A grant that cannot be believed any more. Asking again renews it, if it still stands.
    fn too_late(&mut self, number: u64, asked_at: Moment) -> Next {
        let now = self.clock.now();
        let Some(waiter) = self.waiters.get_mut(&number) else { return Next::Busy };
        waiter.failure =
            Some(StoreError::unavailable("the answer came after the lease had run out"));
        waiter.wait.step(Outcome::Unknown { asked_at }, now)
    }

    fn go_on(&mut self, number: u64, next: Next) {
        let Some(waiter) = self.waiters.get_mut(&number) else { return };
        match next {
            Next::TryAt(at) => self.timers.reset(Timer::Waiter(number), &mut waiter.timer, at),
            Next::Busy => {
                let error = busy(waiter);
                self.finish(number, Err(error));
            }
            Next::Unavailable => self.give_up(number),
        }
    }

    /// The store is silent for too long; those behind in the line hear the same answer, if they
    /// have waited for as long.
    fn give_up(&mut self, number: u64) {
        let Some(waiter) = self.waiters.get(&number) else { return };
        let since = waiter.wait.silent_since();
        let failure = waiter.failure.clone();
        let line = self.lines.get(&waiter.acquire.lock.key).filter(|_| waiter.queues);
        let behind: Vec<_> = line.into_iter().flatten().copied().filter(|n| *n != number).collect();
        let now = self.clock.now();
        for other in behind {
            let Some(other_waiter) = self.waiters.get_mut(&other) else { continue };
            if let Some(since) = since {
                other_waiter.wait.learn_silence(since);
            }
            if other_waiter.wait.has_borne_silence(now) {
                self.finish(other, Err(unavailable(failure.as_ref())));
            }
        }
        self.undo(number);
        self.finish(number, Err(unavailable(failure.as_ref())));
    }

    /// An attempt without an answer may have taken the lock.
    fn undo(&mut self, number: u64) {
        if let Some(waiter) = self.waiters.get(&number)
            && waiter.wait.silent_since().is_some()
        {
            let (lock, token) = (waiter.acquire.lock.clone(), waiter.acquire.token.clone());
            self.begin_release(number, &lock, &token, Moment::default(), None);
        }
    }

    /// Answers an acquire and takes it out of its line.
    fn finish(&mut self, number: u64, answer: Result<crate::LockGuard, Error>) {
        let Some(waiter) = self.waiters.remove(&number) else { return };
        self.timers.cancel(Timer::Waiter(number), waiter.timer);
        let granted = answer.is_ok();
        if let Err(Ok(unclaimed)) = waiter.acquire.reply.send(answer) {
            // Its caller has just gone away. Released here and not by the guard's drop, whose
            // message would come after a `flush` that is in the queue already.
            unclaimed.defuse();
            self.release(number, true, None);
        }
        if waiter.queues {
            self.leave_line(number, &waiter.acquire.lock.key, granted);
        }
    }

    /// The caller of an acquire has gone away.
    pub(super) fn cancel_waiter(&mut self, number: u64) {
        let Some(waiter) = self.waiters.get_mut(&number) else { return };
        if mem::replace(&mut waiter.abandoned, true) {
            return;
        }
        let key = Arc::clone(&waiter.acquire.lock.key);
        let (timer, queues) = (mem::replace(&mut waiter.timer, Moment::NEVER), waiter.queues);
        self.timers.cancel(Timer::Waiter(number), timer);
        if !waiter.in_flight {
            self.undo(number);
            self.waiters.remove(&number);
        }
        if queues {
            self.leave_line(number, &key, false);
        }
    }

    fn leave_line(&mut self, number: u64, key: &Arc<str>, granted: bool) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let was_first = line.front() == Some(&number);
        line.retain(|waiting| *waiting != number);
        let Some(first) = line.front().copied() else {
            self.lines.remove(key);
            return;
        };
        if !was_first {
            return;
        }
        if granted {
            // The lock is held by this process now: its release will wake the line, and until
            // then a look now and then is enough to notice a loss.
            if let Some(waiter) = self.waiters.get_mut(&first) {
                let held = Outcome::Held { remaining: None };
                let next = waiter.wait.step(held, self.clock.now());
                self.go_on(first, next);
            }
        } else {
            self.to_acquire.push(first);
        }
    }

    /// The lock of this key has become free, as far as this process knows.
    pub(super) fn wake_line(&mut self, key: &Arc<str>) {
        let Some(first) = self.lines.get(key).and_then(|line| line.front().copied()) else {
            return;
        };
        if let Some(waiter) = self.waiters.get_mut(&first) {
            if waiter.in_flight {
                waiter.again = true;
            } else {
                self.to_acquire.push(first);
            }
        }
    }

    pub(super) fn waiter_timer(&mut self, number: u64, now: Moment) {
        if let Some(waiter) = self.waiters.get_mut(&number) {
            waiter.timer = Moment::NEVER;
        }
        let Some(waiter) = self.waiters.get(&number) else { return };
        let key = &waiter.acquire.lock.key;
        let asks =
            !waiter.queues || self.lines.get(key).and_then(|line| line.front()) == Some(&number);
        if asks {
            self.to_acquire.push(number);
        } else if now >= waiter.wait.give_up_at() {
            // What it knows, it knows from the first in line.
            let first = self.lines.get(key).and_then(|line| line.front());
            let first = first.and_then(|first| self.waiters.get(first));
            let silent = first.is_some_and(|first| {
                let overdue = first.in_flight && now >= first.asked_at + ANSWER_EXPECTED;
                first.wait.silent_since().is_some() || overdue
            });
            let failure = first.and_then(|first| first.failure.clone());
            let error = if silent { unavailable(failure.as_ref()) } else { busy(waiter) };
            self.finish(number, Err(error));
        }
    }

    pub(super) fn close_waiters(&mut self) {
        for number in self.waiters.keys().copied().collect::<Vec<_>>() {
            let Some(waiter) = self.waiters.get_mut(&number) else { continue };
            // A sender can be used once; the waiter itself stays if an attempt is in flight.
            let (closed, _) = tokio::sync::oneshot::channel();
            let reply = mem::replace(&mut waiter.acquire.reply, closed);
            let _ = reply.send(Err(Error::closed()));
            self.cancel_waiter(number);
        }
        self.to_acquire.clear();
    }
}

fn busy(waiter: &Waiter) -> Error {
    match waiter.acquire.terms.patience {
        Patience::For(wait) => Error::busy(wait, waiter.wait.answers()),
        Patience::Attempts { attempts, .. } => Error::busy(Duration::ZERO, attempts),
    }
}

fn unavailable(failure: Option<&StoreError>) -> Error {
    failure.map_or_else(|| store_error(&StoreError::unavailable("no answer in time")), store_error)
}
