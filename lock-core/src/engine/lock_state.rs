//! The callers of one process that want one lock: its local queue.
//!
//! They are served in the order in which they came. One request represents all of them in the
//! store: their **entry**, with one token and one ticket in the store's own queue, whichever caller
//! it was made for. Once the lock is granted, it is this process's **ownership**: the lock passes
//! from one caller to the next without a request to the store, each with a larger fencing token,
//! until somebody elsewhere waits for it as well. From then on, the caller that holds it is the
//! last of the ownership.
//!
//! This makes a hand-over cheap and keeps it fair: processes take turns in the order in which they
//! reached the store; within a turn that no other process wants, callers take turns.

use std::{collections::VecDeque, time::Duration};

use super::outage::Outage;
use crate::{
    contract::{HEARTBEAT, IfHeld},
    mutant::Mutant,
    time::{Jitter, Moment, doubling},
};

/// The shortest and the longest pause between two rechecks of a lock whose holder does not notify
/// waiters when it releases the lock.
const WATCH: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(280));

/// The number of bits in a fencing token that count the hand-overs of one grant inside a process;
/// each hand-over has a larger fencing token.
const HAND_OVER_BITS: u32 = 10;
const MOST_HAND_OVERS: u64 = (1 << HAND_OVER_BITS) - 1;

/// The fence that a fencing token was made of.
pub(super) fn fence_of(fencing_token: u64) -> u64 {
    fencing_token >> HAND_OVER_BITS
}

/// How often the lock was passed on inside the process since the store granted it.
pub(super) fn hand_overs_of(fencing_token: u64) -> u64 {
    fencing_token & MOST_HAND_OVERS
}

/// The shortest and the longest pause between two rechecks of a lock where no notices arrive.
const POLL: (Duration, Duration) = (Duration::from_millis(8), Duration::from_millis(250));

/// A process's claim to one lock, and the callers behind it.
///
/// Callers and tokens are known by their numbers. The owner carries out what each method returns,
/// and asks the store for one thing at a time: an entry is asked for again only after an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct LockState {
    waiting: VecDeque<Waiting>,
    /// How many callers have left from the middle; they are skipped when their turn comes.
    left: usize,
    /// Boxed: a lock that is held has none, and there may be very many of those.
    entry: Option<Box<Entry>>,
    ownership: Option<Ownership>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    /// Zero once it has left.
    number: u64,
    lease: Duration,
}

/// The request that represents the process in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    number: u64,
    lease: Duration,
    if_held: EntryState,
    asking: bool,
    asked_at: Moment,
    /// Something happened since it was asked: an answer of "held" may be out of date.
    again: bool,
    /// How often the store has said that the lock is held.
    rechecks: u32,
    outage: Outage,
    /// Others want the lock already, though its grant has not arrived.
    contended: bool,
    /// The lock was taken away again by force before its grant arrived.
    revoked: bool,
    /// Its token may hold the lock already: the entry continues an ownership, or a grant that may
    /// have been taken away.
    may_hold: bool,
}

/// What the entry knows of its ticket in the store's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum EntryState {
    /// Never asked.
    New,
    /// Asked, so it may have a ticket, but which one is not known.
    Unknown,
    At(u64),
}

/// The lock while this process holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ownership {
    number: u64,
    fence: u64,
    hand_overs: u64,
    contended: bool,
}

/// What the owner has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    None,
    /// Ask the store with the entry's [`Request`].
    Ask,
    /// The lock goes to this caller.
    Grant { caller: u64, fencing_token: u64 },
    /// Release this token in the store; nobody wants it any more.
    Withdraw { number: u64 },
    /// Release the ownership's token in the store. Then ask, if there is an entry.
    Release,
    /// The lock stays taken, but ask the store with the ownership's token: this gives a new fence,
    /// and the lease of the next caller.
    Reacquire,
    /// Look at the lock at this moment, unless something happens before.
    RecheckAt(Moment),
}

/// What to ask the store for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) lease: Duration,
    pub(crate) if_held: IfHeld,
}

/// How this store tells waiters that their turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rechecks {
    /// The store wakes them; rechecks are for notices that were lost.
    pub(crate) woken: bool,
    /// The holder notifies them when it releases the lock, as far as the store knows.
    pub(crate) told: bool,
    pub(crate) jitter: Jitter,
}

impl LockState {
    /// How many callers wait.
    pub(crate) fn waiters(&self) -> usize {
        self.waiting.len() - self.left
    }

    /// Is there nothing to know about this lock?
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.entry.is_none() && self.ownership.is_none()
    }

    /// The number of the token that holds the lock for this process.
    pub(crate) fn ownership(&self) -> Option<u64> {
        self.ownership.as_ref().map(|ownership| ownership.number)
    }

    pub(crate) fn entry(&self) -> Option<&Entry> {
        self.entry.as_deref()
    }

    /// The caller that is served next.
    pub(crate) fn first(&self) -> Option<u64> {
        self.waiting.front().map(|first| first.number)
    }

    pub(crate) fn is_first(&self, caller: u64) -> bool {
        self.waiting.front().is_some_and(|first| first.number == caller)
    }

    /// The callers that wait, in order.
    pub(crate) fn callers(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().map(|waiting| waiting.number).filter(|number| *number != 0)
    }

    /// A caller wants the lock, and waits for it.
    pub(crate) fn join(&mut self, caller: u64, lease: Duration) -> Action {
        self.waiting.push_back(Waiting { number: caller, lease });
        self.enter()
    }

    /// A caller no longer waits.
    pub(crate) fn leave(&mut self, caller: u64) -> Action {
        if self.is_first(caller) {
            self.waiting.pop_front();
        } else if let Some(waiting) =
            self.waiting.iter_mut().rev().find(|waiting| waiting.number == caller)
        {
            // Closing the gap would move everything behind it.
            waiting.number = 0;
            self.left += 1;
            if self.left > self.waiting.len() / 2 {
                self.waiting.retain(|waiting| waiting.number != 0);
                self.left = 0;
            }
        }
        self.skip_left();
        if self.waiting.is_empty()
            && let Some(entry) = self.entry.take()
            && entry.if_held != EntryState::New
        {
            if Mutant::CancelledAcquireIsNotUndone.is_on() {
                return Action::None;
            }
            return Action::Withdraw { number: entry.number };
        }
        Action::None
    }

    /// What to ask the store for, if there is an entry and it is not asking already.
    pub(crate) fn request(&mut self, now: Moment) -> Option<Request> {
        let entry = self.entry.as_mut().filter(|entry| !entry.asking)?;
        // The caller that is first by now gets what is asked for.
        entry.lease = self.waiting.front()?.lease;
        let if_held = match entry.if_held {
            EntryState::New => IfHeld::Wait,
            EntryState::Unknown => IfHeld::KeepWaiting(None),
            EntryState::At(ticket) => IfHeld::KeepWaiting(Some(ticket)),
        };
        if entry.if_held == EntryState::New {
            entry.if_held = EntryState::Unknown;
        }
        entry.asking = true;
        entry.asked_at = now;
        entry.again = false;
        Some(Request { number: entry.number, lease: entry.lease, if_held })
    }

    /// The store has granted the lock to this token.
    pub(crate) fn granted(&mut self, number: u64, fence: u64, contended: bool) -> Action {
        let Some(entry) = self.entry.take_if(|entry| entry.number == number) else {
            return Action::None;
        };
        let contended = contended || entry.contended;
        let Some(next) = self.pop() else { return Action::Withdraw { number } };
        self.ownership = Some(Ownership { number, fence, hand_overs: 0, contended });
        Action::Grant { caller: next.number, fencing_token: fence << HAND_OVER_BITS }
    }

    /// A caller that did not wait here has got the lock, with a token of its own.
    pub(crate) fn taken_by(&mut self, number: u64, fence: u64, contended: bool) -> u64 {
        // The entry of those who wait here is in the store's queue like any other.
        let contended = contended || self.entry.is_some();
        self.ownership = Some(Ownership { number, fence, hand_overs: 0, contended });
        fence << HAND_OVER_BITS
    }

    /// Another token holds the lock.
    pub(crate) fn held(
        &mut self,
        number: u64,
        remaining: Option<Duration>,
        ticket: Option<u64>,
        rechecks: Rechecks,
        now: Moment,
    ) -> Action {
        let Some(entry) = self.entry.as_mut().filter(|entry| entry.number == number) else {
            return Action::None;
        };
        entry.asking = false;
        entry.outage.end();
        entry.if_held = ticket.map_or(EntryState::Unknown, EntryState::At);
        entry.rechecks = entry.rechecks.saturating_add(1);
        if entry.again {
            return Action::Ask;
        }
        // A store without a queue wakes nobody.
        let (shortest, longest) = if !rechecks.woken || ticket.is_none() {
            let delay = doubling(POLL, entry.rechecks - 1);
            (delay / 2, delay)
        } else if rechecks.told {
            (HEARTBEAT * 49 / 50, HEARTBEAT)
        } else {
            WATCH
        };
        let delay = rechecks.jitter.nth(entry.rechecks).between(shortest, longest);
        // If the holder's time is up without a notice, nobody has released the lock. One
        // millisecond more, because the store rounds down.
        let expiry = remaining.map_or(Duration::MAX, |left| left + Duration::from_millis(1));
        if rechecks.woken && Mutant::NoFallbackLook.is_on() {
            return Action::None;
        }
        Action::RecheckAt(now + delay.min(expiry))
    }

    /// The store has not answered the request with this token, or has answered too late.
    pub(crate) fn unanswered(&mut self, number: u64, rechecks: Rechecks, now: Moment) -> Action {
        let Some(entry) = self.entry.as_mut().filter(|entry| entry.number == number) else {
            return Action::None;
        };
        entry.asking = false;
        Action::RecheckAt(entry.outage.retry_at(entry.asked_at, rechecks.jitter, now))
    }

    /// A recheck is due, or a notice asks for one.
    pub(crate) fn recheck(&mut self) -> Action {
        match &mut self.entry {
            Some(entry) if entry.asking => {
                entry.again = true;
                Action::None
            }
            Some(_) => Action::Ask,
            None => Action::None,
        }
    }

    /// Others wait for the lock that this token holds.
    pub(crate) fn contended(&mut self, number: u64) {
        if let Some(ownership) =
            self.ownership.as_mut().filter(|ownership| ownership.number == number)
        {
            ownership.contended = true;
        }
        if let Some(entry) = self.entry.as_mut().filter(|entry| entry.number == number) {
            entry.contended = true;
        }
    }

    /// The lock was released by force while this token may have held it. True if its grant has not
    /// arrived yet.
    pub(crate) fn revoked(&mut self, number: u64) -> bool {
        match self.entry.as_mut().filter(|entry| entry.number == number && entry.asking) {
            Some(entry) => {
                entry.revoked = true;
                true
            }
            None => false,
        }
    }

    /// The grant may be over, because the lock was taken by force while it was being asked for. The
    /// same token asks again, so that nothing has to be released: such a release might arrive late.
    pub(crate) fn ask_again(&mut self, number: u64) -> Action {
        let Some(entry) = self.entry.as_mut().filter(|entry| entry.number == number) else {
            return Action::None;
        };
        entry.asking = false;
        entry.outage.end();
        entry.if_held = EntryState::Unknown;
        entry.revoked = false;
        entry.may_hold = true;
        Action::Ask
    }

    /// The caller that held the lock for this process releases it. `remaining` is how long the
    /// lease still lasts; zero if the lock must not be passed on.
    pub(crate) fn released(&mut self, remaining: Duration) -> Action {
        let Some(ownership) = &mut self.ownership else { return Action::None };
        let next = self.waiting.front().copied();
        // With an entry in the store's queue, the store decides whose turn it is.
        let contended = ownership.contended && !Mutant::HandOverToTheCrowd.is_on();
        let keeps = !contended && self.entry.is_none() && !remaining.is_zero();
        let Some(next) = next.filter(|_| keeps) else {
            self.ownership = None;
            // Asks after the release, for the caller that comes next.
            let _ = self.enter();
            return Action::Release;
        };
        // The next caller may crash as well: what it leaves behind must not last much longer than
        // its own lease. Nor should it begin with little of its lease left.
        let fits = (next.lease / 2..=next.lease).contains(&remaining);
        if fits && ownership.hand_overs < MOST_HAND_OVERS {
            ownership.hand_overs += 1;
            let mut fencing_token = (ownership.fence << HAND_OVER_BITS) + ownership.hand_overs;
            if Mutant::HandOverWithTheSameToken.is_on() {
                fencing_token = ownership.fence << HAND_OVER_BITS;
            }
            self.pop();
            return Action::Grant { caller: next.number, fencing_token };
        }
        let number = ownership.number;
        self.ownership = None;
        // Whatever becomes of the request, this token may hold the lock, so it is never just
        // forgotten.
        let unknown = EntryState::Unknown;
        let entry = Entry { if_held: unknown, may_hold: true, ..Entry::new(number, next.lease) };
        self.entry = Some(Box::new(entry));
        Action::Reacquire
    }

    /// The lock is no longer this process's, or nobody here takes care of it.
    pub(crate) fn lost(&mut self) -> Action {
        self.ownership = None;
        self.enter()
    }

    /// The request that represents the callers is undone: the next one starts afresh.
    pub(crate) fn give_up_entry(&mut self) {
        self.entry = None;
    }

    /// The first caller makes the entry, if this process does not own the lock and there is no
    /// entry yet.
    pub(crate) fn enter(&mut self) -> Action {
        match self.waiting.front() {
            Some(first) if self.entry.is_none() && self.ownership.is_none() => {
                self.entry = Some(Box::new(Entry::new(first.number, first.lease)));
                Action::Ask
            }
            _ => Action::None,
        }
    }

    fn pop(&mut self) -> Option<Waiting> {
        let next = self.waiting.pop_front();
        self.skip_left();
        next
    }

    fn skip_left(&mut self) {
        while self.waiting.front().is_some_and(|waiting| waiting.number == 0) {
            self.waiting.pop_front();
            self.left -= 1;
        }
        if self.waiting.is_empty() {
            // Frees the memory: most locks are held without any waiters.
            self.waiting = VecDeque::new();
        }
    }
}

impl Entry {
    fn new(number: u64, lease: Duration) -> Self {
        Self {
            number,
            lease,
            if_held: EntryState::New,
            asking: false,
            asked_at: Moment::default(),
            again: false,
            rechecks: 0,
            outage: Outage::default(),
            contended: false,
            revoked: false,
            may_hold: false,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Has the store never been asked for it?
    pub(crate) fn is_new(&self) -> bool {
        self.if_held == EntryState::New
    }

    /// Was the lock taken from its token by force while it was being asked for?
    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// May its token hold the lock, or be in the store's queue, as far as is known?
    pub(crate) fn leaves_something(&self) -> bool {
        self.may_hold || self.is_queued() || self.outage.since().is_some()
    }

    /// Does the store count it among the waiters?
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.if_held, EntryState::At(_))
    }

    /// Is the store being asked for it?
    pub(crate) fn is_asked(&self) -> bool {
        self.asking
    }

    /// Since when the store has been silent, if it is.
    pub(crate) fn silent_since(&self) -> Option<Moment> {
        self.outage.since()
    }

    /// Has the store said that the lock is held?
    pub(crate) fn has_been_held(&self) -> bool {
        self.rechecks > 0
    }

    /// Has it to be asked for once more, because of something that happened in the meantime?
    pub(crate) fn is_asked_again(&self) -> bool {
        self.again
    }

    /// The lease with which it was last asked for.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }
}

#[cfg(test)]
mod tests;
