//! What has happened to calls and runs, and whether it was allowed.

use lock_core::{
    Moment,
    contract::DebounceReply,
    engine::calls::{Answer, Call},
    token,
};

use super::{Debounce, Event};
use crate::{client_of, play::Executed, world::World};

/// A process, and the number by which the server knows one of its calls.
type Registered = (usize, u64);

/// What becomes of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Runs,
    Superseded,
    Refused,
}

#[derive(Clone, Default, Hash)]
pub(crate) struct Judge {
    /// When each call was made, on the server's clock, according to what the server was told.
    made: Vec<(Registered, Moment)>,
    /// When the newest call that a run has covered was made, and the newest one that ran.
    covered: Option<Moment>,
    ran_made: Option<Moment>,
    /// The time up to which calls are covered by the runs that each process was granted, and by
    /// those that one of its callers has taken.
    granted_until: [Option<Moment>; 3],
    taken_until: [Option<Moment>; 3],
    /// The last run that each process was granted, and the time up to which it covers calls.
    last_grants: [Option<(u64, Moment)>; 3],
    /// The last run that callers of each process were given.
    last_given: [u64; 3],
    /// The last one that ran.
    ran: Option<Registered>,
    /// The fencing token of the last run.
    last_begun: u64,
    pub(super) token_fell: bool,
    pub(super) older_ran: bool,
    pub(super) superseded_by_nothing: bool,
}

impl Judge {
    /// A call reaches the server for the first time. A call counts as made after the earlier calls
    /// of its process.
    fn told(&mut self, call: Registered, made: Moment, strict: bool) {
        if self.made_at(call).is_none() {
            let own = self.made.iter().filter(|((process, _), _)| *process == call.0 && !strict);
            let before = own.map(|(_, made)| *made).max().unwrap_or_default();
            self.made.push((call, made.max(before)));
            self.made.sort_unstable();
        }
    }

    fn made_at(&self, call: Registered) -> Option<Moment> {
        self.made.iter().find(|(known, _)| *known == call).map(|(_, made)| *made)
    }

    pub(super) fn last_ownership(&self, process: usize) -> u64 {
        self.last_given[process]
    }

    /// A caller is given a run.
    pub(super) fn begun(&mut self, process: usize, ownership: u64, fencing_token: u64) {
        // It may pass from caller to caller before one of them takes it.
        if self.last_given[process] != ownership {
            self.token_fell |= fencing_token <= self.last_begun;
            self.last_begun = fencing_token.max(self.last_begun);
            self.last_given[process] = ownership;
        }
    }
}

impl Debounce {
    pub(super) fn judge_executed(&self, world: &mut World<Self>, executed: &Executed<'_>) {
        let (Call::Register(batch), Answer::Registered(_, answers)) =
            (executed.call, executed.answer)
        else {
            return;
        };
        for (request, answer) in batch.requests.iter().zip(answers) {
            let call = (client_of(&request.token), token::parts(&request.token).1);
            world.judge.told(call, world.now - request.age, self.strict);
            match answer {
                Ok(DebounceReply::Granted { .. }) => self.granted(world, call),
                Ok(DebounceReply::Running(_)) => self.note(Event::WaitedForRun, true),
                _ => {}
            }
        }
    }

    /// A run begins, or its process is told once more that it has begun.
    fn granted(&self, world: &mut World<Self>, call: Registered) {
        let again = world.judge.ran == Some(call);
        self.note(Event::GrantedAgain, again);
        self.note(Event::RanAgain, !again && world.judge.ran.is_some());
        let dead = |(process, _): Registered| !world.alive[process];
        self.note(Event::RanAfterCrash, !again && world.judge.ran.is_some_and(dead));
        let judge = &mut world.judge;
        let made = judge.made_at(call);
        let newest = judge.made.iter().map(|(_, made)| *made).max();
        self.note(Event::TookOver, made < newest);
        if again {
            // A repeated grant does not cover later calls.
            return;
        }
        // A run covers all calls up to then, so that none of them runs after it.
        let newer = if self.strict { judge.ran_made } else { judge.covered };
        judge.older_ran |= made < newer;
        judge.covered = newest.max(judge.covered);
        judge.granted_until[call.0] = judge.covered;
        judge.last_grants[call.0] = judge.covered.map(|until| (call.1, until));
        judge.ran_made = made.max(judge.ran_made);
        judge.ran = Some(call);
    }

    /// The caller of a run has taken it: what it covered when it was granted is covered from now
    /// on.
    pub(super) fn taken(&self, world: &mut World<Self>, process: usize, ownership: u64) {
        let judge = &mut world.judge;
        let last = judge.last_grants[process].filter(|(granted, _)| *granted == ownership);
        let until = last.map(|(_, until)| until);
        judge.taken_until[process] = until.max(judge.taken_until[process]);
    }

    /// A caller learns the outcome of its call.
    pub(super) fn ended(&self, world: &mut World<Self>, process: usize, caller: u64, end: End) {
        self.note(Event::Ran, end == End::Runs);
        self.note(Event::Superseded, end == End::Superseded);
        let made = world.peers[process].callers.made_at(caller);
        let judge = &mut world.judge;
        // A process knows whether a run of its own was taken by a caller, so its grants alone do
        // not count.
        let others = (0..world.peers.len()).filter(|other| *other != process);
        let mut covered = others.map(|other| judge.granted_until[other]);
        let superseded = made <= judge.taken_until[process] || covered.any(|until| made <= until);
        judge.superseded_by_nothing |= end == End::Superseded && !superseded;
    }
}
