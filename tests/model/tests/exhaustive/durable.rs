//! Durable calls of one id: each process makes some, and has a worker that runs what is due.
//!
//! What must hold: a call that was kept is run until it is finished, whatever happens to the
//! processes; the arguments of the last call are the ones that run; runs do not overlap while their
//! locks may be believed valid; and the generation grows from run to run.

mod judge;

use std::time::Duration;

use lock_core::{
    Moment, Token,
    contract::{
        DueCalls, DueRequest, DurableBook, DurableFinish, FinishRequest, KeepRequest, Kept,
    },
    engine::io::{
        Acquirer, Command, Grant, HoldName, Outcome, Output, Query, RunClaim, Terms, Work,
    },
};
use lock_model::Who;
use stateright::Property;

use self::judge::Judge;
use crate::{
    LEASE,
    checker::Seen,
    play::{Bound, Executed, Play},
    scene::Scene,
    world::World,
};

const BOOK: [&str; 3] = ["due", "calls", "aside"];
const RUN: &str = "r";

const WAIT: Duration = Duration::from_millis(500);

/// How often a worker looks without being told to.
const LOOK: Duration = Duration::from_millis(1800);

/// How many attempts there are, and the pause before a failed run is tried again.
const RETRY: (u32, Duration) = (2, Duration::from_millis(600));

/// By then everything has been run, within the bound: a run whose process died is due again after
/// its lease.
const END: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Durable {
    /// How many calls each process makes.
    pub(crate) calls: Vec<u8>,
    /// May runs fail?
    pub(crate) fails: bool,
    pub(crate) seen: Seen,
}

/// The callers of one process, and its worker.
#[derive(Clone, Hash)]
pub(crate) struct Callers {
    /// How many calls have not been made yet.
    to_come: u8,
    keeping: Vec<u64>,
    look_at: Moment,
    /// The number of a question, or of a claim, that is on its way.
    asking: Option<u64>,
    run: Option<Run>,
}

#[derive(Clone, Hash)]
struct Run {
    name: HoldName,
    token: Token,
    generation: u64,
    deadline: Moment,
    call: u64,
    end: Ending,
}

/// How far a run has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Ending {
    Running,
    /// The body is over, and has failed or not; the store has not been told yet.
    Over(bool),
    /// The store is being told, under this number.
    Told(bool, u64),
}

impl Callers {
    fn is_held(&self, now: Moment) -> bool {
        self.run.as_ref().is_some_and(|run| now < run.deadline)
    }

    /// Does a body run? Once it is over, finishing the run frees the lock for the next one.
    fn runs(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.end == Ending::Running)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Act {
    /// A call is made.
    Call,
    /// The worker asks what is due.
    Look,
    /// The body of a run is over: has it failed?
    End(bool),
    /// The store is told of that.
    Finish,
    /// The task of a run is aborted.
    Abort,
}

/// Events that must be seen in some state.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Event {
    Done,
    Again,
    Retried,
    SetAside,
    RanTwice,
    RanAfterCrash,
}

impl Durable {
    fn note(&self, event: Event, happened: bool) {
        self.seen.note(event as u32, happened);
    }

    /// Does a worker want to look? Only while there is a call to run: a look that finds none
    /// changes nothing.
    fn wants_to_look(world: &World<Self>, callers: &Callers) -> bool {
        callers.asking.is_none() && callers.run.is_none() && world.judge.is_owed()
    }
}

fn book() -> DurableBook {
    let [due, calls, aside] = BOOK;
    DurableBook::new(due, calls, aside)
}

impl Play for Durable {
    type Callers = Callers;
    type Judge = Judge;
    type Act = Act;

    fn callers(&self, process: usize) -> Callers {
        Callers {
            to_come: self.calls[process],
            keeping: Vec::new(),
            look_at: Moment::default(),
            asking: None,
            run: None,
        }
    }

    fn judge(&self) -> Judge {
        Judge::default()
    }

    fn acts(&self, world: &World<Self>, process: usize) -> Vec<Act> {
        let callers = &world.peers[process].callers;
        let call = (callers.to_come > 0).then_some(Act::Call);
        let end = callers.runs().then_some(Act::End(false));
        let fail = (callers.runs() && self.fails).then_some(Act::End(true));
        call.into_iter().chain(end).chain(fail).collect()
    }

    fn faults(&self, world: &World<Self>, process: usize) -> Vec<Act> {
        let run = world.peers[process].callers.run.as_ref();
        run.map(|_| Act::Abort).into_iter().collect()
    }

    fn due(&self, world: &World<Self>, process: usize) -> Option<Act> {
        let callers = &world.peers[process].callers;
        let is_over = callers.run.as_ref().is_some_and(|run| matches!(run.end, Ending::Over(_)));
        let looks = Self::wants_to_look(world, callers) && callers.look_at <= world.now;
        is_over.then_some(Act::Finish).or(looks.then_some(Act::Look))
    }

    fn next_timer(&self, world: &World<Self>, process: usize) -> Moment {
        let callers = &world.peers[process].callers;
        if Self::wants_to_look(world, callers) { callers.look_at } else { Moment::NEVER }
    }

    fn act(&self, world: &mut World<Self>, index: usize, act: Act) {
        let now = world.now;
        let number = world.peers[index].change(|peer| peer.process.draw());
        let to = Who(number);
        let command = match act {
            Act::Call => {
                world.callers(index, |callers| {
                    callers.to_come -= 1;
                    callers.keeping.push(number);
                });
                // The arguments name the call, for the judge.
                let arguments = format!("{index}:{number}");
                let request = KeepRequest::new(book(), "i", arguments, WAIT);
                Command::Query(Box::new(Query::Keep(request.retry(RETRY.0, RETRY.1))), to)
            }
            Act::Look => {
                world.callers(index, |callers| callers.asking = Some(number));
                Command::Query(Box::new(Query::Due(DueRequest::new(book(), 1))), to)
            }
            Act::End(fails) => {
                return world.callers(index, |callers| {
                    callers.run.as_mut().into_iter().for_each(|run| run.end = Ending::Over(fails));
                });
            }
            Act::Finish => {
                let run = world.callers(index, |callers| {
                    let run = callers.run.as_mut()?;
                    let (Ending::Over(fails) | Ending::Told(fails, _)) = run.end else {
                        return None;
                    };
                    run.end = Ending::Told(fails, number);
                    Some((run.clone(), fails))
                });
                let Some((run, fails)) = run else { return };
                let numbers = (run.call, run.generation);
                let request = FinishRequest::new(book(), "i", RUN, run.token, numbers);
                let request = request.failed(fails.then(|| "no".into()));
                Command::Query(Box::new(Query::Finish(request)), to)
            }
            Act::Abort => {
                let Some(run) = world.callers(index, |callers| callers.run.take()) else { return };
                Command::Release { hold: run.name, undelivered: false, to: None }
            }
        };
        world.process(self, index, |process| process.command(command, now));
    }

    fn told(&self, world: &mut World<Self>, index: usize, output: Output<Who>) {
        let now = world.now;
        match output {
            Output::Granted(_, Grant { hold: name, token, fencing_token, deadline, work }) => {
                let Work::Durable { call, arguments, .. } = work else { panic!("a durable run") };
                let (end, generation) = (Ending::Running, fencing_token);
                world.judge.begun(call, fencing_token, &arguments);
                world.callers(index, |callers| {
                    callers.asking = None;
                    callers.run = Some(Run { name, token, generation, deadline, call, end });
                });
            }
            Output::Answered(Who(number), answer) => {
                self.answered(world, index, number, answer.ok())
            }
            Output::Deadline(ownership, deadline) => world.callers(index, |callers| {
                let run = callers.run.as_mut().filter(|run| run.name.ownership == ownership);
                run.into_iter().for_each(|run| run.deadline = deadline);
            }),
            Output::Lost(ownership, _) => world.callers(index, |callers| {
                if callers.run.take_if(|run| run.name.ownership == ownership).is_some() {
                    callers.look_at = now;
                }
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
        callers.to_come < self.calls[process] || callers.run.is_some()
    }

    fn is_calling(&self, callers: &Callers) -> bool {
        callers.to_come > 0
    }

    fn is_done(&self, callers: &Callers) -> bool {
        callers.to_come == 0 && callers.keeping.is_empty() && callers.run.is_none()
    }

    fn has_leftovers(&self, _: &World<Self>) -> bool {
        false
    }

    fn is_left_well(&self, world: &World<Self>) -> bool {
        !world.judge.is_owed()
    }

    fn key(&self) -> &'static str {
        RUN
    }

    fn end(&self) -> Duration {
        END
    }

    fn properties(&self, bound: Bound) -> Vec<Property<Scene<Self>>> {
        judge::properties(self, bound)
    }
}

impl Durable {
    /// A question is answered; `None` if the answer is an error.
    fn answered(
        &self,
        world: &mut World<Self>,
        index: usize,
        number: u64,
        answer: Option<Outcome>,
    ) {
        let now = world.now;
        let callers = &world.peers[index].callers;
        let told = callers.run.as_ref().and_then(|run| match run.end {
            Ending::Told(fails, told) if told == number => Some((fails, run.name)),
            _ => None,
        });
        if let Some((fails, name)) = told {
            if matches!(answer, Some(Outcome::Finished(_))) || !callers.is_held(now) {
                self.note(
                    Event::Done,
                    matches!(answer, Some(Outcome::Finished(DurableFinish::Done))),
                );
                world.callers(index, |callers| {
                    callers.run = None;
                    callers.look_at = now;
                });
                let release = Command::Release { hold: name, undelivered: false, to: None };
                world.process(self, index, |process| process.command(release, now));
            } else {
                world.callers(index, |callers| {
                    let run = callers.run.as_mut();
                    run.into_iter().for_each(|run| run.end = Ending::Over(fails));
                });
            }
            return;
        }
        world.callers(index, |callers| {
            callers.keeping.retain(|other| *other != number);
            match &answer {
                Some(Outcome::Kept(Kept { due_in, .. })) => {
                    callers.look_at = callers.look_at.min(now + *due_in);
                }
                _ => {
                    if callers.asking.take_if(|asked| *asked == number).is_some() {
                        let next = match &answer {
                            Some(Outcome::Due(DueCalls { next, .. })) => *next,
                            _ => None,
                        };
                        callers.look_at = now + next.unwrap_or(LOOK).min(LOOK);
                    }
                }
            }
        });
        if let Some(Outcome::Due(DueCalls { ids, .. })) = answer
            && let Some(id) = ids.into_iter().next()
        {
            let number = world.peers[index].change(|peer| {
                let number = peer.process.draw();
                peer.callers.asking = Some(number);
                number
            });
            let terms = Terms::of_run(LEASE, None);
            let acquirer = Acquirer { number, key: RUN.into(), terms, to: Who(number) };
            let claim = RunClaim { acquirer, book: book(), id: id.into() };
            let command = Command::Claim(Box::new(claim));
            world.process(self, index, |process| process.command(command, now));
        }
    }
}
