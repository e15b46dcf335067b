//! Debounced calls of one id, in different processes.
//!
//! What must hold: runs do not overlap while they may be believed, no older call runs after a newer one,
//! and each call whose caller lives runs or is covered by a run.
//!
//! A run counts from its claim: a process that dies with its claim has run, as far as the others
//! can know. (Where that is not good enough, there are durable calls.)

mod judge;
mod properties;

use std::time::Duration;

use lock_core::{
    Moment,
    engine::io::{
        Acquirer, Command, DebouncedCall, Grant, HoldName, Outcome, Output, Refusal, Terms,
        WindowTerms, Work,
    },
};
use lock_model::Who;
use stateright::Property;

use self::judge::{End, Judge};
use crate::{
    LEASE,
    checker::Seen,
    play::{Bound, Executed, Play},
    scene::Scene,
    world::World,
};

const WINDOW: &str = "w";
const RUN: &str = "r";

/// Shorter than a tick, so that the next window becomes due during a run.
const WAIT: Duration = Duration::from_millis(500);

/// The longest that a caller can wait, whatever happens within the bound: a wait, a run that lasts
/// until its lease is over, a newest caller that is late, and the same again for the next window.
const END: Duration = Duration::from_secs(12);

#[derive(Debug)]
pub(crate) struct Debounce {
    /// How many calls each process makes.
    pub(crate) calls: Vec<u8>,
    pub(crate) leading: bool,
    /// Hold the server to the age that each call states, even if an earlier call of its process
    /// came late: after a run, no call may run that is older than the one that ran. The server
    /// cannot keep that.
    pub(crate) strict: bool,
    pub(crate) seen: Seen,
}

/// The callers of one process.
#[derive(Clone, Hash)]
pub(crate) struct Callers {
    /// How many calls have not been made yet.
    to_come: u8,
    pending: Vec<u64>,
    /// When each caller has called.
    made: Vec<(u64, Moment)>,
    run: Option<Run>,
}

/// A run, and the caller that does it.
#[derive(Clone, Copy, Hash)]
struct Run {
    name: HoldName,
    deadline: Moment,
    caller: u64,
    /// Its caller has taken it; until then, other callers wait for that.
    is_taken: bool,
}

impl Callers {
    /// When this caller has called.
    fn made_at(&self, caller: u64) -> Option<Moment> {
        self.made.iter().find(|(known, _)| *known == caller).map(|(_, made_at)| *made_at)
    }

    /// May the current run still be believed to hold the lock?
    fn is_held(&self, now: Moment) -> bool {
        self.run.is_some_and(|run| now < run.deadline)
    }

    fn runs(&self) -> bool {
        self.run.is_some_and(|run| run.is_taken)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Act {
    Call,
    /// The caller of a run takes it.
    Take,
    /// A run is over.
    Finish,
    /// A caller goes away, possibly after it was granted the run and before it took it.
    Cancel(u64),
}

/// Events that must be seen in some state.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Event {
    Ran,
    RanAgain,
    Superseded,
    WaitedForRun,
    GrantedAgain,
    TookOver,
    RanAfterCrash,
    PassedOn,
    LostUntaken,
}

impl Debounce {
    fn note(&self, event: Event, happened: bool) {
        self.seen.note(event as u32, happened);
    }

    fn saw(&self, event: Event) -> bool {
        self.seen.has(event as u32)
    }
}

impl Play for Debounce {
    type Callers = Callers;
    type Judge = Judge;
    type Act = Act;

    fn callers(&self, process: usize) -> Callers {
        let to_come = self.calls[process];
        Callers { to_come, pending: Vec::new(), made: Vec::new(), run: None }
    }

    fn judge(&self) -> Judge {
        Judge::default()
    }

    fn acts(&self, world: &World<Self>, process: usize) -> Vec<Act> {
        let callers = &world.peers[process].callers;
        // The last two processes are interchangeable, so one of them always begins first.
        let begun = |other: usize| world.peers[other].callers.to_come < self.calls[other];
        let in_order = process < 2 || !world.alive[1] || begun(1);
        let call = (callers.to_come > 0 && in_order).then_some(Act::Call);
        call.into_iter().chain(callers.runs().then_some(Act::Finish)).collect()
    }

    fn faults(&self, world: &World<Self>, process: usize) -> Vec<Act> {
        let callers = &world.peers[process].callers;
        let runner = callers.run.filter(|run| !run.is_taken).map(|run| run.caller);
        callers.pending.iter().copied().chain(runner).map(Act::Cancel).collect()
    }

    fn due(&self, world: &World<Self>, process: usize) -> Option<Act> {
        world.peers[process].callers.run.filter(|run| !run.is_taken).map(|_| Act::Take)
    }

    fn next_timer(&self, _: &World<Self>, _: usize) -> Moment {
        Moment::NEVER
    }

    fn act(&self, world: &mut World<Self>, index: usize, act: Act) {
        let now = world.now;
        let run = world.peers[index].callers.run;
        let command = match (act, run) {
            (Act::Call, _) => {
                let number = world.peers[index].change(|peer| {
                    let number = peer.process.draw();
                    peer.callers.to_come -= 1;
                    peer.callers.pending.push(number);
                    peer.callers.made.push((number, now));
                    number
                });
                let terms = Terms::of_run(LEASE, None);
                let acquirer = Acquirer { number, key: RUN.into(), terms, to: Who(number) };
                let leading = self.leading;
                let terms = WindowTerms { wait: WAIT, max_wait: None, leading };
                let window = WINDOW.into();
                Command::Debounce(Box::new(DebouncedCall { acquirer, window, terms }))
            }
            (Act::Take, Some(run)) => {
                // Its body does not run under a lock that is lost.
                if now < run.deadline {
                    world.callers(index, |callers| {
                        callers.run.as_mut().into_iter().for_each(|run| run.is_taken = true);
                    });
                    self.taken(world, index, run.name.ownership);
                    self.ended(world, index, run.caller, End::Runs);
                }
                Command::RunTaken(run.name)
            }
            (Act::Finish, Some(run)) => {
                world.callers(index, |callers| callers.run = None);
                Command::Release { hold: run.name, undelivered: false, to: None }
            }
            (Act::Cancel(number), Some(run)) if run.caller == number && !run.is_taken => {
                world.callers(index, |callers| callers.run = None);
                Command::Release { hold: run.name, undelivered: true, to: None }
            }
            (Act::Cancel(number), _) => {
                world.callers(index, |callers| callers.pending.retain(|other| *other != number));
                Command::Cancel(number)
            }
            (Act::Take | Act::Finish, None) => return,
        };
        world.process(self, index, |process| process.command(command, now));
    }

    fn told(&self, world: &mut World<Self>, index: usize, output: Output<Who>) {
        match output {
            Output::Granted(
                Who(caller),
                Grant { hold: name, fencing_token, deadline, work, .. },
            ) => {
                let Work::Burst { followed } = work else { panic!("a run of a burst") };
                self.note(Event::PassedOn, name.ownership == world.judge.last_ownership(index));
                let run = Run { name, deadline, caller, is_taken: !followed };
                world.callers(index, |callers| {
                    callers.pending.retain(|other| *other != caller);
                    callers.run = Some(run);
                });
                world.judge.begun(index, name.ownership, fencing_token);
                if !followed {
                    self.taken(world, index, name.ownership);
                    self.ended(world, index, caller, End::Runs);
                }
            }
            Output::Answered(Who(caller), answer) => {
                world.callers(index, |callers| callers.pending.retain(|other| *other != caller));
                let end = match answer {
                    Ok(Outcome::Superseded) => End::Superseded,
                    Ok(_) => panic!("a debounced call runs or is superseded"),
                    Err(refusal) => {
                        self.note(Event::LostUntaken, matches!(refusal, Refusal::Lost(_)));
                        End::Refused
                    }
                };
                self.ended(world, index, caller, end);
            }
            Output::Deadline(ownership, deadline) => world.callers(index, |callers| {
                let run = callers.run.as_mut().filter(|run| run.name.ownership == ownership);
                run.into_iter().for_each(|run| run.deadline = deadline);
            }),
            Output::Lost(ownership, _) => world.callers(index, |callers| {
                callers.run.take_if(|run| run.name.ownership == ownership);
            }),
            Output::Waiting(_) => unreachable!("no caller asked for that"),
        }
    }

    fn executed(&self, world: &mut World<Self>, executed: &Executed<'_>) {
        self.judge_executed(world, executed);
    }

    fn lasts(&self, callers: &Callers) -> bool {
        callers.runs()
    }

    fn has_begun(&self, process: usize, callers: &Callers) -> bool {
        callers.to_come < self.calls[process]
    }

    fn is_calling(&self, callers: &Callers) -> bool {
        callers.to_come > 0
    }

    fn is_done(&self, callers: &Callers) -> bool {
        callers.to_come == 0 && callers.pending.is_empty() && callers.run.is_none()
    }

    fn has_leftovers(&self, _: &World<Self>) -> bool {
        false
    }

    fn is_left_well(&self, _: &World<Self>) -> bool {
        true
    }

    fn key(&self) -> &'static str {
        RUN
    }

    fn end(&self) -> Duration {
        END
    }

    fn properties(&self, bound: Bound) -> Vec<Property<Scene<Self>>> {
        properties::of(self, bound)
    }
}
