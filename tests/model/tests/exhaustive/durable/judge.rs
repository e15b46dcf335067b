//! What has happened to durable calls, and what must hold.

use lock_core::{
    Moment,
    contract::{DueRequest, DurableClaim, DurableFinish},
    engine::calls::{Answer, Call},
    table::Now,
};
use stateright::Property;

use super::{Durable, Event, book};
use crate::{
    play::{Bound, Executed},
    scene::Scene,
    world::World,
};

#[derive(Clone, Default, Hash)]
pub(crate) struct Judge {
    /// The number and the arguments of the last call that was kept.
    kept: (u64, String),
    /// The number of the newest call that was finished.
    finished: u64,
    /// The last call that was claimed, and the fence of its claim.
    claimed: (u64, u64),
    fence_fell: bool,
    /// The generation of the last run.
    generation: u64,
    generation_fell: bool,
    other_arguments_ran: bool,
    was_dropped: bool,
}

impl Judge {
    /// Is there a call that was kept and that no run has finished?
    pub(super) fn is_owed(&self) -> bool {
        self.kept.0 > self.finished
    }

    /// A run begins.
    pub(super) fn begun(&mut self, call: u64, generation: u64, arguments: &str) {
        self.generation_fell |= generation <= self.generation;
        self.generation = generation.max(self.generation);
        // A newer call may have been kept since it was claimed.
        self.other_arguments_ran |= call == self.kept.0 && arguments != self.kept.1;
    }
}

impl Durable {
    pub(super) fn judge_executed(&self, world: &mut World<Self>, executed: &Executed<'_>) {
        let alive = world.living().count() == world.peers.len();
        let judge = &mut world.judge;
        match (executed.call, executed.answer) {
            (Call::Keep(batch), Answer::Kept(_, answers)) => {
                for (request, answer) in batch.requests.iter().zip(answers) {
                    let Ok(kept) = answer else { continue };
                    judge.kept = (kept.call, request.arguments.to_string());
                }
            }
            (Call::Claim(_), Answer::Claimed(_, answers)) => {
                for answer in answers {
                    let Ok(DurableClaim::Granted { fence, call, arguments, .. }) = answer else {
                        continue;
                    };
                    self.note(Event::RanTwice, judge.claimed.0 == *call);
                    self.note(Event::RanAfterCrash, judge.claimed.0 == *call && !alive);
                    judge.fence_fell |= *fence <= judge.claimed.1;
                    judge.other_arguments_ran |=
                        (*call, arguments) != (judge.kept.0, &judge.kept.1);
                    judge.claimed = (*call, *fence);
                }
            }
            (Call::Finish(batch), Answer::Finished(_, answers)) => {
                for (request, answer) in batch.requests.iter().zip(answers) {
                    match answer {
                        Ok(DurableFinish::Done | DurableFinish::SetAside) => {
                            judge.finished = request.call.max(judge.finished);
                            self.note(
                                Event::SetAside,
                                *answer.as_ref().unwrap() == DurableFinish::SetAside,
                            );
                        }
                        Ok(DurableFinish::Again) => self.note(Event::Again, true),
                        Ok(DurableFinish::Retry(_)) => self.note(Event::Retried, true),
                        _ => {}
                    }
                }
            }
            _ => return,
        }
        // Looked at in a copy, because looking is an operation that changes the table.
        let at = Now { moment: Moment::NEVER, micros: u64::MAX };
        let kept = world.table.change_nothing(|table| table.due(&DueRequest::new(book(), 1), at));
        world.judge.was_dropped |= world.judge.is_owed() && kept.ids.is_empty();
    }
}

pub(super) fn properties(play: &Durable, bound: Bound) -> Vec<Property<Scene<Durable>>> {
    macro_rules! seen {
        ($name:literal, $event:ident) => {
            Property::sometimes($name, |scene: &Scene<Durable>, _| {
                scene.play.seen.has(Event::$event as u32)
            })
        };
    }
    let mut properties = vec![
        Property::always("runs do not overlap", |_, world: &World<Durable>| {
            let callers = world.living().map(|index| &world.peers[index].callers);
            callers.filter(|this| this.runs() && this.is_held(world.now)).count() <= 1
        }),
        Property::always("the arguments of the last call run", |_, world: &World<Durable>| {
            !world.judge.other_arguments_ran
        }),
        Property::always("fences grow from claim to claim", |_, world: &World<Durable>| {
            !world.judge.fence_fell
        }),
        Property::always("the generation grows from run to run", |_, world: &World<Durable>| {
            !world.judge.generation_fell
        }),
        Property::always(
            "a call that was kept stays until it is done",
            |_, world: &World<Durable>| !world.judge.was_dropped,
        ),
        seen!("a call is run, and done", Done),
    ];
    if play.calls.iter().sum::<u8>() > 1 {
        properties.push(seen!("a call during a run is run after it", Again));
    }
    if play.fails {
        properties.push(seen!("a run that has failed is tried again", Retried));
        properties.push(seen!("a call that has failed too often is set aside", SetAside));
    }
    if bound.faults > 0 {
        properties.push(seen!("a call is run once more", RanTwice));
        properties.push(seen!("a run follows one whose process died", RanAfterCrash));
    }
    properties
}
