//! The debounce model: calls of one id, in different processes.
//!
//! A call is told to the store, asks whether it may run, and claims the run; the run is renewed and
//! ends. Requests, replies, processes and notices suffer what they suffer in
//! [`locks`](super::locks). What must hold: runs do not overlap while they may be believed, no
//! older call runs after a newer one, and each call whose caller lives runs or is covered by a run.
//!
//! A run counts from its claim: a process that dies with its claim has run, as far as anybody else
//! can know. (Durable calls are for those who cannot bear that.)

mod process;
mod properties;
mod store;

use std::{sync::Arc, time::Duration};

use stateright::{Model, Property};

use self::{
    process::{Process, Request},
    store::{Reply, Store, Token},
};
use super::{Seen, TICK};
use crate::{Moment, engine::burst::End};

/// Below a tick, so that the next window is due while a run goes on.
const WAIT: Duration = Duration::from_millis(500);

/// Nobody waits for longer than that, whatever happens within the bound: a wait, a run that goes on
/// until its lease is over, a newest caller that is late, and again for the next window.
const END: Duration = Duration::from_secs(12);

/// A mistake on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// A claim marks the window, and takes no lock.
    ClaimWithoutLease,
    /// A window is forgotten when its run is over.
    NoTombstone,
    /// A call gives up when there is a newer one, and does not wait for its run.
    SupersededByACall,
    /// The older calls of a process are told when its run is granted, and not when it is taken.
    NoneBeforeTheRun,
}

/// What may happen, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Bound {
    /// Ticks, or pauses, that pass though somebody could go on.
    late: u8,
    /// Ticks that pass because a run goes on.
    running: u8,
    /// Ticks that pass before a call is made.
    calling: u8,
    /// Cuts, crashes, cancelled calls and lost notices, in all.
    faults: u8,
}

#[derive(Debug)]
struct Debounce {
    /// How many calls each process makes.
    calls: Vec<u8>,
    leading: bool,
    bound: Bound,
    /// Hold the store to the age that each call says, also if an earlier call of its process came
    /// late, which it cannot keep: after a run, no call may run that is older than the one that
    /// ran. No two operations find one time then.
    strict: bool,
    mistake: Option<Mistake>,
    seen: Seen,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: Moment,
    left: Bound,
    store: Store,
    processes: Vec<Arc<Process>>,
    alive: Vec<bool>,
    /// Processes that a notice is on its way to.
    woken: Vec<bool>,
    stale: Vec<Vec<Request>>,
    /// What is done only after some time has passed.
    delayed: Vec<(usize, Step)>,
    /// When each call was made, on the store's clock, as far as the store was told.
    made: Vec<(Token, Moment)>,
    /// When the newest call was made that a run has covered, and the newest one that ran.
    covered: Option<Moment>,
    ran_made: Option<Moment>,
    /// Up to when calls are covered by the runs that each process was granted, and by those that a
    /// caller of it has taken.
    granted_until: Vec<Option<Moment>>,
    taken_until: Vec<Option<Moment>>,
    /// The last run that each process was granted, and up to when calls are covered by it.
    last_grants: Vec<Option<(u64, Moment)>>,
    /// The last one that ran.
    ran: Option<Token>,
    /// The fence of the last run.
    last_begun: u64,
    token_fell: bool,
    older_ran: bool,
    superseded_by_nothing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Late(u32),
    Next,
    /// The next call comes a tick later.
    Pause,
    Call(usize),
    /// A run is over.
    Finish(usize),
    Cancel(usize, u64),
    Execute(usize),
    Step(usize, Step),
    Delay(usize, Step),
    LoseWake(usize),
    Cut(usize),
    ExecuteStale(usize),
    Crash(usize),
}

/// See [`locks`](super::locks).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    Deliver,
    Turn,
    Wake,
    /// The caller of a run has heard of it.
    Take,
}

/// What is to be seen somewhere.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Event {
    Ran,
    RanAgain,
    Superseded,
    WaitedForRun,
    GrantedAgain,
    TookOver,
    ExecutedStale,
    LateReply,
    RanAfterCrash,
    PassedOn,
    LostUntaken,
}

impl Debounce {
    fn new_process(&self, calls: u8) -> Process {
        Process::new(calls, self.leading, self.mistake == Some(Mistake::NoneBeforeTheRun))
    }

    fn note(&self, event: Event, happened: bool) {
        self.seen.note(event as u32, happened);
    }

    fn saw(&self, event: Event) -> bool {
        self.seen.has(event as u32)
    }

    fn execute(&self, state: &mut State, process: usize, request: &Request) -> Reply {
        let now = state.now;
        match *request {
            Request::Ask { number, age, leading } => {
                let token = (process, number);
                let reply = state.store.debounce(token, (age, leading), now, self.mistake);
                state.told(token, now - age, self.strict);
                for (process, _) in std::mem::take(&mut state.store.woken) {
                    state.woken[process] = state.alive[process];
                }
                if matches!(reply, Reply::Granted { .. }) {
                    self.granted(state, token);
                }
                self.note(Event::WaitedForRun, matches!(reply, Reply::Running(_)));
                reply
            }
            Request::Renew { number, lease } => state.store.renew((process, number), lease, now),
            Request::Release { number } => {
                state.store.release((process, number), now, self.mistake)
            }
        }
    }

    /// A run begins, or is told that it has begun.
    fn granted(&self, state: &mut State, token: Token) {
        let again = state.ran == Some(token);
        self.note(Event::GrantedAgain, again);
        self.note(Event::RanAgain, !again && state.ran.is_some());
        let dead = |(process, _): Token| !state.alive[process];
        self.note(Event::RanAfterCrash, !again && state.ran.is_some_and(dead));
        let made = state.made_at(token);
        let newest = state.made.iter().map(|(_, made)| *made).max();
        self.note(Event::TookOver, made < newest);
        // A run covers all calls up to then, so that none of them runs after it.
        let newer = if self.strict { state.ran_made } else { state.covered };
        if again {
            // What came since is not covered.
            return;
        }
        state.older_ran |= made < newer;
        state.covered = newest.max(state.covered);
        state.granted_until[token.0] = state.covered;
        state.last_grants[token.0] = state.covered.map(|until| (token.1, until));
        state.ran_made = made.max(state.ran_made);
        state.ran = Some(token);
    }

    /// What a process has heard of its calls.
    fn end(&self, state: &mut State, process: usize) {
        let this = state.process(process);
        let (ended, begun) = (std::mem::take(&mut this.ended), std::mem::take(&mut this.begun));
        let taken = this.taken.take();
        self.note(Event::PassedOn, std::mem::take(&mut this.passed_on));
        self.note(Event::LostUntaken, std::mem::take(&mut this.lost_untaken));
        if let Some(number) = taken {
            // It begins now, and with it what was covered when it was granted.
            let last = state.last_grants[process].filter(|(granted, _)| *granted == number);
            let until = last.map(|(_, until)| until);
            state.taken_until[process] = until.max(state.taken_until[process]);
        }
        for (caller, end) in ended {
            self.note(Event::Ran, end == End::Runs);
            self.note(Event::Superseded, end == End::Superseded);
            let made = state.processes[process].made_at(caller);
            // Of a run of its own process it is known whether anybody was there to do it.
            let others = (0..state.processes.len()).filter(|other| *other != process);
            let mut covered = others.map(|other| state.granted_until[other]);
            let superseded =
                made <= state.taken_until[process] || covered.any(|until| made <= until);
            state.superseded_by_nothing |= end == End::Superseded && !superseded;
        }
        for fence in begun {
            state.token_fell |= fence <= state.last_begun;
            state.last_begun = fence.max(state.last_begun);
        }
    }

    /// What may befall a process.
    fn faults(&self, state: &State, process: usize, actions: &mut Vec<Action>) {
        let this = &state.processes[process];
        actions.extend(this.callers().map(|caller| Action::Cancel(process, caller)));
        if state.woken[process] {
            actions.push(Action::LoseWake(process));
        }
        if !this.calls.is_empty() {
            actions.push(Action::Cut(process));
        }
        if !this.is_done() && this.to_come < self.calls[process] {
            actions.push(Action::Crash(process));
        }
    }
}

impl State {
    fn process(&mut self, process: usize) -> &mut Process {
        Arc::make_mut(&mut self.processes[process])
    }

    fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.processes.len()).filter(|process| self.alive[*process])
    }

    /// The store hears of a call for the first time. A call comes after its process's calls before.
    fn told(&mut self, token: Token, made: Moment, strict: bool) {
        if self.made_at(token).is_none() {
            let own = self.made.iter().filter(|((process, _), _)| *process == token.0 && !strict);
            let before = own.map(|(_, made)| *made).max().unwrap_or_default();
            self.made.push((token, made.max(before)));
            self.made.sort_unstable();
        }
    }

    fn made_at(&self, token: Token) -> Option<Moment> {
        self.made.iter().find(|(known, _)| *known == token).map(|(_, made)| *made)
    }

    fn is_quiet(&self) -> bool {
        self.living().all(|process| {
            let this = &self.processes[process];
            let idle = this.calls.is_empty() && !this.has_untaken();
            idle && !self.woken[process] && this.next_timer() > self.now
        })
    }

    fn is_calm(&self) -> bool {
        self.left.late == 0 && self.left.faults == 0
    }

    /// What a process has to do now, unless it is late.
    fn next_step(&self) -> Option<(usize, Step)> {
        self.living().find_map(|process| {
            let this = &self.processes[process];
            let steps = [
                (Step::Deliver, this.calls.has_reply()),
                (Step::Turn, this.next_timer() <= self.now),
                (Step::Wake, self.woken[process]),
                (Step::Take, this.has_untaken()),
            ];
            let mut steps = steps.into_iter().filter(|(_, due)| *due);
            let step = steps.find(|(step, _)| !self.delayed.contains(&(process, *step)));
            step.map(|(step, _)| (process, step))
        })
    }

    fn next_timer(&self) -> Moment {
        let timers = self.living().map(|process| self.processes[process].next_timer());
        let end = self.store.next_end(self.now).map(|end| end + Duration::from_nanos(1));
        timers.chain(end).min().unwrap_or(Moment::NEVER)
    }

    fn is_running(&self) -> bool {
        self.living().any(|process| self.processes[process].runs())
    }

    fn is_calling(&self) -> bool {
        self.living().any(|process| self.processes[process].to_come > 0)
    }
}

impl Model for Debounce {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let count = self.calls.len();
        let processes = self.calls.iter().map(|calls| self.new_process(*calls));
        vec![State {
            now: Moment::default() + TICK,
            left: self.bound,
            store: Store::new(self.strict),
            processes: processes.map(Arc::new).collect(),
            alive: vec![true; count],
            woken: vec![false; count],
            stale: vec![Vec::new(); count],
            delayed: Vec::new(),
            made: Vec::new(),
            covered: None,
            ran_made: None,
            granted_until: vec![None; count],
            taken_until: vec![None; count],
            last_grants: vec![None; count],
            ran: None,
            last_begun: 0,
            token_fell: false,
            older_ran: false,
            superseded_by_nothing: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let left = state.left;
        if let Some((process, step)) = state.next_step() {
            actions.push(Action::Step(process, step));
            if left.late > 0 {
                actions.push(Action::Delay(process, step));
            }
            if left.faults > 0 {
                self.faults(state, process, actions);
            }
            return;
        }
        if state.is_quiet() {
            // A run goes on for as long as the bound allows.
            if state.next_timer() < Moment::NEVER && (!state.is_running() || left.running > 0) {
                actions.push(Action::Next);
            }
            if left.calling > 0 && state.is_calling() && state.next_timer() == Moment::NEVER {
                actions.push(Action::Pause);
            }
        } else if left.late > 0 {
            actions.push(Action::Late(1));
            actions.push(Action::Late(3));
        }
        for process in state.living() {
            let this = &state.processes[process];
            // The last two are alike: the one begins first, whichever it is.
            let in_order = process < 2 || state.processes[1].to_come < self.calls[1];
            if this.to_come > 0 && in_order {
                actions.push(Action::Call(process));
            }
            if this.runs() {
                actions.push(Action::Finish(process));
            }
            if this.calls.next_request().is_some() {
                actions.push(Action::Execute(process));
            }
            if left.faults > 0 {
                self.faults(state, process, actions);
            }
        }
        for process in 0..state.processes.len() {
            if !state.stale[process].is_empty() {
                actions.push(Action::ExecuteStale(process));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now;
        match action {
            Action::Late(ticks) => {
                state.left.late -= 1;
                state.delayed.clear();
                state.now = now + TICK * ticks;
            }
            Action::Next => {
                state.left.running -= u8::from(state.is_running());
                // No later than the end, where it is noticed.
                state.now = state.next_timer().round_up(TICK).min(Moment::default() + END);
            }
            Action::Pause => {
                state.left.calling -= 1;
                state.now = now + TICK;
            }
            Action::Call(process) => state.process(process).call(now),
            Action::Finish(process) => state.process(process).finish(now),
            Action::Cancel(process, number) => {
                state.left.faults -= 1;
                state.process(process).cancel(number, now);
            }
            Action::Step(process, Step::Turn) => state.process(process).turn(now),
            Action::Step(process, Step::Deliver) => {
                self.note(Event::LateReply, state.processes[process].calls.has_late_reply());
                state.process(process).take_reply(now);
            }
            Action::Step(process, Step::Wake) => {
                state.woken[process] = false;
                state.process(process).wake(now);
            }
            Action::Step(process, Step::Take) => state.process(process).take_run(now),
            Action::Delay(process, step) => {
                state.delayed.push((process, step));
                state.delayed.sort_unstable();
            }
            Action::Execute(process) => {
                let request = state.processes[process].calls.next_request()?.clone();
                let reply = self.execute(&mut state, process, &request);
                state.process(process).calls.reply(reply);
                if state.is_calm() {
                    self.note(Event::LateReply, state.processes[process].calls.has_late_reply());
                    state.process(process).take_reply(now);
                }
            }
            Action::LoseWake(process) => {
                state.left.faults -= 1;
                state.woken[process] = false;
            }
            Action::Cut(process) => {
                state.left.faults -= 1;
                let left = state.process(process).cut(now);
                state.stale[process].extend(left);
            }
            Action::ExecuteStale(process) => {
                self.note(Event::ExecutedStale, true);
                let request = state.stale[process].remove(0);
                self.execute(&mut state, process, &request);
            }
            Action::Crash(process) => {
                state.left.faults -= 1;
                state.alive[process] = false;
                state.woken[process] = false;
                let (left, _) = state.process(process).calls.cut();
                state.stale[process].extend(left);
                *state.process(process) = self.new_process(0);
            }
        }
        for process in 0..state.processes.len() {
            let this = &state.processes[process];
            if !this.ended.is_empty() || !this.begun.is_empty() || this.lost_untaken {
                self.end(&mut state, process);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.now <= Moment::default() + END
    }
}

mod tests;
