//! Debounced calls on their way to a run, or to being superseded.
//!
//! [`Burst`] decides which call is asked about, and when. This file decides which caller gets a
//! run, and what the others are told.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use super::{
    burst::{self, Answer, Burst, End, Next, Step},
    calls::Said,
    io::{Acquirer, Aftermath, DebouncedCall, Outcome, Refusal},
    lease::comes_too_late,
    shards::Shards,
    shared::Shared,
    timers::{Scheduled, Timer},
};
use crate::{
    contract::{DebounceReply, DebounceRequest, StoreError, WindowEnd},
    limits::whole_millis,
    maps::{ByKey, ByNumber},
    time::Moment,
};

/// The shortest time for which a window is kept after it is finished.
const TOMBSTONE: Duration = Duration::from_secs(60);

#[derive(Clone, Default, Hash)]
pub(super) struct Bursts<C> {
    calls: ByNumber<PendingCall<C>>,
    /// Runs that were given to a caller and not taken yet, by the numbers of their tokens: the
    /// calls that each covers, the newest last. If the caller goes away first, the run goes to the
    /// next one.
    untaken: ByNumber<Vec<u64>>,
    /// The debounced calls of each id, by the key of the run's lock.
    by_key: ByKey<PendingBurst>,
    /// The keys of the bursts that timers and notices are about.
    keys: ByNumber<Arc<str>>,
    /// The bursts that want to be asked about, by part of the store.
    to_ask: Shards<VecDeque<Arc<str>>>,
}

/// One debounced call that has not been answered.
#[derive(Clone, Hash)]
struct PendingCall<C> {
    acquirer: Acquirer<C>,
    /// Its place in the burst, until this call or a newer one gets the run.
    place: u64,
}

/// The calls of this process for one id.
#[derive(Clone, Hash)]
struct PendingBurst {
    burst: Burst,
    window: Arc<str>,
    lease: Duration,
    /// The number under which its timer is known.
    number: u64,
    timer: Scheduled,
    /// The number of the call that the store knows.
    registered: Option<u64>,
    /// That call may have been granted the run, which was released by force before the grant
    /// arrived.
    revoked: bool,
    failure: Option<StoreError>,
}

impl<C> Bursts<C> {
    pub(super) fn join(&mut self, call: DebouncedCall<C>, shared: &mut Shared<C>) {
        let DebouncedCall { acquirer, window, terms } = call;
        let (number, key) = (acquirer.number, Arc::clone(&acquirer.key));
        let made = burst::Call {
            made_at: shared.now,
            wait: terms.wait,
            max_wait: terms.max_wait,
            leading: terms.leading,
        };
        let pending = self.by_key.entry(Arc::clone(&key)).or_insert_with(|| PendingBurst {
            burst: Burst::new(shared.jitter(number)),
            window,
            lease: acquirer.terms.lease,
            number,
            timer: Scheduled::default(),
            registered: None,
            revoked: false,
            failure: None,
        });
        let (place, next) = pending.burst.join(number, made);
        self.keys.insert(pending.number, Arc::clone(&key));
        self.calls.insert(number, PendingCall { acquirer, place });
        self.follow_next(&key, next, shared);
    }

    /// Carries out what a burst requires, except for a run that begins.
    fn follow(&mut self, key: &Arc<str>, step: Step, shared: &mut Shared<C>) {
        if let Some(number) = step.undo {
            undo(key, number, shared);
        }
        let (end, callers) = step.ended.unwrap_or((End::Runs, Vec::new()));
        for number in callers {
            let failure = self.by_key.get(key).and_then(|pending| pending.failure.clone());
            let answer = match end {
                End::Superseded => Ok(Outcome::Superseded),
                End::Refused | End::Unavailable => {
                    let failure =
                        failure.unwrap_or_else(|| StoreError::unavailable("no answer in time"));
                    Err(Refusal::Failed(failure, Aftermath::Undone))
                }
                End::Runs => break,
            };
            self.answer(number, answer, shared);
        }
        self.follow_next(key, step.next, shared);
    }

    fn answer(&mut self, number: u64, answer: Result<Outcome, Refusal>, shared: &mut Shared<C>) {
        if let Some(pending) = self.calls.remove(&number) {
            shared.answer(pending.acquirer.to, answer);
        }
    }

    fn follow_next(&mut self, key: &Arc<str>, next: Next, shared: &mut Shared<C>) {
        let Some(pending) = self.by_key.get_mut(key) else { return };
        match next {
            Next::Wait => {}
            Next::Ask => self.to_ask.at(shared.shard(key)).push_back(Arc::clone(key)),
            Next::AskAt(at) => {
                shared.timers.reset(Timer::Burst(pending.number), &mut pending.timer, at);
            }
            Next::Gone => {
                if let Some(mut pending) = self.by_key.remove(key) {
                    shared.timers.cancel(Timer::Burst(pending.number), &mut pending.timer);
                    self.keys.remove(&pending.number);
                    pending.registered.and_then(|registered| self.keys.remove(&registered));
                }
            }
        }
    }

    /// The first part of the store that has to be asked about bursts, of those that have room.
    pub(super) fn next_shard(&self, mut has_room: impl FnMut(usize) -> bool) -> Option<usize> {
        let waiting = self.to_ask.iter().enumerate().filter(|(_, waiting)| !waiting.is_empty());
        waiting.map(|(shard, _)| shard).find(|shard| has_room(*shard))
    }

    /// Does anybody wait for this part of the store to be asked?
    pub(super) fn wait_for(&mut self, shard: usize) -> bool {
        !self.to_ask.at(shard).is_empty()
    }

    /// The next questions for this part of the store: for each, the burst, and the number of the
    /// call that it names. Undoes what has to be undone before them.
    pub(super) fn questions(
        &mut self,
        shard: usize,
        room: usize,
        shared: &mut Shared<C>,
    ) -> (Vec<DebounceRequest>, Vec<(Arc<str>, u64)>) {
        let (mut requests, mut asked) = (Vec::new(), Vec::new());
        while asked.len() < room
            && let Some(key) = self.to_ask.at(shard).pop_front()
        {
            if let Some((number, request)) = self.question(&key, shared) {
                requests.push(request);
                asked.push((key, number));
            }
        }
        (requests, asked)
    }

    /// What to ask about a burst, and the call that the question names.
    fn question(
        &mut self,
        key: &Arc<str>,
        shared: &mut Shared<C>,
    ) -> Option<(u64, DebounceRequest)> {
        let pending = self.by_key.get_mut(key)?;
        let (before, question) = pending.burst.question(shared.now, || shared.draw())?;
        let number = question.number;
        pending.revoked = false;
        shared.timers.cancel(Timer::Burst(pending.number), &mut pending.timer);
        // Notices name the call that the store knows.
        let registered = pending.registered.replace(number);
        if let Some(registered) = registered.filter(|registered| *registered != pending.number) {
            self.keys.remove(&registered);
        }
        self.keys.insert(number, Arc::clone(key));
        if let Some(before) = before {
            undo(key, before, shared);
        }
        let (window, lease, call) = (Arc::clone(&pending.window), pending.lease, question.call);
        let token = shared.token(number);
        let mut request = DebounceRequest::new(window, Arc::clone(key), token, call.wait, lease)
            .made_ago(whole_millis(question.age))
            .max_wait(call.max_wait)
            .leading(call.leading);
        // For as long as a caller that took part may come late: it must find that it was
        // superseded. A caller that was stopped for longer may run once more, with older arguments.
        request.keep = call.wait + lease.max(TOMBSTONE);
        Some((number, request))
    }

    /// This part of the store is silent, so the questions that wait for it are not answered either.
    pub(super) fn give_up(&mut self, shard: usize, silence: &StoreError, shared: &mut Shared<C>) {
        for key in mem::take(self.to_ask.at(shard)) {
            if self.question(&key, shared).is_some() {
                let _ = self.answered(&key, shared.now, Err(silence.clone()), shared);
            }
        }
    }

    /// Handles the store's answer to a question. For a run that may be relied on, returns the fence
    /// and the callers that it covers, the newest last.
    pub(super) fn answered(
        &mut self,
        key: &Arc<str>,
        sent_at: Moment,
        answer: Said<DebounceReply>,
        shared: &mut Shared<C>,
    ) -> Option<(u64, Vec<u64>)> {
        let pending = self.by_key.get_mut(key)?;
        let late = comes_too_late(sent_at, pending.lease, shared.now);
        let mut granted = None;
        let answer = match answer {
            Ok(DebounceReply::NotYet { left, newest }) => Answer::NotYet { left, newest },
            Ok(DebounceReply::Running(left)) => Answer::Running(left),
            Ok(DebounceReply::Superseded) => Answer::Superseded,
            Ok(DebounceReply::Granted { .. }) if late => {
                let late = "the answer came after the lease had run out";
                pending.failure = Some(StoreError::unavailable(late));
                Answer::Unknown
            }
            // The same call asks again: if the notice was about another grant, the call is granted
            // this one again.
            Ok(DebounceReply::Granted { .. }) if mem::take(&mut pending.revoked) => {
                let revoked = "the run was released by force before its grant arrived";
                pending.failure = Some(StoreError::unavailable(revoked));
                Answer::Unknown
            }
            Ok(DebounceReply::Granted { fence }) => {
                granted = Some(fence);
                Answer::Granted
            }
            Err(error) => {
                let refused = error.is_refusal();
                pending.failure = Some(error);
                if refused { Answer::Refused } else { Answer::Unknown }
            }
        };
        let mut step = pending.burst.answered(answer, shared.now);
        let run = granted.and_then(|fence| {
            let (_, callers) = step.ended.take_if(|(end, _)| *end == End::Runs)?;
            Some((fence, callers))
        });
        self.follow(key, step, shared);
        run
    }

    /// The newest of these callers that is still there, for a run with this token, and whether
    /// others wait for it to take the run. They are superseded once it has, and not before.
    pub(super) fn runner(
        &mut self,
        ownership: u64,
        mut callers: Vec<u64>,
    ) -> Option<(Acquirer<C>, bool)> {
        while let Some(newest) = callers.pop() {
            if let Some(pending) = self.calls.remove(&newest) {
                let followed = !callers.is_empty();
                if followed {
                    self.untaken.insert(ownership, callers);
                }
                return Some((pending.acquirer, followed));
            }
        }
        None
    }

    /// The caller of a run went away before it took the run; returns the next one that may have it.
    pub(super) fn next_runner(&mut self, ownership: u64) -> Option<(Acquirer<C>, bool)> {
        let callers = self.untaken.remove(&ownership)?;
        self.runner(ownership, callers)
    }

    /// A run was granted, and none of the callers that it was for was left to do it.
    pub(super) fn run_undone(&mut self, key: &str) {
        if let Some(pending) = self.by_key.get_mut(key) {
            pending.burst.run_undone();
        }
    }

    /// The caller of a run has taken it: the older calls are superseded.
    pub(super) fn run_taken(&mut self, ownership: u64, shared: &mut Shared<C>) {
        for number in self.untaken.remove(&ownership).unwrap_or_default() {
            self.answer(number, Ok(Outcome::Superseded), shared);
        }
    }

    /// The lock of a run was lost before the run began. The calls that it was to cover are no newer
    /// than it was, and newer ones may have run since. So they are not asked about again, but
    /// refused.
    pub(super) fn run_lost(&mut self, ownership: u64, shared: &mut Shared<C>) {
        for number in self.untaken.remove(&ownership).unwrap_or_default() {
            let lost = "the run that would have covered this call was lost before it began";
            self.answer(number, Err(Refusal::Lost(lost)), shared);
        }
    }

    pub(super) fn timer(&mut self, number: u64, shared: &mut Shared<C>) {
        let Some(key) = self.keys.get(&number).cloned() else { return };
        if let Some(pending) = self.by_key.get_mut(&key) {
            pending.timer.fired();
            let next = pending.burst.recheck();
            self.follow_next(&key, next, shared);
        }
    }

    /// The store has sent a notice about the burst of this call: true if there is such a burst.
    pub(super) fn notice(&mut self, number: u64, flushed: bool, shared: &mut Shared<C>) -> bool {
        let Some(key) = self.keys.get(&number).cloned() else { return false };
        if let Some(pending) = self.by_key.get_mut(&key) {
            let next = if flushed { pending.burst.flush() } else { pending.burst.recheck() };
            self.follow_next(&key, next, shared);
        }
        true
    }

    /// The run of this call was released by force: true if its grant may still be on its way.
    pub(super) fn revoked(&mut self, number: u64) -> bool {
        let pending = self.keys.get(&number).and_then(|key| self.by_key.get_mut(key));
        let asked = pending
            .filter(|pending| pending.registered == Some(number) && pending.burst.is_asked());
        asked.map(|pending| pending.revoked = true).is_some()
    }

    /// A lock has become free: calls may wait for the end of that run.
    pub(super) fn run_ended(&mut self, key: &Arc<str>, shared: &mut Shared<C>) {
        if let Some(pending) = self.by_key.get_mut(key) {
            let next = pending.burst.run_ended();
            self.follow_next(key, next, shared);
        }
    }

    /// A window is ended before its time: true if calls of this process wait in it.
    pub(super) fn end_window(
        &mut self,
        key: &Arc<str>,
        end: WindowEnd,
        shared: &mut Shared<C>,
    ) -> bool {
        let Some(pending) = self.by_key.get_mut(key) else { return false };
        let waited = pending.burst.is_pending();
        let step = match end {
            WindowEnd::Flush => Step { next: pending.burst.flush(), ..Step::default() },
            WindowEnd::Cancel => pending.burst.cancel(),
        };
        self.follow(key, step, shared);
        waited
    }

    pub(super) fn cancel(&mut self, number: u64, shared: &mut Shared<C>) {
        if let Some(PendingCall { acquirer, place }) = self.calls.remove(&number) {
            self.leave(&acquirer.key, place, shared);
        }
    }

    fn leave(&mut self, key: &Arc<str>, place: u64, shared: &mut Shared<C>) {
        if let Some(pending) = self.by_key.get_mut(key) {
            let step = pending.burst.leave(place);
            self.follow(key, step, shared);
        }
    }

    /// Does the store know a call of a burst by this number?
    #[cfg(lock_mutants)]
    pub(super) fn is_registered(&self, number: u64) -> bool {
        let pending = self.keys.get(&number).and_then(|key| self.by_key.get(key));
        pending.is_some_and(|pending| pending.registered == Some(number))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The questions whose answers nobody waits for: a run that is granted is undone.
    pub(super) fn abandoned(&self) -> impl Iterator<Item = u64> {
        let abandoned = self.by_key.keys_where(|pending| pending.burst.abandoned().is_some());
        abandoned.into_iter().filter_map(|key| self.by_key.get(&key)?.burst.abandoned())
    }

    /// Is this the number of such a question?
    pub(super) fn is_abandoned(&self, number: u64) -> bool {
        let pending = self.keys.get(&number).and_then(|key| self.by_key.get(key));
        pending.is_some_and(|pending| pending.burst.abandoned() == Some(number))
    }

    pub(super) fn close(&mut self, shared: &mut Shared<C>) {
        for number in self.calls.keys() {
            if let Some(PendingCall { acquirer, place }) = self.calls.remove(&number) {
                shared.refuse(acquirer.to, Refusal::Closed);
                self.leave(&acquirer.key, place, shared);
            }
        }
        self.untaken.clear();
        self.to_ask.iter_mut().for_each(VecDeque::clear);
    }
}

/// Undoes a claim that may have taken the run's lock: it had no answer, or its caller is gone.
fn undo<C>(key: &Arc<str>, number: u64, shared: &mut Shared<C>) {
    let token = shared.token(number);
    shared.undo(number, key, &token);
}
