//! Held locks: renewing them in batches, and declaring them lost in time.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    Client, Hold, Terms,
    task::{BATCH, Done, Task},
    timers::Timer,
};
use crate::{
    Error, ErrorKind, Status, Token,
    core::{
        Moment,
        lease::{Action, Event, Lease, Loss},
    },
    guard::LockGuard,
    id::Named,
    keeper::store_error,
    limits::LONGEST_LEASE,
    store::{Holder, Ownership, RenewRequest, StoreError},
};

/// A grant leaves room for so many hand-overs inside a process, each with a larger fencing token.
const HAND_OVER_BITS: u32 = 10;

/// The locks that are held, and the renewals that wait for a batch.
#[derive(Default)]
pub(super) struct Holds {
    by_number: HashMap<u64, Held>,
    by_key: HashMap<Arc<str>, u64>,
    /// Renewals that are due, the longest waiting first.
    due: Vec<(u64, Duration)>,
    /// When the batch goes out at the latest, full or not.
    due_by: Option<Moment>,
}

struct Held {
    hold: Arc<Hold>,
    lease: Lease,
    lease_length: Duration,
    /// `hold_at_least` keeps the key until then, even when it is released before.
    keep_until: Moment,
    timer: Moment,
}

impl Holds {
    pub(super) fn due_by(&self) -> Option<Moment> {
        self.due_by
    }
}

/// A batch of renewals and its answers.
pub(super) struct Renewed {
    numbers: Vec<u64>,
    requests: Vec<RenewRequest>,
    sent_at: Moment,
    answers: Vec<Result<Ownership, StoreError>>,
}

/// An extension and its answer.
pub(super) struct Extended {
    number: u64,
    sent_at: Moment,
    answer: Result<Option<Duration>, StoreError>,
    reply: oneshot::Sender<Result<(), Error>>,
}

impl Task {
    /// Makes a hold of a grant, unless it came too late to be believed.
    pub(super) fn hold(
        &mut self,
        number: u64,
        lock: &Named,
        token: &Token,
        terms: &Terms,
        (sent_at, fence): (Moment, u64),
        client: &Arc<Client>,
    ) -> Option<LockGuard> {
        let jitter = self.jitter(number);
        let lease = Lease::granted(sent_at, terms.lease, terms.hold_at_most, jitter);
        let now = self.clock.now();
        if now >= lease.deadline() {
            return None;
        }
        // The store gives a lock to one at a time: who held it before, holds it no more.
        self.lose_key(&lock.key);
        let hold = Arc::new(Hold {
            number,
            lock: lock.clone(),
            token: token.clone(),
            fencing_token: fence << HAND_OVER_BITS,
            deadline: AtomicU64::new(lease.deadline().as_nanos()),
            lost: CancellationToken::new(),
            clock: Arc::clone(&self.clock),
        });
        let mut held = Held {
            hold: Arc::clone(&hold),
            keep_until: now + terms.hold_at_least,
            lease_length: terms.lease,
            lease,
            timer: Moment::NEVER,
        };
        self.timers.reset(Timer::Hold(number), &mut held.timer, held.lease.next_timer());
        self.holds.by_key.insert(Arc::clone(&lock.key), number);
        self.holds.by_number.insert(number, held);
        Some(LockGuard::new(hold, Arc::clone(client)))
    }

    /// Forgets a hold, and says until when its key is to be kept; `None` if it was lost before.
    pub(super) fn take_hold(&mut self, number: u64) -> Option<(Arc<Hold>, Moment)> {
        let held = self.holds.by_number.remove(&number)?;
        let key = &held.hold.lock.key;
        self.timers.cancel(Timer::Hold(number), held.timer);
        if self.holds.by_key.get(key) == Some(&number) {
            self.holds.by_key.remove(key);
        }
        Some((held.hold, held.keep_until))
    }

    pub(super) fn hold_numbers(&self) -> Vec<u64> {
        self.holds.by_number.keys().copied().collect()
    }

    pub(super) fn hold_timer(&mut self, number: u64, now: Moment) {
        if let Some(held) = self.holds.by_number.get_mut(&number) {
            held.timer = Moment::NEVER;
            self.step(number, Event::Timer, now);
        }
    }

    /// One event of one held lock, and what follows from it.
    fn step(&mut self, number: u64, event: Event, now: Moment) {
        let Some(held) = self.holds.by_number.get_mut(&number) else { return };
        let mut action = held.lease.step(event, now);
        if held.hold.lost().is_cancelled() {
            // Its holder found the deadline passed before the keeper did, and was told so.
            action = Action::Lose(Loss::Expired);
        }
        match action {
            Action::Wait => {}
            Action::Renew { remaining } => {
                // Waiting a thirtieth of the lease for company fills the batches, and takes a
                // tenth of the time there is for a second and third try.
                let by = now + held.lease_length / 30;
                self.holds.due_by = Some(self.holds.due_by.map_or(by, |due_by| due_by.min(by)));
                self.holds.due.push((number, remaining));
            }
            Action::Lose(loss) => return self.lose(number, loss),
        }
        held.hold.set_deadline(held.lease.deadline());
        self.timers.reset(Timer::Hold(number), &mut held.timer, held.lease.next_timer());
    }

    fn lose(&mut self, number: u64, loss: Loss) {
        let Some((hold, _)) = self.take_hold(number) else { return };
        hold.lost().cancel();
        if loss == Loss::Expired {
            // The store may hold the key for us still: nobody believes in it any more.
            self.begin_release(number, &hold.lock, &hold.token, Moment::default(), None);
        }
    }

    /// Somebody freed this key by force.
    pub(super) fn lose_key(&mut self, key: &Arc<str>) {
        if let Some(number) = self.holds.by_key.get(key).copied() {
            self.lose(number, Loss::NotOurs);
        }
    }

    pub(super) fn leak(&mut self, number: u64) {
        if let Some((hold, _)) = self.take_hold(number) {
            hold.set_deadline(Moment::NEVER);
        }
    }

    /// Sends the renewals that fill a batch, and all of them once the first cannot wait longer.
    pub(super) fn send_renewals(&mut self) {
        let now = self.clock.now();
        let overdue = self.holds.due_by.is_some_and(|due_by| due_by <= now);
        while self.holds.due.len() >= BATCH || (overdue && !self.holds.due.is_empty()) {
            let size = self.holds.due.len().min(BATCH);
            let batch: Vec<_> = self.holds.due.drain(..size).collect();
            let requests = batch.into_iter().filter_map(|(number, lease)| {
                // It may have been released while it waited.
                let hold = &self.holds.by_number.get(&number)?.hold;
                let (key, token) = (Arc::clone(&hold.lock.key), hold.token.clone());
                Some((
                    number,
                    RenewRequest { key, token, lease: lease.max(Duration::from_millis(1)) },
                ))
            });
            let (numbers, requests): (Vec<_>, Vec<_>) = requests.unzip();
            if numbers.is_empty() {
                continue;
            }
            self.call_store(move |store| async move {
                let answers = store.renew(&requests).await;
                Done::Renewed(Renewed { numbers, requests, sent_at: now, answers })
            });
        }
        if self.holds.due.is_empty() {
            self.holds.due_by = None;
        }
    }

    pub(super) fn take_renewed(&mut self, renewed: Renewed) {
        let Renewed { numbers, requests, sent_at, answers } = renewed;
        let now = self.clock.now();
        // An answer that is missing is an answer that is not known.
        let answers = answers.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for ((number, request), answer) in numbers.into_iter().zip(requests).zip(answers) {
            let event = match answer {
                Some(Ok(Ownership::Ours)) => Event::Renewed { sent_at, remaining: request.lease },
                Some(Ok(Ownership::NotOurs)) => Event::NotOurs,
                // A refusal is not a loss either: a replica that cannot be written to, a server
                // that is loading its data, says nothing about who holds the lock.
                Some(Err(_)) | None => Event::Unknown,
            };
            self.step(number, event, now);
        }
    }

    pub(super) fn extend(
        &mut self,
        number: u64,
        by: Duration,
        reply: oneshot::Sender<Result<(), Error>>,
    ) {
        let Some(held) = self.holds.by_number.get(&number) else {
            return drop(reply.send(Err(lost())));
        };
        let now = self.clock.now();
        let until = held.lease.deadline() + by;
        if until > held.lease.end() {
            let message = "`hold_at_most` ends before that: extend by less, or allow more";
            return drop(reply.send(Err(Error::invalid(message))));
        }
        if until.after(now) > LONGEST_LEASE {
            let message = format!("a lease may last {LONGEST_LEASE:?} at most: extend by less");
            return drop(reply.send(Err(Error::invalid(message))));
        }
        let hold = Arc::clone(&held.hold);
        self.call_store(move |store| async move {
            let answer = store.extend(&hold.lock.key, &hold.token, by).await;
            Done::Extended(Extended { number, sent_at: now, answer, reply })
        });
    }

    pub(super) fn take_extended(&mut self, extended: Extended) {
        let Extended { number, sent_at, answer, reply } = extended;
        let now = self.clock.now();
        let outcome = match answer {
            Ok(Some(remaining)) => {
                self.step(number, Event::Renewed { sent_at, remaining }, now);
                self.holds.by_number.contains_key(&number).then_some(()).ok_or_else(lost)
            }
            Ok(None) => {
                self.step(number, Event::NotOurs, now);
                Err(lost())
            }
            Err(error) => Err(store_error(&error)),
        };
        let _ = reply.send(outcome);
    }

    pub(super) fn status_of(&self, lock: &Named, holder: Option<Holder>) -> Status {
        let Some(Holder { token, remaining }) = holder else { return Status::Free };
        let ours = self.holds.by_key.get(&lock.key);
        let ours = ours.and_then(|number| self.holds.by_number.get(number));
        Status::Held {
            by_us: token.is_of(&self.id) || ours.is_some_and(|held| held.hold.token == token),
            holder: token,
            remaining: remaining.unwrap_or(Duration::MAX),
            waiters: self.lines.get(&lock.key).map_or(0, |line| line.len()),
        }
    }

    /// The keeper ends; whoever still believes in a lock must not.
    pub(super) fn lose_all(&mut self) {
        for held in self.holds.by_number.values() {
            held.hold.lost().cancel();
        }
    }
}

pub(super) fn lost() -> Error {
    Error::new(
        ErrorKind::Lost,
        "the lock is held by this guard no more (its lease ran out, or it was taken away): \
         stop the work it protected and acquire it again",
    )
}
