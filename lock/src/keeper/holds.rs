//! Held locks: renewing them in batches, and declaring them lost in time.

use std::{sync::Arc, time::Duration};

use super::{
    Acquire, Client, Held, Hold, Terms,
    held::HoldName,
    maps::ByNumber,
    reply::Reply,
    task::{BATCH, Done, Task},
    timers::Timer,
};
use crate::{
    Error, ErrorKind, Status, Token,
    clock::Clock,
    contract::{Holder, RenewRequest, Renewal, StoreError},
    core::{
        Moment,
        lease::{Action, Event, Lease, Loss, margin},
    },
    id::Named,
    keeper::{UNKNOWN, store_error},
    limits::LONGEST_LEASE,
    mutant,
    store::Store,
};

/// The locks that are held, by the numbers of their tokens, and the renewals that wait for a
/// batch.
#[derive(Default)]
pub(super) struct Holds {
    by_ownership: ByNumber<Entry>,
    /// When the renewals that are due go out at the latest, whether they fill a batch or not.
    due_by: Option<Moment>,
}

struct Entry {
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
    requests: Arc<[RenewRequest]>,
    sent_at: Moment,
    answers: Vec<Result<Renewal, StoreError>>,
}

/// A batch of extensions and its answers.
pub(super) struct Extended {
    pub(super) asked: Vec<(HoldName, Reply<Result<(), Error>>)>,
    pub(super) sent_at: Moment,
    pub(super) answers: Vec<Result<Option<Duration>, StoreError>>,
}

/// A lock that the store has granted.
pub(super) struct Grant {
    /// The number in the token.
    pub(super) ownership: u64,
    pub(super) token: Token,
    /// When it was asked for; the lease counts from there.
    pub(super) sent_at: Moment,
    pub(super) lease: Duration,
    pub(super) fencing_token: u64,
}

/// Who gets it.
pub(super) trait Taker {
    fn number(&self) -> u64;
    fn lock(&self) -> &Named;
    fn terms(&self) -> Terms;
    fn client(&self) -> &Arc<Client>;
}

impl Taker for Acquire {
    fn number(&self) -> u64 {
        self.number
    }

    fn lock(&self) -> &Named {
        &self.lock
    }

    fn terms(&self) -> Terms {
        self.terms.clone()
    }

    fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Task {
    /// Makes a hold of a grant; whoever held it before must have lost it, and the lock's line must
    /// know.
    pub(super) fn begin_hold(&mut self, taker: &impl Taker, grant: Grant) -> Held {
        let Grant { ownership, token, sent_at, lease: granted, fencing_token } = grant;
        let sent_at = if mutant::is("deadline from reply") { self.now } else { sent_at };
        let terms = taker.terms();
        let (own, jitter) = ((terms.lease, terms.hold_at_most), self.jitter(ownership));
        let lease = Lease::granted(sent_at, granted, own, jitter);
        let now = self.now;
        let hold = new_hold(&self.clock, taker, (ownership, token), fencing_token, &lease);
        let mut held = Entry {
            hold: Arc::clone(&hold),
            keep_until: now + terms.hold_at_least,
            lease_length: terms.lease,
            lease,
            timer: Moment::NEVER,
        };
        self.timers.reset(Timer::Hold(ownership), &mut held.timer, held.lease.next_timer());
        self.holds.by_ownership.insert(ownership, held);
        Held::new(hold, Arc::clone(taker.client()))
    }

    /// The same ownership in the hands of the next caller.
    pub(super) fn pass_hold_on(
        &mut self,
        ownership: u64,
        taker: &impl Taker,
        fencing_token: u64,
    ) -> Option<Held> {
        let (now, jitter, terms) = (self.now, self.jitter(ownership), taker.terms());
        let held = self.holds.by_ownership.get_mut(&ownership)?;
        // Released is not lost: whoever still waits for the loss waits for ever.
        held.hold.set_deadline(Moment::NEVER);
        held.lease.pass_on(now, (terms.lease, terms.hold_at_most), jitter);
        let token = held.hold.token.clone();
        held.hold = new_hold(&self.clock, taker, (ownership, token), fencing_token, &held.lease);
        held.keep_until = now + terms.hold_at_least;
        held.lease_length = terms.lease;
        self.timers.reset(Timer::Hold(ownership), &mut held.timer, held.lease.next_timer());
        Some(Held::new(Arc::clone(&held.hold), Arc::clone(taker.client())))
    }

    /// How long a lock may be passed on to somebody else as it is: zero if it may not.
    pub(super) fn can_be_passed_on(&self, name: HoldName, undelivered: bool) -> Option<Duration> {
        let held = self.held(name)?;
        let now = self.now;
        let kept = !undelivered && held.keep_until > now;
        let lost = held.hold.lost().is_raised();
        Some(if kept || lost { Duration::ZERO } else { held.lease.deadline().after(now) })
    }

    /// What is held under this name, unless it was lost, or is somebody else's by now.
    fn held(&self, name: HoldName) -> Option<&Entry> {
        self.holds.by_ownership.get(&name.ownership).filter(|held| held.hold.name == name)
    }

    /// Forgets a hold, and says until when its key is to be kept; `None` if it was lost before.
    pub(super) fn take_hold(&mut self, ownership: u64) -> Option<(Arc<Hold>, Moment)> {
        let held = self.holds.by_ownership.remove(&ownership)?;
        self.timers.cancel(Timer::Hold(ownership), held.timer);
        Some((held.hold, held.keep_until))
    }

    /// May what is held under this name still be believed?
    pub(super) fn is_held(&self, name: HoldName) -> bool {
        self.held(name).is_some_and(|held| held.hold.is_held())
    }

    pub(super) fn fence_of(&self, name: HoldName) -> Option<u64> {
        Some(self.held(name)?.hold.fencing_token)
    }

    pub(super) fn ownerships(&self) -> Vec<u64> {
        self.holds.by_ownership.keys().copied().collect()
    }

    /// The key of what is held with the token of this number.
    pub(super) fn key_of_hold(&self, ownership: u64) -> Option<Arc<str>> {
        Some(Arc::clone(&self.holds.by_ownership.get(&ownership)?.hold.lock.key))
    }

    pub(super) fn hold_timer(&mut self, number: u64, now: Moment) {
        if let Some(held) = self.holds.by_ownership.get_mut(&number) {
            held.timer = Moment::NEVER;
            self.step(number, Event::Timer, now);
        }
    }

    /// One event of one held lock, and what follows from it.
    fn step(&mut self, number: u64, event: Event, now: Moment) {
        let Some(held) = self.holds.by_ownership.get_mut(&number) else { return };
        let mut action = held.lease.step(event, now);
        if held.hold.lost().is_raised() {
            // Its holder found the deadline passed before the keeper did, and was told so.
            action = Action::Lose(Loss::Expired);
        }
        let mut due = None;
        match action {
            Action::Wait => {}
            Action::Renew { remaining } => {
                // Waiting a thirtieth of the lease for company fills the batches, and takes a
                // tenth of the time there is for a second and third try.
                let by = now + held.lease_length / 30;
                self.holds.due_by = Some(self.holds.due_by.map_or(by, |due_by| due_by.min(by)));
                due = Some((Arc::clone(&held.hold.lock.key), remaining));
            }
            Action::Lose(_) => return self.lose(number),
        }
        held.hold.set_deadline(held.lease.deadline());
        self.timers.reset(Timer::Hold(number), &mut held.timer, held.lease.next_timer());
        if let Some((key, remaining)) = due {
            self.shard(&key).due.push((number, remaining));
        }
    }

    /// The lock was lost, and this process is the first to know. Where its lease has run out, the
    /// store may hold the key for us still, though nobody believes in it any more; where the store
    /// says that it is not ours, its key has gone in another way than by a release, and those who
    /// wait for it have not been told. The same release is for both: it frees what is ours, and
    /// passes on what nobody holds.
    fn lose(&mut self, ownership: u64) {
        if let Some(hold) = self.end_lost(ownership) {
            self.begin_release(ownership, &hold.lock, &hold.token, Moment::default(), None);
            self.leave_lost(&hold.lock.key, ownership);
        }
    }

    fn leave_lost(&mut self, key: &Arc<str>, ownership: u64) {
        self.leave_ownership(key, ownership);
        self.lose_untaken(ownership);
    }

    fn end_lost(&mut self, ownership: u64) -> Option<Arc<Hold>> {
        let (hold, _) = self.take_hold(ownership)?;
        if !mutant::is("loss is not signalled") {
            hold.lost().raise();
        }
        Some(hold)
    }

    /// The line of a lock has to see to it itself from now on.
    pub(super) fn leave_ownership(&mut self, key: &Arc<str>, ownership: u64) {
        if let Some(line) =
            self.lines.get_mut(key).filter(|l| l.queue.ownership() == Some(ownership))
        {
            let action = line.queue.lost();
            self.follow(key, action);
        }
    }

    /// The store gives a lock to one at a time: who held it before, holds it no more.
    pub(super) fn lose_key(&mut self, key: &Arc<str>) {
        if let Some(ownership) = self.lines.get(key).and_then(|line| line.queue.ownership())
            && self.end_lost(ownership).is_some()
        {
            self.leave_lost(key, ownership);
        }
    }

    /// Somebody has released by force what this token held. It may hold it again, if it was asked
    /// for in the meantime: so it is released, not just forgotten.
    pub(super) fn lose_taken(&mut self, ownership: u64) {
        self.lose(ownership);
    }

    pub(super) fn leak(&mut self, name: HoldName) {
        if self.held(name).is_some()
            && let Some((hold, _)) = self.take_hold(name.ownership)
        {
            hold.set_deadline(Moment::NEVER);
            self.leave_ownership(&hold.lock.key, name.ownership);
        }
    }

    /// The store may have forgotten any lock: all are renewed now, and those that it has forgotten
    /// are lost.
    pub(super) fn renew_all(&mut self) {
        let now = self.now;
        for number in self.ownerships() {
            self.step(number, Event::Doubted, now);
        }
        if self.shards.iter().any(|shard| !shard.due.is_empty()) {
            self.holds.due_by = Some(now);
        }
    }

    /// Sends the renewals that fill a batch, and all of them once the first cannot wait longer.
    pub(super) fn send_renewals(&mut self) {
        let now = self.now;
        let overdue = self.holds.due_by.is_some_and(|due_by| due_by <= now);
        for shard in 0..self.shards.count() {
            self.send_renewals_to(shard, overdue);
        }
        if self.shards.iter().all(|shard| shard.due.is_empty()) {
            self.holds.due_by = None;
        }
    }

    fn send_renewals_to(&mut self, shard: usize, overdue: bool) {
        loop {
            let due = &mut self.shards.at(shard).due;
            let size = due.len().min(BATCH);
            if size == 0 || (size < BATCH && !overdue) {
                return;
            }
            let mut batch: Vec<_> = due.drain(..size).collect();
            // A store answers a batch within what the shortest lease in it leaves: one that is too
            // short for the way there must not take longer ones with it.
            batch.sort_by_key(|(_, lease)| *lease);
            for batch in batch.chunk_by(|(_, one), (_, next)| magnitude(*one) == magnitude(*next)) {
                self.send_renewals_of(batch);
            }
        }
    }

    fn send_renewals_of(&mut self, batch: &[(u64, Duration)]) {
        let now = self.now;
        let requests = batch.iter().filter_map(|(number, lease)| {
            // It may have been released while it waited.
            let hold = &self.holds.by_ownership.get(number)?.hold;
            let (key, token) = (Arc::clone(&hold.lock.key), hold.token.clone());
            let lease = (*lease).max(Duration::from_millis(1));
            Some((*number, RenewRequest { key, token, lease }))
        });
        let (numbers, requests): (Vec<_>, Vec<_>) = requests.unzip();
        if numbers.is_empty() {
            return;
        }
        let requests: Arc<[RenewRequest]> = requests.into();
        self.call_now_or_later(
            Arc::clone(&requests),
            (|store, batch, answers| store.renew_now(batch, answers), <dyn Store>::renew),
            move |answers| Done::Renewed(Renewed { numbers, requests, sent_at: now, answers }),
        );
    }

    pub(super) fn take_renewed(&mut self, renewed: Renewed) {
        let Renewed { numbers, requests, sent_at, answers } = renewed;
        let now = self.now;
        let sent_at = if mutant::is("deadline from reply") { now } else { sent_at };
        for ((number, request), answer) in numbers.into_iter().zip(&*requests).zip(answers) {
            let event = match answer {
                Ok(Renewal::Renewed { contended }) => {
                    if contended && let Some(line) = self.lines.get_mut(&request.key) {
                        line.queue.contended(number);
                    }
                    Event::Renewed { sent_at, remaining: request.lease }
                }
                Ok(Renewal::NotOurs) => Event::NotOurs,
                Err(_) if mutant::is("error counted as not ours") => Event::NotOurs,
                // A refusal is not a loss either: a replica that cannot be written to, a server
                // that is loading its data, says nothing about who holds the lock.
                Err(_) => Event::Unknown,
            };
            self.step(number, event, now);
        }
    }

    pub(super) fn extend(&mut self, name: HoldName, by: Duration, reply: Reply<Result<(), Error>>) {
        match self.extendable(name, by) {
            Ok((key, _)) => self.shard(&key).bulk.extend(name, by, reply),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// The key and the token of a hold that may be extended by that much.
    pub(super) fn extendable(
        &self,
        name: HoldName,
        by: Duration,
    ) -> Result<(Arc<str>, Token), Error> {
        let held = self.held(name).ok_or_else(lost)?;
        let until = held.lease.deadline() + by;
        if until > held.lease.end() {
            let message = "`hold_at_most` ends before that: extend by less, or allow more";
            return Err(Error::invalid(message));
        }
        if until.after(self.now) > LONGEST_LEASE {
            return Err(Error::invalid(format!(
                "a lease may last {LONGEST_LEASE:?} at most: extend by less"
            )));
        }
        Ok((Arc::clone(&held.hold.lock.key), held.hold.token.clone()))
    }

    pub(super) fn take_extended(&mut self, extended: Extended) {
        let Extended { asked, sent_at, answers } = extended;
        let now = self.now;
        for ((name, reply), answer) in asked.into_iter().zip(answers) {
            let outcome = match answer {
                Ok(Some(remaining)) => {
                    self.step(name.ownership, Event::Renewed { sent_at, remaining }, now);
                    self.held(name).map(|_| ()).ok_or_else(lost)
                }
                Ok(None) => {
                    self.step(name.ownership, Event::NotOurs, now);
                    Err(lost())
                }
                Err(error) => Err(store_error(&error, UNKNOWN)),
            };
            let _ = reply.send(outcome);
        }
    }

    pub(super) fn status_of(&self, lock: &Named, holder: Option<Holder>) -> Status {
        let Some(Holder { token, remaining, waiters }) = holder else { return Status::Free };
        Status::Held {
            by_us: token.is_of(&self.id),
            holder: token,
            remaining: remaining.unwrap_or(Duration::MAX),
            waiters: waiters
                + self.lines.get(&lock.key).map_or(0, |line| line.waiters_behind_entry()),
        }
    }

    /// The keeper ends; whoever still believes in a lock must not.
    pub(super) fn lose_all(&mut self) {
        for held in self.holds.by_ownership.values() {
            held.hold.lost().raise();
        }
    }
}

/// Would a grant of this lease be over before anybody could believe in it?
pub(crate) fn comes_too_late(sent_at: Moment, lease: Duration, now: Moment) -> bool {
    now >= sent_at + lease.saturating_sub(margin(lease))
}

/// Leases of one magnitude can be renewed together: none is more than twice as long as another.
fn magnitude(lease: Duration) -> u32 {
    lease.as_millis().max(1).ilog2()
}

fn new_hold(
    clock: &Arc<dyn Clock>,
    taker: &impl Taker,
    (ownership, token): (u64, Token),
    fencing_token: u64,
    lease: &Lease,
) -> Arc<Hold> {
    let name = HoldName { ownership, caller: taker.number() };
    let here = (Arc::clone(clock), taker.client().process.clone());
    Hold::new(name, (taker.lock().clone(), token), fencing_token, lease.deadline(), here)
}

pub(super) fn lost() -> Error {
    Error::new(
        ErrorKind::Lost,
        "the lock is held by this guard no more (its lease ran out, or it was taken away): \
         stop the work it protected and acquire it again",
    )
}
