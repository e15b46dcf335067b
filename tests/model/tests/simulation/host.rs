//! A machine: its clock runs at a rate of its own, and all of it can stall for a while.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use lock_core::Moment;

use crate::{process::Process, world::World};

/// What a machine does once it goes on.
pub(crate) type Deed = Box<dyn FnOnce(&Rc<World>, &Rc<Process>)>;

pub(crate) struct Host {
    /// How much faster its clock runs than the store's, in millionths.
    faster: i64,
    is_stopped: Cell<bool>,
    waiting: RefCell<Vec<(Rc<Process>, Deed)>>,
}

impl Host {
    pub(crate) fn new(faster: i64) -> Self {
        Self { faster, is_stopped: Cell::new(false), waiting: RefCell::default() }
    }

    /// What its clock shows.
    pub(crate) fn clock(&self, now: u64) -> Moment {
        Moment::from_nanos(scaled(now, 1_000_000 + self.faster, 1_000_000, false))
    }

    /// When its clock shows this moment.
    pub(crate) fn when(&self, moment: Moment) -> u64 {
        scaled(moment.as_nanos(), 1_000_000, 1_000_000 + self.faster, true)
    }

    /// Converts a time on its own clock to the time that passes for everything else.
    pub(crate) fn elsewhere(&self, time: Duration) -> u64 {
        self.when(Moment::since_origin(time))
    }

    /// Runs `deed` now, or when the machine goes on.
    pub(crate) fn run(&self, world: &Rc<World>, process: Rc<Process>, deed: Deed) {
        if self.is_stopped.get() {
            self.waiting.borrow_mut().push((process, deed));
        } else {
            deed(world, &process);
        }
    }

    /// Stops everything on the machine except its clock.
    pub(crate) fn stop(&self) {
        self.is_stopped.set(true);
    }

    pub(crate) fn go_on(&self, world: &World) {
        self.is_stopped.set(false);
        for (process, deed) in self.waiting.take() {
            world.on(world.now(), &process, deed);
        }
    }

    pub(crate) fn forget(&self) {
        self.waiting.take();
    }
}

fn scaled(nanos: u64, by: i64, of: i64, up: bool) -> u64 {
    let (nanos, by, of) = (u128::from(nanos), by as u128, of as u128);
    let scaled = if up { (nanos * by).div_ceil(of) } else { nanos * by / of };
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
