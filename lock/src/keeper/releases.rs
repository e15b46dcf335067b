//! Locks on their way to being free: releases are repeated until the store has answered.

use std::{mem, sync::Arc, time::Duration};

use super::{
    held::HoldName,
    holds::lost,
    reply::Reply,
    task::{BATCH, Done, Task},
    timers::Timer,
};
use crate::{
    Error, Token,
    contract::{self, RESERVATION, ReleaseRequest, StoreError},
    core::{Moment, outage::Outage, queue::Action},
    id::Named,
    keeper::{REPEATED, store_error},
    store::Store,
};

/// How long a release is tried. Most leases have run out by then, and what a store has not
/// answered for half a minute it will not answer soon.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// A lock that has no guard any more.
pub(super) struct Release {
    lock: Named,
    token: Token,
    /// `hold_at_least` keeps the key until then.
    keep_until: Moment,
    give_up_at: Moment,
    outage: Outage,
    timer: Moment,
    reply: Option<Reply<Result<(), Error>>>,
}

/// A lock that was handed over to another client, which has to claim it.
pub(super) struct Claim {
    number: u64,
    lock: Named,
    token: Token,
    timer: Moment,
}

/// How long after the claim window a lock is looked at: the window runs from when the store got
/// the release, and ends in the server's own time.
pub(crate) const CLAIM_MARGIN: Duration = Duration::from_millis(20);

/// A batch of releases and its answers.
pub(super) struct Released {
    numbers: Vec<u64>,
    sent_at: Moment,
    answers: Vec<Result<contract::Release, StoreError>>,
}

impl Task {
    /// A guard gives up its lock: to the next caller in line, if nobody elsewhere waits for it, or
    /// to the store.
    pub(super) fn release(
        &mut self,
        name: HoldName,
        undelivered: bool,
        reply: Option<Reply<Result<(), Error>>>,
    ) {
        let Some(remaining) = self.can_be_passed_on(name, undelivered) else {
            // Lost before; the guard's own end changes nothing.
            if let Some(reply) = reply {
                let _ = reply.send(Err(lost()));
            }
            return;
        };
        if undelivered && self.run_refused(name, remaining) {
            return;
        }
        let Some(key) = self.key_of_hold(name.ownership) else { return };
        let action = match self.lines.get_mut(&key) {
            Some(line) => line.queue.released(remaining),
            None => Action::Release,
        };
        match action {
            Action::Grant { caller, fencing_token } => {
                let Some(caller) = self.take_caller(caller) else { return };
                let held = self.pass_hold_on(name.ownership, &*caller.acquire, fencing_token);
                if let Some(held) = held {
                    self.deliver(caller, name.ownership, held);
                }
                answer_release(reply);
            }
            Action::Reacquire => {
                if let Some((hold, _)) = self.take_hold(name.ownership) {
                    hold.set_deadline(Moment::NEVER);
                    self.take_over_entry(&key, name.ownership, &hold.token);
                }
                answer_release(reply);
            }
            _ => {
                if let Some((hold, keep_until)) = self.take_hold(name.ownership) {
                    // Released is not lost: whoever still waits for the loss waits for ever.
                    hold.set_deadline(Moment::NEVER);
                    // `hold_at_least` is for those that have held it.
                    let keep_until = if undelivered { Moment::default() } else { keep_until };
                    self.begin_release(name.ownership, &hold.lock, &hold.token, keep_until, reply);
                }
                let next = match self.lines.get(&key).and_then(|line| line.queue.entry()) {
                    Some(entry) if entry.is_new() => Action::Ask,
                    _ => Action::None,
                };
                self.follow(&key, next);
            }
        }
    }

    /// Guards that found nobody to take them.
    pub(super) fn release_unclaimed(&mut self) -> bool {
        let Some((ownership, caller)) = self.unclaimed.pop() else { return false };
        self.release(HoldName { ownership, caller }, true, None);
        true
    }

    pub(super) fn release_all(&mut self) {
        for ownership in self.ownerships() {
            if let Some((hold, keep_until)) = self.take_hold(ownership) {
                hold.lost().raise();
                self.begin_release(ownership, &hold.lock, &hold.token, keep_until, None);
                self.leave_ownership(&hold.lock.key, ownership);
            }
        }
    }

    pub(super) fn begin_release(
        &mut self,
        number: u64,
        lock: &Named,
        token: &Token,
        keep_until: Moment,
        reply: Option<Reply<Result<(), Error>>>,
    ) {
        let release = Release {
            lock: lock.clone(),
            token: token.clone(),
            keep_until,
            give_up_at: self.now + GIVE_UP_AFTER,
            outage: Outage::default(),
            timer: Moment::NEVER,
            reply,
        };
        self.releases.insert(number, release);
        self.shard(&lock.key).to_release.push(number);
    }

    pub(super) fn release_timer(&mut self, number: u64, now: Moment) {
        let Some(release) = self.releases.get_mut(&number) else { return };
        release.timer = Moment::NEVER;
        if now >= release.give_up_at {
            // The lease frees the lock; nothing here knows more.
            self.releases.remove(&number);
        } else {
            let key = Arc::clone(&release.lock.key);
            self.shard(&key).to_release.push(number);
        }
    }

    pub(super) fn send_releases(&mut self) {
        for shard in 0..self.shards.count() {
            self.send_releases_to(shard);
        }
    }

    fn send_releases_to(&mut self, shard: usize) {
        let now = self.now;
        for numbers in mem::take(&mut self.shards.at(shard).to_release).chunks(BATCH) {
            let requests = numbers.iter().filter_map(|number| {
                let release = self.releases.get(number)?;
                let (key, token) = (Arc::clone(&release.lock.key), release.token.clone());
                // Rounded up: at least means at least.
                let keep = release.keep_until.after(now);
                let keep = Duration::from_millis(keep.as_nanos().div_ceil(1_000_000) as u64);
                Some((*number, ReleaseRequest { key, token, keep }))
            });
            let (numbers, requests): (Vec<_>, Vec<_>) = requests.unzip();
            self.call_now_or_later(
                requests,
                (|store, batch, answers| store.release_now(batch, answers), <dyn Store>::release),
                move |answers| Done::Released(Released { numbers, sent_at: now, answers }),
            );
        }
    }

    pub(super) fn take_released(&mut self, released: Released) {
        let now = self.now;
        for (number, answer) in released.numbers.into_iter().zip(released.answers) {
            let Some(release) = self.releases.get_mut(&number) else { continue };
            match answer {
                Ok(answer) => {
                    // After a try without an answer, a lock that is not ours was freed by that
                    // try: the same request twice is answered as once.
                    let repeated = release.outage.since().is_some();
                    let ours = answer.ours || repeated;
                    if let Some(reply) = release.reply.take() {
                        let _ = reply.send(if ours { Ok(()) } else { Err(lost()) });
                    }
                    let Some(release) = self.releases.remove(&number) else { continue };
                    if release.keep_until > released.sent_at {
                        // Nobody else rechecks at that moment: whoever is next knows of the lease.
                        let kept_until = release.keep_until.max(now);
                        self.await_claim(&release.lock, number, release.token, kept_until);
                    } else if answer.handed_over || (repeated && !answer.ours) {
                        let claimed_by = now + RESERVATION;
                        self.await_claim(&release.lock, number, release.token, claimed_by);
                    }
                    self.recheck_if_polling(&release.lock.key);
                    self.run_ended(&release.lock.key);
                }
                Err(failure) => {
                    release.outage.failed(released.sent_at);
                    let refused = failure.is_refusal();
                    // Whoever waits for the answer is told in time that there is none; the release
                    // itself is tried on, for a lock that nobody holds must not stay taken.
                    if (refused || release.outage.is_borne(now))
                        && let Some(reply) = release.reply.take()
                    {
                        let _ = reply.send(Err(store_error(&failure, REPEATED)));
                    }
                    // A connection that broke is tried again at once, ahead of whatever is asked
                    // next: whoever drops a guard and then acquires the same lock must find it
                    // free, if the new connection is there in time.
                    if release.outage.failures() == 1 {
                        let key = Arc::clone(&release.lock.key);
                        self.shard(&key).to_release.push(number);
                        continue;
                    }
                    let at = now + release.outage.pause();
                    self.timers.reset(Timer::Release(number), &mut release.timer, at);
                }
            }
        }
    }

    /// Sees to it that a lock that was handed over is passed on if nobody claims it by then: a
    /// waiter that hangs, or whose wake-up was lost, delays the others by the window and no more.
    /// Whoever released it is the one who knows that it was handed over, so it is the one who rechecks.
    pub(super) fn await_claim(&mut self, lock: &Named, number: u64, token: Token, by: Moment) {
        self.forget_claim(&lock.key);
        let mut claim = Claim { number, lock: lock.clone(), token, timer: Moment::NEVER };
        self.timers.reset(Timer::Claim(number), &mut claim.timer, by + CLAIM_MARGIN);
        self.claimed_keys.insert(number, Arc::clone(&lock.key));
        self.claims.insert(Arc::clone(&lock.key), claim);
    }

    /// Is there a claim window that will not have passed by itself for long?
    pub(super) fn is_claim_due_soon(&self) -> bool {
        let soon = self.now + RESERVATION + CLAIM_MARGIN;
        self.claims.values().any(|claim| claim.timer <= soon)
    }

    /// Somebody has claimed it, or another has seen to it since.
    pub(super) fn forget_claim(&mut self, key: &Arc<str>) {
        if let Some(claim) = self.claims.remove(key) {
            self.timers.cancel(Timer::Claim(claim.number), claim.timer);
            self.claimed_keys.remove(&claim.number);
        }
    }

    pub(super) fn claim_timer(&mut self, number: u64) {
        let Some(key) = self.claimed_keys.remove(&number) else { return };
        if let Some(claim) = self.claims.remove(&key) {
            // The same release again: it changes nothing if the lock is held.
            self.begin_release(number, &claim.lock, &claim.token, Moment::default(), None);
        }
    }
}

fn answer_release(reply: Option<Reply<Result<(), Error>>>) {
    if let Some(reply) = reply {
        let _ = reply.send(Ok(()));
    }
}
