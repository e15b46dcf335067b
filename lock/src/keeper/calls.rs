//! Debounced calls on their way to a run, or to being superseded.
//!
//! Which call is asked about, and when, is decided in [`Burst`]; this carries it out.

use std::{mem, sync::Arc, time::Duration};

use super::{
    Call, Client, SILENCE_LIMIT, Terms,
    holds::{Grant, Taker, comes_too_late},
    reply::Reply,
    task::{Done, Task},
    timers::Timer,
};
use crate::{
    Error, Token,
    core::{
        Moment,
        burst::{self, Answer, Burst, End, Next, Step},
    },
    id::Named,
    keeper::store_error,
    limits::whole_millis,
    store::{DebounceReply, DebounceRequest, StoreError, WindowEnd},
};

/// How long a window is kept at least after it is done with.
const TOMBSTONE: Duration = Duration::from_secs(60);

/// One debounced call that has not been answered.
pub(super) struct PendingCall {
    call: Box<Call>,
    /// Nobody waits for it; it is here until the store has answered.
    abandoned: bool,
}

impl PendingCall {
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }
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
    /// The call that the store knows.
    told: Option<u64>,
    failure: Option<StoreError>,
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
        Terms::of_run(self.lease)
    }

    fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Task {
    pub(super) fn register(&mut self, call: Box<Call>) {
        let (number, key) = (call.number, Arc::clone(&call.run.key));
        let made = burst::Call {
            number,
            made_at: self.now,
            wait: call.terms.wait,
            max_wait: call.terms.max_wait,
            leading: call.terms.leading,
        };
        let jitter = self.jitter(number);
        let pending = self.bursts.entry(Arc::clone(&key)).or_insert_with(|| PendingBurst {
            burst: Burst::new(SILENCE_LIMIT, jitter),
            window: call.window.clone(),
            run: call.run.clone(),
            lease: call.lease,
            number,
            timer: Moment::NEVER,
            told: None,
            failure: None,
        });
        let step = pending.burst.join(made);
        self.burst_keys.insert(pending.number, Arc::clone(&key));
        self.calls.insert(number, PendingCall { call, abandoned: false });
        self.follow_burst(&key, step);
    }

    /// Carries out what a burst wants, but for a run that begins.
    fn follow_burst(&mut self, key: &Arc<str>, step: Step) {
        if let Some(number) = step.undo {
            self.undo_run(key, number);
        }
        for (number, end) in step.ended.into_iter().chain(step.also) {
            let failure = self.bursts.get(key).and_then(|pending| pending.failure.as_ref());
            let failure = failure.map(store_error);
            let answer = match end {
                End::Superseded => Ok(None),
                End::Refused | End::Unavailable => Err(failure
                    .unwrap_or_else(|| store_error(&StoreError::unavailable("no answer in time")))),
                End::Runs => continue,
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
            Next::Ask => self.to_ask.push_back(Arc::clone(key)),
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
        while !self.to_ask.is_empty() && self.room_in_bulk() > 0 {
            let (now, room) = (self.now, self.room_in_bulk());
            let (mut asked, mut requests) = (Vec::new(), Vec::new());
            while asked.len() < room
                && let Some(key) = self.to_ask.pop_front()
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
            self.call_in_bulk(
                asked.len(),
                move |store| async move { store.debounce(&requests).await },
                move |answers| {
                    let answered = asked.into_iter().zip(answers);
                    let called = answered.map(|((run, number), answer)| Called {
                        run,
                        number,
                        sent_at: now,
                        answer,
                    });
                    Done::Called(called.collect())
                },
            );
        }
    }

    /// What to ask about a burst, and the call that the question names.
    fn question(&mut self, key: &Arc<str>, now: Moment) -> Option<(u64, DebounceRequest)> {
        let pending = self.bursts.get_mut(key)?;
        let (undo, question) = pending.burst.question(now)?;
        let number = question.call.number;
        let timer = mem::replace(&mut pending.timer, Moment::NEVER);
        self.timers.cancel(Timer::Burst(pending.number), timer);
        // Wake-ups name the call that the store knows.
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

    /// The store is silent: what waits to be asked is not answered either.
    pub(super) fn give_up_questions(&mut self, silence: &StoreError) {
        let now = self.now;
        for run in mem::take(&mut self.to_ask) {
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
                let refused = matches!(error, StoreError::Rejected(_));
                pending.failure = Some(error);
                if refused { Answer::Refused } else { Answer::Unknown }
            }
        };
        let step = pending.burst.answered(answer, now);
        if self.calls.get(&number).is_some_and(|pending| pending.abandoned) {
            self.calls.remove(&number);
        }
        if let (Some(fence), Some((number, End::Runs))) = (fence, step.ended) {
            self.begin_run(number, fence, sent_at);
        }
        self.follow_burst(&key, step);
    }

    fn begin_run(&mut self, number: u64, fence: u64, sent_at: Moment) {
        let Some(PendingCall { call, .. }) = self.calls.remove(&number) else { return };
        self.lose_key(&call.run.key);
        let line = self.line(&call.run);
        let fencing_token = line.queue.taken_by(number, fence, false);
        let (token, lease) = (Token::new(&self.id, number), call.lease);
        let grant = Grant { tenure: number, token, sent_at, lease, fencing_token };
        let guard = self.begin_hold(&*call, grant);
        if let Err(Ok(Some(unclaimed))) = call.reply.send(Ok(Some(guard))) {
            // As for an acquire: before a `flush` that is in the queue already.
            unclaimed.defuse();
            self.unclaimed.push((number, number));
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
        self.bulk.end_window(window.key, end, waited, reply);
    }

    pub(super) fn cancel_call(&mut self, number: u64) {
        let Some(pending) = self.calls.get_mut(&number) else { return };
        pending.abandoned = true;
        let key = Arc::clone(&pending.call.run.key);
        let Some(pending) = self.bursts.get_mut(&key) else { return };
        let step = pending.burst.leave(number);
        if pending.burst.asked() != Some(number) {
            self.calls.remove(&number);
        }
        self.follow_burst(&key, step);
    }

    pub(super) fn close_calls(&mut self) {
        for number in self.calls.keys().copied().collect::<Vec<_>>() {
            let Some(pending) = self.calls.get_mut(&number) else { continue };
            let _ = pending.call.reply.take().send(Err(Error::closed()));
            self.cancel_call(number);
        }
        self.to_ask.clear();
    }
}
