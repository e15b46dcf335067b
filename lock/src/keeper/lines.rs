//! Callers that wait in line for a lock, and their entry in the store.
//!
//! Who is next, and what the store is asked for, is decided in [`LockState`]; this carries it out.

use std::{mem, sync::Arc, time::Duration};

use super::{
    Acquire, Held,
    attempts::Asker,
    holds::{Grant, comes_too_late},
    task::Task,
    timers::Timer,
};
use crate::{
    Error, Token,
    contract::{AcquireRequest, Acquisition, Delivery, Notice, StoreError},
    core::{
        Moment,
        outage::SILENCE_LIMIT,
        queue::{Action, Entry, LockState, Rechecks},
    },
    id::Named,
    keeper::{UNDONE, store_error},
};

/// A look at the lock that was begun so long ago is the last look of one who is not the next in line.
const FRESH: Duration = Duration::from_millis(250);

/// What this process knows of one lock.
pub(super) struct Line {
    lock: Named,
    pub(super) queue: LockState,
    /// The token of the entry, whichever caller it was made for.
    token: Option<Token>,
    timer: Moment,
    failure: Option<StoreError>,
    /// When the last look began that found the lock held.
    looked_at: Moment,
    /// Callers whose patience is over, and who wait for what a last look shows.
    overtime: Vec<u64>,
}

/// One caller in line.
pub(super) struct Caller {
    pub(super) acquire: Box<Acquire>,
    started: Moment,
    give_up_at: Moment,
    timer: Moment,
}

impl Task {
    /// What is known of the lock of this key, from now on.
    pub(super) fn line(&mut self, lock: &Named) -> &mut Line {
        self.lines.entry(Arc::clone(&lock.key)).or_insert_with(|| Line {
            lock: lock.clone(),
            queue: LockState::default(),
            token: None,
            timer: Moment::NEVER,
            failure: None,
            looked_at: Moment::default(),
            overtime: Vec::new(),
        })
    }

    pub(super) fn join(&mut self, acquire: Box<Acquire>, wait: Duration) {
        let now = self.now;
        let (number, lease) = (acquire.number, acquire.terms.lease);
        let line = self.line(&acquire.lock);
        let action = line.queue.join(number, lease);
        let key = Arc::clone(&line.lock.key);
        let give_up_at = now + wait;
        let mut caller = Caller { acquire, started: now, give_up_at, timer: Moment::NEVER };
        if action != Action::Ask {
            self.timers.reset(Timer::Caller(number), &mut caller.timer, give_up_at);
        }
        self.callers.insert(number, caller);
        self.follow(&key, action);
    }

    /// Carries out what a queue wants, apart from what its caller has to do itself.
    pub(super) fn follow(&mut self, key: &Arc<str>, action: Action) {
        let Some(line) = self.lines.get_mut(key) else { return };
        match action {
            Action::Ask => {
                let entry = line.queue.entry().map(Entry::number);
                // A new entry has the token of the caller that it is made for.
                if line.token.is_none()
                    && let Some(caller) = entry.and_then(|entry| self.callers.get(&entry))
                {
                    line.token = Some(caller.acquire.token.clone());
                }
                self.shard(key).to_acquire.push(Asker::Line(Arc::clone(key)));
            }
            Action::RecheckAt(at) => {
                if let Some(entry) = line.queue.entry() {
                    self.timers.reset(Timer::Recheck(entry.number()), &mut line.timer, at);
                }
            }
            Action::Withdraw { number } => {
                let lock = line.lock.clone();
                let token = self.end_entry(key, number);
                if let Some(token) = token {
                    self.begin_release(number, &lock, &token, Moment::default(), None);
                }
            }
            Action::None | Action::Grant { .. } | Action::Release | Action::Reacquire => {}
        }
        self.forget_if_idle(key);
    }

    /// The entry with this number is gone; its token, if it had one.
    fn end_entry(&mut self, key: &Arc<str>, number: u64) -> Option<Token> {
        let line = self.lines.get_mut(key)?;
        let timer = mem::replace(&mut line.timer, Moment::NEVER);
        self.timers.cancel(Timer::Recheck(number), timer);
        self.entries.remove(&number);
        line.failure = None;
        line.token.take()
    }

    /// The entry has another's number from now on: the token of the ownership that it goes on from.
    pub(super) fn take_over_entry(&mut self, key: &Arc<str>, number: u64, token: &Token) {
        if let Some(line) = self.lines.get_mut(key) {
            line.token = Some(token.clone());
            self.entries.insert(number, Arc::clone(key));
            self.shard(key).to_acquire.push(Asker::Line(Arc::clone(key)));
        }
    }

    fn forget_if_idle(&mut self, key: &Arc<str>) {
        if self.lines.get(key).is_some_and(|line| line.queue.is_idle()) {
            self.lines.remove(key);
        }
    }

    /// What the store is to be asked on behalf of a line.
    pub(super) fn line_request(&mut self, key: &Arc<str>, now: Moment) -> Option<AcquireRequest> {
        let line = self.lines.get_mut(key)?;
        let request = line.queue.request(now)?;
        let timer = mem::replace(&mut line.timer, Moment::NEVER);
        self.timers.cancel(Timer::Recheck(request.number), timer);
        let token = line.token.clone()?;
        Some(AcquireRequest {
            key: Arc::clone(key),
            token,
            lease: request.lease,
            if_held: request.if_held,
        })
    }

    /// The number of the entry of this line.
    pub(super) fn entry_of(&self, key: &str) -> Option<u64> {
        Some(self.lines.get(key)?.queue.entry()?.number())
    }

    pub(super) fn take_entry_answer(
        &mut self,
        key: &Arc<str>,
        number: u64,
        sent_at: Moment,
        answer: Result<Acquisition, StoreError>,
    ) {
        // A entry that was withdrawn meanwhile is undone by what was sent behind its request.
        if self.entry_of(key) != Some(number) {
            return;
        }
        let now = self.now;
        match answer {
            Ok(Acquisition::Granted { fence, contended }) => {
                self.take_entry_grant(key, number, sent_at, (fence, contended));
            }
            Ok(Acquisition::Held { remaining, ticket, notifies }) => {
                let rechecks = self.rechecks(number, notifies);
                let Some(line) = self.lines.get_mut(key) else { return };
                // It answers for the requests before it, too: they came first.
                line.failure = None;
                line.looked_at = sent_at;
                let action = line.queue.held(number, remaining, ticket, rechecks, now);
                self.follow(key, action);
                self.end_overtime(key, now);
            }
            Err(error) if error.is_refusal() => self.refuse(key, &error),
            Err(error) => {
                let rechecks = self.rechecks(number, false);
                let Some(line) = self.lines.get_mut(key) else { return };
                line.failure = Some(error);
                let action = line.queue.unanswered(number, rechecks, now);
                self.follow(key, action);
                self.end_silence(key, now);
                self.end_overtime_unanswered(key);
            }
        }
    }

    fn take_entry_grant(
        &mut self,
        key: &Arc<str>,
        number: u64,
        sent_at: Moment,
        (fence, contended): (u64, bool),
    ) {
        let (rechecks, now) = (self.rechecks(number, false), self.now);
        let Some(line) = self.lines.get_mut(key) else { return };
        let granted = line.queue.entry().map_or(Duration::ZERO, |entry| entry.lease());
        if comes_too_late(sent_at, granted, now) {
            let Some(line) = self.lines.get_mut(key) else { return };
            line.failure =
                Some(StoreError::unavailable("the answer came after the lease had run out"));
            let action = line.queue.unanswered(number, rechecks, now);
            return self.follow(key, action);
        }
        if line.queue.entry().is_some_and(Entry::is_revoked) {
            line.failure = None;
            let action = line.queue.ask_again(number);
            return self.follow(key, action);
        }
        self.lose_key(key);
        let Some(line) = self.lines.get_mut(key) else { return };
        let action = line.queue.granted(number, fence, contended);
        let Action::Grant { caller, fencing_token } = action else {
            return self.follow(key, action);
        };
        let Some(token) = self.end_entry(key, number) else { return };
        let Some(caller) = self.take_caller(caller) else { return };
        let grant = Grant { ownership: number, token, sent_at, lease: granted, fencing_token };
        let held = self.begin_hold(&*caller.acquire, grant);
        self.deliver(caller, number, held);
        self.forget_claim(key);
        // The last look has shown that it is somebody's here.
        self.refuse_overtime(key);
    }

    /// Takes a caller out of the books; its queue knows already.
    pub(super) fn take_caller(&mut self, number: u64) -> Option<Caller> {
        let caller = self.callers.remove(&number)?;
        self.timers.cancel(Timer::Caller(number), caller.timer);
        Some(caller)
    }

    pub(super) fn deliver(&mut self, caller: Caller, ownership: u64, held: Held) {
        let number = caller.acquire.number;
        if let Err(Ok(unclaimed)) = caller.acquire.reply.send(Ok(held)) {
            // Its caller has just gone away. Released by this turn and not by the guard's drop,
            // whose message would come after a `flush` that is in the queue already.
            unclaimed.defuse();
            self.unclaimed.push((ownership, number));
        }
    }

    /// Answers a caller that gets no lock.
    fn refuse_caller(&mut self, number: u64, error: Error) {
        let Some(caller) = self.take_caller(number) else { return };
        let key = Arc::clone(&caller.acquire.lock.key);
        let _ = caller.acquire.reply.send(Err(error));
        self.leave_line(&key, number);
    }

    fn leave_line(&mut self, key: &Arc<str>, number: u64) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let before = line.queue.entry().map(Entry::number);
        let action = line.queue.leave(number);
        let after = line.queue.entry().map(Entry::number);
        if after == Some(number) {
            // The others keep the entry that was made for it.
            self.entries.insert(number, Arc::clone(key));
        }
        if let (Some(before), None, Action::None) = (before, after, action) {
            // It was never asked for, so there is nothing to undo.
            self.end_entry(key, before);
        }
        self.follow(key, action);
    }

    /// The caller has gone away.
    pub(super) fn cancel_caller(&mut self, number: u64) {
        if let Some(caller) = self.take_caller(number) {
            self.leave_line(&caller.acquire.lock.key, number);
        }
    }

    /// The store refuses what is asked: the first in line hears of it, and the next one asks for
    /// itself.
    fn refuse(&mut self, key: &Arc<str>, error: &StoreError) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let first = line.queue.first();
        let undo =
            line.queue.entry().is_some_and(Entry::leaves_something) || line.failure.is_some();
        self.give_up_entry(key, undo);
        if let Some(first) = first {
            self.refuse_caller(first, store_error(error, UNDONE));
        }
        if let Some(line) = self.lines.get_mut(key) {
            let action = line.queue.enter();
            self.follow(key, action);
        }
    }

    fn give_up_entry(&mut self, key: &Arc<str>, undo: bool) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let lock = line.lock.clone();
        let Some(number) = line.queue.entry().map(Entry::number) else { return };
        let _ = line.queue.give_up_entry();
        if let Some(token) = self.end_entry(key, number)
            && undo
        {
            self.begin_release(number, &lock, &token, Moment::default(), None);
        }
    }

    /// A look has found the lock held: for those whose patience is over, it was the last.
    fn end_overtime(&mut self, key: &Arc<str>, now: Moment) {
        // What happened since that look began is looked at once more.
        let again = |line: &Line| line.queue.entry().is_some_and(|entry| entry.is_asked_again());
        while let Some(line) = self.lines.get(key)
            && let Some(first) = line.queue.first()
            && let Some(caller) = self.callers.get_mut(&first)
        {
            if now < caller.give_up_at || again(line) {
                let at = caller.give_up_at;
                self.timers.reset(Timer::Caller(first), &mut caller.timer, at.max(now));
                break;
            }
            self.refuse_busy(first);
        }
        if self.lines.get(key).is_some_and(|line| !again(line)) {
            self.refuse_overtime(key);
        }
    }

    fn refuse_overtime(&mut self, key: &Arc<str>) {
        let overtime = self.lines.get_mut(key).map(|line| mem::take(&mut line.overtime));
        for number in overtime.unwrap_or_default() {
            self.refuse_busy(number);
        }
    }

    /// The last look of those whose patience is over had no answer. The next in line stays as long
    /// as the store may be silent; its place would be given up with it.
    fn end_overtime_unanswered(&mut self, key: &Arc<str>) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let failure = line.failure.clone();
        let (stays, leave): (Vec<_>, Vec<_>) = mem::take(&mut line.overtime)
            .into_iter()
            .partition(|number| line.queue.is_first(*number));
        line.overtime = stays;
        for number in leave {
            self.refuse_caller(number, unavailable(failure.as_ref()));
        }
    }

    fn refuse_busy(&mut self, number: u64) {
        let Some(caller) = self.callers.get(&number) else { return };
        let waited = caller.give_up_at.after(caller.started);
        self.refuse_caller(number, Error::busy_for(waited));
    }

    /// Those that have borne the store's silence for as long as one may be asked to.
    fn end_silence(&mut self, key: &Arc<str>, now: Moment) {
        let Some(line) = self.lines.get(key) else { return };
        let Some(since) = line.queue.entry().and_then(|entry| entry.silent_since()) else { return };
        let failure = line.failure.clone();
        let borne = line.queue.callers().filter(|number| {
            let caller = self.callers.get(number);
            caller.is_some_and(|caller| now >= caller.started.max(since) + SILENCE_LIMIT)
        });
        for number in borne.collect::<Vec<_>>() {
            self.refuse_caller(number, unavailable(failure.as_ref()));
        }
    }

    /// The patience of a caller is over. Before it is told that the lock is held, somebody rechecks: the
    /// key may have gone in a way that nobody was told of.
    pub(super) fn caller_timer(&mut self, number: u64, now: Moment) {
        let Some(caller) = self.callers.get_mut(&number) else { return };
        caller.timer = Moment::NEVER;
        let key = Arc::clone(&caller.acquire.lock.key);
        let Some(line) = self.lines.get_mut(&key) else { return };
        let is_first = line.queue.is_first(number);
        let Some(entry) = line.queue.entry() else {
            // It is held by this process.
            return self.refuse_busy(number);
        };
        let is_asked = entry.asking_since().is_some();
        if entry.silent_since().is_some() && !is_asked && !is_first {
            let failure = line.failure.clone();
            return self.refuse_caller(number, unavailable(failure.as_ref()));
        }
        // The first in line would have been given the lock, so for others a look counts that is not
        // quite the last: a crowd that gives up one after the other costs four rechecks a second.
        if !is_asked && !is_first && now < line.looked_at + FRESH {
            return self.refuse_busy(number);
        }
        line.overtime.push(number);
        if !is_asked && line.queue.entry().is_some_and(|entry| entry.silent_since().is_none()) {
            self.recheck(&key);
        }
    }

    pub(super) fn recheck_timer(&mut self, entry: u64, now: Moment) {
        let Some(key) = self.key_of_entry(entry) else { return };
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.timer = Moment::NEVER;
        self.end_silence(&key, now);
        self.recheck(&key);
    }

    fn recheck(&mut self, key: &Arc<str>) {
        if let Some(line) = self.lines.get_mut(key) {
            let action = line.queue.recheck();
            self.follow(key, action);
        }
    }

    /// A entry is known by the caller it was made for, as long as that one waits.
    fn key_of_entry(&self, number: u64) -> Option<Arc<str>> {
        let caller = self.callers.get(&number).map(|caller| &caller.acquire.lock.key);
        caller.or_else(|| self.entries.get(&number)).cloned()
    }

    pub(super) fn take_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Granted { number } if self.wake_burst(number, false) => {}
            Notice::Granted { number } => {
                if let Some(key) = self.key_of_entry(number)
                    && self.entry_of(&key) == Some(number)
                {
                    self.recheck(&key);
                }
            }
            Notice::Contended { number } => {
                self.attempt_wanted(number);
                let key = self.key_of_hold(number).or_else(|| self.key_of_entry(number));
                if let Some(line) = key.and_then(|key| self.lines.get_mut(&key)) {
                    line.queue.contended(number);
                }
            }
            Notice::Revoked { number } => {
                // It may be heard of before the grant is: they need not travel together.
                let key = self.key_of_entry(number);
                let line = key.and_then(|key| self.lines.get_mut(&key));
                let asked = line.is_some_and(|line| line.queue.revoked(number));
                if !asked && !self.attempt_taken(number) {
                    self.lose_taken(number);
                }
            }
            Notice::Flushed { number } => {
                self.wake_burst(number, true);
            }
            Notice::Connected(_) => {
                for key in self.lines.keys().cloned().collect::<Vec<_>>() {
                    self.recheck(&key);
                }
            }
            Notice::Replaced => self.renew_all(),
        }
    }

    /// The lock of this key has become free, as far as this process knows. Where wake-ups come,
    /// one comes if it is this process's turn.
    pub(super) fn recheck_if_polling(&mut self, key: &Arc<str>) {
        if self.delivery.load() == Delivery::Polling {
            self.recheck(key);
        }
    }

    fn rechecks(&self, number: u64, told: bool) -> Rechecks {
        let woken = self.delivery.load() != Delivery::Polling;
        Rechecks { woken, told, jitter: self.jitter(number) }
    }

    pub(super) fn close_callers(&mut self) {
        for number in self.callers.keys().copied().collect::<Vec<_>>() {
            self.refuse_caller(number, Error::closed());
        }
    }
}

impl Line {
    /// How many wait here that the store does not count: all but the one that stands for them.
    pub(super) fn waiters_behind_entry(&self) -> usize {
        let queued = self.queue.entry().is_some_and(|entry| entry.is_queued());
        self.queue.waiters() - usize::from(queued && self.queue.waiters() > 0)
    }
}

fn unavailable(failure: Option<&StoreError>) -> Error {
    let no_answer = StoreError::unavailable("no answer in time");
    store_error(failure.unwrap_or(&no_answer), UNDONE)
}
