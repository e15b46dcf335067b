//! Callers that ask for themselves: single tries, tries that are so far apart, and adoption.

use std::sync::Arc;

use super::{
    calls::{Asker, Granted, Said},
    io::{Acquire, Acquirer, Aftermath, Refusal, Terms},
    lease::comes_too_late,
    maps::ByNumber,
    patience::Wait,
    timers::{Scheduled, Timer},
    turn::Turn,
};
use crate::{
    Token,
    contract::{AcquireRequest, Acquisition, IfHeld, StoreError},
    core::Moment,
    mutant,
};

#[derive(Default)]
pub(super) struct Polled<C>(ByNumber<Poller<C>>);

/// One caller that asks for itself.
struct Poller<C> {
    /// `None` if nobody waits for it any more; it is here until it is answered.
    to: Option<C>,
    key: Arc<str>,
    token: Token,
    terms: Terms,
    adopt: Option<Token>,
    started: Moment,
    wait: Wait,
    in_flight: bool,
    timer: Scheduled,
    /// What was heard of its grant before the grant itself: others want it, or it was taken away.
    contended: bool,
    revoked: bool,
    /// Its token may hold the lock, by a grant that was not believed.
    may_hold: bool,
}

impl<C> Polled<C> {
    pub(super) fn begin(&mut self, acquire: Acquire<C>, turn: &mut Turn<C>) {
        let Acquire { acquirer: Acquirer { number, key, terms, to }, token, patience, adopt } =
            acquire;
        let poller = Poller {
            to: Some(to),
            key,
            token,
            terms,
            adopt,
            started: turn.now,
            wait: Wait::new(patience, turn.jitter(number)),
            in_flight: false,
            timer: Scheduled::default(),
            contended: false,
            revoked: false,
            may_hold: false,
        };
        self.0.insert(number, poller);
        turn.request(Asker::Polled(number));
    }

    /// The key of the lock that this caller asks for.
    pub(super) fn key(&self, number: u64) -> Option<&Arc<str>> {
        Some(&self.0.get(&number)?.key)
    }

    /// What the store is to be asked on behalf of this caller.
    pub(super) fn request(&mut self, number: u64, turn: &mut Turn<C>) -> Option<AcquireRequest> {
        let poller = self.0.get_mut(&number).filter(|poller| !poller.in_flight)?;
        poller.in_flight = true;
        poller.end_timer(number, turn);
        Some(AcquireRequest {
            key: Arc::clone(&poller.key),
            token: poller.token.clone(),
            lease: poller.terms.lease,
            if_held: poller.adopt.clone().map_or(IfHeld::GiveUp, IfHeld::Adopt),
        })
    }

    /// What the store has answered. A grant that may be believed is returned: its fence, and whether
    /// others want the lock.
    pub(super) fn answered(
        &mut self,
        number: u64,
        sent_at: Moment,
        answer: Said<Acquisition>,
        turn: &mut Turn<C>,
    ) -> Option<(Acquirer<C>, Granted)> {
        let now = turn.now;
        let poller = self.0.get_mut(&number)?;
        poller.in_flight = false;
        if poller.to.is_none() {
            // Nobody is there to hold what was granted, or may have been granted: by this try, or
            // by one before it that had no answer.
            let held = matches!(answer, Ok(Acquisition::Held { .. }));
            let refused = answer.as_ref().is_err_and(StoreError::is_refusal);
            let undone = held || (refused && !poller.may_have_it());
            if !undone && !mutant::is("cancelled acquire is not undone") {
                poller.undo(number, turn);
            }
            self.0.remove(&number);
            return None;
        }
        let next = match answer {
            Ok(Acquisition::Granted { fence, contended }) => {
                if comes_too_late(sent_at, poller.terms.lease, now) {
                    let late = "the answer came after the lease had run out";
                    poller.unanswered(sent_at, StoreError::unavailable(late), now)
                } else if poller.revoked {
                    // Granted, and taken away by force before that was heard of. If it was not
                    // this grant, the next try is granted it: the token is the same, and is
                    // released only where there is none.
                    poller.revoked = false;
                    poller.may_hold = true;
                    poller.held(now)
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
                // It answers for the tries before it, too: they came first.
                poller.may_hold = false;
                let next = poller.held(now);
                let lost = Refusal::Lost("the store does not hold it for this token");
                if poller.adopt.is_some() { Err(lost) } else { next }
            }
            Err(error) if error.is_refusal() => Err(Refusal::Failed(error, Aftermath::Undone)),
            Err(error) => poller.unanswered(sent_at, error, now),
        };
        match next {
            Ok(at) => turn.timers.reset(Timer::Polled(number), &mut poller.timer, at),
            Err(refusal) => {
                poller.undo_unknown(number, turn);
                turn.refuse(self.0.remove(&number)?.to, refusal);
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

    pub(super) fn cancel(&mut self, number: u64, turn: &mut Turn<C>) {
        let Some(poller) = self.0.get_mut(&number) else { return };
        poller.to = None;
        poller.end_timer(number, turn);
        if !poller.in_flight {
            poller.undo_unknown(number, turn);
            self.0.remove(&number);
        }
    }

    pub(super) fn close(&mut self, turn: &mut Turn<C>) {
        for number in self.0.keys().copied().collect::<Vec<_>>() {
            let to = self.0.get_mut(&number).and_then(|poller| poller.to.take());
            turn.refuse(to, Refusal::Closed);
            self.cancel(number, turn);
        }
    }

    pub(super) fn timer(&mut self, number: u64, turn: &mut Turn<C>) {
        if let Some(poller) = self.0.get_mut(&number) {
            poller.timer.fired();
            turn.request(Asker::Polled(number));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers of those that nobody waits for any more, and whose answer is still to come.
    pub(super) fn abandoned(&self) -> impl Iterator<Item = u64> {
        self.0.iter().filter(|(_, poller)| poller.to.is_none()).map(|(number, _)| *number)
    }
}

impl<C> Poller<C> {
    fn end_timer(&mut self, number: u64, turn: &mut Turn<C>) {
        turn.timers.cancel(Timer::Polled(number), &mut self.timer);
    }

    /// When to try again, since somebody else holds the lock.
    fn held(&mut self, now: Moment) -> Result<Moment, Refusal> {
        let took = now.after(self.started);
        let next = self.wait.held(now);
        next.ok_or_else(|| Refusal::BusyAtEach(self.wait.answers(), took))
    }

    /// When to try again, since the store has not answered.
    fn unanswered(
        &mut self,
        at: Moment,
        error: StoreError,
        now: Moment,
    ) -> Result<Moment, Refusal> {
        self.wait.unanswered(at, now).ok_or(Refusal::Failed(error, Aftermath::Undone))
    }

    fn may_have_it(&self) -> bool {
        self.may_hold || self.wait.silent_since().is_some()
    }

    fn undo(&self, number: u64, turn: &mut Turn<C>) {
        turn.undo(number, &self.key, &self.token);
    }

    /// A try without an answer may have taken the lock, or one that was not believed.
    fn undo_unknown(&self, number: u64, turn: &mut Turn<C>) {
        if self.may_have_it() {
            self.undo(number, turn);
        }
    }
}
