//! Debounced calls on their way to a run, or to being superseded.
//!
//! Which call is asked about, and when, is decided in [`Burst`]; this carries it out.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Call, Client, Held, Terms, Turn,
    held::HoldName,
    holds::{Grant, Taker, comes_too_late},
    reply::Reply,
    task::{Done, Task},
    timers::Timer,
};
use crate::{
    Error, Token,
    contract::{DebounceReply, DebounceRequest, StoreError, WindowEnd},
    core::{
        Moment,
        burst::{self, Answer, Burst, End, Next, Step},
    },
    id::Named,
    keeper::{UNDONE, store_error},
    limits::whole_millis,
    store::Store,
};

/// How long a window is kept at least after it is done with.
const TOMBSTONE: Duration = Duration::from_secs(60);

/// One debounced call that has not been answered.
pub(super) struct PendingCall {
    call: Box<Call>,
    /// In its burst; there no more once the run is to be its own, or that of a newer call.
    place: u64,
}

/// The calls of this process for one id.
pub(super) struct PendingBurst {
    burst: Burst,
    window: Named,
    run: Named,
    lease: Duration,
    /// Under which its timer is known.
    number: u64,
    timer: Moment,
    /// The number of the call that the store knows.
    told: Option<u64>,
    failure: Option<StoreError>,
}

/// A run that was given to a call whose caller has not taken it: the calls that it covers, the
/// newest last. If that caller goes away first, the run is the next one's.
pub(super) struct Untaken {
    older: Vec<u64>,
}

/// The answer to one question.
pub(super) struct Called {
    run: Arc<str>,
    number: u64,
    sent_at: Moment,
    answer: Result<DebounceReply, StoreError>,
}

impl Taker for Call {
    fn number(&self) -> u64 {
        self.number
    }

    fn lock(&self) -> &Named {
        &self.run
    }

    fn terms(&self) -> Terms {
        Terms::of_run(self.lease, self.terms.hold_at_most)
    }

    fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Task {
    pub(super) fn register(&mut self, call: Box<Call>) {
        let (number, key) = (call.number, Arc::clone(&call.run.key));
        let made = burst::Call {
            made_at: self.now,
            wait: call.terms.wait,
            max_wait: call.terms.max_wait,
            leading: call.terms.leading,
        };
        let jitter = self.jitter(number);
        let pending = self.bursts.entry(Arc::clone(&key)).or_insert_with(|| PendingBurst {
            burst: Burst::new(jitter),
            window: call.window.clone(),
            run: call.run.clone(),
            lease: call.lease,
            number,
            timer: Moment::NEVER,
            told: None,
            failure: None,
        });
        let (place, next) = pending.burst.join(number, made);
        self.burst_keys.insert(pending.number, Arc::clone(&key));
        self.calls.insert(number, PendingCall { call, place });
        self.follow_next(&key, next);
    }

    /// Carries out what a burst wants, but for a run that begins.
    fn follow_burst(&mut self, key: &Arc<str>, step: Step) {
        if let Some(number) = step.undo {
            self.undo_run(key, number);
        }
        let (end, callers) = step.ended.unwrap_or((End::Runs, Vec::new()));
        for number in callers {
            let failure = self.bursts.get(key).and_then(|pending| pending.failure.as_ref());
            let failure = failure.map(|failure| store_error(failure, UNDONE));
            let answer = match end {
                End::Superseded => Ok(None),
                End::Refused | End::Unavailable => Err(failure.unwrap_or_else(|| {
                    store_error(&StoreError::unavailable("no answer in time"), UNDONE)
                })),
                End::Runs => break,
            };
            if let Some(pending) = self.calls.remove(&number) {
                let _ = pending.call.reply.send(answer);
            }
        }
        self.follow_next(key, step.next);
    }

    fn follow_next(&mut self, key: &Arc<str>, next: Next) {
        let Some(pending) = self.bursts.get_mut(key) else { return };
        match next {
            Next::Wait => {}
            Next::Ask => self.shard(key).to_ask.push_back(Arc::clone(key)),
            Next::AskAt(at) => {
                self.timers.reset(Timer::Burst(pending.number), &mut pending.timer, at);
            }
            Next::Gone => {
                if let Some(pending) = self.bursts.remove(key) {
                    self.timers.cancel(Timer::Burst(pending.number), pending.timer);
                    self.burst_keys.remove(&pending.number);
                    pending.told.and_then(|told| self.burst_keys.remove(&told));
                }
            }
        }
    }

    /// A claim without an answer, or one whose caller is gone, may have taken the run's lock.
    fn undo_run(&mut self, key: &str, number: u64) {
        if let Some(run) = self.bursts.get(key).map(|pending| pending.run.clone()) {
            let token = Token::new(&self.id, number);
            self.begin_release(number, &run, &token, Moment::default(), None);
        }
    }

    /// Asks the store about the bursts that want it, as many as there is room for.
    pub(super) fn send_questions(&mut self) {
        for shard in 0..self.shards.count() {
            self.send_questions_to(shard);
        }
    }

    fn send_questions_to(&mut self, shard: usize) {
        loop {
            let (now, room) = (self.now, self.shards.at(shard).bulk.room());
            if room == 0 || self.shards.at(shard).to_ask.is_empty() {
                return;
            }
            let (mut asked, mut requests) = (Vec::new(), Vec::new());
            while asked.len() < room
                && let Some(key) = self.shards.at(shard).to_ask.pop_front()
            {
                if let Some((number, request)) = self.question(&key, now) {
                    asked.push((key, number));
                    requests.push(request);
                }
            }
            if asked.is_empty() {
                continue;
            }
            // Ahead of the questions, which must find the runs' locks free: what was undone for them.
            self.send_releases();
            self.call_in_bulk(shard, requests, <dyn Store>::register, move |answers| {
                let answered = asked.into_iter().zip(answers);
                let called = answered.map(|((run, number), answer)| Called {
                    run,
                    number,
                    sent_at: now,
                    answer,
                });
                Done::Called(called.collect())
            });
        }
    }

    /// What to ask about a burst, and the call that the question names.
    fn question(&mut self, key: &Arc<str>, now: Moment) -> Option<(u64, DebounceRequest)> {
        let pending = self.bursts.get_mut(key)?;
        let draw = || self.numbers.fetch_add(1, Ordering::Relaxed);
        let (undo, question) = pending.burst.question(now, draw)?;
        let number = question.number;
        let timer = mem::replace(&mut pending.timer, Moment::NEVER);
        self.timers.cancel(Timer::Burst(pending.number), timer);
        // Notices name the call that the store knows.
        if let Some(told) = pending.told.replace(number).filter(|told| *told != pending.number) {
            self.burst_keys.remove(&told);
        }
        self.burst_keys.insert(number, Arc::clone(key));
        let (window, run) = (Arc::clone(&pending.window.key), Arc::clone(key));
        let lease = pending.lease;
        if let Some(undo) = undo {
            self.undo_run(key, undo);
        }
        let token = Token::new(&self.id, number);
        let mut request = DebounceRequest::new(window, run, token, question.call.wait, lease)
            .made_ago(whole_millis(question.age))
            .max_wait(question.call.max_wait)
            .leading(question.call.leading);
        // For as long as a caller that took part may come late: it must find that it was
        // superseded. One that was stopped for longer may run once more, with older arguments.
        request.keep = question.call.wait + lease.max(TOMBSTONE);
        Some((number, request))
    }

    /// This part of the store is silent: what waits to be asked there is not answered either.
    pub(super) fn give_up_questions(&mut self, shard: usize, silence: &StoreError) {
        let now = self.now;
        for run in mem::take(&mut self.shards.at(shard).to_ask) {
            if let Some((number, _)) = self.question(&run, now) {
                self.take_called(Called {
                    run,
                    number,
                    sent_at: now,
                    answer: Err(silence.clone()),
                });
            }
        }
    }

    pub(super) fn take_called(&mut self, called: Called) {
        let Called { run: key, number, sent_at, answer } = called;
        let now = self.now;
        let Some(pending) = self.bursts.get_mut(&key) else { return };
        let late = comes_too_late(sent_at, pending.lease, now);
        let mut fence = None;
        let answer = match answer {
            Ok(DebounceReply::NotYet { left, newest }) => Answer::NotYet { left, newest },
            Ok(DebounceReply::Running(left)) => Answer::Running(left),
            Ok(DebounceReply::Superseded) => Answer::Superseded,
            Ok(DebounceReply::Granted { .. }) if late => {
                let late = "the answer came after the lease had run out";
                pending.failure = Some(StoreError::unavailable(late));
                Answer::Unknown
            }
            Ok(DebounceReply::Granted { fence: granted }) => {
                fence = Some(granted);
                Answer::Granted
            }
            Err(error) => {
                let refused = error.is_refusal();
                pending.failure = Some(error);
                if refused { Answer::Refused } else { Answer::Unknown }
            }
        };
        let lease = pending.lease;
        let mut step = pending.burst.answered(answer, now);
        if let Some(fence) = fence
            && let Some((_, callers)) = step.ended.take_if(|(end, _)| *end == End::Runs)
        {
            self.begin_run(&key, callers, (number, fence), (sent_at, lease));
        }
        self.follow_burst(&key, step);
    }

    fn begin_run(
        &mut self,
        key: &Arc<str>,
        mut callers: Vec<u64>,
        (ownership, fence): (u64, u64),
        (sent_at, lease): (Moment, Duration),
    ) {
        let token = Token::new(&self.id, ownership);
        let Some(call) = self.next_runner(&mut callers) else {
            return self.undo_run(key, ownership);
        };
        self.lose_key(key);
        let line = self.line(&call.run);
        let fencing_token = line.queue.taken_by(ownership, fence, false);
        let grant = Grant { ownership, token, sent_at, lease, fencing_token };
        let held = self.begin_hold(&call, grant);
        self.give_run(call, held, callers);
    }

    /// The newest of these callers that is still there.
    fn next_runner(&mut self, callers: &mut Vec<u64>) -> Option<Call> {
        while let Some(newest) = callers.pop() {
            if let Some(pending) = self.calls.remove(&newest) {
                return Some(*pending.call);
            }
        }
        None
    }

    /// Gives a run to this call, or to the next of the older ones whose caller is there.
    fn give_run(&mut self, mut call: Call, mut held: Held, mut older: Vec<u64>) {
        loop {
            let (name, fence) = (held.hold().name, held.hold().fencing_token);
            let followed = !older.is_empty();
            let Err(answer) = call.reply.send(Ok(Some(Turn { held, followed }))) else {
                if followed {
                    self.untaken.insert(name.ownership, Untaken { older });
                }
                return;
            };
            // Its caller has just gone away.
            if let Ok(Some(turn)) = answer {
                turn.held.defuse();
            }
            let Some(next) = self.pass_run_on(name.ownership, fence, &mut older) else {
                // As for an acquire: before a `flush` that is in the queue already.
                self.unclaimed.push((name.ownership, name.caller));
                self.run_undone(&call.run.key);
                return;
            };
            (call, held) = next;
        }
    }

    fn pass_run_on(
        &mut self,
        ownership: u64,
        fence: u64,
        older: &mut Vec<u64>,
    ) -> Option<(Call, Held)> {
        let next = self.next_runner(older)?;
        let held = self.pass_hold_on(ownership, &next, fence)?;
        Some((next, held))
    }

    fn run_undone(&mut self, key: &str) {
        if let Some(pending) = self.bursts.get_mut(key) {
            pending.burst.run_undone();
        }
    }

    /// The caller of a run has taken it: the older calls are superseded. If the lock was lost
    /// before, it will not run.
    pub(super) fn run_taken(&mut self, name: HoldName) {
        if !self.is_held(name) {
            return self.lose_untaken(name.ownership);
        }
        let untaken = self.untaken.remove(&name.ownership);
        for number in untaken.into_iter().flat_map(|untaken| untaken.older) {
            if let Some(pending) = self.calls.remove(&number) {
                let _ = pending.call.reply.send(Ok(None));
            }
        }
    }

    /// The caller of a run went away before it had taken it: true if it is another's now.
    pub(super) fn run_refused(&mut self, name: HoldName, remaining: Duration) -> bool {
        if remaining.is_zero() {
            self.lose_untaken(name.ownership);
            return false;
        }
        let Some(Untaken { mut older }) = self.untaken.remove(&name.ownership) else {
            return false;
        };
        let Some(fence) = self.fence_of(name) else { return false };
        match self.pass_run_on(name.ownership, fence, &mut older) {
            Some((call, held)) => {
                self.give_run(call, held, older);
                true
            }
            None => {
                if let Some(key) = self.key_of_hold(name.ownership) {
                    self.run_undone(&key);
                }
                false
            }
        }
    }

    /// The lock of a run was lost before it began. The calls that it was to cover are no newer than
    /// it was, and newer ones may have run since: so they are not called again, but told.
    pub(super) fn lose_untaken(&mut self, ownership: u64) {
        let untaken = self.untaken.remove(&ownership);
        for number in untaken.into_iter().flat_map(|untaken| untaken.older) {
            if let Some(pending) = self.calls.remove(&number) {
                let lost = "the run that was to cover this call was lost before it began";
                let _ = pending.call.reply.send(Err(Error::lost(lost)));
            }
        }
    }

    pub(super) fn burst_timer(&mut self, number: u64) {
        let Some(key) = self.burst_keys.get(&number).cloned() else { return };
        if let Some(pending) = self.bursts.get_mut(&key) {
            pending.timer = Moment::NEVER;
            let next = pending.burst.look();
            self.follow_next(&key, next);
        }
    }

    /// The store has something to say about the burst of this call: true if there is one.
    pub(super) fn wake_burst(&mut self, number: u64, flushed: bool) -> bool {
        let Some(key) = self.burst_keys.get(&number).cloned() else { return false };
        if let Some(pending) = self.bursts.get_mut(&key) {
            let next = if flushed { pending.burst.hurry() } else { pending.burst.look() };
            self.follow_next(&key, next);
        }
        true
    }

    /// A lock has become free: calls may wait for the end of that run.
    pub(super) fn run_ended(&mut self, key: &Arc<str>) {
        if let Some(pending) = self.bursts.get_mut(key) {
            let next = pending.burst.run_ended();
            self.follow_next(key, next);
        }
    }

    pub(super) fn end_window(
        &mut self,
        (window, run): (Named, Named),
        end: WindowEnd,
        reply: Reply<Result<bool, Error>>,
    ) {
        let mut waited = false;
        if let Some(pending) = self.bursts.get_mut(&run.key) {
            waited = pending.burst.is_pending();
            let step = match end {
                WindowEnd::Flush => Step { next: pending.burst.hurry(), ..Step::default() },
                WindowEnd::Cancel => pending.burst.cancel(),
            };
            self.follow_burst(&run.key, step);
        }
        self.shard(&run.key).bulk.end_window(window.key, end, waited, reply);
    }

    pub(super) fn cancel_call(&mut self, number: u64) {
        let Some(PendingCall { call, place }) = self.calls.remove(&number) else { return };
        let key = Arc::clone(&call.run.key);
        if let Some(pending) = self.bursts.get_mut(&key) {
            let step = pending.burst.leave(place);
            self.follow_burst(&key, step);
        }
    }

    /// The questions whose answer nobody waits for: a run that is granted is undone.
    pub(super) fn abandoned_questions(&self) -> impl Iterator<Item = u64> {
        self.bursts.values().filter_map(|pending| pending.burst.abandoned())
    }

    /// Is this the number of such a question?
    pub(super) fn is_abandoned_question(&self, number: u64) -> bool {
        let pending = self.burst_keys.get(&number).and_then(|key| self.bursts.get(key));
        pending.is_some_and(|pending| pending.burst.abandoned() == Some(number))
    }

    pub(super) fn close_calls(&mut self) {
        for number in self.calls.keys().copied().collect::<Vec<_>>() {
            let Some(pending) = self.calls.get_mut(&number) else { continue };
            let _ = pending.call.reply.take().send(Err(Error::closed()));
            self.cancel_call(number);
        }
        self.untaken.clear();
        self.shards.iter_mut().for_each(|shard| shard.to_ask.clear());
    }
}
