//! Callers that wait in line for a lock, and their entry in the store's queue.
//!
//! [`LockState`] decides who is next, and what the store is asked for. This file decides who is
//! refused, and when.

use std::{mem, sync::Arc, time::Duration};

use super::{
    calls::{Asker, Granted, Said},
    io::{Acquire, Acquirer, Aftermath, Caller, Refusal},
    lease::comes_too_late,
    lock_state::{Action, Entry, LockState, Rechecks},
    outage::SILENCE_LIMIT,
    shared::Shared,
    timers::{Scheduled, Timer},
};
use crate::{
    Token,
    contract::{AcquireRequest, Acquisition, Delivery, RESERVATION, StoreError},
    maps::{ByKey, ByNumber},
    time::Moment,
};

/// A recheck that began less than this long ago counts as the last one of a caller that is not next
/// in line.
const FRESH: Duration = Duration::from_millis(250);

#[derive(Clone, Default, Hash)]
pub(super) struct Queued<C> {
    callers: ByNumber<Waiter<C>>,
    /// What this process knows of each lock that somebody here holds or waits for.
    locks: ByKey<LocalLock>,
    /// The keys of the entries whose original callers have left.
    entries: ByNumber<Arc<str>>,
}

/// One caller in line.
#[derive(Clone, Hash)]
struct Waiter<C> {
    acquire: Box<Acquire<C>>,
    started: Moment,
    give_up_at: Moment,
    timer: Scheduled,
}

#[derive(Clone, Default, Hash)]
struct LocalLock {
    state: LockState,
    /// The token of the entry, whichever caller it was made for.
    token: Option<Token>,
    timer: Scheduled,
    failure: Option<StoreError>,
    /// When the last recheck that found the lock held began.
    checked_at: Moment,
    /// Callers whose patience is over, and which wait for the result of a last recheck.
    overtime: Vec<u64>,
}

impl LocalLock {
    /// Cleans up after the entry with this number; returns its token, if it had one.
    fn end_entry<C>(&mut self, number: u64, shared: &mut Shared<C>) -> Option<Token> {
        shared.timers.cancel(Timer::Recheck(number), &mut self.timer);
        self.failure = None;
        self.token.take()
    }
}

impl<C: Caller> Queued<C> {
    pub(super) fn join(
        &mut self,
        acquire: Box<Acquire<C>>,
        wait: Duration,
        shared: &mut Shared<C>,
    ) {
        let Acquirer { number, ref key, terms, .. } = acquire.acquirer;
        let key = Arc::clone(key);
        let lock = self.locks.entry(Arc::clone(&key)).or_default();
        let action = lock.state.join(number, terms.lease);
        let (started, give_up_at) = (shared.now, shared.now + wait);
        let mut waiter = Waiter { acquire, started, give_up_at, timer: Scheduled::default() };
        if action != Action::Ask {
            shared.timers.reset(Timer::Queued(number), &mut waiter.timer, give_up_at);
            shared.waits(&waiter.acquire.acquirer.to);
        }
        self.callers.insert(number, waiter);
        self.follow(&key, action, shared);
    }

    /// Carries out what a lock's state requires, except for what the caller of this method has to
    /// do itself.
    fn follow(&mut self, key: &Arc<str>, action: Action, shared: &mut Shared<C>) {
        let Some(lock) = self.locks.get_mut(key) else { return };
        match action {
            Action::Ask => {
                if lock.token.is_none() {
                    let entry = lock.state.entry().map(Entry::number);
                    lock.token = entry.map(|number| shared.token(number));
                }
                shared.request(Asker::Queued(Arc::clone(key)));
            }
            Action::RecheckAt(at) => {
                if let Some(entry) = lock.state.entry() {
                    shared.timers.reset(Timer::Recheck(entry.number()), &mut lock.timer, at);
                }
            }
            Action::Withdraw { number } => {
                self.entries.remove(&number);
                // If the entry was about to look again, its own last look may have handed the lock
                // to a waiter that has not received the notice. Nobody else looks when that
                // reservation ends.
                let look_at = lock.timer.at();
                if let Some(token) = lock.end_entry(number, shared) {
                    let is_near = look_at <= shared.now + RESERVATION;
                    shared.undo_and_look(number, key, &token, is_near.then_some(look_at));
                }
            }
            Action::None | Action::Grant { .. } | Action::Release | Action::Reacquire => {}
        }
        if lock.state.is_idle() {
            self.locks.remove(key);
        }
    }

    /// What to ask the store on behalf of those who wait for this lock.
    pub(super) fn request(
        &mut self,
        key: &Arc<str>,
        shared: &mut Shared<C>,
    ) -> Option<(u64, AcquireRequest)> {
        let lock = self.locks.get_mut(key)?;
        let request = lock.state.request(shared.now)?;
        shared.timers.cancel(Timer::Recheck(request.number), &mut lock.timer);
        let asked = AcquireRequest::new(Arc::clone(key), lock.token.clone()?, request.lease);
        Some((request.number, asked.if_held(request.if_held)))
    }

    /// Handles the store's answer to the request of an entry. Returns a grant that may be relied
    /// on: no caller has it yet.
    pub(super) fn answered(
        &mut self,
        key: &Arc<str>,
        number: u64,
        sent_at: Moment,
        answer: Said<Acquisition>,
        shared: &mut Shared<C>,
    ) -> Option<Granted> {
        // If the entry was withdrawn in the meantime, the release that was sent behind its request
        // undoes it.
        let lock = self.locks.get_mut(key)?;
        let entry = lock.state.entry().filter(|entry| entry.number() == number)?;
        match answer {
            Ok(Acquisition::Granted { fence, contended }) => {
                let lease = entry.lease();
                let action = if comes_too_late(sent_at, lease, shared.now) {
                    let late = "the answer came after the lease had run out";
                    lock.failure = Some(StoreError::unavailable(late));
                    lock.state.unanswered(number, rechecks(number, false, shared), shared.now)
                } else if entry.is_revoked() {
                    lock.failure = None;
                    lock.state.ask_again(number)
                } else {
                    let (ownership, token) = (number, lock.token.clone()?);
                    return Some(Granted { ownership, token, sent_at, lease, fence, contended });
                };
                self.follow(key, action, shared);
            }
            Ok(Acquisition::Held { remaining, ticket, notifies }) => {
                // The callers behind this entry were told when they came.
                if let Some(waiter) = self.callers.get(&number)
                    && !entry.has_been_held()
                {
                    shared.waits(&waiter.acquire.acquirer.to);
                }
                let rechecks = rechecks(number, notifies, shared);
                // This answer covers the earlier requests as well: they reached the store first.
                lock.failure = None;
                lock.checked_at = sent_at;
                let action = lock.state.held(number, remaining, ticket, rechecks, shared.now);
                self.follow(key, action, shared);
                self.end_overtime(key, shared);
            }
            Err(error) if error.is_refusal() => self.refused(key, error, shared),
            Err(error) => {
                lock.failure = Some(error);
                let rechecks = rechecks(number, false, shared);
                let action = lock.state.unanswered(number, rechecks, shared.now);
                self.follow(key, action, shared);
                self.end_silence(key, shared);
                self.end_overtime_unanswered(key, shared);
            }
        }
        None
    }

    /// The grant may be over, so the entry asks again.
    pub(super) fn ask_again(&mut self, key: &Arc<str>, number: u64, shared: &mut Shared<C>) {
        if let Some(lock) = self.locks.get_mut(key) {
            let action = lock.state.ask_again(number);
            self.follow(key, action, shared);
        }
    }

    /// Gives a grant to the first in line, with the fencing token; no ownership of the lock may be
    /// left here. `None` if nobody is in line, and the grant is undone.
    pub(super) fn granted(
        &mut self,
        key: &Arc<str>,
        granted: &Granted,
        shared: &mut Shared<C>,
    ) -> Option<(Acquirer<C>, u64)> {
        let number = granted.ownership;
        let lock = self.locks.get_mut(key)?;
        let action = lock.state.granted(number, granted.fence, granted.contended);
        let Action::Grant { caller, fencing_token } = action else {
            self.follow(key, action, shared);
            return None;
        };
        self.entries.remove(&number);
        lock.end_entry(number, shared);
        let overtime = mem::take(&mut lock.overtime);
        let next = self.next(caller, shared);
        // The last recheck has shown that a caller of this process holds the lock.
        for number in overtime {
            self.refuse_busy(number, shared);
        }
        Some((next?, fencing_token))
    }

    /// A caller that did not wait in line has got the lock; returns the fencing token.
    pub(super) fn taken_by(&mut self, key: &Arc<str>, granted: &Granted) -> u64 {
        let lock = self.locks.entry(Arc::clone(key)).or_default();
        lock.state.taken_by(granted.ownership, granted.fence, granted.contended)
    }

    /// The number of the token that holds the lock for this process.
    pub(super) fn ownership(&self, key: &str) -> Option<u64> {
        self.locks.get(key)?.state.ownership()
    }

    /// Nobody here takes care of what this token holds any longer.
    pub(super) fn leave_ownership(
        &mut self,
        key: &Arc<str>,
        ownership: u64,
        shared: &mut Shared<C>,
    ) {
        let lock = self.locks.get_mut(key).filter(|l| l.state.ownership() == Some(ownership));
        if let Some(lock) = lock {
            let action = lock.state.lost();
            self.follow(key, action, shared);
        }
    }

    /// A guard releases the lock, whose lease still lasts for `remaining`. If the store has to
    /// release it, the callers that wait ask for themselves, after that.
    pub(super) fn released(
        &mut self,
        key: &Arc<str>,
        remaining: Duration,
        shared: &mut Shared<C>,
    ) -> Action {
        let Some(lock) = self.locks.get_mut(key) else { return Action::Release };
        let action = lock.state.released(remaining);
        if action == Action::Release {
            let asks = lock.state.entry().is_some_and(Entry::is_new);
            self.follow(key, if asks { Action::Ask } else { Action::None }, shared);
        }
        action
    }

    /// Takes the next caller out of the line.
    pub(super) fn next(&mut self, number: u64, shared: &mut Shared<C>) -> Option<Acquirer<C>> {
        Some(self.take(number, shared)?.acquire.acquirer)
    }

    /// The entry gets the number and the token of the ownership that it continues.
    pub(super) fn reacquire(
        &mut self,
        key: &Arc<str>,
        number: u64,
        token: Token,
        shared: &mut Shared<C>,
    ) {
        if let Some(lock) = self.locks.get_mut(key) {
            lock.token = Some(token);
            self.entries.insert(number, Arc::clone(key));
            shared.request(Asker::Queued(Arc::clone(key)));
        }
    }

    /// Removes a caller here; the lock's state has removed it already.
    fn take(&mut self, number: u64, shared: &mut Shared<C>) -> Option<Waiter<C>> {
        let mut waiter = self.callers.remove(&number)?;
        shared.timers.cancel(Timer::Queued(number), &mut waiter.timer);
        Some(waiter)
    }

    /// Answers a caller that gets no lock.
    fn refuse(&mut self, number: u64, refusal: Refusal, shared: &mut Shared<C>) {
        let Some(waiter) = self.take(number, shared) else { return };
        let Acquirer { key, to, .. } = waiter.acquire.acquirer;
        shared.refuse(to, refusal);
        self.leave(&key, number, shared);
    }

    fn leave(&mut self, key: &Arc<str>, number: u64, shared: &mut Shared<C>) {
        let Some(lock) = self.locks.get_mut(key) else { return };
        let before = lock.state.entry().map(Entry::number);
        let action = lock.state.leave(number);
        let after = lock.state.entry().map(Entry::number);
        if after == Some(number) {
            // The others keep the entry that was made for this caller.
            self.entries.insert(number, Arc::clone(key));
        }
        if let (Some(before), None, Action::None) = (before, after, action) {
            // It was never asked for, so there is nothing to undo.
            self.entries.remove(&before);
            lock.end_entry(before, shared);
        }
        self.follow(key, action, shared);
    }

    /// The caller has gone away.
    pub(super) fn cancel(&mut self, number: u64, shared: &mut Shared<C>) {
        if let Some(waiter) = self.take(number, shared) {
            self.leave(&waiter.acquire.acquirer.key, number, shared);
        }
    }

    /// The store refuses the request: the first in line is told, and the next one asks for itself.
    fn refused(&mut self, key: &Arc<str>, error: StoreError, shared: &mut Shared<C>) {
        let Some(lock) = self.locks.get_mut(key) else { return };
        let first = lock.state.first();
        let undo =
            lock.state.entry().is_some_and(Entry::leaves_something) || lock.failure.is_some();
        if let Some(number) = lock.state.entry().map(Entry::number) {
            lock.state.give_up_entry();
            self.entries.remove(&number);
            if let Some(token) = lock.end_entry(number, shared)
                && undo
            {
                shared.undo(number, key, &token);
            }
        }
        if let Some(first) = first {
            self.refuse(first, Refusal::Failed(error, Aftermath::Undone), shared);
        }
        if let Some(lock) = self.locks.get_mut(key) {
            let action = lock.state.enter();
            self.follow(key, action, shared);
        }
    }

    /// A recheck has found the lock held: for callers whose patience is over, it was the last.
    fn end_overtime(&mut self, key: &Arc<str>, shared: &mut Shared<C>) {
        // If something happened after that recheck began, there is another one.
        let again =
            |lock: &LocalLock| lock.state.entry().is_some_and(|entry| entry.is_asked_again());
        while let Some(lock) = self.locks.get(key)
            && let Some(first) = lock.state.first()
            && let Some(waiter) = self.callers.get_mut(&first)
        {
            if shared.now < waiter.give_up_at || again(lock) {
                let at = waiter.give_up_at.max(shared.now);
                shared.timers.reset(Timer::Queued(first), &mut waiter.timer, at);
                break;
            }
            self.refuse_busy(first, shared);
        }
        // It has shown that somebody holds the lock.
        let Some(lock) = self.locks.get_mut(key).filter(|lock| !again(lock)) else { return };
        for number in mem::take(&mut lock.overtime) {
            self.refuse_busy(number, shared);
        }
    }

    /// The last recheck for callers whose patience is over had no answer. The next in line stays
    /// for as long as the store may be silent: its ticket would be given up with it.
    fn end_overtime_unanswered(&mut self, key: &Arc<str>, shared: &mut Shared<C>) {
        let Some(lock) = self.locks.get_mut(key) else { return };
        let overtime = mem::take(&mut lock.overtime);
        let (stays, leave): (Vec<_>, Vec<_>) =
            overtime.into_iter().partition(|number| lock.state.is_first(*number));
        lock.overtime = stays;
        for number in leave {
            self.refuse_unanswered(key, number, shared);
        }
    }

    fn refuse_busy(&mut self, number: u64, shared: &mut Shared<C>) {
        let Some(waiter) = self.callers.get(&number) else { return };
        let waited = waiter.give_up_at.after(waiter.started);
        self.refuse(number, Refusal::BusyFor(waited), shared);
    }

    fn refuse_unanswered(&mut self, key: &str, number: u64, shared: &mut Shared<C>) {
        let failure = self.locks.get(key).and_then(|lock| lock.failure.clone());
        let failure = failure.unwrap_or_else(|| StoreError::unavailable("no answer in time"));
        self.refuse(number, Refusal::Failed(failure, Aftermath::Undone), shared);
    }

    /// Refuses the callers that have waited through the store's silence for as long as they may be
    /// asked to.
    fn end_silence(&mut self, key: &Arc<str>, shared: &mut Shared<C>) {
        let Some(lock) = self.locks.get(key) else { return };
        let Some(since) = lock.state.entry().and_then(Entry::silent_since) else { return };
        let borne = lock.state.callers().filter(|number| {
            let waiter = self.callers.get(number);
            waiter.is_some_and(|waiter| shared.now >= waiter.started.max(since) + SILENCE_LIMIT)
        });
        for number in borne.collect::<Vec<_>>() {
            self.refuse_unanswered(key, number, shared);
        }
    }

    /// The patience of a caller is over. Before it is told that the lock is held, there is one more
    /// recheck: the key may have disappeared without a notice to anybody.
    pub(super) fn caller_timer(&mut self, number: u64, shared: &mut Shared<C>) {
        let Some(waiter) = self.callers.get_mut(&number) else { return };
        waiter.timer.fired();
        let key = Arc::clone(&waiter.acquire.acquirer.key);
        let Some(lock) = self.locks.get_mut(&key) else { return };
        let is_first = lock.state.is_first(number);
        let Some(entry) = lock.state.entry() else {
            // This process holds it.
            return self.refuse_busy(number, shared);
        };
        let (is_asked, is_silent) = (entry.is_asked(), entry.silent_since().is_some());
        if is_silent && !is_asked && !is_first {
            return self.refuse_unanswered(&key, number, shared);
        }
        // The first in line would have been given the lock, so for the others a slightly older
        // recheck will do: a crowd that gives up one after the other costs four rechecks a second.
        if !is_asked && !is_first && shared.now < lock.checked_at + FRESH {
            return self.refuse_busy(number, shared);
        }
        lock.overtime.push(number);
        if !is_asked && !is_silent {
            self.recheck(&key, shared);
        }
    }

    pub(super) fn recheck_timer(&mut self, number: u64, shared: &mut Shared<C>) {
        let Some(key) = self.key_of_entry(number) else { return };
        let Some(lock) = self.locks.get_mut(&key) else { return };
        lock.timer.fired();
        self.end_silence(&key, shared);
        self.recheck(&key, shared);
    }

    fn recheck(&mut self, key: &Arc<str>, shared: &mut Shared<C>) {
        if let Some(lock) = self.locks.get_mut(key) {
            let action = lock.state.recheck();
            self.follow(key, action, shared);
        }
    }

    /// The lock of this key has become free, as far as this process knows. Where notices arrive,
    /// one comes if it is this process's turn.
    pub(super) fn recheck_if_polling(&mut self, key: &Arc<str>, shared: &mut Shared<C>) {
        if shared.delivery == Delivery::Polling {
            self.recheck(key, shared);
        }
    }

    /// The store may have sent notices that did not arrive.
    pub(super) fn recheck_all(&mut self, shared: &mut Shared<C>) {
        for key in self.locks.keys() {
            self.recheck(&key, shared);
        }
    }

    /// The store has sent a notice about this entry.
    pub(super) fn recheck_entry(&mut self, number: u64, shared: &mut Shared<C>) {
        let Some(key) = self.key_of_entry(number) else { return };
        let entry = self.locks.get(&key).and_then(|lock| lock.state.entry());
        if entry.is_some_and(|entry| entry.number() == number) {
            self.recheck(&key, shared);
        }
    }

    /// An entry is known by the caller for which it was made, as long as that caller waits.
    fn key_of_entry(&self, number: u64) -> Option<Arc<str>> {
        let waiter = self.callers.get(&number).map(|waiter| &waiter.acquire.acquirer.key);
        waiter.or_else(|| self.entries.get(&number)).cloned()
    }

    /// Is this the number of an entry with which callers wait?
    #[cfg(lock_mutants)]
    pub(super) fn is_entry(&self, number: u64) -> bool {
        let lock = self.key_of_entry(number).and_then(|key| self.locks.get(&key));
        let entry = lock.and_then(|lock| lock.state.entry());
        entry.is_some_and(|entry| entry.number() == number)
    }

    /// Does nobody here hold a lock, or wait for one?
    #[cfg(lock_mutants)]
    pub(super) fn is_empty(&self) -> bool {
        self.callers.is_empty() && self.locks.is_empty()
    }

    /// Others wait for the lock that this token holds or has asked for. `key` is that of a lock it
    /// holds.
    pub(super) fn contended(&mut self, number: u64, key: Option<Arc<str>>, shared: &mut Shared<C>) {
        let Some(key) = key.or_else(|| self.key_of_entry(number)) else { return };
        if let Some(lock) = self.locks.get_mut(&key) {
            lock.state.contended(number);
            if lock.state.entry().is_some_and(|entry| entry.number() == number) {
                // It already holds the lock, so the notice of the grant is late or lost.
                self.recheck(&key, shared);
            }
        }
    }

    /// The lock was released by force while this token may have held it. True if this is known
    /// before the grant: they need not travel together.
    pub(super) fn revoked(&mut self, number: u64) -> bool {
        let lock = self.key_of_entry(number).and_then(|key| self.locks.get_mut(&key));
        lock.is_some_and(|lock| lock.state.revoked(number))
    }

    /// How many callers wait here that the store does not count: all but the one that represents
    /// them.
    pub(super) fn waiters_behind_entry(&self, key: &str) -> usize {
        let Some(lock) = self.locks.get(key) else { return 0 };
        let queued = lock.state.entry().is_some_and(Entry::is_queued);
        lock.state.waiters() - usize::from(queued && lock.state.waiters() > 0)
    }

    pub(super) fn close(&mut self, shared: &mut Shared<C>) {
        for number in self.callers.keys() {
            self.refuse(number, Refusal::Closed, shared);
        }
    }
}

fn rechecks<C>(number: u64, told: bool, shared: &Shared<C>) -> Rechecks {
    let woken = shared.delivery != Delivery::Polling;
    Rechecks { woken, told, jitter: shared.jitter(number) }
}
