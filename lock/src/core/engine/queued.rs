//! Callers that wait in line for a lock, and their entry in the store's queue.
//!
//! Who is next, and what the store is asked for, is decided in [`LockState`]; who is refused, and
//! when, is decided here.

use std::{mem, sync::Arc, time::Duration};

use super::{
    calls::{Asker, Granted, Said},
    io::{Acquire, Acquirer, Aftermath, Refusal},
    lease::comes_too_late,
    lock_state::{Action, Entry, LockState, Rechecks},
    maps::{ByKey, ByNumber},
    outage::SILENCE_LIMIT,
    timers::{Scheduled, Timer},
    turn::Turn,
};
use crate::{
    Token,
    contract::{AcquireRequest, Acquisition, Delivery, StoreError},
    core::Moment,
};

/// A recheck that was begun so long ago is the last one of a caller that is not the next in line.
const FRESH: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Queued<C> {
    callers: ByNumber<Waiter<C>>,
    /// What this process knows of each lock that somebody here holds or waits for.
    locks: ByKey<LocalLock>,
    /// Where the entries are whose callers have left.
    entries: ByNumber<Arc<str>>,
}

/// One caller in line.
struct Waiter<C> {
    acquire: Box<Acquire<C>>,
    started: Moment,
    give_up_at: Moment,
    timer: Scheduled,
}

#[derive(Default)]
struct LocalLock {
    state: LockState,
    /// The token of the entry, whichever caller it was made for.
    token: Option<Token>,
    timer: Scheduled,
    failure: Option<StoreError>,
    /// When the last recheck began that found the lock held.
    checked_at: Moment,
    /// Callers whose patience is over, and who wait for what a last recheck shows.
    overtime: Vec<u64>,
}

impl LocalLock {
    /// The entry with this number is gone; its token, if it had one.
    fn end_entry<C>(&mut self, number: u64, turn: &mut Turn<C>) -> Option<Token> {
        turn.timers.cancel(Timer::Recheck(number), &mut self.timer);
        self.failure = None;
        self.token.take()
    }

    fn is_silent(&self) -> bool {
        self.state.entry().is_some_and(|entry| entry.silent_since().is_some())
    }
}

impl<C> Queued<C> {
    pub(super) fn join(&mut self, acquire: Box<Acquire<C>>, wait: Duration, turn: &mut Turn<C>) {
        let Acquirer { number, ref key, terms, .. } = acquire.acquirer;
        let key = Arc::clone(key);
        let lock = self.locks.entry(Arc::clone(&key)).or_default();
        let action = lock.state.join(number, terms.lease);
        let (started, give_up_at) = (turn.now, turn.now + wait);
        let mut waiter = Waiter { acquire, started, give_up_at, timer: Scheduled::default() };
        if action != Action::Ask {
            turn.timers.reset(Timer::Caller(number), &mut waiter.timer, give_up_at);
        }
        self.callers.insert(number, waiter);
        self.follow(&key, action, turn);
    }

    /// Carries out what a lock's state wants, apart from what its caller has to do itself.
    fn follow(&mut self, key: &Arc<str>, action: Action, turn: &mut Turn<C>) {
        let Some(lock) = self.locks.get_mut(key) else { return };
        match action {
            Action::Ask => {
                let entry = lock.state.entry().map(Entry::number);
                // A new entry has the token of the caller that it is made for.
                if lock.token.is_none()
                    && let Some(waiter) = entry.and_then(|entry| self.callers.get(&entry))
                {
                    lock.token = Some(waiter.acquire.token.clone());
                }
                turn.request(Asker::Queued(Arc::clone(key)));
            }
            Action::RecheckAt(at) => {
                if let Some(entry) = lock.state.entry() {
                    turn.timers.reset(Timer::Recheck(entry.number()), &mut lock.timer, at);
                }
            }
            Action::Withdraw { number } => {
                self.entries.remove(&number);
                if let Some(token) = lock.end_entry(number, turn) {
                    turn.undo(number, key, &token);
                }
            }
            Action::None | Action::Grant { .. } | Action::Release | Action::Reacquire => {}
        }
        if lock.state.is_idle() {
            self.locks.remove(key);
        }
    }

    /// What the store is to be asked on behalf of those who wait for this lock.
    pub(super) fn request(
        &mut self,
        key: &Arc<str>,
        turn: &mut Turn<C>,
    ) -> Option<(u64, AcquireRequest)> {
        let lock = self.locks.get_mut(key)?;
        let request = lock.state.request(turn.now)?;
        turn.timers.cancel(Timer::Recheck(request.number), &mut lock.timer);
        let (key, token) = (Arc::clone(key), lock.token.clone()?);
        let (lease, if_held) = (request.lease, request.if_held);
        Some((request.number, AcquireRequest { key, token, lease, if_held }))
    }

    /// What the store has answered to the request of an entry. A grant that may be believed is
    /// returned: nobody has it yet.
    pub(super) fn answered(
        &mut self,
        key: &Arc<str>,
        number: u64,
        sent_at: Moment,
        answer: Said<Acquisition>,
        turn: &mut Turn<C>,
    ) -> Option<Granted> {
        // An entry that was withdrawn meanwhile is undone by what was sent behind its request.
        let lock = self.locks.get_mut(key)?;
        let entry = lock.state.entry().filter(|entry| entry.number() == number)?;
        match answer {
            Ok(Acquisition::Granted { fence, contended }) => {
                let lease = entry.lease();
                let action = if comes_too_late(sent_at, lease, turn.now) {
                    let late = "the answer came after the lease had run out";
                    lock.failure = Some(StoreError::unavailable(late));
                    lock.state.unanswered(number, rechecks(number, false, turn), turn.now)
                } else if entry.is_revoked() {
                    lock.failure = None;
                    lock.state.ask_again(number)
                } else {
                    let (ownership, token) = (number, lock.token.clone()?);
                    return Some(Granted { ownership, token, sent_at, lease, fence, contended });
                };
                self.follow(key, action, turn);
            }
            Ok(Acquisition::Held { remaining, ticket, notifies }) => {
                let rechecks = rechecks(number, notifies, turn);
                // It answers for the requests before it, too: they came first.
                lock.failure = None;
                lock.checked_at = sent_at;
                let action = lock.state.held(number, remaining, ticket, rechecks, turn.now);
                self.follow(key, action, turn);
                self.end_overtime(key, turn);
            }
            Err(error) if error.is_refusal() => self.refused(key, error, turn),
            Err(error) => {
                lock.failure = Some(error);
                let rechecks = rechecks(number, false, turn);
                let action = lock.state.unanswered(number, rechecks, turn.now);
                self.follow(key, action, turn);
                self.end_silence(key, turn);
                self.end_overtime_unanswered(key, turn);
            }
        }
        None
    }

    /// Gives a grant to the first in line, with the fencing token: nobody here owns the lock any more.
    /// `None` if nobody is there, and it is undone.
    pub(super) fn granted(
        &mut self,
        key: &Arc<str>,
        granted: &Granted,
        turn: &mut Turn<C>,
    ) -> Option<(Acquirer<C>, u64)> {
        let number = granted.ownership;
        let lock = self.locks.get_mut(key)?;
        let action = lock.state.granted(number, granted.fence, granted.contended);
        let Action::Grant { caller, fencing_token } = action else {
            self.follow(key, action, turn);
            return None;
        };
        self.entries.remove(&number);
        lock.end_entry(number, turn);
        let overtime = mem::take(&mut lock.overtime);
        let next = self.next(caller, turn);
        // The last recheck has shown that the lock is somebody's here.
        for number in overtime {
            self.refuse_busy(number, turn);
        }
        Some((next?, fencing_token))
    }

    /// Somebody who did not wait in line has got the lock: the fencing token.
    pub(super) fn taken_by(&mut self, key: &Arc<str>, granted: &Granted) -> u64 {
        let lock = self.locks.entry(Arc::clone(key)).or_default();
        lock.state.taken_by(granted.ownership, granted.fence, granted.contended)
    }

    /// The token that holds the lock for this process.
    pub(super) fn ownership(&self, key: &str) -> Option<u64> {
        self.locks.get(key)?.state.ownership()
    }

    /// Nobody here takes care any longer of what this token holds.
    pub(super) fn leave_ownership(&mut self, key: &Arc<str>, ownership: u64, turn: &mut Turn<C>) {
        let lock = self.locks.get_mut(key).filter(|l| l.state.ownership() == Some(ownership));
        if let Some(lock) = lock {
            let action = lock.state.lost();
            self.follow(key, action, turn);
        }
    }

    /// A guard lets go of the lock, whose lease still lasts for `remaining`. If it is to be released,
    /// those who wait for it ask for themselves, behind that.
    pub(super) fn released(
        &mut self,
        key: &Arc<str>,
        remaining: Duration,
        turn: &mut Turn<C>,
    ) -> Action {
        let Some(lock) = self.locks.get_mut(key) else { return Action::Release };
        let action = lock.state.released(remaining);
        if action == Action::Release {
            let asks = lock.state.entry().is_some_and(Entry::is_new);
            self.follow(key, if asks { Action::Ask } else { Action::None }, turn);
        }
        action
    }

    /// The caller that is next, which waits no longer.
    pub(super) fn next(&mut self, number: u64, turn: &mut Turn<C>) -> Option<Acquirer<C>> {
        Some(self.take(number, turn)?.acquire.acquirer)
    }

    /// The entry has another's number from now on: the token of the ownership that it goes on from.
    pub(super) fn reacquire(
        &mut self,
        key: &Arc<str>,
        number: u64,
        token: Token,
        turn: &mut Turn<C>,
    ) {
        if let Some(lock) = self.locks.get_mut(key) {
            lock.token = Some(token);
            self.entries.insert(number, Arc::clone(key));
            turn.request(Asker::Queued(Arc::clone(key)));
        }
    }

    /// Takes a caller out of the books; the lock's state knows already.
    fn take(&mut self, number: u64, turn: &mut Turn<C>) -> Option<Waiter<C>> {
        let mut waiter = self.callers.remove(&number)?;
        turn.timers.cancel(Timer::Caller(number), &mut waiter.timer);
        Some(waiter)
    }

    /// Answers a caller that gets no lock.
    fn refuse(&mut self, number: u64, refusal: Refusal, turn: &mut Turn<C>) {
        let Some(waiter) = self.take(number, turn) else { return };
        let Acquirer { key, to, .. } = waiter.acquire.acquirer;
        turn.refuse(to, refusal);
        self.leave(&key, number, turn);
    }

    fn leave(&mut self, key: &Arc<str>, number: u64, turn: &mut Turn<C>) {
        let Some(lock) = self.locks.get_mut(key) else { return };
        let before = lock.state.entry().map(Entry::number);
        let action = lock.state.leave(number);
        let after = lock.state.entry().map(Entry::number);
        if after == Some(number) {
            // The others keep the entry that was made for it.
            self.entries.insert(number, Arc::clone(key));
        }
        if let (Some(before), None, Action::None) = (before, after, action) {
            // It was never asked for, so there is nothing to undo.
            self.entries.remove(&before);
            lock.end_entry(before, turn);
        }
        self.follow(key, action, turn);
    }

    /// The caller has gone away.
    pub(super) fn cancel(&mut self, number: u64, turn: &mut Turn<C>) {
        if let Some(waiter) = self.take(number, turn) {
            self.leave(&waiter.acquire.acquirer.key, number, turn);
        }
    }

    /// The store refuses what is asked: the first in line hears of it, and the next one asks for
    /// itself.
    fn refused(&mut self, key: &Arc<str>, error: StoreError, turn: &mut Turn<C>) {
        let Some(lock) = self.locks.get_mut(key) else { return };
        let first = lock.state.first();
        let undo =
            lock.state.entry().is_some_and(Entry::leaves_something) || lock.failure.is_some();
        if let Some(number) = lock.state.entry().map(Entry::number) {
            let _ = lock.state.give_up_entry();
            self.entries.remove(&number);
            if let Some(token) = lock.end_entry(number, turn)
                && undo
            {
                turn.undo(number, key, &token);
            }
        }
        if let Some(first) = first {
            self.refuse(first, Refusal::Failed(error, Aftermath::Undone), turn);
        }
        if let Some(lock) = self.locks.get_mut(key) {
            let action = lock.state.enter();
            self.follow(key, action, turn);
        }
    }

    /// A recheck has found the lock held: for those whose patience is over, it was the last.
    fn end_overtime(&mut self, key: &Arc<str>, turn: &mut Turn<C>) {
        // What happened since that recheck began is looked at once more.
        let again =
            |lock: &LocalLock| lock.state.entry().is_some_and(|entry| entry.is_asked_again());
        while let Some(lock) = self.locks.get(key)
            && let Some(first) = lock.state.first()
            && let Some(waiter) = self.callers.get_mut(&first)
        {
            if turn.now < waiter.give_up_at || again(lock) {
                let at = waiter.give_up_at.max(turn.now);
                turn.timers.reset(Timer::Caller(first), &mut waiter.timer, at);
                break;
            }
            self.refuse_busy(first, turn);
        }
        if self.locks.get(key).is_some_and(|lock| !again(lock)) {
            self.refuse_overtime(key, turn);
        }
    }

    /// The last recheck has shown that the lock is somebody's.
    fn refuse_overtime(&mut self, key: &Arc<str>, turn: &mut Turn<C>) {
        let overtime = self.locks.get_mut(key).map(|lock| mem::take(&mut lock.overtime));
        for number in overtime.unwrap_or_default() {
            self.refuse_busy(number, turn);
        }
    }

    /// The last recheck of those whose patience is over had no answer. The next in line stays as
    /// long as the store may be silent; its ticket would be given up with it.
    fn end_overtime_unanswered(&mut self, key: &Arc<str>, turn: &mut Turn<C>) {
        let Some(lock) = self.locks.get_mut(key) else { return };
        let overtime = mem::take(&mut lock.overtime);
        let (stays, leave): (Vec<_>, Vec<_>) =
            overtime.into_iter().partition(|number| lock.state.is_first(*number));
        lock.overtime = stays;
        for number in leave {
            self.refuse_unanswered(key, number, turn);
        }
    }

    fn refuse_busy(&mut self, number: u64, turn: &mut Turn<C>) {
        let Some(waiter) = self.callers.get(&number) else { return };
        let waited = waiter.give_up_at.after(waiter.started);
        self.refuse(number, Refusal::BusyFor(waited), turn);
    }

    fn refuse_unanswered(&mut self, key: &str, number: u64, turn: &mut Turn<C>) {
        let failure = self.locks.get(key).and_then(|lock| lock.failure.clone());
        let failure = failure.unwrap_or_else(|| StoreError::unavailable("no answer in time"));
        self.refuse(number, Refusal::Failed(failure, Aftermath::Undone), turn);
    }

    /// Those that have borne the store's silence for as long as one may be asked to.
    fn end_silence(&mut self, key: &Arc<str>, turn: &mut Turn<C>) {
        let Some(lock) = self.locks.get(key) else { return };
        let Some(since) = lock.state.entry().and_then(Entry::silent_since) else { return };
        let borne = lock.state.callers().filter(|number| {
            let waiter = self.callers.get(number);
            waiter.is_some_and(|waiter| turn.now >= waiter.started.max(since) + SILENCE_LIMIT)
        });
        for number in borne.collect::<Vec<_>>() {
            self.refuse_unanswered(key, number, turn);
        }
    }

    /// The patience of a caller is over. Before it is told that the lock is held, somebody looks: the
    /// key may have gone in a way that nobody was told of.
    pub(super) fn caller_timer(&mut self, number: u64, turn: &mut Turn<C>) {
        let Some(waiter) = self.callers.get_mut(&number) else { return };
        waiter.timer.fired();
        let key = Arc::clone(&waiter.acquire.acquirer.key);
        let Some(lock) = self.locks.get_mut(&key) else { return };
        let is_first = lock.state.is_first(number);
        let Some(entry) = lock.state.entry() else {
            // It is held by this process.
            return self.refuse_busy(number, turn);
        };
        let is_asked = entry.asking_since().is_some();
        if lock.is_silent() && !is_asked && !is_first {
            return self.refuse_unanswered(&key, number, turn);
        }
        // The first in line would have been given the lock, so for others a recheck counts that is
        // not quite the last: a crowd that gives up one after the other costs four a second.
        if !is_asked && !is_first && turn.now < lock.checked_at + FRESH {
            return self.refuse_busy(number, turn);
        }
        lock.overtime.push(number);
        if !is_asked && !lock.is_silent() {
            self.recheck(&key, turn);
        }
    }

    pub(super) fn recheck_timer(&mut self, number: u64, turn: &mut Turn<C>) {
        let Some(key) = self.key_of_entry(number) else { return };
        let Some(lock) = self.locks.get_mut(&key) else { return };
        lock.timer.fired();
        self.end_silence(&key, turn);
        self.recheck(&key, turn);
    }

    fn recheck(&mut self, key: &Arc<str>, turn: &mut Turn<C>) {
        if let Some(lock) = self.locks.get_mut(key) {
            let action = lock.state.recheck();
            self.follow(key, action, turn);
        }
    }

    /// The lock of this key has become free, as far as this process knows. Where notices come, one
    /// comes if it is this process's turn.
    pub(super) fn recheck_if_polling(&mut self, key: &Arc<str>, turn: &mut Turn<C>) {
        if turn.delivery() == Delivery::Polling {
            self.recheck(key, turn);
        }
    }

    /// The store may have said what nobody heard.
    pub(super) fn recheck_all(&mut self, turn: &mut Turn<C>) {
        for key in self.locks.keys().cloned().collect::<Vec<_>>() {
            self.recheck(&key, turn);
        }
    }

    /// The store has something to say about this entry.
    pub(super) fn recheck_entry(&mut self, number: u64, turn: &mut Turn<C>) {
        if let Some(key) = self.key_of_entry(number)
            && self
                .locks
                .get(&key)
                .and_then(|lock| lock.state.entry())
                .is_some_and(|entry| entry.number() == number)
        {
            self.recheck(&key, turn);
        }
    }

    /// An entry is known by the caller it was made for, as long as that one waits.
    fn key_of_entry(&self, number: u64) -> Option<Arc<str>> {
        let waiter = self.callers.get(&number).map(|waiter| &waiter.acquire.acquirer.key);
        waiter.or_else(|| self.entries.get(&number)).cloned()
    }

    /// Others wait for the lock that this token holds, or has asked for. `key`: of what it holds.
    pub(super) fn contended(&mut self, number: u64, key: Option<Arc<str>>) {
        let key = key.or_else(|| self.key_of_entry(number));
        if let Some(lock) = key.and_then(|key| self.locks.get_mut(&key)) {
            lock.state.contended(number);
        }
    }

    /// The lock was released by force while this token may have held it. True if that was heard of
    /// before the grant: they need not travel together.
    pub(super) fn revoked(&mut self, number: u64) -> bool {
        let lock = self.key_of_entry(number).and_then(|key| self.locks.get_mut(&key));
        lock.is_some_and(|lock| lock.state.revoked(number))
    }

    /// How many wait here that the store does not count: all but the one that stands for them.
    pub(super) fn waiters_behind_entry(&self, key: &str) -> usize {
        let Some(lock) = self.locks.get(key) else { return 0 };
        let queued = lock.state.entry().is_some_and(Entry::is_queued);
        lock.state.waiters() - usize::from(queued && lock.state.waiters() > 0)
    }

    pub(super) fn close(&mut self, turn: &mut Turn<C>) {
        for number in self.callers.keys().copied().collect::<Vec<_>>() {
            self.refuse(number, Refusal::Closed, turn);
        }
    }
}

fn rechecks<C>(number: u64, told: bool, turn: &Turn<C>) -> Rechecks {
    let woken = turn.delivery() != Delivery::Polling;
    Rechecks { woken, told, jitter: turn.jitter(number) }
}
