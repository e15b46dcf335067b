//! The connection of a process to the store, on a network that loses, delays and repeats messages.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    rc::Rc,
    sync::Arc,
};

use lock_core::{
    Token,
    contract::{Delivery, Notice, RenewRequest},
    engine::calls::{Answer, Batch, Call},
};
use lock_judge::{Fate, Random};
use lock_model::{connection::limit_of, server::no_answer};

use crate::{
    process::Process,
    store::Line,
    tasks::Caller,
    world::{MILLI, World},
};

pub(crate) struct Connection {
    random: RefCell<Random>,
    /// Calls that have not been answered.
    in_flight: RefCell<BTreeMap<u64, Rc<Call<Caller>>>>,
    calls: Cell<u64>,
    /// The last call that asked for a lock with each token.
    asked: RefCell<BTreeMap<String, u64>>,
    /// When the last request that was sent arrives: later ones arrive no earlier.
    arrival: Cell<u64>,
    /// Nothing passes until then.
    cut_until: Cell<u64>,
}

impl Connection {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            random: RefCell::new(random),
            in_flight: RefCell::default(),
            calls: Cell::new(0),
            asked: RefCell::default(),
            arrival: Cell::new(0),
            cut_until: Cell::new(0),
        }
    }

    pub(crate) fn forget(&self) {
        self.in_flight.take();
    }

    fn is_cut(&self, now: u64) -> bool {
        now < self.cut_until.get()
    }

    /// How long a message is on its way.
    fn delay(&self, is_calm: bool) -> u64 {
        let mut random = self.random.borrow_mut();
        let late = !is_calm && random.one_in(40);
        random.below(4 * MILLI) + if late { random.below(1500 * MILLI) } else { 0 }
    }

    fn fate(&self, is_calm: bool) -> Fate {
        let fate = Fate::draw(&mut self.random.borrow_mut());
        if is_calm { Fate::Answered } else { fate }
    }
}

impl Process {
    /// Sends a call on its way.
    pub(crate) fn ask_store(self: &Rc<Self>, call: Call<Caller>) {
        let (world, now) = (Rc::clone(&self.world), self.world.now());
        let is_calm = world.weather.is_calm();
        let connection = &self.connection;
        let seen = Seen::of(&call);
        world.digest.borrow_mut().add(&self.id, &seen, now);
        let number = connection.calls.get();
        self.judge_renewals(&call, number);
        self.world.trace(|| format!("{} sends {number}: {seen}", self.id));
        connection.calls.set(number + 1);
        let call = Rc::new(call);
        connection.in_flight.borrow_mut().insert(number, Rc::clone(&call));
        let limit = limit_of(&call).as_nanos() as u64;
        self.world.on(now + limit, self, move |_, process| {
            let call = process.connection.in_flight.borrow_mut().remove(&number);
            if let Some(call) = call {
                process.world.trace(|| format!("{} gets no answer to {number}", process.id));
                process.answer(no_answer(&call));
            }
        });
        let fate = connection.fate(is_calm);
        let there = now + connection.delay(is_calm);
        let back = connection.delay(is_calm);
        let arrival = there.max(connection.arrival.get()).max(connection.cut_until.get());
        connection.arrival.set(arrival);
        if !matches!(fate, Fate::Answered) || arrival > now + limit {
            world.fault();
        }
        if matches!(fate, Fate::RequestLost) {
            return;
        }
        let process = Rc::clone(self);
        // It arrives, whatever happens to its sender.
        world.at(arrival, move |world| {
            let answer = world.execute(&call);
            world.trace(|| format!("{} {number} is executed: {}", process.id, said(&answer)));
            if matches!(fate, Fate::Twice) {
                world.execute(&call);
            }
            drop(call);
            if matches!(fate, Fate::ReplyLost) {
                return;
            }
            // An answer may overtake the one to an earlier request.
            let at = world.now() + back;
            world.on(at, &process, move |_, process| {
                let waits = process.connection.in_flight.borrow_mut().remove(&number);
                if waits.is_some() {
                    process.world.trace(|| format!("{} gets the answer to {number}", process.id));
                    process.answer(answer);
                }
            });
        });
    }

    /// Checks that a hold has at most one renewal on its way.
    fn judge_renewals(&self, call: &Call<Caller>, number: u64) {
        let mut asked = self.connection.asked.borrow_mut();
        if let Call::Acquire(batch) = call {
            let tokens = batch.requests.iter().map(|request| request.token.as_str().to_owned());
            asked.extend(tokens.map(|token| (token, number)));
        }
        let Call::Renew(batch) = call else { return };
        for (number, before) in &*self.connection.in_flight.borrow() {
            let Call::Renew(before) = &**before else { continue };
            for RenewRequest { token, .. } in &batch.requests {
                let is_same_hold = asked.get(token.as_str()).is_none_or(|asked| asked < number);
                if is_same_hold && before.requests.iter().any(|other| other.token == *token) {
                    self.world.violation("a renewal was sent that is on its way already");
                }
            }
        }
    }

    /// Nothing passes for a while. Messages on their way arrive afterwards, if at all. Callers that
    /// wait for an answer are told at once that none will come (`is_noticed`), or wait in vain.
    pub(crate) fn cut(self: &Rc<Self>, until: u64, is_noticed: bool) {
        self.connection.cut_until.set(until);
        self.world.fault();
        if !is_noticed {
            return;
        }
        self.world.store.borrow_mut().hang_up(&self.id);
        let process = Rc::clone(self);
        self.world.on(self.world.now(), &process, |_, process| {
            for call in process.connection.in_flight.take().into_values() {
                process.answer(no_answer(&call));
            }
        });
        self.world.at(until, move |_| process.connect());
    }

    /// Subscribes: notices come from now on.
    pub(crate) fn connect(self: &Rc<Self>) {
        if self.is_dead.get() || self.delivery == Delivery::Polling {
            return;
        }
        self.world.store.borrow_mut().subscribe(Line(Rc::clone(self)));
        let delivery = self.delivery;
        self.world.on(self.world.now(), self, move |_, process| {
            process.notify(Notice::Connected(delivery));
        });
    }

    /// The store sends the process a notice, which may be lost.
    pub(crate) fn say(self: &Rc<Self>, notice: Notice) {
        let (world, connection) = (&self.world, &self.connection);
        let is_lost = match () {
            () if world.weather.loses_notices() => connection.random.borrow_mut().one_in(4),
            () if world.weather.is_calm() => false,
            () => connection.random.borrow_mut().one_in(20) || connection.is_cut(world.now()),
        };
        world.trace(|| format!("{} is told, unless it is lost ({is_lost}): {notice:?}", self.id));
        if is_lost {
            return world.fault();
        }
        let at = world.now() + connection.delay(world.weather.is_calm());
        world.on(at, self, move |_, process| process.notify(notice));
    }
}

/// The content of a request: its operation, and the key of each item, with its token where it has
/// one.
pub(crate) struct Seen(&'static str, Vec<(Arc<str>, Option<Token>)>);

impl Seen {
    pub(crate) fn of<C>(call: &Call<C>) -> Self {
        fn items<Q, T>(
            batch: &Batch<Q, T>,
            of: impl Fn(&Q) -> (&Arc<str>, Option<&Token>),
        ) -> Vec<(Arc<str>, Option<Token>)> {
            let items = batch.requests.iter().map(of);
            items.map(|(key, token)| (Arc::clone(key), token.cloned())).collect()
        }
        match call {
            Call::Acquire(b) => Self("acquire", items(b, |q| (&q.key, Some(&q.token)))),
            Call::Renew(b) => Self("renew", items(b, |q| (&q.key, Some(&q.token)))),
            Call::Release(b) => Self("release", items(b, |q| (&q.key, Some(&q.token)))),
            Call::Extend(b) => Self("extend", items(b, |q| (&q.key, Some(&q.token)))),
            Call::Holder(b) => Self("holder", items(b, |key| (key, None))),
            Call::Client(b) => Self("client", items(b, |key| (key, None))),
            Call::Scan(b) => Self("scan", items(b, |q| (&q.prefix, None))),
            Call::Introduce(b) => Self("introduce", items(b, |q| (&q.key, None))),
            Call::DueIn(b) => Self("due_in", items(b, |key| (key, None))),
            Call::ForceRelease(b) => {
                Self("force_release", items(b, |q| (&q.key, q.holder.as_ref())))
            }
            Call::Register(b) => Self("debounce", items(b, |q| (&q.window, Some(&q.token)))),
            Call::EndWindow(b) => Self("end_window", items(b, |q| (&q.window, None))),
            Call::Claim(b) => Self("claim", items(b, |q| (&q.run, Some(&q.token)))),
            Call::Keep(b) => Self("keep", items(b, |q| (&q.id, None))),
            Call::Due(b) => Self("due", items(b, |q| (&q.book.due, None))),
            Call::Waiting(b) => Self("waiting", items(b, |q| (&q.book.due, None))),
            Call::Finish(b) => Self("finish", items(b, |q| (&q.run, Some(&q.token)))),
            Call::SetAside(b) => Self("set_aside", items(b, |q| (&q.aside, None))),
            Call::TakeBack(b) => Self("take_back", items(b, |q| (&q.id, None))),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(operation, items) = self;
        f.write_str(operation)?;
        items.iter().try_for_each(|(key, token)| {
            write!(f, " {key} {}", token.as_ref().map_or("-", Token::as_str))
        })
    }
}

/// The store's answer, as text for a trace.
fn said(answer: &Answer<Caller>) -> String {
    match answer {
        Answer::Acquired(_, answers) => format!("{answers:?}"),
        Answer::Renewed(_, answers) => format!("{answers:?}"),
        Answer::Released(_, answers) => format!("{answers:?}"),
        Answer::Registered(_, answers) => format!("{answers:?}"),
        Answer::Claimed(_, answers) => format!("{answers:?}"),
        Answer::Finished(_, answers) => format!("{answers:?}"),
        Answer::WindowEnded(_, answers) => format!("{answers:?}"),
        Answer::Due(_, answers) => format!("{answers:?}"),
        Answer::Extended(_, answers) => format!("{answers:?}"),
        _ => String::new(),
    }
}

/// A digest of every request, in order: client, operation, key, token and time.
///
/// The code that decides about requests may be rewritten, but has to send the same requests.
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, client: &str, Seen(operation, items): &Seen, at: u64) {
        self.bytes(client.as_bytes());
        self.bytes(&at.to_le_bytes());
        self.bytes(operation.as_bytes());
        for (key, token) in items {
            self.bytes(key.as_bytes());
            self.bytes(token.as_ref().map_or("-", Token::as_str).as_bytes());
        }
    }

    /// FNV-1a (Fowler, Noll and Vo), which is the same everywhere.
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

impl World {
    /// Has the store execute a call that has arrived, and sends the resulting notices.
    fn execute(self: &Rc<Self>, call: &Call<Caller>) -> Answer<Caller> {
        let mut judge = self.judge.borrow_mut();
        let (answer, notices) = self.store.borrow_mut().execute(call, self.now(), &mut judge);
        drop(judge);
        for (Line(process), notice) in notices {
            process.say(notice);
        }
        answer
    }
}
