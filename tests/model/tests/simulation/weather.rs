//! The faults of a world, and their times.

use std::rc::Rc;

use lock_core::{
    contract::{ForceReleaseRequest, Notice},
    engine::io::{Command, Query},
};
use lock_judge::{Forgetting, Random};

use crate::{
    process::Process,
    tasks::Counted,
    world::{IDS, LONGEST_LEASE, MILLI, World, lock_key, run_key},
};

/// From this time on, nothing but the network disturbs a world.
const CLEARS_UP: u64 = 90_000 * MILLI;

/// The most processes that are ended.
const MOST_ENDS: u64 = 5;

/// The faults of a world besides those of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// None, and the network has none either: no lock may be lost, and every waiter gets its turn.
    Calm,
    /// Notices are lost, and nothing else.
    Deaf,
    /// None.
    Fair,
    /// Hosts stall.
    Stalls,
    /// Processes end: they are killed, shut down, or abandoned by their callers.
    Crashes,
    /// Locks are forced free.
    Forced,
    /// The store loses all data, or the writes that a replica had not received, or sets its clock
    /// ahead.
    Forgetful,
    /// The store sets the clock of its tokens back. Never with a loss of the counter: those would be
    /// two faults at once.
    ClockBack,
}

impl Weather {
    pub(crate) fn of(random: &mut Random) -> Self {
        match random.below(15) {
            0..2 => Self::Calm,
            2 => Self::Deaf,
            3..5 => Self::Fair,
            5..8 => Self::Stalls,
            8..10 => Self::Forced,
            10..12 => Self::Forgetful,
            12..14 => Self::Crashes,
            _ => Self::ClockBack,
        }
    }

    /// Does each request get its answer, soon and once?
    pub(crate) fn is_calm(self) -> bool {
        matches!(self, Self::Calm | Self::Deaf)
    }

    pub(crate) fn loses_notices(self) -> bool {
        self == Self::Deaf
    }

    pub(crate) fn may_stall(self) -> bool {
        self == Self::Stalls
    }
}

/// Injects faults until the world is over.
pub(crate) fn blow(world: &Rc<World>, mut random: Random) {
    let at = world.now() + random.below(1500 * MILLI);
    world.at(at, move |world| {
        if world.callers.get() > 0 && world.now() < CLEARS_UP {
            strike(world, &mut random);
            blow(world, random);
        }
    });
}

fn strike(world: &Rc<World>, random: &mut Random) {
    let client = random.below(world.processes.borrow().len() as u64) as usize;
    let process = Rc::clone(&world.processes.borrow()[client]);
    if random.one_in(4) && !world.weather.is_calm() {
        let until = world.now() + random.below(2500 * MILLI);
        return process.cut(until, random.one_in(2));
    }
    if random.one_in(6) {
        return end_a_window(&process, random);
    }
    match world.weather {
        Weather::Calm | Weather::Deaf | Weather::Fair => return,
        Weather::Stalls => {
            let host = Rc::clone(&process.host);
            host.stop();
            let until = world.now() + random.below(2 * LONGEST_LEASE * MILLI);
            world.at(until, move |world| host.go_on(world));
        }
        Weather::Crashes => end_a_process(world, &process, random),
        Weather::Forced => {
            let key = match random.below(6) {
                0 => run_key(),
                1 => crate::world::durable_run_key("x0"),
                _ => lock_key(random.below(IDS)),
            };
            let asking = Rc::clone(&process);
            process.spawn(async move {
                let _ = asking.query(Query::ForceRelease(ForceReleaseRequest::new(key))).await;
            });
        }
        Weather::Forgetful => lose_data(world, random),
        Weather::ClockBack => world.store.borrow_mut().set_clock_back(random.below(10_000)),
    }
    world.fault();
}

fn end_a_window(process: &Rc<Process>, random: &mut Random) {
    use lock_core::contract::WindowEnd::{Cancel, Flush};
    let end = if random.one_in(2) { Flush } else { Cancel };
    let (window, run) = (crate::world::window_key(), run_key());
    let asking = Rc::clone(process);
    process.spawn(async move {
        let _ = asking.query(Query::EndWindow { window, run, end, waited: false }).await;
    });
}

fn end_a_process(world: &Rc<World>, process: &Rc<Process>, random: &mut Random) {
    // Few enough that a world ends.
    let is_enough = world.judge.borrow().totals.ended_processes == MOST_ENDS;
    if is_enough || process.is_dead.get() || process.is_closing.get() {
        return;
    }
    world.judge.borrow_mut().totals.ended_processes += 1;
    let (client, id) = (process.client, process.id.clone());
    match random.below(4) {
        0 => process.abandon(),
        1 => {
            process.is_closing.set(true);
            let asking = Rc::clone(process);
            process.spawn_counted(async move {
                let began = asking.world.now();
                let _ = asking.ask(None, Command::Shutdown).await;
                if asking.world.now() - began > 2200 * MILLI {
                    asking.world.violation("a shutdown has taken more than two seconds");
                }
            });
        }
        // Its last requests arrive or not, and its server learns of its end at once or much later.
        _ => {
            process.kill();
            let noticed = if random.one_in(2) { 0 } else { random.below(20_000 * MILLI) };
            world.at(world.now() + noticed, move |world| world.store.borrow_mut().hang_up(&id));
        }
    }
    let (back, mut random) = (random.below(6000 * MILLI), Random::new(random.any()));
    let counted = Counted::new(world);
    world.at(world.now() + back, move |world| {
        world.begin(client, 2, &mut random);
        drop(counted);
    });
}

fn lose_data(world: &Rc<World>, random: &mut Random) {
    match random.below(3) {
        0 => {
            world.store.borrow_mut().lose_all();
            forgotten(world, random);
        }
        1 => {
            let replica = world.store.borrow().replicate();
            let mut random = Random::new(random.any());
            world.at(world.now() + random.below(300 * MILLI), move |world| {
                world.store.borrow_mut().fail_over(replica);
                forgotten(world, &mut random);
            });
        }
        _ => {
            world.store.borrow_mut().set_clock_ahead(random.below(3000));
            forgotten(world, random);
        }
    }
}

/// The store has just forgotten something; each of its clients is told so, or is not.
fn forgotten(world: &Rc<World>, random: &mut Random) {
    let at = world.now();
    world.judge.borrow_mut().history.forgetting(Forgetting { id: None, from: at, to: at });
    for process in world.processes.borrow().iter() {
        if random.one_in(2) {
            process.say(Notice::Replaced);
        }
    }
}
