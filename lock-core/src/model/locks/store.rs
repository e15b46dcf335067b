//! The store of the lock model: what the scripts and the memory store do, for one id.
//!
//! Each operation mirrors the method of the same name in `store/memory.rs`, which the scripts
//! `acquire.lua`, `renew.lua` and `release.lua` follow; the queue is the real one. A test
//! holds the mirror to the memory store.

use std::time::Duration;

use super::{Mistake, token::client_of};
use crate::{
    Moment, Token,
    contract::{ALIVE, Acquisition, IfHeld, RESERVATION, Release, Renewal},
    model::EPOCH,
    table::queue::Queue,
};

/// A notice, by the number in the token that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Word {
    Granted(u64),
    Wanted(u64),
}

/// The lock, its queue and the fence counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Store {
    /// The key, until it is removed; it may have expired.
    lock: Option<(Token, Moment)>,
    queue: Queue,
    fence: u64,
    /// Which clients are connected, as far as the server knows.
    listens: Vec<bool>,
    /// How often all data was lost. Each loss takes a while.
    wiped: u64,
    /// The largest fence ever drawn, and for which token: known to the model, not to the server.
    newest: (u64, Option<Token>),
    /// The lock was given to whoever waited, and not taken yet.
    handed_over: bool,
    /// What was woken by the operation that goes on.
    pub(super) woken: Vec<(usize, Word)>,
    pub(super) mistake: Option<Mistake>,
}

/// What an operation has shown: what must never be, and what must be seen somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// A fence that is not larger than all before.
    pub(super) fence_fell: bool,
    /// A lock that was renewed though a newer grant exists.
    pub(super) renewed_old: bool,
    /// A lock was given to a waiter that is known to be dead.
    pub(super) handed_to_dead: bool,
    pub(super) took_over_expired: bool,
    pub(super) granted_again: bool,
    pub(super) claimed: bool,
    pub(super) handed_over: bool,
    /// It passed on a lock that its next holder did not claim.
    pub(super) passed_on: bool,
    pub(super) queued: bool,
    pub(super) not_ours: bool,
}

impl Store {
    pub(super) fn new(clients: usize, mistake: Option<Mistake>) -> Self {
        Self {
            lock: None,
            queue: Queue::default(),
            fence: 0,
            listens: vec![true; clients],
            wiped: 0,
            newest: (0, None),
            handed_over: false,
            woken: Vec::new(),
            mistake,
        }
    }

    /// Microseconds of the server's clock. A restart takes longer than the draws of one moment.
    fn micros(&self, now: Moment) -> u64 {
        EPOCH + now.as_nanos() / 1000 + self.wiped * 1000
    }

    /// `Table::held`.
    fn held(&mut self, now: Moment) -> Option<&mut (Token, Moment)> {
        self.lock.as_mut().filter(|(_, expiry)| now <= *expiry)
    }

    fn holder(&mut self, now: Moment) -> Option<(Token, Moment)> {
        self.held(now).map(|(token, expiry)| (token.clone(), *expiry))
    }

    /// `Table::take`; the fence as in `fence.lua`.
    fn take(&mut self, token: &Token, lease: Duration, now: Moment, shown: &mut Shown) -> u64 {
        shown.took_over_expired |= self.lock.as_ref().is_some_and(|(_, expiry)| now > *expiry);
        self.lock = Some((token.clone(), now + lease));
        self.fence = if self.mistake == Some(Mistake::CounterOnlyToken) {
            self.fence + 1
        } else {
            self.micros(now).max(self.fence + 1)
        };
        shown.fence_fell |= self.fence <= self.newest.0;
        shown.granted_again |= self.newest.1.as_ref() == Some(token);
        self.handed_over = false;
        self.newest = (self.fence.max(self.newest.0), Some(token.clone()));
        self.fence
    }

    /// `Table::grant`.
    fn grant(
        &mut self,
        token: &Token,
        lease: Duration,
        now: Moment,
        shown: &mut Shown,
    ) -> Acquisition {
        let contended = self.queue.has_others(token);
        self.queue.leave(token);
        Acquisition::Granted { fence: self.take(token, lease, now, shown), contended }
    }

    /// `Table::wait`; all clients listen, for those that poll do without notices.
    fn wait(&mut self, token: &Token, place: Option<u64>, now: Moment) -> u64 {
        let micros = self.micros(now);
        self.queue.wait(token, place, micros, (now, ALIVE), true)
    }

    /// `Table::first_waiter`, and `listens` in `queue.lua`.
    fn first_waiter(&mut self, now: Moment) -> Option<(Token, u64)> {
        let Self { queue, listens, .. } = self;
        queue.first(now, |token| listens[client_of(token)])
    }

    /// `Table::hand_over`, and `hand_over` in `queue.lua`.
    fn hand_over(&mut self, waiter: Token, now: Moment, shown: &mut Shown) {
        shown.handed_over = true;
        shown.handed_to_dead |= !self.listens[client_of(&waiter)];
        self.handed_over = true;
        self.queue.leave(&waiter);
        self.tell(&waiter, Word::Granted);
        self.lock = match self.mistake {
            Some(Mistake::HandOverWithoutExpiry) => Some((waiter, Moment::NEVER)),
            Some(Mistake::HandOverByFreeing) => None,
            _ => Some((waiter, now + RESERVATION)),
        };
    }

    /// `Table::tell`: nobody hears it whose connection is gone.
    fn tell(&mut self, token: &Token, word: fn(u64) -> Word) {
        let client = client_of(token);
        if self.listens[client] {
            self.woken.push((client, word(crate::token::parts(token).1)));
        }
    }

    /// `MemoryStore::acquire`, and `acquire.lua`.
    pub(super) fn acquire(
        &mut self,
        token: &Token,
        lease: Duration,
        if_held: &IfHeld,
        now: Moment,
        shown: &mut Shown,
    ) -> Acquisition {
        let holder = self.holder(now);
        let place = match (&holder, if_held) {
            (Some((holder, _)), _) if holder == token => {
                shown.claimed |= self.newest.1.as_ref() != Some(token);
                return self.grant(token, lease, now, shown);
            }
            (None, IfHeld::GiveUp | IfHeld::Wait) => {
                let fence = self.take(token, lease, now, shown);
                return Acquisition::Granted { fence, contended: false };
            }
            (Some(_), IfHeld::GiveUp) | (_, IfHeld::Adopt(_)) => None,
            (Some((holder, _)), IfHeld::Wait) => {
                let Self { queue, listens, .. } = &*self;
                if !queue.has_living(now, |token| listens[client_of(token)]) {
                    self.tell(holder, Word::Wanted);
                }
                Some(self.wait(token, None, now))
            }
            (Some((holder, _)), IfHeld::KeepWaiting(place)) => {
                self.tell(holder, Word::Wanted);
                Some(self.wait(token, *place, now))
            }
            (None, IfHeld::KeepWaiting(place)) => {
                let kept = self.queue.ticket(token);
                match self.first_waiter(now) {
                    Some((first, its_place))
                        if first != *token && place.is_none_or(|place| its_place < place) =>
                    {
                        shown.passed_on |= self.lock.is_some();
                        let notifies = self.notifies(&first);
                        self.hand_over(first, now, shown);
                        let place = Some(self.wait(token, kept.or(*place), now));
                        let remaining = Some(RESERVATION);
                        return Acquisition::Held { remaining, ticket: place, notifies };
                    }
                    _ => return self.grant(token, lease, now, shown),
                }
            }
        };
        shown.queued |= place.is_some();
        let notifies =
            place.is_some() && holder.as_ref().is_some_and(|(holder, _)| self.notifies(holder));
        let remaining = holder.map_or(Duration::ZERO, |(_, expiry)| expiry.after(now));
        Acquisition::Held { remaining: Some(remaining), ticket: place, notifies }
    }

    /// `Table::notifies`.
    fn notifies(&self, holder: &Token) -> bool {
        self.listens[client_of(holder)]
    }

    /// `MemoryStore::renew`, and `renew.lua`.
    pub(super) fn renew(
        &mut self,
        token: &Token,
        lease: Duration,
        now: Moment,
        shown: &mut Shown,
    ) -> Renewal {
        let contended = !self.queue.is_empty();
        if self.mistake == Some(Mistake::RenewRecreates) && self.held(now).is_none() {
            self.lock = Some((token.clone(), now + lease));
        }
        let Some((_, expiry)) = self.held(now).filter(|(holder, _)| holder == token) else {
            shown.not_ours = true;
            return Renewal::NotOurs;
        };
        *expiry = (*expiry).max(now + lease);
        // A waiter that gave up long ago may be handed the lock, if its request comes late.
        shown.renewed_old |= self.newest.1.as_ref() != Some(token) && !self.handed_over;
        Renewal::Renewed { contended }
    }

    /// `MemoryStore::release`, and `release.lua`, without `hold_at_least`.
    pub(super) fn release(&mut self, token: &Token, now: Moment, shown: &mut Shown) -> Release {
        let holder = self.holder(now).map(|(holder, _)| holder);
        let careless = self.mistake == Some(Mistake::ReleaseWithoutOwnerCheck);
        let ours = holder.as_ref() == Some(token) || (careless && holder.is_some());
        self.queue.leave(token);
        if let Some(other) = holder.filter(|_| !ours) {
            if !self.queue.is_empty() {
                self.tell(&other, Word::Wanted);
            }
            return Release::default();
        }
        let first = self.first_waiter(now);
        let expired = self.lock.take().is_some() && !ours;
        let handed_over = first.is_some();
        if let Some((first, _)) = first {
            shown.passed_on |= expired;
            self.hand_over(first, now, shown);
        }
        Release { ours, handed_over }
    }

    /// All data is lost, the counter too.
    pub(super) fn wipe(&mut self) {
        self.lock = None;
        self.queue = Queue::default();
        self.fence = 0;
        self.wiped += 1;
    }

    /// The server notices that a client is gone.
    pub(super) fn disconnect(&mut self, client: usize) {
        self.listens[client] = false;
    }

    /// When something here ends by itself, from now on.
    pub(super) fn next_end(&self, now: Moment) -> Option<Moment> {
        let queue = Some(self.queue.expiry()).filter(|_| !self.queue.is_empty());
        let ends = self.lock.as_ref().map(|(_, expiry)| *expiry).into_iter().chain(queue);
        ends.filter(|end| *end >= now).min()
    }

    /// Forgets what has ended, as the server does.
    pub(super) fn expire(&mut self, now: Moment) {
        if self.queue.expiry() < now {
            self.queue = Queue::default();
        }
    }

    /// Is there a lock that expired longer ago, and that nobody has taken since?
    pub(super) fn has_lain_for(&self, time: Duration, now: Moment) -> bool {
        self.lock.as_ref().is_some_and(|(_, expiry)| *expiry + time < now)
    }

    /// The clients that wait.
    pub(super) fn waiters(&self) -> impl Iterator<Item = usize> {
        self.queue.tokens().map(client_of)
    }

    /// Whose tokens are known here: clients, and their numbers.
    pub(super) fn tokens(&self, now: Moment) -> impl Iterator<Item = (usize, u64)> {
        let holder = self.lock.as_ref().filter(|(_, expiry)| now <= *expiry);
        let tokens = holder.into_iter().map(|(token, _)| token).chain(self.queue.tokens());
        tokens.map(|token| (client_of(token), crate::token::parts(token).1))
    }

    /// Is nothing left behind?
    pub(super) fn is_free(&self, now: Moment) -> bool {
        self.lock.as_ref().is_none_or(|(_, expiry)| now > *expiry) && self.queue.living(now) == 0
    }

    /// A lock that was released, and not handed over though somebody waits.
    pub(super) fn leaves_waiter(&self, now: Moment) -> bool {
        self.lock.is_none() && self.queue.clone().first(now, |_| true).is_some()
    }
}
