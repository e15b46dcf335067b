//! A process of the debounce model: what its engine does about the calls of one id.
//!
//! The decisions are the real ones: [`Burst`] for the calls, [`Lease`] for the run. What carries
//! them out mirrors `engine/bursts.rs`, and the parts of `engine/holds.rs` and `engine/releases.rs`
//! that a lock without a queue needs.

use std::time::Duration;

use super::{WAIT, store::Reply};
use crate::{
    Moment,
    engine::{
        burst::{self, Answer, Burst, End, Next, Question},
        lease::{self, Lease, comes_too_late},
        outage::Outage,
    },
    model::{CALL_LIMIT, LEASE, RENEW_LIMIT, connection::Connection},
    time::Jitter,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Request {
    Ask { number: u64, age: Duration, leading: bool },
    Renew { number: u64, lease: Duration },
    Release { number: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Releasing {
    number: u64,
    outage: Outage,
    timer: Moment,
}

/// A call that has not been answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    pub(super) caller: u64,
    place: u64,
}

/// `calls::Untaken`, with the caller who is to take it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Untaken {
    runner: u64,
    older: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    /// Calls that have not been made.
    pub(super) to_come: u8,
    /// Of callers, and of the calls that the store knows.
    numbers: u64,
    leading: bool,
    pub(super) pending: Vec<Pending>,
    /// When each caller has called.
    made: Vec<(u64, Moment)>,
    burst: Option<Burst>,
    /// When the burst asks next.
    timer: Moment,
    run: Option<(u64, Lease)>,
    untaken: Option<Untaken>,
    /// A mistake: older callers are told when the run is granted.
    hasty: bool,
    releases: Vec<Releasing>,
    pub(super) calls: Connection<Request, Reply>,
    to_ask: bool,
    to_release: Vec<u64>,
    to_renew: Option<Duration>,
    /// What just happened, for the model to take: callers that were answered, fences of runs that
    /// were granted, and the number of one that was taken.
    pub(super) ended: Vec<(u64, End)>,
    pub(super) begun: Vec<u64>,
    pub(super) taken: Option<u64>,
    /// Has a run been passed on, or begun anew?
    pub(super) passed_on: bool,
    pub(super) lost_untaken: bool,
}

impl Process {
    pub(super) fn new(calls: u8, leading: bool, hasty: bool) -> Self {
        Self {
            to_come: calls,
            numbers: 0,
            leading,
            pending: Vec::new(),
            made: Vec::new(),
            burst: None,
            timer: Moment::NEVER,
            run: None,
            untaken: None,
            hasty,
            releases: Vec::new(),
            calls: Connection::new(),
            to_ask: false,
            to_release: Vec::new(),
            to_renew: None,
            ended: Vec::new(),
            begun: Vec::new(),
            taken: None,
            passed_on: false,
            lost_untaken: false,
        }
    }

    /// When this caller has called.
    pub(super) fn made_at(&self, caller: u64) -> Option<Moment> {
        self.made.iter().find(|(known, _)| *known == caller).map(|(_, made_at)| *made_at)
    }

    /// Everyone who may go away before a run has begun.
    pub(super) fn callers(&self) -> impl Iterator<Item = u64> {
        let runner = self.untaken.iter().map(|untaken| untaken.runner);
        self.pending.iter().map(|pending| pending.caller).chain(runner)
    }

    pub(super) fn runs(&self) -> bool {
        self.run.is_some() && self.untaken.is_none()
    }

    /// Is there a run whose caller has not taken it?
    pub(super) fn has_untaken(&self) -> bool {
        self.untaken.is_some()
    }

    /// May the run that goes on be believed?
    pub(super) fn is_held(&self, now: Moment) -> bool {
        self.run.as_ref().is_some_and(|(_, lease)| now < lease.deadline())
    }

    pub(super) fn is_done(&self) -> bool {
        self.to_come == 0
            && self.pending.is_empty()
            && self.burst.is_none()
            && self.run.is_none()
            && self.releases.is_empty()
            && self.calls.is_empty()
    }

    pub(super) fn next_timer(&self) -> Moment {
        let run = self.run.as_ref().map_or(Moment::NEVER, |(_, lease)| lease.next_timer());
        let releases = self.releases.iter().map(|release| release.timer);
        let timers = releases.chain([run, self.timer, self.calls.next_end()]);
        timers.min().unwrap_or(Moment::NEVER)
    }

    /// `Keeper::turn`, with nothing but timers.
    pub(super) fn turn(&mut self, now: Moment) {
        self.fire_timers(now);
        while let Some((request, sent_at, reply)) = self.calls.take_overdue(now) {
            self.answered(request, sent_at, reply, now);
        }
        self.send(now);
    }

    fn fire_timers(&mut self, now: Moment) {
        if self.run.as_ref().is_some_and(|(_, lease)| lease.next_timer() <= now) {
            self.step_lease(lease::Event::Timer, now);
        }
        if self.timer <= now {
            // `Bursts::timer`.
            self.timer = Moment::NEVER;
            self.recheck();
        }
        for release in &mut self.releases {
            if release.timer <= now {
                release.timer = Moment::NEVER;
                self.to_release.push(release.number);
            }
        }
    }

    /// `Engine::poll_call`: releases, renewals, questions.
    fn send(&mut self, now: Moment) {
        self.send_releases(now);
        if let Some(lease) = self.to_renew.take()
            && let Some((number, _)) = self.run
        {
            self.calls.send(Request::Renew { number, lease }, now, RENEW_LIMIT);
        }
        // `Engine::next_questions`.
        if std::mem::take(&mut self.to_ask)
            && let Some(burst) = &mut self.burst
            && let Some((undo, question)) = burst.question(now, || {
                self.numbers += 1;
                self.numbers
            })
        {
            self.timer = Moment::NEVER;
            if let Some(undo) = undo {
                self.begin_release(undo);
                self.send_releases(now);
            }
            let Question { number, call, age } = question;
            let ask = Request::Ask { number, age, leading: call.leading };
            self.calls.send(ask, now, CALL_LIMIT);
        }
    }

    fn send_releases(&mut self, now: Moment) {
        for number in std::mem::take(&mut self.to_release) {
            if self.releases.iter().any(|release| release.number == number) {
                self.calls.send(Request::Release { number }, now, CALL_LIMIT);
            }
        }
    }

    /// A call is made: `Bursts::join`.
    pub(super) fn call(&mut self, now: Moment) {
        self.fire_timers(now);
        self.to_come -= 1;
        self.numbers += 1;
        let caller = self.numbers;
        self.made.push((caller, now));
        self.register(caller, now);
        self.send(now);
    }

    fn register(&mut self, caller: u64, now: Moment) {
        let (made_at, leading) = (now, self.leading);
        let made = burst::Call { made_at, wait: WAIT, max_wait: None, leading };
        let burst = self.burst.get_or_insert_with(|| Burst::new(Jitter::LEAST));
        let (place, next) = burst.join(caller, made);
        self.pending.push(Pending { caller, place });
        self.follow_next(next);
    }

    /// Takes a caller out of the books; its place.
    fn take_caller(&mut self, caller: u64) -> Option<u64> {
        let index = self.pending.iter().position(|pending| pending.caller == caller)?;
        Some(self.pending.remove(index).place)
    }

    /// The caller goes away: `Bursts::cancel`, or its guard is dropped before it was taken.
    pub(super) fn cancel(&mut self, caller: u64, now: Moment) {
        self.fire_timers(now);
        if self.untaken.as_ref().is_some_and(|untaken| untaken.runner == caller) {
            self.refuse_run(now);
        } else if let Some(place) = self.take_caller(caller)
            && let Some(burst) = &mut self.burst
        {
            let step = burst.leave(place);
            self.follow(step);
        }
        self.send(now);
    }

    /// `Engine::release` with a guard that was not taken, and `Engine::pass_run_on`.
    fn refuse_run(&mut self, now: Moment) {
        if !self.is_held(now) {
            self.lose_untaken();
        } else if let Some(Untaken { mut older, .. }) = self.untaken.take() {
            if let Some(runner) = self.next_runner(&mut older) {
                self.passed_on = true;
                return self.give_run(runner, older);
            }
            if let Some(burst) = &mut self.burst {
                burst.run_undone();
            }
        }
        if let Some((number, _)) = self.run.take() {
            self.begin_release(number);
        }
    }

    fn next_runner(&mut self, callers: &mut Vec<u64>) -> Option<u64> {
        while let Some(newest) = callers.pop() {
            if self.take_caller(newest).is_some() {
                return Some(newest);
            }
        }
        None
    }

    /// `Bursts::runner`. A run that nobody waits for is as good as taken.
    fn give_run(&mut self, runner: u64, older: Vec<u64>) {
        let followed = !older.is_empty();
        self.untaken = Some(Untaken { runner, older });
        if self.hasty {
            self.tell_older();
        }
        if !followed {
            self.begin_body();
        }
    }

    /// The caller of a run takes it: `Bursts::run_taken`.
    pub(super) fn take_run(&mut self, now: Moment) {
        self.fire_timers(now);
        if self.is_held(now) {
            self.tell_older();
            self.begin_body();
        } else {
            self.lose_untaken();
        }
        self.send(now);
    }

    fn begin_body(&mut self) {
        if let Some(Untaken { runner, .. }) = self.untaken.take() {
            self.taken = self.run.as_ref().map(|(number, _)| *number);
            self.ended.push((runner, End::Runs));
        }
    }

    fn tell_older(&mut self) {
        let older = self.untaken.as_mut().map(|untaken| std::mem::take(&mut untaken.older));
        for caller in older.unwrap_or_default() {
            if self.take_caller(caller).is_some() {
                self.ended.push((caller, End::Superseded));
            }
        }
    }

    fn lose_untaken(&mut self) {
        let Some(Untaken { runner, older }) = self.untaken.take() else { return };
        // Its body does not run, for it has a lock that was lost.
        self.ended.push((runner, End::Unavailable));
        for caller in older {
            if self.take_caller(caller).is_some() {
                self.lost_untaken = true;
                self.ended.push((caller, End::Unavailable));
            }
        }
    }

    /// The run is over: its guard is dropped.
    pub(super) fn finish(&mut self, now: Moment) {
        self.fire_timers(now);
        if let Some((number, _)) = self.run.take() {
            self.begin_release(number);
        }
        self.send(now);
    }

    /// `Bursts::notice`. Notices name a call of the burst; any other changes nothing.
    pub(super) fn wake(&mut self, now: Moment) {
        self.fire_timers(now);
        self.recheck();
        self.send(now);
    }

    pub(super) fn take_reply(&mut self, now: Moment) {
        self.fire_timers(now);
        if let Some((request, sent_at, reply)) = self.calls.take_reply() {
            self.answered(request, sent_at, reply, now);
        }
        self.send(now);
    }

    /// The connection breaks: what the store has not executed.
    pub(super) fn cut(&mut self, now: Moment) -> Vec<Request> {
        self.fire_timers(now);
        let (left, unanswered) = self.calls.cut();
        for (request, sent_at, reply) in unanswered {
            self.answered(request, sent_at, reply, now);
        }
        self.send(now);
        left
    }

    fn answered(&mut self, request: Request, sent_at: Moment, reply: Option<Reply>, now: Moment) {
        match request {
            Request::Ask { number, .. } => self.take_called(number, sent_at, reply, now),
            Request::Renew { number, lease } => {
                let event = match reply {
                    Some(Reply::Renewed) => lease::Event::Renewed { sent_at, remaining: lease },
                    Some(_) => lease::Event::NotOurs,
                    None => lease::Event::Unknown,
                };
                if self.run.as_ref().is_some_and(|(running, _)| *running == number) {
                    self.step_lease(event, now);
                }
            }
            Request::Release { number } => self.take_released(number, reply, now),
        }
    }

    /// `Bursts::answered`.
    fn take_called(&mut self, number: u64, sent_at: Moment, reply: Option<Reply>, now: Moment) {
        let Some(burst) = &mut self.burst else { return };
        let late = comes_too_late(sent_at, LEASE, now);
        let mut granted = None;
        let answer = match reply {
            Some(Reply::NotYet { left, newest }) => Answer::NotYet { left, newest },
            Some(Reply::Running(left)) => Answer::Running(left),
            Some(Reply::Superseded) => Answer::Superseded,
            Some(Reply::Granted { fence }) if !late => {
                granted = Some(fence);
                Answer::Granted
            }
            _ => Answer::Unknown,
        };
        let mut step = burst.answered(answer, now);
        if let Some(fence) = granted
            && let Some((_, mut callers)) = step.ended.take_if(|(end, _)| *end == End::Runs)
            && let Some(runner) = self.next_runner(&mut callers)
        {
            // `Engine::registered`.
            if self.run.take().is_some() {
                self.lose_untaken();
            }
            let lease = Lease::granted(sent_at, LEASE, (LEASE, None), Jitter::LEAST);
            self.run = Some((number, lease));
            self.begun.push(fence);
            self.give_run(runner, callers);
        }
        self.follow(step);
    }

    /// `Bursts::follow`.
    fn follow(&mut self, step: burst::Step) {
        if let Some(number) = step.undo {
            self.begin_release(number);
        }
        let (end, callers) = step.ended.unwrap_or((End::Runs, Vec::new()));
        for caller in callers {
            if self.take_caller(caller).is_some() {
                self.ended.push((caller, end));
            }
        }
        self.follow_next(step.next);
    }

    fn follow_next(&mut self, next: Next) {
        match next {
            Next::Wait => {}
            Next::Ask => self.to_ask = true,
            Next::AskAt(at) => self.timer = at,
            Next::Gone => {
                self.burst = None;
                self.timer = Moment::NEVER;
            }
        }
    }

    fn recheck(&mut self) {
        if let Some(burst) = &mut self.burst {
            let next = burst.recheck();
            self.follow_next(next);
        }
    }

    /// `Holds::step`.
    fn step_lease(&mut self, event: lease::Event, now: Moment) {
        let Some((_, lease)) = &mut self.run else { return };
        match lease.step(event, now) {
            lease::Action::Wait => {}
            lease::Action::Renew { remaining } => self.to_renew = Some(remaining),
            lease::Action::Lose => self.lose(),
        }
    }

    /// `Engine::lose`.
    fn lose(&mut self) {
        if let Some((number, _)) = self.run.take() {
            self.begin_release(number);
        }
        self.lose_untaken();
    }

    fn begin_release(&mut self, number: u64) {
        self.releases.retain(|release| release.number != number);
        self.releases.push(Releasing { number, outage: Outage::default(), timer: Moment::NEVER });
        self.to_release.push(number);
    }

    /// `Releases::answered`; nobody queues for the lock of a run, so there is no claim to await.
    fn take_released(&mut self, number: u64, reply: Option<Reply>, now: Moment) {
        let Some(index) = self.releases.iter().position(|release| release.number == number) else {
            return;
        };
        if reply.is_some() {
            self.releases.remove(index);
            // `Bursts::run_ended`.
            if let Some(burst) = &mut self.burst {
                let next = burst.run_ended();
                self.follow_next(next);
            }
            return;
        }
        let release = &mut self.releases[index];
        release.outage.failed(Moment::default());
        if release.outage.failures() == 1 {
            self.to_release.push(number);
        } else {
            release.timer = now + release.outage.pause();
        }
    }
}
