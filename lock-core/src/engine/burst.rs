//! The debounced calls of one process for one id, between the caller and the store.
//!
//! However many calls there are, one question at a time goes to the store. It is about the newest
//! call, which stands for all before it. Once the store has said when the window is due, further
//! calls are just remembered; at that time, the store is told of the newest one, with its age. So
//! the number of commands depends on the number of windows, not of calls.
//!
//! The store knows of calls, each under a number of its own; a run goes to a caller: the newest one
//! that is still there when the run is granted. Callers come and go without a request to the store,
//! and nobody is told that another call runs before one does. A call that the store knows of is not
//! taken back: if its caller goes away, the window still counts from it. An older call of this
//! process then waits for as long as a call of another process would, since that one may be the
//! newer of the two.

use std::{collections::BTreeMap, time::Duration};

use super::outage::Outage;
use crate::{
    contract::GRACE,
    time::{Jitter, Moment, doubling},
};

/// The pauses between two rechecks of whether the previous run has ended, where nothing reports its
/// end.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// How much later than another process an older call of this one takes the place of a call that the
/// store knows of and whose caller is gone.
const AFTER_OTHERS: Duration = Duration::from_millis(250);

/// One call: what its window counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) made_at: Moment,
    pub(crate) wait: Duration,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) leading: bool,
}

/// The call that the store was last asked about, and the number by which the store knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Registered {
    number: u64,
    place: u64,
    call: Call,
}

/// What to ask the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The number by which the store knows the call. It never decreases.
    pub(crate) number: u64,
    pub(crate) call: Call,
    pub(crate) age: Duration,
}

/// What the store has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    NotYet {
        left: Duration,
        newest: bool,
    },
    Running(Duration),
    Superseded,
    Granted,
    /// The store refused. It would refuse any other call as well, but each of them is told so when
    /// it asks.
    Refused,
    /// The outcome is not known, or came too late to count.
    Unknown,
}

/// What has to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// The run that may have been granted under this number is undone: nobody is left to do it.
    pub(crate) undo: Option<u64>,
    /// What becomes of these callers.
    pub(crate) ended: Option<(End, Vec<u64>)>,
    pub(crate) next: Next,
}

/// What becomes of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// The run is theirs. It goes to the newest caller, which comes last; if that one is gone, to
    /// the one before it. The others are superseded once the run is taken, and not before.
    Runs,
    Superseded,
    Refused,
    Unavailable,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Next {
    /// Nothing new, until something happens.
    #[default]
    Wait,
    /// Ask the store now.
    Ask,
    /// Ask it at this moment.
    AskAt(Moment),
    /// No caller is left.
    Gone,
}

/// The calls of one id that have not been answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Burst {
    /// The callers that wait, each with its call, by their places: of two, the one with the larger
    /// place came later.
    callers: BTreeMap<u64, (u64, Call)>,
    last_place: u64,
    registered: Option<Registered>,
    /// When the store was asked about the registered call, if it has not answered.
    asked_at: Option<Moment>,
    /// A question about that call had no answer: the run may have been granted.
    unknown: bool,
    /// A run was granted, or may have been, and nobody was left to do it. The calls that it covered
    /// are not superseded.
    undone: bool,
    /// Calls count as made at this moment at the earliest.
    not_before: Moment,
    /// When to ask next; [`Moment::NEVER`] until something was answered.
    ask_at: Moment,
    /// The last answer said that a call of another process is newer.
    superseded_elsewhere: bool,
    /// Something happened since the store was asked.
    again: bool,
    /// Calls up to this place run as soon as they can.
    flush_up_to: u64,
    outage: Outage,
    rechecks: u32,
    jitter: Jitter,
}

impl Burst {
    pub(crate) fn new(jitter: Jitter) -> Self {
        Self {
            callers: BTreeMap::new(),
            last_place: 0,
            registered: None,
            asked_at: None,
            unknown: false,
            undone: false,
            not_before: Moment::default(),
            ask_at: Moment::NEVER,
            superseded_elsewhere: false,
            again: false,
            flush_up_to: 0,
            outage: Outage::default(),
            rechecks: 0,
            jitter,
        }
    }

    /// Is the store being asked about it?
    pub(crate) fn is_asked(&self) -> bool {
        self.asked_at.is_some()
    }

    /// Does any caller wait?
    pub(crate) fn is_pending(&self) -> bool {
        !self.callers.is_empty()
    }

    /// The number that the store is being asked about, if nobody is left for a run that it grants.
    pub(crate) fn abandoned(&self) -> Option<u64> {
        let registered = self.registered.filter(|_| self.asked_at.is_some())?;
        (!self.has_callers_until(registered.place)).then_some(registered.number)
    }

    fn has_callers_until(&self, place: u64) -> bool {
        self.callers.first_key_value().is_some_and(|(first, _)| *first <= place)
    }

    /// Adds a call; returns its place. A question that is in flight does not cover it: the next one
    /// does.
    pub(crate) fn join(&mut self, caller: u64, call: Call) -> (u64, Next) {
        self.last_place += 1;
        let place = self.last_place;
        self.callers.insert(place, (caller, call));
        let next = if self.asked_at.is_some() {
            Next::Wait
        } else if self.ask_at == Moment::NEVER || self.superseded_elsewhere {
            // The store does not know that this process takes part, or takes a call of another
            // process for the newest, which would run without this one.
            Next::Ask
        } else {
            self.ask_at = self.ask_at.min(call.made_at + call.wait);
            Next::AskAt(self.ask_at)
        };
        (place, next)
    }

    /// The caller at this place no longer waits, if it is still there.
    pub(crate) fn leave(&mut self, place: u64) -> Step {
        if self.callers.remove(&place).is_none() || self.asked_at.is_some() {
            return Step::default();
        }
        if self.callers.is_empty() {
            return Step { undo: self.take_unknown(), next: Next::Gone, ..Step::default() };
        }
        // A call without an answer is asked about until it has one.
        let registered =
            self.registered.filter(|registered| registered.place <= place && !self.unknown);
        if !registered.is_some_and(|registered| self.stands_in(registered.place)) {
            return Step::default();
        }
        self.ask_at = self.after_others(self.ask_at);
        Step { next: Next::AskAt(self.ask_at), ..Step::default() }
    }

    /// Is the newest caller older than this call?
    fn stands_in(&self, place: u64) -> bool {
        self.callers.last_key_value().is_some_and(|(newest, _)| *newest < place)
    }

    /// When to ask about a call that is older than the one that is due at `due`.
    fn after_others(&self, due: Moment) -> Moment {
        // If another process has the newest call, its grace is already included.
        due + if self.superseded_elsewhere { Duration::ZERO } else { GRACE } + AFTER_OTHERS
    }

    /// The number under which a run may have been granted, so that it can be undone.
    fn take_unknown(&mut self) -> Option<u64> {
        let unknown = std::mem::take(&mut self.unknown);
        self.undone |= unknown;
        self.registered.filter(|_| unknown).map(|registered| registered.number)
    }

    /// A run that was granted to callers of this burst was undone: none of them was left.
    pub(crate) fn run_undone(&mut self) {
        self.undone = true;
    }

    /// It is time to ask, or something has happened.
    pub(crate) fn recheck(&mut self) -> Next {
        if self.asked_at.is_some() {
            self.again = true;
            Next::Wait
        } else if self.is_pending() {
            Next::Ask
        } else {
            Next::Gone
        }
    }

    /// A run has ended, perhaps the one that this burst waits for.
    pub(crate) fn run_ended(&mut self) -> Next {
        let stands_in = self.registered.is_some_and(|registered| self.stands_in(registered.place));
        let waits = self.rechecks > 0 && !stands_in;
        if waits || self.asked_at.is_some() { self.recheck() } else { Next::Wait }
    }

    /// Its window was flushed.
    pub(crate) fn flush(&mut self) -> Next {
        self.flush_up_to = self.last_place;
        self.recheck()
    }

    /// All calls are given up, because their burst was cancelled.
    pub(crate) fn cancel(&mut self) -> Step {
        let ended = self.end_until(u64::MAX, End::Superseded);
        if self.asked_at.is_some() {
            return Step { ended, ..Step::default() };
        }
        Step { undo: self.take_unknown(), ended, next: Next::Gone }
    }

    /// What to ask the store, if it is not being asked already. The first of the pair is a run that
    /// has to be undone first. `draw` returns a number that is larger than all before.
    pub(crate) fn question(
        &mut self,
        now: Moment,
        draw: impl FnOnce() -> u64,
    ) -> Option<(Option<u64>, Question)> {
        if self.asked_at.is_some() {
            return None;
        }
        let (&place, &(_, call)) = self.callers.last_key_value()?;
        let for_nobody = |registered: Registered| !self.has_callers_until(registered.place);
        let undo = if self.registered.is_some_and(for_nobody) { self.take_unknown() } else { None };
        // Until its outcome is known, the call is asked about again, even if there is a newer one:
        // that one would be superseded by a run that nobody here knows of.
        let registered =
            self.registered.filter(|registered| self.unknown || registered.place >= place);
        let mut registered =
            registered.unwrap_or_else(|| Registered { number: draw(), place, call });
        registered.call.made_at = registered.call.made_at.max(self.not_before);
        self.registered = Some(registered);
        self.asked_at = Some(now);
        self.again = false;
        let mut call = registered.call;
        if registered.place <= self.flush_up_to {
            call.wait = Duration::ZERO;
        }
        let age = now.after(call.made_at);
        Some((undo, Question { number: registered.number, call, age }))
    }

    pub(crate) fn answered(&mut self, answer: Answer, now: Moment) -> Step {
        let (Some(asked_at), Some(registered)) = (self.asked_at.take(), self.registered) else {
            return Step::default();
        };
        if answer == Answer::Unknown {
            return self.unanswered(registered, asked_at, now);
        }
        self.outage.end();
        let (place, unknown) = (registered.place, std::mem::take(&mut self.unknown));
        match answer {
            Answer::NotYet { left, newest } => {
                self.rechecks = 0;
                self.superseded_elsewhere = !newest;
                self.wait_on(place, now + left.max(Duration::from_millis(1)), now)
            }
            Answer::Running(left) => {
                // The lease of the run is only an upper bound: nothing reports the end of a run
                // elsewhere.
                let recheck = doubling(POLL, self.rechecks);
                self.rechecks = self.rechecks.saturating_add(1);
                self.superseded_elsewhere = false;
                let left = left.max(Duration::from_millis(1)).min(recheck);
                self.wait_on(place, now + left, now)
            }
            Answer::Granted => {
                let ended = self.end_until(place, End::Runs);
                self.undone = ended.is_none();
                let undo = self.undone.then_some(registered.number);
                Step { undo, ended, next: self.go_on() }
            }
            Answer::Superseded if self.undone => {
                // It is not known by which run. As a call that is made now, no run has covered it.
                self.undone = false;
                self.registered = None;
                self.not_before = now;
                Step { next: self.go_on(), ..Step::default() }
            }
            Answer::Superseded => {
                let ended = self.end_until(place, End::Superseded);
                Step { ended, next: self.go_on(), ..Step::default() }
            }
            Answer::Refused => {
                // An earlier claim, which had no answer, may have been granted.
                self.undone |= unknown;
                let undo = unknown.then_some(registered.number);
                let ended = self.end_until(place, End::Refused);
                Step { undo, ended, next: self.go_on() }
            }
            Answer::Unknown => Step::default(),
        }
    }

    /// Ends all callers up to this place in this way, if there are any.
    fn end_until(&mut self, place: u64, end: End) -> Option<(End, Vec<u64>)> {
        let later = self.callers.split_off(&place.saturating_add(1));
        let ended = std::mem::replace(&mut self.callers, later);
        (!ended.is_empty()).then(|| (end, ended.into_values().map(|(caller, _)| caller).collect()))
    }

    /// The call that was asked about has its answer; the others start afresh.
    fn go_on(&mut self) -> Next {
        if self.callers.is_empty() {
            return Next::Gone;
        }
        self.superseded_elsewhere = false;
        self.rechecks = 0;
        Next::Ask
    }

    /// The store says to wait until then.
    fn wait_on(&mut self, asked: u64, until: Moment, now: Moment) -> Step {
        // The call is known to wait, so what supersedes it from now on is another run.
        self.undone = false;
        let Some((&newest, &(_, call))) = self.callers.last_key_value() else {
            return Step { next: Next::Gone, ..Step::default() };
        };
        self.ask_at = if newest > asked {
            until.min((call.made_at + call.wait).max(now))
        } else if newest == asked {
            until
        } else {
            self.after_others(until)
        };
        let at_once = self.again || (newest > asked && self.superseded_elsewhere);
        let next = if at_once { Next::Ask } else { Next::AskAt(self.ask_at) };
        Step { next, ..Step::default() }
    }

    fn unanswered(&mut self, registered: Registered, asked_at: Moment, now: Moment) -> Step {
        self.ask_at = self.outage.retry_at(asked_at, self.jitter, now);
        if self.outage.is_over_limit(now) || self.callers.is_empty() {
            let ended = self.end_until(u64::MAX, End::Unavailable);
            return Step { undo: Some(registered.number), ended, next: Next::Gone };
        }
        self.unknown = true;
        Step { next: Next::AskAt(self.ask_at), ..Step::default() }
    }
}

#[cfg(test)]
mod tests;
