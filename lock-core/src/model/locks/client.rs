//! A client of the lock model: what its engine does about one id, and its connection.
//!
//! The decisions are the real ones: [`LockState`] for those who wait and for the entry in the store,
//! [`Lease`] for what is held. What carries them out mirrors `engine/queued.rs`, `engine/holds.rs`
//! and `engine/releases.rs`; each method says which.

use std::time::Duration;

use super::{
    Mistake,
    request::{Reply, Request, What},
    store::Word,
};
use crate::{
    Moment,
    contract::{Acquisition, RESERVATION, Release, Renewal},
    engine::{
        hand_offs::MARGIN,
        lease::{self, Lease, comes_too_late},
        lock_state::{Action, Entry, LockState, Rechecks},
        outage::{Outage, SILENCE_LIMIT},
    },
    model::{CALL_LIMIT, LEASE, RENEW_LIMIT, connection::Connection},
    time::Jitter,
};

/// A guard, and what the engine knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hold {
    /// The number in the token.
    pub(super) number: u64,
    lease: Lease,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Releasing {
    number: u64,
    /// Since when does not matter.
    outage: Outage,
    timer: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    /// Acquisitions that have not begun.
    pub(super) to_come: u8,
    numbers: u64,
    /// Those who wait, and since when.
    callers: Vec<(u64, Moment)>,
    queue: LockState,
    look_at: Moment,
    hold: Option<Hold>,
    releases: Vec<Releasing>,
    /// The release that is repeated if a hand-over is not claimed by then.
    claim: Option<(u64, Moment)>,
    pub(super) calls: Connection<Request, Reply>,
    to_release: Vec<u64>,
    to_renew: Option<Duration>,
    to_ask: bool,
    /// Fencing tokens of guards that have just begun; taken by the model.
    pub(super) begun: Vec<u64>,
    pub(super) mistake: Option<Mistake>,
}

/// Without chance: the model is to be small.
fn rechecks(told: bool) -> Rechecks {
    Rechecks { woken: true, told, jitter: Jitter::LEAST }
}

impl Client {
    pub(super) fn new(acquisitions: u8, mistake: Option<Mistake>) -> Self {
        Self {
            to_come: acquisitions,
            numbers: 0,
            callers: Vec::new(),
            queue: LockState::default(),
            look_at: Moment::NEVER,
            hold: None,
            releases: Vec::new(),
            claim: None,
            calls: Connection::new(),
            to_release: Vec::new(),
            to_renew: None,
            to_ask: false,
            begun: Vec::new(),
            mistake,
        }
    }

    /// May it be believed that this client holds the lock? `Hold::is_held`.
    pub(super) fn is_held(&self, now: Moment) -> bool {
        self.hold.as_ref().is_some_and(|hold| now < hold.lease.deadline())
    }

    pub(super) fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = u64> {
        self.callers.iter().map(|(caller, _)| *caller)
    }

    /// Is this the number of a token that it waits or holds with?
    pub(super) fn wants(&self, number: u64) -> bool {
        self.entry() == Some(number) || self.hold.as_ref().is_some_and(|hold| hold.number == number)
    }

    pub(super) fn is_releasing(&self, number: u64) -> bool {
        self.releases.iter().any(|release| release.number == number)
    }

    /// Would a notice change anything, now or later?
    pub(super) fn minds(&self, word: Word) -> bool {
        let ownership = self.hold.as_ref().map(|hold| hold.number);
        match word {
            Word::Granted(number) => self.entry() == Some(number) || ownership == Some(number),
            // It decides whether the lock passes to the next caller here, if there is one.
            Word::Wanted(number) => {
                let others = self.callers.len() + usize::from(self.to_come);
                (self.entry() == Some(number) && others > 1)
                    || (ownership == Some(number) && others > 0)
            }
        }
    }

    /// Has it nothing to do, and nothing to wait for?
    pub(super) fn is_done(&self) -> bool {
        self.to_come == 0
            && self.callers.is_empty()
            && self.queue.is_idle()
            && self.hold.is_none()
            && self.releases.is_empty()
            && self.claim.is_none()
            && self.calls.is_empty()
    }

    /// When the keeper has something to do, if nothing happens before.
    pub(super) fn next_timer(&self) -> Moment {
        let hold = self.hold.as_ref().map(|hold| hold.lease.next_timer());
        let timers = hold.into_iter().chain(self.claim.map(|(_, at)| at)).chain([self.look_at]);
        let timers = timers.chain(self.releases.iter().map(|release| release.timer));
        timers.chain([self.calls.next_end()]).min().unwrap_or(Moment::NEVER)
    }

    /// `Keeper::turn` with nothing but timers: they, and calls that were not answered in time.
    pub(super) fn turn(&mut self, now: Moment) {
        self.fire_timers(now);
        while let Some((request, sent_at, reply)) = self.calls.take_overdue(now) {
            self.answered(request, sent_at, reply, now);
        }
        self.send(now);
    }

    /// `Engine::timeout`. Before anything else in each turn.
    fn fire_timers(&mut self, now: Moment) {
        if self.hold.as_ref().is_some_and(|hold| hold.lease.next_timer() <= now) {
            self.step(lease::Event::Timer, now);
        }
        if self.look_at <= now {
            self.look_at = Moment::NEVER;
            self.end_silence(now);
            let action = self.queue.recheck();
            self.follow(action);
        }
        if let Some((number, _)) = self.claim.take_if(|(_, at)| *at <= now) {
            self.begin_release(number);
        }
        for release in &mut self.releases {
            if release.timer <= now {
                release.timer = Moment::NEVER;
                self.to_release.push(release.number);
            }
        }
    }

    /// `Engine::poll_call`: releases first.
    fn send(&mut self, now: Moment) {
        for number in std::mem::take(&mut self.to_release) {
            if self.releases.iter().any(|release| release.number == number) {
                self.call(number, What::Release, now);
            }
        }
        if let Some(lease) = self.to_renew.take()
            && let Some(hold) = &self.hold
        {
            self.call(hold.number, What::Renew(lease), now);
        }
        if std::mem::take(&mut self.to_ask)
            && let Some(request) = self.queue.request(now)
        {
            self.look_at = Moment::NEVER;
            self.call(request.number, What::Acquire(request.if_held), now);
        }
    }

    fn call(&mut self, number: u64, what: What, now: Moment) {
        let limit = if matches!(what, What::Renew(_)) { RENEW_LIMIT } else { CALL_LIMIT };
        self.calls.send(Request { number, what }, now, limit);
    }

    /// A caller wants the lock: `Queued::join`.
    pub(super) fn join(&mut self, now: Moment) {
        self.fire_timers(now);
        self.to_come -= 1;
        self.numbers += 1;
        self.callers.push((self.numbers, now));
        let action = self.queue.join(self.numbers, LEASE);
        self.follow(action);
        self.send(now);
    }

    /// A caller waits no more: `Queued::cancel`.
    pub(super) fn cancel(&mut self, caller: u64, now: Moment) {
        self.fire_timers(now);
        self.leave_line(caller);
        self.send(now);
    }

    /// The guard is dropped: `Engine::release`.
    pub(super) fn drop_guard(&mut self, now: Moment) {
        self.fire_timers(now);
        if let Some(hold) = &self.hold {
            // `can_be_passed_on`.
            let remaining = hold.lease.deadline().after(now);
            let number = hold.number;
            match self.queue.released(remaining) {
                Action::Grant { caller, fencing_token } => {
                    self.callers.retain(|(waiting, _)| *waiting != caller);
                    if let Some(hold) = &mut self.hold {
                        hold.lease.pass_on(now, (LEASE, None), Jitter::LEAST);
                    }
                    self.begun.push(fencing_token);
                }
                Action::Reacquire => {
                    self.hold = None;
                    self.to_ask = true;
                }
                _ => {
                    self.hold = None;
                    self.begin_release(number);
                    if self.queue.entry().is_some_and(Entry::is_new) {
                        self.follow(Action::Ask);
                    }
                }
            }
        }
        self.send(now);
    }

    /// `Engine::notice`.
    pub(super) fn wake(&mut self, word: Word, now: Moment) {
        self.fire_timers(now);
        match word {
            Word::Granted(number) => {
                if self.entry() == Some(number) {
                    let action = self.queue.recheck();
                    self.follow(action);
                }
            }
            Word::Wanted(number) => self.queue.contended(number),
        }
        self.send(now);
    }

    /// The reply to the oldest call comes.
    pub(super) fn take_reply(&mut self, now: Moment) {
        self.fire_timers(now);
        if let Some((request, sent_at, reply)) = self.calls.take_reply() {
            self.answered(request, sent_at, reply, now);
        }
        self.send(now);
    }

    /// The connection breaks: what was asked on it has no answer. What the store has not executed.
    pub(super) fn cut(&mut self, now: Moment) -> Vec<Request> {
        self.fire_timers(now);
        let (left, unanswered) = self.calls.cut();
        for (request, sent_at, reply) in unanswered {
            self.answered(request, sent_at, reply, now);
        }
        // `Notice::Connected`: every waiter rechecks for itself.
        let action = self.queue.recheck();
        self.follow(action);
        self.send(now);
        left
    }

    fn answered(&mut self, request: Request, sent_at: Moment, reply: Option<Reply>, now: Moment) {
        match (request.what, reply) {
            (What::Acquire(_), Some(Reply::Acquired(answer))) => {
                self.take_seat_answer(request.number, sent_at, Some(answer), now);
            }
            (What::Acquire(_), _) => self.take_seat_answer(request.number, sent_at, None, now),
            (What::Renew(remaining), Some(Reply::Renewed(answer))) => {
                self.take_renewed(request.number, (sent_at, remaining), Some(answer), now);
            }
            (What::Renew(remaining), _) => {
                self.take_renewed(request.number, (sent_at, remaining), None, now);
            }
            (What::Release, Some(Reply::Released(answer))) => {
                self.take_released(request.number, Some(answer), now);
            }
            (What::Release, _) => self.take_released(request.number, None, now),
        }
    }

    fn entry(&self) -> Option<u64> {
        self.queue.entry().map(Entry::number)
    }

    /// `Queued::follow`.
    fn follow(&mut self, action: Action) {
        match action {
            Action::Ask => self.to_ask = true,
            Action::RecheckAt(at) => {
                if self.queue.entry().is_some() {
                    self.look_at = at;
                }
            }
            Action::Withdraw { number } => {
                self.look_at = Moment::NEVER;
                if self.mistake != Some(Mistake::NothingIsUndone) {
                    self.begin_release(number);
                }
            }
            Action::None | Action::Grant { .. } | Action::Release | Action::Reacquire => {}
        }
    }

    /// `Queued::answered`.
    fn take_seat_answer(
        &mut self,
        number: u64,
        sent_at: Moment,
        answer: Option<Acquisition>,
        now: Moment,
    ) {
        if self.entry() != Some(number) {
            return;
        }
        match answer {
            Some(Acquisition::Granted { fence, contended }) => {
                self.take_seat_grant(number, sent_at, (fence, contended), now);
            }
            Some(Acquisition::Held { remaining, ticket, notifies }) => {
                let action = self.queue.held(number, remaining, ticket, rechecks(notifies), now);
                if self.mistake == Some(Mistake::NoFallbackLook)
                    && matches!(action, Action::RecheckAt(_))
                {
                    return;
                }
                self.follow(action);
            }
            None => {
                let action = self.queue.unanswered(number, rechecks(false), now);
                self.follow(action);
                self.end_silence(now);
            }
        }
    }

    /// `Engine::acquired`.
    fn take_seat_grant(
        &mut self,
        number: u64,
        sent_at: Moment,
        (fence, contended): (u64, bool),
        now: Moment,
    ) {
        let granted = self.queue.entry().map_or(Duration::ZERO, Entry::lease);
        if comes_too_late(sent_at, granted, now) && self.mistake != Some(Mistake::LateGrantCounts) {
            let action = self.queue.unanswered(number, rechecks(false), now);
            return self.follow(action);
        }
        // `Engine::lose_key`.
        if self.hold.take().is_some() {
            let action = self.queue.lost();
            self.follow(action);
        }
        let Action::Grant { caller, fencing_token } = self.queue.granted(number, fence, contended)
        else {
            return self.follow(Action::Withdraw { number });
        };
        self.look_at = Moment::NEVER;
        self.callers.retain(|(waiting, _)| *waiting != caller);
        // `Holds::begin`.
        let from_reply = self.mistake == Some(Mistake::DeadlineFromReply);
        let sent_at = if from_reply { now } else { sent_at };
        let lease = Lease::granted(sent_at, granted, (LEASE, None), Jitter::LEAST);
        self.hold = Some(Hold { number, lease });
        self.begun.push(fencing_token);
        self.claim = None;
    }

    /// `Holds::renewed`.
    fn take_renewed(
        &mut self,
        number: u64,
        (sent_at, remaining): (Moment, Duration),
        answer: Option<Renewal>,
        now: Moment,
    ) {
        let from_reply = self.mistake == Some(Mistake::DeadlineFromReply);
        let sent_at = if from_reply { now } else { sent_at };
        let event = match answer {
            Some(Renewal::Renewed { contended }) => {
                if contended {
                    self.queue.contended(number);
                }
                lease::Event::Renewed { sent_at, remaining }
            }
            Some(Renewal::NotOurs) => lease::Event::NotOurs,
            None => lease::Event::Unknown,
        };
        if self.hold.as_ref().is_some_and(|hold| hold.number == number) {
            self.step(event, now);
        }
    }

    /// `Holds::step`.
    fn step(&mut self, event: lease::Event, now: Moment) {
        let Some(hold) = &mut self.hold else { return };
        match hold.lease.step(event, now) {
            lease::Action::Wait => {}
            lease::Action::Renew { remaining } => self.to_renew = Some(remaining),
            lease::Action::Lose => self.lose(),
        }
    }

    /// `Engine::lose`.
    fn lose(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        self.begin_release(hold.number);
        let action = self.queue.lost();
        self.follow(action);
    }

    /// `Queued::leave`.
    fn leave_line(&mut self, caller: u64) {
        self.callers.retain(|(waiting, _)| *waiting != caller);
        let before = self.entry();
        let action = self.queue.leave(caller);
        if before.is_some() && self.entry().is_none() {
            self.look_at = Moment::NEVER;
        }
        self.follow(action);
    }

    /// `Queued::end_silence`: who has borne it for long enough is told, and leaves.
    fn end_silence(&mut self, now: Moment) {
        let Some(since) = self.queue.entry().and_then(Entry::silent_since) else { return };
        let borne = |started: Moment| now >= started.max(since) + SILENCE_LIMIT;
        while let Some((caller, _)) = self.callers.iter().find(|(_, started)| borne(*started)) {
            self.leave_line(*caller);
        }
    }

    /// `Releases::begin`. It is tried for half a minute, which is longer than the model lasts.
    fn begin_release(&mut self, number: u64) {
        self.releases.retain(|release| release.number != number);
        let timer = Moment::NEVER;
        self.releases.push(Releasing { number, outage: Outage::default(), timer });
        self.to_release.push(number);
    }

    /// `Releases::answered`.
    fn take_released(&mut self, number: u64, answer: Option<Release>, now: Moment) {
        let Some(index) = self.releases.iter().position(|release| release.number == number) else {
            return;
        };
        let release = &mut self.releases[index];
        let Some(answer) = answer else {
            release.outage.failed(Moment::default());
            if release.outage.failures() == 1 {
                self.to_release.push(number);
            } else {
                release.timer = now + release.outage.pause();
            }
            return;
        };
        let repeated = release.outage.since().is_some();
        self.releases.remove(index);
        if answer.handed_over || (repeated && !answer.ours) {
            // `HandOffs::watch`.
            self.claim = Some((number, now + RESERVATION + MARGIN));
        }
    }
}
