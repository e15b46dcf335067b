//! Debounced calls on their way to a run, or to being superseded.

use std::{mem, sync::Arc, time::Duration};

use super::{
    Call, Client, SILENCE_LIMIT, Terms,
    holds::{Grant, Taker},
    task::{Done, Task},
    timers::Timer,
};
use crate::{
    Error,
    core::{
        Moment,
        wait::{Next, Outcome, Patience, Wait},
    },
    guard::LockGuard,
    id::Named,
    keeper::store_error,
    store::{DebounceReply, DebounceRequest, DebounceStep, StoreError},
};

/// How often a call that is due looks whether the run before it has ended.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// How long a window is kept at least after it is done with.
const TOMBSTONE: Duration = Duration::from_secs(60);

/// One debounced call that has not been answered.
pub(super) struct PendingCall {
    call: Call,
    wait: Wait,
    /// Its number in the store, once it is registered.
    registered: Option<u64>,
    looks: u32,
    in_flight: bool,
    abandoned: bool,
    timer: Moment,
}

impl PendingCall {
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }
}

/// The answer to one step of a call.
pub(super) struct Called {
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
        Terms {
            lease: self.lease,
            patience: Patience::For(Duration::ZERO),
            hold_at_most: None,
            hold_at_least: Duration::ZERO,
        }
    }

    fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Task {
    pub(super) fn register(&mut self, call: Call) {
        let number = call.number;
        // What bounds a call is the window, not patience; only silence of the store ends it.
        let patience = Patience::For(Duration::MAX);
        let wait = Wait::new(patience, SILENCE_LIMIT, self.jitter(number));
        let pending = PendingCall {
            call,
            wait,
            registered: None,
            looks: 0,
            in_flight: false,
            abandoned: false,
            timer: Moment::NEVER,
        };
        let window = Arc::clone(&pending.call.window.key);
        self.windows.entry(window).or_default().push(number);
        self.calls.insert(number, pending);
        self.send_call(number);
    }

    /// Sends the next step of a call: its registration, or its claim.
    fn send_call(&mut self, number: u64) {
        let Some(pending) = self.calls.get_mut(&number).filter(|pending| !pending.in_flight) else {
            return;
        };
        pending.in_flight = true;
        let Call { window, run, token, wait, max_wait, lease, .. } = &pending.call;
        let step = match pending.registered {
            None => DebounceStep::Register { wait: *wait, max_wait: *max_wait },
            Some(call) => DebounceStep::Claim { call },
        };
        let request = DebounceRequest {
            window: Arc::clone(&window.key),
            run: Arc::clone(&run.key),
            token: token.clone(),
            step,
            lease: *lease,
            // For as long as a caller that took part may come late: it must find that it was
            // superseded. One that was stopped for longer may run once more, with older arguments.
            keep: *wait + (*lease).max(TOMBSTONE),
        };
        let sent_at = self.now;
        self.call_store(move |store| async move {
            let answer = store.debounce(&request).await;
            Done::Called(Called { number, sent_at, answer })
        });
    }

    pub(super) fn take_called(&mut self, called: Called) {
        let Called { number, sent_at, answer } = called;
        let now = self.now;
        let Some(pending) = self.calls.get_mut(&number) else { return };
        pending.in_flight = false;
        if pending.abandoned {
            if matches!(answer, Ok(DebounceReply::Granted { .. }) | Err(StoreError::Unavailable(_)))
            {
                self.undo_claim(number);
            }
            self.forget_call(number);
            return;
        }
        match answer {
            Ok(DebounceReply::Registered { call, due_in }) => {
                pending.registered = Some(call);
                pending.wait.step(Outcome::Held, now);
                self.timers.reset(Timer::Call(number), &mut pending.timer, now + due_in);
                self.supersede(number, call);
            }
            Ok(DebounceReply::NotYet(left)) => {
                pending.wait.step(Outcome::Held, now);
                let left = left.max(Duration::from_millis(1));
                self.timers.reset(Timer::Call(number), &mut pending.timer, now + left);
            }
            Ok(DebounceReply::Running(left)) => {
                pending.wait.step(Outcome::Held, now);
                // The lease of the run only bounds it: a run that ends is not announced.
                let look = POLL.0.saturating_mul(1 << pending.looks.min(8)).min(POLL.1);
                pending.looks += 1;
                let left = left.max(Duration::from_millis(1)).min(look);
                self.timers.reset(Timer::Call(number), &mut pending.timer, now + left);
            }
            Ok(DebounceReply::Superseded) => self.finish_call(number, Ok(None)),
            Ok(DebounceReply::Granted { fence }) => {
                let lease = pending.call.lease;
                if self.comes_too_late(sent_at, lease, now) {
                    let late = "the answer came after the lease had run out";
                    return self.retry_call(number, sent_at, &StoreError::unavailable(late));
                }
                let Some(pending) = self.forget_call(number) else { return };
                let call = pending.call;
                self.lose_key(&call.run.key);
                let line = self.line(&call.run);
                let fencing_token = line.queue.taken_by(number, fence, false);
                let token = call.token.clone();
                let grant = Grant { tenure: number, token, sent_at, lease, fencing_token };
                let guard = self.begin_hold(&call, grant);
                if let Err(Ok(Some(unclaimed))) = call.reply.send(Ok(Some(guard))) {
                    // As for an acquire: before a `flush` that is in the queue already.
                    unclaimed.defuse();
                    self.unclaimed.push((number, number));
                }
            }
            Err(error @ StoreError::Rejected(_)) => {
                // A claim before this one may have had no answer.
                if pending.wait.silent_since().is_some() {
                    self.undo_claim(number);
                }
                self.finish_call(number, Err(store_error(&error)));
            }
            Err(error @ StoreError::Unavailable(_)) => self.retry_call(number, sent_at, &error),
        }
    }

    fn retry_call(&mut self, number: u64, asked_at: Moment, error: &StoreError) {
        let now = self.now;
        let Some(pending) = self.calls.get_mut(&number) else { return };
        match pending.wait.step(Outcome::Unknown { asked_at }, now) {
            Next::TryAt(at) => self.timers.reset(Timer::Call(number), &mut pending.timer, at),
            Next::Busy | Next::Unavailable => {
                self.undo_claim(number);
                self.finish_call(number, Err(store_error(error)));
            }
        }
    }

    /// Calls of this process that a newer one has replaced need not ask the store about it.
    fn supersede(&mut self, newest: u64, call: u64) {
        let Some(window) = self.calls.get(&newest).map(|p| &p.call.window.key) else { return };
        let older = self.windows.get(window).into_iter().flatten().copied().filter(|number| {
            self.calls.get(number).is_some_and(|pending| {
                *number != newest
                    && !pending.in_flight
                    && pending.registered.is_some_and(|registered| registered < call)
            })
        });
        for number in older.collect::<Vec<_>>() {
            self.finish_call(number, Ok(None));
        }
    }

    /// Takes a call out of the books.
    fn forget_call(&mut self, number: u64) -> Option<PendingCall> {
        let pending = self.calls.remove(&number)?;
        self.timers.cancel(Timer::Call(number), pending.timer);
        if let Some(numbers) = self.windows.get_mut(&pending.call.window.key) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.windows.remove(&pending.call.window.key);
            }
        }
        Some(pending)
    }

    fn finish_call(&mut self, number: u64, answer: Result<Option<LockGuard>, Error>) {
        let Some(pending) = self.forget_call(number) else { return };
        let _ = pending.call.reply.send(answer);
    }

    /// A claim without an answer may have taken the run's lock.
    fn undo_claim(&mut self, number: u64) {
        if let Some(pending) = self.calls.get(&number)
            && pending.registered.is_some()
        {
            let (run, token) = (pending.call.run.clone(), pending.call.token.clone());
            self.begin_release(number, &run, &token, Moment::default(), None);
        }
    }

    pub(super) fn call_timer(&mut self, number: u64) {
        if let Some(pending) = self.calls.get_mut(&number) {
            pending.timer = Moment::NEVER;
            self.send_call(number);
        }
    }

    pub(super) fn cancel_call(&mut self, number: u64) {
        let Some(pending) = self.calls.get_mut(&number) else { return };
        pending.abandoned = true;
        self.timers.cancel(Timer::Call(number), mem::replace(&mut pending.timer, Moment::NEVER));
        if !pending.in_flight {
            if pending.wait.silent_since().is_some() {
                self.undo_claim(number);
            }
            self.forget_call(number);
        }
    }

    pub(super) fn close_calls(&mut self) {
        for number in self.calls.keys().copied().collect::<Vec<_>>() {
            let Some(pending) = self.calls.get_mut(&number) else { continue };
            let (closed, _) = tokio::sync::oneshot::channel();
            let _ = mem::replace(&mut pending.call.reply, closed).send(Err(Error::closed()));
            self.cancel_call(number);
        }
    }
}
