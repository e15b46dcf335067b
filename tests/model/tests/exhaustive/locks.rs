//! Locks: callers in up to three processes want one lock.

use std::time::Duration;

use lock_core::{
    Moment, Token,
    contract::{Acquisition, Renewal},
    engine::{
        calls::{Answer, Call},
        io::{Acquire, Acquirer, Command, Grant, HoldName, Output, Patience, Terms},
    },
    token,
};
use lock_model::Who;
use stateright::Property;

use crate::{
    LEASE,
    checker::Seen,
    client_of,
    play::{Bound, Executed, Play},
    scene::Scene,
    world::World,
};

const KEY: &str = "k";

/// The longest that a caller can wait, whatever happens within the bound: a dead waiter is believed
/// to live for 15 s, and what follows takes a few leases and reservations.
const END: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Locks {
    /// How many acquisitions each process makes.
    pub(crate) acquisitions: Vec<u8>,
    pub(crate) seen: Seen,
}

/// The callers of one process.
#[derive(Clone, Hash)]
pub(crate) struct Callers {
    /// How many acquisitions have not begun.
    to_come: u8,
    waiting: Vec<u64>,
    hold: Option<Hold>,
}

/// A guard.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Hold {
    name: HoldName,
    deadline: Moment,
}

impl Callers {
    /// May this process still believe that it holds the lock?
    fn is_held(&self, now: Moment) -> bool {
        self.hold.is_some_and(|hold| now < hold.deadline)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Act {
    Join,
    Drop,
    /// A waiting caller goes away.
    Cancel(u64),
}

#[derive(Clone, Default, Hash)]
pub(crate) struct Judge {
    /// The largest fence ever drawn, and the token it was drawn for.
    newest: (u64, Option<Token>),
    /// The fencing token of the last guard.
    last_begun: u64,
    fence_fell: bool,
    token_fell: bool,
    renewed_another: bool,
    handed_to_dead: bool,
}

/// Events that must be seen in some state.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Event {
    HandedOver,
    Claimed,
    PassedOn,
    TookOverExpired,
    GrantedAgain,
    Queued,
    LocalHandOver,
    Withdrawn,
    Renewed,
}

impl Locks {
    fn note(&self, event: Event, happened: bool) {
        self.seen.note(event as u32, happened);
    }
}

impl Play for Locks {
    type Callers = Callers;
    type Judge = Judge;
    type Act = Act;

    fn callers(&self, process: usize) -> Callers {
        Callers { to_come: self.acquisitions[process], waiting: Vec::new(), hold: None }
    }

    fn judge(&self) -> Judge {
        Judge::default()
    }

    fn acts(&self, world: &World<Self>, process: usize) -> Vec<Act> {
        let callers = &world.peers[process].callers;
        // The last two processes are interchangeable, so one of them always begins first.
        let begun = |other: usize| world.peers[other].callers.to_come < self.acquisitions[other];
        let in_order = process < 2 || !world.alive[1] || begun(1);
        let join = (callers.to_come > 0 && in_order).then_some(Act::Join);
        let drop = callers.hold.map(|_| Act::Drop);
        join.into_iter().chain(drop).collect()
    }

    fn faults(&self, world: &World<Self>, process: usize) -> Vec<Act> {
        world.peers[process].callers.waiting.iter().map(|caller| Act::Cancel(*caller)).collect()
    }

    fn due(&self, _: &World<Self>, _: usize) -> Option<Act> {
        None
    }

    fn next_timer(&self, _: &World<Self>, _: usize) -> Moment {
        Moment::NEVER
    }

    fn act(&self, world: &mut World<Self>, process: usize, act: Act) {
        let now = world.now;
        let command = match act {
            Act::Join => {
                let number = world.peers[process].change(|peer| {
                    let number = peer.process.draw();
                    peer.callers.to_come -= 1;
                    peer.callers.waiting.push(number);
                    number
                });
                let terms = Terms::of_run(LEASE, None);
                let acquirer = Acquirer { number, key: KEY.into(), terms, to: Who(number) };
                let patience = Patience::For(Duration::MAX);
                Command::Acquire(Box::new(Acquire { acquirer, patience, adopt: None }))
            }
            Act::Drop => {
                let Some(hold) = world.callers(process, |callers| callers.hold.take()) else {
                    return;
                };
                Command::Release { hold: hold.name, undelivered: false, to: None }
            }
            Act::Cancel(number) => {
                self.note(Event::Withdrawn, true);
                world.callers(process, |callers| callers.waiting.retain(|other| *other != number));
                Command::Cancel(number)
            }
        };
        world.process(self, process, |process| process.command(command, now));
    }

    fn told(&self, world: &mut World<Self>, process: usize, output: Output<Who>) {
        match output {
            Output::Granted(Who(number), Grant { hold: name, fencing_token, deadline, .. }) => {
                world.callers(process, |callers| {
                    callers.waiting.retain(|other| *other != number);
                    callers.hold = Some(Hold { name, deadline });
                });
                let judge = &mut world.judge;
                judge.token_fell |= fencing_token <= judge.last_begun;
                judge.last_begun = fencing_token.max(judge.last_begun);
                self.note(Event::LocalHandOver, fencing_token % 1024 > 0);
            }
            Output::Answered(Who(number), _) => {
                world.callers(process, |callers| callers.waiting.retain(|other| *other != number));
            }
            Output::Deadline(ownership, deadline) => world.callers(process, |callers| {
                let hold = callers.hold.as_mut().filter(|hold| hold.name.ownership == ownership);
                hold.into_iter().for_each(|hold| hold.deadline = deadline);
            }),
            Output::Lost(ownership, _) => world.callers(process, |callers| {
                callers.hold.take_if(|hold| hold.name.ownership == ownership);
            }),
            Output::Waiting(_) => unreachable!("no caller asked for that"),
        }
    }

    fn executed(&self, world: &mut World<Self>, executed: &Executed<'_>) {
        let Executed { call, answer, before, after, .. } = executed;
        let expired = before.is_none() && world.table.last_holder(KEY).is_some();
        let judge = &mut world.judge;
        let mut granted = None;
        match (call, answer) {
            (Call::Acquire(batch), Answer::Acquired(_, answers)) => {
                for (request, answer) in batch.requests.iter().zip(answers) {
                    match answer {
                        Ok(Acquisition::Granted { fence, .. }) => {
                            let again = judge.newest.1.as_ref() == Some(&request.token);
                            self.note(Event::GrantedAgain, again);
                            let reserved = before.as_ref() == Some(&request.token);
                            self.note(Event::Claimed, reserved && !again);
                            self.note(Event::TookOverExpired, expired && judge.newest.0 > 0);
                            judge.fence_fell |= *fence <= judge.newest.0;
                            let newest = (*fence).max(judge.newest.0);
                            judge.newest = (newest, Some(request.token.clone()));
                            granted = Some(&request.token);
                        }
                        _ => self.note(Event::Queued, true),
                    }
                }
            }
            (Call::Renew(batch), Answer::Renewed(_, answers)) => {
                for (request, answer) in batch.requests.iter().zip(answers) {
                    let renewed = matches!(answer, Ok(Renewal::Renewed { .. }));
                    self.note(Event::Renewed, renewed);
                    judge.renewed_another |= renewed && before.as_ref() != Some(&request.token);
                }
            }
            _ => {}
        }
        // The lock went to a token that did not ask for it in this call.
        if let Some(next) = after
            && before.as_ref() != Some(next)
            && granted != Some(next)
        {
            self.note(Event::HandedOver, true);
            self.note(Event::PassedOn, before.is_none());
            judge.handed_to_dead |= !world.connected[client_of(next)];
        }
    }

    fn lasts(&self, callers: &Callers) -> bool {
        callers.hold.is_some()
    }

    fn has_begun(&self, process: usize, callers: &Callers) -> bool {
        callers.to_come < self.acquisitions[process]
    }

    fn is_calling(&self, _: &Callers) -> bool {
        false
    }

    fn is_done(&self, callers: &Callers) -> bool {
        callers.to_come == 0 && callers.waiting.is_empty() && callers.hold.is_none()
    }

    fn has_leftovers(&self, world: &World<Self>) -> bool {
        has_leftovers(world, false)
    }

    fn is_left_well(&self, world: &World<Self>) -> bool {
        world.holder(KEY).is_none() && !is_waited_for(world)
    }

    fn key(&self) -> &'static str {
        KEY
    }

    fn end(&self) -> Duration {
        END
    }

    fn properties(&self, bound: Bound) -> Vec<Property<Scene<Self>>> {
        type World = crate::world::World<Locks>;
        macro_rules! seen {
            ($name:literal, $event:ident) => {
                Property::sometimes($name, |scene: &Scene<Self>, _| {
                    scene.play.seen.has(Event::$event as u32)
                })
            };
        }
        let mut properties = vec![
            Property::always("each fence is larger than all before", |_, world: &World| {
                !world.judge.fence_fell
            }),
            Property::always("a renewal gives the lock to nobody", |_, world: &World| {
                !world.judge.renewed_another
            }),
            Property::always("a release leaves no waiter behind", |_, world: &World| {
                world.table.last_holder(KEY).is_some() || !is_waited_for(world)
            }),
            Property::always("no lock is handed to the dead", |_, world: &World| {
                !world.judge.handed_to_dead
            }),
            Property::always(
                "a lock that has expired is soon taken",
                |scene: &Scene<Self>, world| !is_left_lying(scene, world),
            ),
            Property::always(
                "nothing is left of who went away",
                |scene: &Scene<Self>, world: &World| {
                    // A leftover is undone as soon as its process can reach the server.
                    !world.is_quiet(&scene.play)
                        || world.has_executed_stale
                        || !has_leftovers(world, true)
                },
            ),
            seen!("a lock is handed over", HandedOver),
            seen!("a hand-over is claimed", Claimed),
            seen!("a token waits", Queued),
        ];
        if self.acquisitions[0] > 1 {
            properties.push(seen!("it passes inside a process", LocalHandOver));
        }
        if bound.lasting > 0 {
            properties.push(seen!("a lease is renewed", Renewed));
        }
        if bound.late > 0 {
            properties.push(Property::sometimes(
                "a holder sleeps past its deadline",
                |_, world: &World| {
                    let mut callers = world.living().map(|index| &world.peers[index].callers);
                    callers.any(|callers| callers.hold.is_some() && !callers.is_held(world.now))
                },
            ));
            properties.push(seen!("an expired lock is taken", TookOverExpired));
            properties.push(seen!("a request is repeated", GrantedAgain));
        }
        if bound.wipes == 0 {
            properties.push(Property::always("at most one guard is valid", |_, world: &World| {
                let held = |index: &usize| world.peers[*index].callers.is_held(world.now);
                world.living().filter(held).count() <= 1
            }));
            properties.push(Property::always(
                "fencing tokens grow from guard to guard",
                |_, world: &World| !world.judge.token_fell,
            ));
        }
        if bound.faults > 0 {
            properties.push(seen!("a waiter withdraws", Withdrawn));
            properties.push(seen!("an unclaimed lock is passed on", PassedOn));
        }
        properties
    }
}

fn is_waited_for(world: &World<Locks>) -> bool {
    world.table.waiters(KEY).any(|(_, end)| end > world.now)
}

/// Does a caller wait for a lock that expired long ago? Waiters know when the holder's time is up,
/// apart from the delay of a late answer.
fn is_left_lying(scene: &Scene<Locks>, world: &World<Locks>) -> bool {
    let waits = |index: usize| world.alive[index] && !world.peers[index].callers.waiting.is_empty();
    let lies = world.table.last_holder(KEY).is_some_and(|(_, end)| end + LEASE * 3 < world.now);
    lies && world.is_quiet(&scene.play)
        && world.table.waiters(KEY).any(|(token, _)| waits(client_of(token)))
}

/// Does the server keep something for a living process that does not want it? The process may be
/// about to undo it.
fn has_leftovers(world: &World<Locks>, but_what_is_undone: bool) -> bool {
    let waiters = world.table.waiters(KEY).map(|(token, _)| token.clone());
    world.holder(KEY).into_iter().chain(waiters).any(|token| {
        let (client, number) = (client_of(&token), token::parts(&token).1);
        let engine = world.peers[client].process.engine();
        let is_wanted = match but_what_is_undone {
            true => engine.takes_care_of(number),
            false => engine.is_in_use(number),
        };
        world.alive[client] && !is_wanted
    })
}
