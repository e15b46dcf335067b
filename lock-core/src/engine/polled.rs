//! Callers that ask on their own behalf: single tries, tries at a fixed interval, and adoption.

use std::sync::Arc;

use super::{
    calls::{Asker, Granted, Said},
    io::{Acquire, Acquirer, Aftermath, Patience, Refusal, Terms},
    lease::comes_too_late,
    outage::Outage,
    shared::Shared,
    timers::{Scheduled, Timer},
};
use crate::{
    Token,
    contract::{AcquireRequest, Acquisition, IfHeld, StoreError},
    maps::ByNumber,
    mutant::Mutant,
    time::{Jitter, Moment},
};

#[derive(Clone, Default, Hash)]
pub(super) struct Polled<C>(ByNumber<Poller<C>>);

/// One caller that asks on its own behalf.
#[derive(Clone, Hash)]
struct Poller<C> {
    /// `None` once nobody waits for the answer; the entry stays until it is answered.
    to: Option<C>,
    key: Arc<str>,
    token: Token,
    terms: Terms,
    adopt: Option<Token>,
    wait: Wait,
    in_flight: bool,
    timer: Scheduled,
    /// Notices that arrived before the grant itself: others want the lock, or it was taken away.
    contended: bool,
    revoked: bool,
    /// Its token may hold the lock, by a grant that was not accepted.
    may_hold: bool,
}

impl<C> Polled<C> {
    pub(super) fn begin(&mut self, acquire: Acquire<C>, shared: &mut Shared<C>) {
        let Acquire { acquirer: Acquirer { number, key, terms, to }, patience, adopt } = acquire;
        let poller = Poller {
            to: Some(to),
            key,
            token: shared.token(number),
            terms,
            adopt,
            wait: Wait::new(patience, shared.now, shared.jitter(number)),
            in_flight: false,
            timer: Scheduled::default(),
            contended: false,
            revoked: false,
            may_hold: false,
        };
        self.0.insert(number, poller);
        shared.request(Asker::Polled(number));
    }

    /// The key of the lock that this caller asks for.
    pub(super) fn key(&self, number: u64) -> Option<&Arc<str>> {
        Some(&self.0.get(&number)?.key)
    }

    /// What to ask the store on behalf of this caller.
    pub(super) fn request(
        &mut self,
        number: u64,
        shared: &mut Shared<C>,
    ) -> Option<AcquireRequest> {
        let poller = self.0.get_mut(&number).filter(|poller| !poller.in_flight)?;
        poller.in_flight = true;
        poller.end_timer(number, shared);
        let (key, token) = (Arc::clone(&poller.key), poller.token.clone());
        let if_held = poller.adopt.clone().map_or(IfHeld::GiveUp, IfHeld::Adopt);
        Some(AcquireRequest::new(key, token, poller.terms.lease).if_held(if_held))
    }

    /// Handles the store's answer. Returns a grant that may be relied on, with its fence and
    /// whether others want the lock.
    pub(super) fn answered(
        &mut self,
        number: u64,
        sent_at: Moment,
        answer: Said<Acquisition>,
        shared: &mut Shared<C>,
    ) -> Option<(Acquirer<C>, Granted)> {
        let now = shared.now;
        let poller = self.0.get_mut(&number)?;
        poller.in_flight = false;
        if poller.to.is_none() {
            // Nobody is left to hold what was granted, or may have been granted: by this try, or by
            // an earlier one that had no answer.
            let held = matches!(answer, Ok(Acquisition::Held { .. }));
            let refused = answer.as_ref().is_err_and(StoreError::is_refusal);
            let undone = held || (refused && !poller.may_have_it());
            if !undone && !Mutant::CancelledAcquireIsNotUndone.is_on() {
                poller.undo(number, shared);
            }
            self.0.remove(&number);
            return None;
        }
        let next = match answer {
            Ok(Acquisition::Granted { fence, contended }) => {
                if comes_too_late(sent_at, poller.terms.lease, now) {
                    let late = "the answer came after the lease had run out";
                    poller.wait.unanswered(sent_at, StoreError::unavailable(late), now)
                } else if poller.revoked {
                    // Granted, and taken away by force before the answer arrived. If the notice was
                    // about an earlier grant, the next try is granted the lock: the token is the
                    // same, and is released only if there is no next try.
                    poller.revoked = false;
                    poller.may_hold = true;
                    poller.wait.held(now)
                } else {
                    let poller = self.0.remove(&number)?;
                    let Poller { key, token, terms, .. } = poller;
                    let contended = contended || poller.contended;
                    let (ownership, lease) = (number, terms.lease);
                    let granted = Granted { ownership, token, sent_at, lease, fence, contended };
                    return Some((Acquirer { number, key, terms, to: poller.to? }, granted));
                }
            }
            Ok(Acquisition::Held { .. }) => {
                // This answer covers the earlier tries as well: they reached the store first.
                poller.may_hold = false;
                let next = poller.wait.held(now);
                let lost = Refusal::Lost("this token does not hold the lock");
                if poller.adopt.is_some() { Err(lost) } else { next }
            }
            Err(error) if error.is_refusal() => Err(Refusal::Failed(error, Aftermath::Undone)),
            Err(error) => poller.wait.unanswered(sent_at, error, now),
        };
        match next {
            Ok(at) => shared.timers.reset(Timer::Polled(number), &mut poller.timer, at),
            Err(refusal) => {
                poller.undo_unknown(number, shared);
                shared.refuse(self.0.remove(&number)?.to, refusal);
            }
        }
        None
    }

    /// Others wait for the lock that this caller may have got.
    pub(super) fn contended(&mut self, number: u64) {
        if let Some(poller) = self.0.get_mut(&number) {
            poller.contended = true;
        }
    }

    /// The lock that this caller may have got was released by force: true if there is one.
    pub(super) fn revoked(&mut self, number: u64) -> bool {
        let poller = self.0.get_mut(&number).filter(|poller| poller.in_flight);
        poller.map(|poller| poller.revoked = true).is_some()
    }

    pub(super) fn cancel(&mut self, number: u64, shared: &mut Shared<C>) {
        let Some(poller) = self.0.get_mut(&number) else { return };
        poller.to = None;
        poller.end_timer(number, shared);
        if !poller.in_flight {
            poller.undo_unknown(number, shared);
            self.0.remove(&number);
        }
    }

    pub(super) fn close(&mut self, shared: &mut Shared<C>) {
        for number in self.0.keys() {
            let to = self.0.get_mut(&number).and_then(|poller| poller.to.take());
            shared.refuse(to, Refusal::Closed);
            self.cancel(number, shared);
        }
    }

    pub(super) fn timer(&mut self, number: u64, shared: &mut Shared<C>) {
        if let Some(poller) = self.0.get_mut(&number) {
            poller.timer.fired();
            shared.request(Asker::Polled(number));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.0.contains_key(&number)
    }

    /// The numbers of the callers that have gone away and whose answer is still to come.
    pub(super) fn abandoned(&self) -> impl Iterator<Item = u64> {
        self.0.keys_where(|poller| poller.to.is_none()).into_iter()
    }
}

impl<C> Poller<C> {
    fn end_timer(&mut self, number: u64, shared: &mut Shared<C>) {
        shared.timers.cancel(Timer::Polled(number), &mut self.timer);
    }

    fn may_have_it(&self) -> bool {
        self.may_hold || self.wait.outage.since().is_some()
    }

    fn undo(&self, number: u64, shared: &mut Shared<C>) {
        shared.undo(number, &self.key, &self.token);
    }

    /// Undoes what may have been taken by a try without an answer, or by one that was not accepted.
    fn undo_unknown(&self, number: u64, shared: &mut Shared<C>) {
        if self.may_have_it() {
            self.undo(number, shared);
        }
    }
}

/// How long one caller tries.
#[derive(Clone, Hash)]
struct Wait {
    patience: Patience,
    started: Moment,
    outage: Outage,
    answers: u32,
    jitter: Jitter,
}

impl Wait {
    fn new(patience: Patience, started: Moment, jitter: Jitter) -> Self {
        Self { patience, started, outage: Outage::default(), answers: 0, jitter }
    }

    /// Somebody else holds the lock: when to try again, unless the caller's patience is over.
    fn held(&mut self, now: Moment) -> Result<Moment, Refusal> {
        self.outage.end();
        self.answers = self.answers.saturating_add(1);
        match self.patience {
            Patience::Attempts { attempts, delay } if self.answers < attempts => Ok(now + delay),
            // No pause after the last attempt: nothing follows it.
            _ => Err(Refusal::BusyAtEach(self.answers, now.after(self.started))),
        }
    }

    /// The request sent at that time had no answer, or one that came too late: when to try again,
    /// unless the store has been silent for as long as a caller may be asked to wait.
    fn unanswered(
        &mut self,
        at: Moment,
        error: StoreError,
        now: Moment,
    ) -> Result<Moment, Refusal> {
        let again_at = self.outage.retry_at(at, self.jitter, now);
        let is_over = self.outage.is_over_limit(now);
        if is_over { Err(Refusal::Failed(error, Aftermath::Undone)) } else { Ok(again_at) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    fn wait(patience: Patience) -> Wait {
        Wait::new(patience, at(0), Jitter::new(300))
    }

    fn unanswered(wait: &mut Wait, now: Moment) -> Result<Moment, Refusal> {
        wait.unanswered(now, StoreError::unavailable("no answer"), now)
    }

    #[test]
    fn zero_is_one_attempt() {
        let busy = wait(Patience::For(Duration::ZERO)).held(at(1));
        assert!(matches!(busy, Err(Refusal::BusyAtEach(1, _))));
    }

    #[test]
    fn attempts_are_so_many_and_there_is_no_pause_after_the_last() {
        let delay = Duration::from_millis(500);
        let mut wait = wait(Patience::Attempts { attempts: 3, delay });
        assert_eq!(wait.held(at(0)).ok(), Some(at(500)));
        assert!(unanswered(&mut wait, at(500)).is_ok(), "silence is not an attempt");
        assert_eq!(wait.held(at(600)).ok(), Some(at(1100)));
        let took = Duration::from_millis(1100);
        assert!(matches!(wait.held(at(1100)), Err(Refusal::BusyAtEach(3, after)) if after == took));
    }

    #[test]
    fn silence_is_borne_for_its_limit_and_forgotten_at_an_answer() {
        let mut wait = wait(Patience::For(Duration::ZERO));
        let mut now = at(0);
        while let Ok(next) = unanswered(&mut wait, now) {
            assert!(next > now);
            now = next;
        }
        assert_eq!(now, at(2000));
        assert!(wait.held(at(2000)).is_err());
        assert_eq!(wait.outage.since(), None);
    }
}
