//! The debounced calls of one process for one id, between the caller and the store.
//!
//! However many calls there are, one question at a time goes to the store, about the newest of
//! them: it stands for all before it. While the store has said when the window is due, calls that
//! come are just remembered; the newest is told to the store when that time has come, with its age.
//! So commands depend on windows, and not on calls.

use std::time::Duration;

use super::{Jitter, Moment, doubling};

/// The pauses between two looks whether the run before has ended, where nothing tells.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// The shortest and the longest pause between two tries to reach a store.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// One call that waits for its turn. Of two calls, the one with the larger number is the newer.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) made_at: Moment,
    pub(crate) wait: Duration,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) leading: bool,
}

/// What to ask the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
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
    /// It refused; the same for any other call would be refused, too, but that is for it to hear.
    Refused,
    /// The outcome is not known, or came too late to be of use.
    Unknown,
}

/// What has to be done, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// The run that may have been granted to this call is undone: nobody is there to do it.
    pub(crate) undo: Option<u64>,
    /// What becomes of this call.
    pub(crate) ended: Option<(u64, End)>,
    /// And of this one.
    pub(crate) also: Option<(u64, End)>,
    pub(crate) next: Next,
}

/// What becomes of a call.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Runs,
    Superseded,
    Refused,
    Unavailable,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing, until something happens.
    #[default]
    Wait,
    /// Ask the store now.
    Ask,
    /// Ask it then.
    AskAt(Moment),
    /// Nobody calls any more.
    Gone,
}

/// The calls of one id that have not been answered.
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
#[derive(Debug)]
pub(crate) struct Burst {
    newest: Option<Call>,
    /// What the store is being asked, and when.
    asked: Option<(Call, Moment)>,
    /// Nobody waits for that answer.
    abandoned: bool,
    /// When to ask next; never before anything was answered.
    ask_at: Moment,
    /// The last answer said that a call of another process is newer.
    behind: bool,
    /// Something happened since the store was asked.
    again: bool,
    /// Calls up to this one run as soon as they can.
    hurried: u64,
    /// A question about this call had no answer: the run may be its.
    unknown: Option<u64>,
    silent_since: Option<Moment>,
    failures: u32,
    looks: u32,
    silence_limit: Duration,
    jitter: Jitter,
}

impl Burst {
    pub(crate) fn new(silence_limit: Duration, jitter: Jitter) -> Self {
        Self {
            newest: None,
            asked: None,
            abandoned: false,
            ask_at: Moment::NEVER,
            behind: false,
            again: false,
            hurried: 0,
            unknown: None,
            silent_since: None,
            failures: 0,
            looks: 0,
            silence_limit,
            jitter,
        }
    }

    /// Is there a call that waits?
    pub(crate) fn is_pending(&self) -> bool {
        self.newest.is_some()
    }

    /// The store is asked about this call.
    pub(crate) fn asked(&self) -> Option<u64> {
        self.asked.map(|(call, _)| call.number)
    }

    /// A new call takes the place of the one before, unless the store is being asked about that:
    /// then its answer decides.
    pub(crate) fn join(&mut self, call: Call) -> Step {
        // Callers draw their numbers before they come in: of two at once, the larger is the newer,
        // for the store as well.
        if self.newest.is_some_and(|newest| newest.number > call.number) {
            let ended = Some((call.number, End::Superseded));
            return Step { ended, next: self.resume(), ..Step::default() };
        }
        let before = self.newest.replace(call);
        let ended = self.end_unless_asked(before);
        let next = if self.asked.is_some() {
            Next::Wait
        } else if self.ask_at == Moment::NEVER || self.behind {
            // The store does not know that this process takes part, or takes another for the
            // newest, which would run without this call.
            Next::Ask
        } else {
            self.ask_at = self.ask_at.min(call.made_at + call.wait);
            Next::AskAt(self.ask_at)
        };
        Step { ended, next, ..Step::default() }
    }

    fn end_unless_asked(&self, call: Option<Call>) -> Option<(u64, End)> {
        let number = call?.number;
        (self.asked() != Some(number)).then_some((number, End::Superseded))
    }

    /// A caller waits no more.
    pub(crate) fn leave(&mut self, number: u64) -> Step {
        if self.asked() == Some(number) {
            self.abandoned = true;
        }
        if self.newest.is_none_or(|newest| newest.number != number) {
            return Step { next: self.resume(), ..Step::default() };
        }
        // The call that is asked about, if it is another, is the last one again.
        let asked = self.asked.map(|(call, _)| call).filter(|_| !self.abandoned);
        self.newest = asked.filter(|asked| asked.number != number);
        if self.asked.is_some() {
            return Step::default();
        }
        let undo = self.unknown.take();
        Step { undo, next: Next::Gone, ..Step::default() }
    }

    /// What there is to do if nothing has changed.
    fn resume(&self) -> Next {
        if self.asked.is_some() || self.ask_at == Moment::NEVER {
            Next::Wait
        } else {
            Next::AskAt(self.ask_at)
        }
    }

    /// The time to ask has come, or something has happened.
    pub(crate) fn look(&mut self) -> Next {
        if self.asked.is_some() {
            self.again = true;
            Next::Wait
        } else if self.newest.is_some() {
            Next::Ask
        } else {
            Next::Gone
        }
    }

    /// A run has ended, perhaps the one that it waits for.
    pub(crate) fn run_ended(&mut self) -> Next {
        if self.looks > 0 || self.asked.is_some() { self.look() } else { self.resume() }
    }

    /// Its window was flushed.
    pub(crate) fn hurry(&mut self) -> Next {
        self.hurried = self.newest.map_or(0, |newest| newest.number);
        self.look()
    }

    /// All calls are given up, for their burst was cancelled.
    pub(crate) fn cancel(&mut self) -> Step {
        let newest = self.newest.take();
        let ended = self.end_unless_asked(newest);
        let Some((asked, _)) = self.asked else {
            return Step { undo: self.unknown.take(), ended, next: Next::Gone, ..Step::default() };
        };
        let abandoned = std::mem::replace(&mut self.abandoned, true);
        let also = (!abandoned).then_some((asked.number, End::Superseded));
        Step { ended, also, ..Step::default() }
    }

    /// What to ask the store, if it is not being asked. The first of the pair is a run that has to
    /// be undone before.
    pub(crate) fn question(&mut self, now: Moment) -> Option<(Option<u64>, Question)> {
        if self.asked.is_some() {
            return None;
        }
        let mut call = self.newest?;
        let undo = self.unknown.take_if(|unknown| *unknown != call.number);
        self.asked = Some((call, now));
        self.abandoned = false;
        self.again = false;
        if call.number <= self.hurried {
            call.wait = Duration::ZERO;
        }
        Some((undo, Question { call, age: now.after(call.made_at) }))
    }

    pub(crate) fn answered(&mut self, answer: Answer, now: Moment) -> Step {
        let Some((asked, asked_at)) = self.asked.take() else { return Step::default() };
        if answer == Answer::Unknown {
            return self.unanswered(asked, asked_at, now);
        }
        self.silent_since = None;
        self.failures = 0;
        let unknown = self.unknown.take();
        let alone = self.newest.is_none_or(|newest| newest.number == asked.number);
        match answer {
            Answer::NotYet { left, newest } => {
                self.looks = 0;
                self.behind = !newest;
                self.wait_on(asked, now + left.max(Duration::from_millis(1)), now)
            }
            Answer::Running(left) => {
                // The lease of the run only bounds it: of a run elsewhere, nothing tells the end.
                let look = doubling(POLL, self.looks);
                self.looks = self.looks.saturating_add(1);
                self.behind = false;
                let left = left.max(Duration::from_millis(1)).min(look);
                self.wait_on(asked, now + left, now)
            }
            Answer::Granted if self.abandoned => {
                Step { undo: Some(asked.number), next: self.go_on(alone), ..Step::default() }
            }
            Answer::Granted | Answer::Superseded | Answer::Refused => {
                let end = match answer {
                    Answer::Granted => End::Runs,
                    Answer::Superseded => End::Superseded,
                    _ => End::Refused,
                };
                // A claim before this one may have been granted, and had no answer.
                let undo = unknown.filter(|_| answer == Answer::Refused);
                let ended = (!self.abandoned).then_some((asked.number, end));
                Step { undo, ended, next: self.go_on(alone), ..Step::default() }
            }
            Answer::Unknown => Step::default(),
        }
    }

    /// The call that was asked about has its answer; others begin anew.
    fn go_on(&mut self, alone: bool) -> Next {
        if alone {
            self.newest = None;
            return Next::Gone;
        }
        self.behind = false;
        self.looks = 0;
        Next::Ask
    }

    /// The store asks for patience until then.
    fn wait_on(&mut self, asked: Call, until: Moment, now: Moment) -> Step {
        self.ask_at = until;
        // Whoever is asked about is the newest, or was replaced, or has left.
        let Some(newest) = self.newest else {
            return Step { next: Next::Gone, ..Step::default() };
        };
        if newest.number == asked.number {
            let next = if self.again { Next::Ask } else { Next::AskAt(until) };
            return Step { next, ..Step::default() };
        }
        let ended = (!self.abandoned).then_some((asked.number, End::Superseded));
        if self.behind || self.again {
            return Step { ended, next: Next::Ask, ..Step::default() };
        }
        self.ask_at = until.min((newest.made_at + newest.wait).max(now));
        Step { ended, next: Next::AskAt(self.ask_at), ..Step::default() }
    }

    fn unanswered(&mut self, asked: Call, asked_at: Moment, now: Moment) -> Step {
        let since = *self.silent_since.get_or_insert(asked_at);
        let limit = since + self.silence_limit;
        if now >= limit || self.newest.is_none() {
            let unavailable = |number| (number, End::Unavailable);
            let newest = self.newest.take().map(|newest| newest.number);
            let also = newest.filter(|newest| *newest != asked.number).map(unavailable);
            let ended = (!self.abandoned).then(|| unavailable(asked.number));
            return Step { undo: Some(asked.number), ended, also, next: Next::Gone };
        }
        // If it is another that is asked about next, this one is undone before.
        self.unknown = Some(asked.number);
        let delay = doubling(RECONNECT, self.failures);
        self.failures = self.failures.saturating_add(1);
        let delay = self.jitter.nth(self.failures).between(delay / 2, delay);
        self.ask_at = (now + delay).min(limit);
        let replaced = self.newest.is_some_and(|newest| newest.number != asked.number);
        let ended = (replaced && !self.abandoned).then_some((asked.number, End::Superseded));
        Step { ended, next: Next::AskAt(self.ask_at), ..Step::default() }
    }
}

#[cfg(test)]
mod tests;
