//! The callers of one process that want one lock: its local queue.
//!
//! They are served in the order in which they came. One request stands for all of them in the
//! store: their **seat**, with one token and one place in the store's own queue, whoever of them
//! it was made for. Once the lock is granted it is this process's **tenure**: the lock passes from
//! one caller to the next without a word to the store, each with a larger fencing token, until
//! somebody elsewhere waits for it, too. Then the caller that holds it is the last of the tenure.
//!
//! That is what makes a hand-over cheap, and what keeps it fair: processes take turns in the order
//! in which they reached the store; within a turn that nobody else wants, callers do.

use std::{collections::VecDeque, time::Duration};

use super::{Jitter, Moment, doubling};
use crate::{
    contract::{HEARTBEAT, IfHeld},
    mutant,
};

/// The shortest and the longest pause between two looks at a lock whose holder does not tell when it
/// lets go of it.
const WATCH: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(280));

/// A grant leaves room for so many hand-overs inside a process, each with a larger fencing token.
const HAND_OVER_BITS: u32 = 10;
const MOST_HAND_OVERS: u64 = (1 << HAND_OVER_BITS) - 1;

/// The shortest and the longest pause between two looks at a lock, where no wake-up comes.
const POLL: (Duration, Duration) = (Duration::from_millis(8), Duration::from_millis(250));

/// The shortest and the longest pause between two tries to reach a store.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A process's claim to one lock, and the callers behind it.
///
/// Callers and tokens are known by their numbers. The owner carries out what each method answers,
/// and asks the store for one thing at a time: a seat is asked for again only after an answer.
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Waiting>,
    /// How many of them have left from the middle, and are passed over when their turn comes.
    left: usize,
    /// Boxed: a lock that is held has none, and there may be very many of those.
    seat: Option<Box<Seat>>,
    tenure: Option<Tenure>,
}

#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    /// Zero once it has left.
    number: u64,
    lease: Duration,
}

/// The request that stands for the process in the store.
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
#[derive(Debug)]
pub(crate) struct Seat {
    number: u64,
    lease: Duration,
    if_held: SeatState,
    asking: bool,
    asked_at: Moment,
    /// Something happened since it was asked: an answer of "held" may be out of date.
    again: bool,
    /// How often the store has said that the lock is held.
    looks: u32,
    failures: u32,
    silent_since: Option<Moment>,
    /// Others want the lock already, though its grant has not been heard of.
    wanted: bool,
    /// The lock was taken away again by force, before its grant was heard of.
    taken: bool,
    /// Its token may hold the lock already: it goes on from a tenure, or from a grant that may have
    /// been taken away.
    may_hold: bool,
}

/// What the seat knows of its place in the store's queue.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeatState {
    /// Never asked.
    New,
    /// Asked, so it may be there, somewhere.
    Unknown,
    At(u64),
}

/// The lock while this process holds it.
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
#[derive(Debug)]
struct Tenure {
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
    /// Ask the store with the seat's [`Request`].
    Ask,
    /// The lock is this caller's.
    Grant { caller: u64, fencing_token: u64 },
    /// Let go of this token in the store; nobody wants it any more.
    Withdraw { number: u64 },
    /// Let go of the tenure's token in the store. Then ask, if there is a seat.
    Release,
    /// The lock stays taken, but ask the store with the tenure's token: it gives a new fence and
    /// the lease of the next caller.
    AskAgain,
    /// Look at the lock then, unless something happens before.
    LookAt(Moment),
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
pub(crate) struct Looks {
    /// It wakes them; a look is for what the wake-up may have missed.
    pub(crate) woken: bool,
    /// The holder tells them when it lets go of the lock, as far as the store knows.
    pub(crate) told: bool,
    pub(crate) jitter: Jitter,
}

impl Queue {
    /// How many callers wait.
    pub(crate) fn waiters(&self) -> usize {
        self.waiting.len() - self.left
    }

    /// Is there nothing to know about this lock?
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.seat.is_none() && self.tenure.is_none()
    }

    /// The token that holds the lock for this process.
    pub(crate) fn tenure(&self) -> Option<u64> {
        self.tenure.as_ref().map(|tenure| tenure.number)
    }

    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.seat.as_deref()
    }

    /// Who is served next.
    pub(crate) fn first(&self) -> Option<u64> {
        self.waiting.front().map(|first| first.number)
    }

    pub(crate) fn is_first(&self, caller: u64) -> bool {
        self.waiting.front().is_some_and(|first| first.number == caller)
    }

    /// Those who wait, in order.
    pub(crate) fn callers(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().map(|waiting| waiting.number).filter(|number| *number != 0)
    }

    /// A caller wants the lock, and waits for it.
    pub(crate) fn join(&mut self, caller: u64, lease: Duration) -> Action {
        self.waiting.push_back(Waiting { number: caller, lease });
        self.take_seat()
    }

    /// A caller waits no more.
    pub(crate) fn leave(&mut self, caller: u64) -> Action {
        if self.is_first(caller) {
            self.waiting.pop_front();
        } else if let Some(waiting) =
            self.waiting.iter_mut().rev().find(|waiting| waiting.number == caller)
        {
            // Closing the gap would move all that are behind it.
            waiting.number = 0;
            self.left += 1;
            if self.left > self.waiting.len() / 2 {
                self.waiting.retain(|waiting| waiting.number != 0);
                self.left = 0;
            }
        }
        self.skip_left();
        if self.waiting.is_empty()
            && let Some(seat) = self.seat.take()
            && seat.if_held != SeatState::New
        {
            if mutant::is("cancelled acquire is not undone") {
                return Action::None;
            }
            return Action::Withdraw { number: seat.number };
        }
        Action::None
    }

    /// What to ask the store for, if there is a seat and it is not asking already.
    pub(crate) fn request(&mut self, now: Moment) -> Option<Request> {
        let seat = self.seat.as_mut().filter(|seat| !seat.asking)?;
        // Whoever is first by now gets what is asked for.
        seat.lease = self.waiting.front()?.lease;
        let if_held = match seat.if_held {
            SeatState::New => IfHeld::Wait,
            SeatState::Unknown => IfHeld::KeepWaiting(None),
            SeatState::At(place) => IfHeld::KeepWaiting(Some(place)),
        };
        if seat.if_held == SeatState::New {
            seat.if_held = SeatState::Unknown;
        }
        seat.asking = true;
        seat.asked_at = now;
        seat.again = false;
        Some(Request { number: seat.number, lease: seat.lease, if_held })
    }

    /// The store has granted the lock to this token.
    pub(crate) fn granted(&mut self, number: u64, fence: u64, contended: bool) -> Action {
        let Some(seat) = self.seat.take_if(|seat| seat.number == number) else {
            return Action::None;
        };
        let contended = contended || seat.wanted;
        let Some(next) = self.pop() else { return Action::Withdraw { number } };
        self.tenure = Some(Tenure { number, fence, hand_overs: 0, contended });
        Action::Grant { caller: next.number, fencing_token: fence << HAND_OVER_BITS }
    }

    /// Somebody who did not wait here has got the lock, with a token of its own.
    pub(crate) fn taken_by(&mut self, number: u64, fence: u64, contended: bool) -> u64 {
        // A seat of those who wait here is in the store's queue like anybody else's.
        let contended = contended || self.seat.is_some();
        self.tenure = Some(Tenure { number, fence, hand_overs: 0, contended });
        fence << HAND_OVER_BITS
    }

    /// Somebody else holds it.
    pub(crate) fn held(
        &mut self,
        number: u64,
        remaining: Option<Duration>,
        place: Option<u64>,
        looks: Looks,
        now: Moment,
    ) -> Action {
        let Some(seat) = self.seat.as_mut().filter(|seat| seat.number == number) else {
            return Action::None;
        };
        seat.asking = false;
        seat.silent_since = None;
        seat.failures = 0;
        seat.if_held = place.map_or(SeatState::Unknown, SeatState::At);
        seat.looks = seat.looks.saturating_add(1);
        if seat.again {
            return Action::Ask;
        }
        // A store without a queue wakes nobody.
        let (shortest, longest) = if !looks.woken || place.is_none() {
            let delay = doubling(POLL, seat.looks - 1);
            (delay / 2, delay)
        } else if looks.told {
            (HEARTBEAT * 49 / 50, HEARTBEAT)
        } else {
            WATCH
        };
        let delay = looks.jitter.nth(seat.looks).between(shortest, longest);
        // When the holder's time is up without a wake-up, nobody has released. A millisecond
        // more, because the store rounds down.
        let expiry = remaining.map_or(Duration::MAX, |left| left + Duration::from_millis(1));
        if looks.woken && mutant::is("no fallback look") {
            return Action::None;
        }
        Action::LookAt(now + delay.min(expiry))
    }

    /// The store has not answered what was asked with this token, or its answer is of no use.
    pub(crate) fn unanswered(
        &mut self,
        number: u64,
        silence_limit: Duration,
        looks: Looks,
        now: Moment,
    ) -> Action {
        let Some(seat) = self.seat.as_mut().filter(|seat| seat.number == number) else {
            return Action::None;
        };
        seat.asking = false;
        let since = *seat.silent_since.get_or_insert(seat.asked_at);
        let delay = doubling(RECONNECT, seat.failures);
        seat.failures = seat.failures.saturating_add(1);
        let delay = looks.jitter.nth(seat.failures).between(delay / 2, delay);
        let limit = since + silence_limit;
        Action::LookAt(if limit > now { (now + delay).min(limit) } else { now + delay })
    }

    /// A look is due, or somebody says that there is something to see.
    pub(crate) fn look(&mut self) -> Action {
        match &mut self.seat {
            Some(seat) if seat.asking => {
                seat.again = true;
                Action::None
            }
            Some(_) => Action::Ask,
            None => Action::None,
        }
    }

    /// Others wait for the lock that this token holds.
    pub(crate) fn wanted(&mut self, number: u64) {
        if let Some(tenure) = self.tenure.as_mut().filter(|tenure| tenure.number == number) {
            tenure.contended = true;
        }
        if let Some(seat) = self.seat.as_mut().filter(|seat| seat.number == number) {
            seat.wanted = true;
        }
    }

    /// The lock was released by force while this token may have held it. True if that was not heard
    /// of as a grant yet.
    pub(crate) fn taken(&mut self, number: u64) -> bool {
        match self.seat.as_mut().filter(|seat| seat.number == number && seat.asking) {
            Some(seat) => {
                seat.taken = true;
                true
            }
            None => false,
        }
    }

    /// A grant that may be over, for the lock was taken by force while it was asked for. The same
    /// token asks again, so that nothing has to be released, which might be heard of late.
    pub(crate) fn ask_anew(&mut self, number: u64) -> Action {
        let Some(seat) = self.seat.as_mut().filter(|seat| seat.number == number) else {
            return Action::None;
        };
        seat.asking = false;
        seat.silent_since = None;
        seat.failures = 0;
        seat.if_held = SeatState::Unknown;
        seat.taken = false;
        seat.may_hold = true;
        Action::Ask
    }

    /// Whoever held it for this process lets go of it. `remaining` is how long the lease still
    /// lasts; zero if it cannot be passed on.
    pub(crate) fn released(&mut self, remaining: Duration) -> Action {
        let Some(tenure) = &mut self.tenure else { return Action::None };
        let next = self.waiting.front().copied();
        // With a seat in the store's queue, the turn is the store's to give.
        let contended = tenure.contended && !mutant::is("hand-over to the crowd");
        let keeps = !contended && self.seat.is_none() && !remaining.is_zero();
        let Some(next) = next.filter(|_| keeps) else {
            self.tenure = None;
            // Behind the release, for whoever comes next.
            let _ = self.take_seat();
            return Action::Release;
        };
        // The next one may crash, too: what it leaves behind must not last much longer than its
        // own lease; nor should it begin with little of it.
        let fits = (next.lease / 2..=next.lease).contains(&remaining);
        if fits && tenure.hand_overs < MOST_HAND_OVERS {
            tenure.hand_overs += 1;
            let mut fencing_token = (tenure.fence << HAND_OVER_BITS) + tenure.hand_overs;
            if mutant::is("hand-over with the same token") {
                fencing_token = tenure.fence << HAND_OVER_BITS;
            }
            self.pop();
            return Action::Grant { caller: next.number, fencing_token };
        }
        let number = tenure.number;
        self.tenure = None;
        // Whatever becomes of it, this token may hold the lock: it is never just forgotten.
        let unknown = SeatState::Unknown;
        let seat = Seat { if_held: unknown, may_hold: true, ..Seat::new(number, next.lease) };
        self.seat = Some(Box::new(seat));
        Action::AskAgain
    }

    /// The lock is not this process's any more, or nobody takes care of it.
    pub(crate) fn lost(&mut self) -> Action {
        self.tenure = None;
        self.take_seat()
    }

    /// The request that stands for them is undone: the next one begins anew.
    pub(crate) fn give_up_seat(&mut self) -> Option<u64> {
        self.seat.take().filter(|seat| seat.if_held != SeatState::New).map(|seat| seat.number)
    }

    /// Whoever is first makes the seat, if the lock is not here and there is none yet.
    pub(crate) fn take_seat(&mut self) -> Action {
        match self.waiting.front() {
            Some(first) if self.seat.is_none() && self.tenure.is_none() => {
                self.seat = Some(Box::new(Seat::new(first.number, first.lease)));
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
            // Most locks are held with nobody behind.
            self.waiting = VecDeque::new();
        }
    }
}

impl Seat {
    fn new(number: u64, lease: Duration) -> Self {
        Self {
            number,
            lease,
            if_held: SeatState::New,
            asking: false,
            asked_at: Moment::default(),
            again: false,
            looks: 0,
            failures: 0,
            silent_since: None,
            wanted: false,
            taken: false,
            may_hold: false,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Was the store never asked for it?
    pub(crate) fn is_new(&self) -> bool {
        self.if_held == SeatState::New
    }

    /// Was the lock taken from its token by force, while it was asked for?
    pub(crate) fn is_taken(&self) -> bool {
        self.taken
    }

    /// Could its token hold the lock, or stand in the store's queue, as far as is known?
    pub(crate) fn leaves_something(&self) -> bool {
        self.may_hold || self.is_queued() || self.silent_since.is_some()
    }

    /// Does the store count it among the waiters?
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.if_held, SeatState::At(_))
    }

    /// When it was asked what has not been answered yet.
    pub(crate) fn asking_since(&self) -> Option<Moment> {
        self.asking.then_some(self.asked_at)
    }

    /// Since when the store has been silent, if it is.
    pub(crate) fn silent_since(&self) -> Option<Moment> {
        self.silent_since
    }

    /// Is it to be asked for once more, because of what happened meanwhile?
    pub(crate) fn is_asked_again(&self) -> bool {
        self.again
    }

    /// For how long it was last asked for.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }
}

#[cfg(test)]
mod tests;
