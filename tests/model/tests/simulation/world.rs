//! One world: its time, its store, its clients, and how it ends.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::BinaryHeap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use lock_core::{
    contract::{Delivery, DurableBook},
    engine::io::{Command, WindowTerms},
};
use lock_judge::Random;

use crate::{
    debounced, durable,
    host::Host,
    judge::{Judge, Totals},
    locks,
    network::Digest,
    process::Process,
    store::Store,
    weather::{self, Weather},
};

/// In nanoseconds.
pub(crate) const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

const CLIENTS: usize = 3;

/// The number of locks.
pub(crate) const IDS: u64 = 2;

/// In milliseconds.
pub(crate) const LONGEST_LEASE: u64 = 3500;

/// The most, in millionths, by which a clock is faster or slower than the store's: just below what
/// the margin of a lease allows for.
const RATES: i64 = 9_500;

/// When every caller must have an answer.
const LIMIT: u64 = 600 * SECOND;

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn lock_key(id: u64) -> Arc<str> {
    format!("id-{id}").into()
}

pub(crate) fn window_key() -> Arc<str> {
    "window".into()
}

/// The lock of the runs of debounced calls.
pub(crate) fn run_key() -> Arc<str> {
    "debounced".into()
}

pub(crate) fn book() -> DurableBook {
    DurableBook::new("due", "calls", "aside")
}

/// The lock of the runs of durable calls.
pub(crate) fn durable_run_key(id: &str) -> Arc<str> {
    id.into()
}

type What = Box<dyn FnOnce(&Rc<World>)>;

/// An event on the agenda.
struct Event {
    at: u64,
    number: u64,
    what: What,
}

impl Event {
    fn order(&self) -> (u64, u64) {
        (self.at, self.number)
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    is_traced: bool,
    now: Cell<u64>,
    agenda: RefCell<BinaryHeap<Reverse<Event>>>,
    events: Cell<u64>,
    faults: Cell<u64>,
    hosts: Vec<Rc<Host>>,
    /// The terms of the debounced calls.
    pub(crate) window: WindowTerms,
    pub(crate) store: RefCell<Store>,
    pub(crate) judge: RefCell<Judge>,
    pub(crate) digest: RefCell<Digest>,
    /// The current life of each client, and all lives that there were.
    pub(crate) processes: RefCell<Vec<Rc<Process>>>,
    all: RefCell<Vec<Rc<Process>>>,
    lives: Cell<u64>,
    /// How many tasks still have to end.
    pub(crate) callers: Cell<u64>,
}

impl World {
    fn new(seed: u64, random: &mut Random) -> Rc<Self> {
        let weather = Weather::of(random);
        let faster = |random: &mut Random| RATES - random.below(2 * RATES as u64 + 1) as i64;
        let hosts = (0..CLIENTS).map(|_| Rc::new(Host::new(faster(random)))).collect();
        let wait = ms(20 + random.below(280));
        let max_wait = random.one_in(2).then(|| wait + ms(random.below(500)));
        let window = WindowTerms { wait, max_wait, leading: random.one_in(3) };
        Rc::new(Self {
            seed,
            weather,
            is_traced: std::env::var_os("LOCK_TRACE").is_some(),
            now: Cell::new(SECOND),
            agenda: RefCell::default(),
            events: Cell::new(0),
            faults: Cell::new(0),
            hosts,
            window,
            store: RefCell::new(Store::new(weather)),
            judge: RefCell::default(),
            digest: RefCell::default(),
            processes: RefCell::default(),
            all: RefCell::default(),
            lives: Cell::new(0),
            callers: Cell::new(0),
        })
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Runs `what` at this time.
    pub(crate) fn at(&self, at: u64, what: impl FnOnce(&Rc<Self>) + 'static) {
        let number = self.events.get();
        self.events.set(number + 1);
        self.agenda.borrow_mut().push(Reverse(Event { at, number, what: Box::new(what) }));
    }

    /// Runs something in a process at this time, or as soon as its host goes on, if the process
    /// still lives.
    pub(crate) fn on(
        &self,
        at: u64,
        process: &Rc<Process>,
        what: impl FnOnce(&Rc<Self>, &Rc<Process>) + 'static,
    ) {
        let process = Rc::clone(process);
        self.at(at, move |world| {
            let host = Rc::clone(&process.host);
            host.run(
                world,
                process,
                Box::new(move |world, process| {
                    if !process.is_dead.get() {
                        what(world, process);
                    }
                }),
            );
        });
    }

    /// Prints what happens, if a trace was asked for.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>14} {}", self.now(), what());
        }
    }

    pub(crate) fn fault(&self) {
        self.faults.set(self.faults.get() + 1);
    }

    pub(crate) fn violation(&self, violation: impl std::fmt::Display) {
        let at = Duration::from_nanos(self.now());
        self.judge.borrow_mut().violation(format!("at {at:?}: {violation}"));
    }

    /// A client begins a life, in which each of its tasks makes this many rounds.
    pub(crate) fn begin(self: &Rc<Self>, client: usize, rounds: u64, random: &mut Random) {
        let life = self.lives.get();
        self.lives.set(life + 1);
        let lease = ms(500 + random.below(LONGEST_LEASE - 500));
        let delivery = if random.one_in(6) { Delivery::Polling } else { Delivery::PubSub };
        let how = (lease, delivery);
        let process = Process::new(self, (client, life), &self.hosts[client], how, random);
        for _ in 0..2 {
            let [locks, calls] = [random.any(), random.any()].map(Random::new);
            process.spawn_counted(locks::call(Rc::clone(&process), locks, rounds));
            process.spawn_counted(debounced::call(Rc::clone(&process), calls, rounds));
        }
        let [calls, runs] = [random.any(), random.any()].map(Random::new);
        durable::begin(&process, calls, runs, rounds);
        self.all.borrow_mut().push(Rc::clone(&process));
        let mut processes = self.processes.borrow_mut();
        match processes.get_mut(client) {
            Some(before) => *before = process,
            None => processes.push(process),
        }
    }

    /// Lets time pass until `is_so` holds. Returns false if it does not hold by `limit`.
    fn run_until(self: &Rc<Self>, limit: u64, is_so: impl Fn(&Self) -> bool) -> bool {
        while !is_so(self) {
            let mut agenda = self.agenda.borrow_mut();
            if agenda.peek().is_none_or(|next| next.0.at > limit) {
                self.now.set(limit.max(self.now()));
                return false;
            }
            let Reverse(event) = agenda.pop().expect("it was there just now");
            drop(agenda);
            self.now.set(event.at.max(self.now()));
            (event.what)(self);
        }
        true
    }

    fn run_for(self: &Rc<Self>, nanos: u64) {
        self.run_until(self.now() + nanos, |_| false);
    }

    fn run(self: &Rc<Self>, random: &mut Random) {
        for client in 0..CLIENTS {
            self.begin(client, 4, random);
        }
        weather::blow(self, Random::new(random.any()));
        if !self.run_until(LIMIT, |world| world.callers.get() == 0) {
            let tasks = self.all.borrow().iter().map(|p| p.tasks.left(&p.id)).collect::<String>();
            return self.violation(format!("a task is stuck:{tasks}"));
        }
        // By then, all messages have arrived.
        self.run_for(5 * SECOND);
        let limit = self.now() + LIMIT;
        while !self.store.borrow_mut().is_drained(self.now()) {
            if self.now() > limit {
                return self.violation("a durable call is stuck");
            }
            self.run_for(500 * MILLI);
        }
        let processes = self.processes.borrow().clone();
        for process in processes.into_iter().filter(|process| !process.is_dead.get()) {
            let flushing = Rc::clone(&process);
            process.tasks.abort();
            process.spawn_counted(async move {
                let _ = flushing.ask(None, Command::Flush).await;
            });
        }
        if !self.run_until(self.now() + 60 * SECOND, |world| world.callers.get() == 0) {
            return self.violation("a flush is stuck");
        }
        // By then, locks that were kept on purpose or abandoned have expired.
        self.run_for(60 * SECOND);
        let ids = (0..IDS).map(lock_key);
        let runs = durable::IDS.into_iter().map(durable_run_key);
        for key in ids.chain(runs).chain([run_key()]) {
            if let Some(holder) = self.store.borrow_mut().holder(&key, self.now()) {
                self.violation(format!("{key} is left: {}", holder.as_str()));
            }
        }
    }

    /// Judges the world at its end.
    fn end(self: &Rc<Self>) -> (Totals, u64, Vec<String>) {
        for process in self.all.borrow().iter() {
            process.end_sections();
        }
        let aside = self.store.borrow_mut().set_aside(self.now());
        let mut judge = self.judge.take();
        self.store.borrow().books.judge(&aside, &mut judge);
        judge.totals.set_aside = aside.len() as u64;
        judge.totals.faults = self.faults.get();
        if self.weather == Weather::Calm && judge.totals.lost > 0 {
            judge.violation("a lock was lost where nothing goes wrong");
        }
        let violations = judge.history.judge().violations;
        // The parts refer to each other in cycles.
        self.all.borrow().iter().for_each(|process| process.forget());
        self.hosts.iter().for_each(|host| host.forget());
        self.agenda.take();
        self.store.borrow_mut().forget();
        self.processes.take();
        self.all.take();
        (judge.totals, self.digest.borrow().value(), violations)
    }
}

/// Runs one world. Returns its weather, its totals, the digest of its store's requests, and the
/// violations.
pub(crate) fn world(seed: u64) -> (Weather, Totals, u64, Vec<String>) {
    let mut random = Random::new(seed);
    let world = World::new(seed, &mut random);
    world.run(&mut random);
    let (totals, digest, violations) = world.end();
    (world.weather, totals, digest, violations)
}
