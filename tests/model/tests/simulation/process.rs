//! A process: an engine, driven as by the keeper of `lock`.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::Future,
    mem,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use lock_core::{
    Moment,
    contract::{Delivery, Notice},
    engine::{
        Engine,
        calls::Answer,
        io::{Acquirer, Command, Grant, HoldName, Output, Query, Refusal, Terms, Work},
    },
    token,
};
use lock_judge::Random;

use crate::{
    held::{Held, Hold, Open},
    host::Host,
    network::Connection,
    tasks::{Caller, Reply, Slot, Tasks, Told},
    world::{MILLI, World},
};

/// How soon a lock is free after its caller has gone away.
const CANCELLED: u64 = 100 * MILLI;

/// The longest that `hold_at_least` and the release keep a lock.
const KEPT: u64 = 350 * MILLI;

enum Message {
    Command(Command<Caller>),
    Notice(Notice),
}

/// One life of a client.
pub(crate) struct Process {
    pub(crate) world: Rc<World>,
    /// The index of its client, and the beginning of its tokens in this life.
    pub(crate) client: usize,
    pub(crate) id: String,
    pub(crate) lease: Duration,
    pub(crate) delivery: Delivery,
    pub(crate) host: Rc<Host>,
    pub(crate) connection: Connection,
    pub(crate) tasks: Tasks,
    /// The holds of its callers, by the callers' numbers.
    pub(crate) open: RefCell<BTreeMap<u64, Open>>,
    pub(crate) is_dead: Cell<bool>,
    /// It was told to shut down, which costs its locks.
    pub(crate) is_closing: Cell<bool>,
    engine: RefCell<Engine<Caller>>,
    answers: RefCell<VecDeque<Answer<Caller>>>,
    messages: RefCell<VecDeque<Message>>,
    /// The state that each guard shares with the keeper, by the number in its token.
    holds: RefCell<BTreeMap<u64, Rc<Hold>>>,
    numbers: Cell<u64>,
    /// How many of its callers wait for each lock.
    waiting: RefCell<BTreeMap<Arc<str>, u64>>,
    /// The slots in which its callers wait.
    slots: RefCell<Vec<Weak<Slot>>>,
    /// When the lock with the token of this number was released.
    let_go: RefCell<BTreeMap<u64, u64>>,
    turn_at: Cell<u64>,
    random: RefCell<Random>,
}

impl Process {
    pub(crate) fn new(
        world: &Rc<World>,
        (client, life): (usize, u64),
        host: &Rc<Host>,
        (lease, delivery): (Duration, Delivery),
        random: &mut Random,
    ) -> Rc<Self> {
        // Different for each seed and each life, as real ids are.
        let id = format!("{client}.{life}.{}", world.seed);
        let engine = Engine::new(&*id, Arc::new(|_| 0));
        let this = Rc::new(Self {
            world: Rc::clone(world),
            client,
            id,
            lease,
            delivery,
            host: Rc::clone(host),
            connection: Connection::new(Random::new(random.any())),
            tasks: Tasks::default(),
            open: RefCell::default(),
            is_dead: Cell::new(false),
            is_closing: Cell::new(false),
            engine: RefCell::new(engine),
            answers: RefCell::default(),
            messages: RefCell::default(),
            holds: RefCell::default(),
            // The engine draws the odd ones.
            numbers: Cell::new(2),
            waiting: RefCell::default(),
            slots: RefCell::default(),
            let_go: RefCell::default(),
            turn_at: Cell::new(u64::MAX),
            random: RefCell::new(Random::new(random.any())),
        });
        this.connect();
        this
    }

    /// How long a message or a wake-up takes inside the process: mostly next to nothing.
    pub(crate) fn pause(&self) -> u64 {
        let mut random = self.random.borrow_mut();
        let longest = match random.below(8) {
            0 if !self.world.weather.is_calm() => 3 * MILLI,
            0..4 => MILLI / 5,
            _ => 1,
        };
        random.below(longest)
    }

    // What its callers do.

    /// Sends the keeper a command.
    pub(crate) fn send(self: &Rc<Self>, command: Command<Caller>) {
        self.post(Message::Command(command));
    }

    pub(crate) fn notify(self: &Rc<Self>, notice: Notice) {
        self.post(Message::Notice(notice));
    }

    fn post(self: &Rc<Self>, message: Message) {
        if self.is_dead.get() {
            return;
        }
        self.messages.borrow_mut().push_back(message);
        let late = self.pause();
        self.turn_by(self.world.now() + late);
    }

    pub(crate) fn answer(self: &Rc<Self>, answer: Answer<Caller>) {
        self.answers.borrow_mut().push_back(answer);
        self.turn_by(self.world.now());
    }

    /// Sends the keeper a command, and waits for the answer.
    pub(crate) fn ask(
        self: &Rc<Self>,
        key: Option<&Arc<str>>,
        command: impl FnOnce(Caller) -> Command<Caller>,
    ) -> Reply {
        let has_ended = self.engine.borrow().has_ended();
        let slot = Rc::new(Slot {
            task: self.tasks.current(),
            key: key.cloned(),
            answer: RefCell::new(has_ended.then_some(Err(Refusal::Closed))),
            is_closed: Cell::new(false),
        });
        self.slots.borrow_mut().push(Rc::downgrade(&slot));
        self.send(command(Caller(Some(Rc::clone(&slot)))));
        Reply(slot)
    }

    pub(crate) fn query(self: &Rc<Self>, query: Query) -> Reply {
        self.ask(None, |to| Command::Query(Box::new(query), to))
    }

    /// Asks for a lock. A caller that goes away withdraws at once.
    pub(crate) fn ask_for(
        self: &Rc<Self>,
        key: &Arc<str>,
        terms: Terms,
        command: impl FnOnce(Acquirer<Caller>) -> Command<Caller>,
    ) -> impl Future<Output = Result<Told, Refusal>> {
        struct Withdraw(Rc<Process>, Option<u64>, Arc<str>);

        impl Drop for Withdraw {
            fn drop(&mut self) {
                let mut waiting = self.0.waiting.borrow_mut();
                *waiting.entry(Arc::clone(&self.2)).or_default() -= 1;
                drop(waiting);
                if let Some(number) = self.1 {
                    self.0.send(Command::Cancel(number));
                    self.0.judge_cancelled(&self.2, number);
                }
            }
        }

        let number = self.numbers.get();
        self.numbers.set(number + 2);
        let (process, key) = (Rc::clone(self), Arc::clone(key));
        async move {
            *process.waiting.borrow_mut().entry(Arc::clone(&key)).or_default() += 1;
            let mut withdraw = Withdraw(Rc::clone(&process), Some(number), Arc::clone(&key));
            let told = process.ask(Some(&key), |to| {
                command(Acquirer { number, key: Arc::clone(&key), terms, to })
            });
            let told = told.await;
            withdraw.1 = None;
            told
        }
    }

    // Turns.

    fn turn_by(self: &Rc<Self>, at: u64) {
        if at >= self.turn_at.get() {
            return;
        }
        self.turn_at.set(at);
        self.world.on(at, self, move |_, process| {
            if process.turn_at.get() == at {
                process.turn_at.set(u64::MAX);
                process.turn();
            }
        });
    }

    /// Does all there is to do now.
    fn turn(self: &Rc<Self>) {
        let now = self.host.clock(self.world.now());
        let engine = &mut *self.engine.borrow_mut();
        if engine.has_ended() {
            return;
        }
        engine.timeout(now);
        self.carry_out(engine, now);
        loop {
            let answer = self.answers.borrow_mut().pop_front();
            if let Some(answer) = answer {
                engine.answered(answer, now);
                self.carry_out(engine, now);
                continue;
            }
            let message = self.messages.borrow_mut().pop_front();
            let Some(message) = message else { break };
            self.take(engine, message, now);
        }
        loop {
            match engine.poll_call(now) {
                Some(call) => self.ask_store(call),
                None if !self.carry_out(engine, now) => break,
                None => {}
            }
            self.carry_out(engine, now);
        }
        if engine.has_ended() {
            self.close();
        } else if let Some(next) = engine.next_timeout() {
            self.turn_by(self.host.when(next).max(self.world.now() + 1));
        }
    }

    /// The keeper has ended: tells the callers that still wait for it.
    fn close(self: &Rc<Self>) {
        self.connection.forget();
        self.answers.take();
        for slot in self.slots.take().iter().filter_map(Weak::upgrade) {
            if slot.answer.borrow().is_none() {
                self.tell(&Caller(Some(slot)), Err(Refusal::Closed));
            }
        }
    }

    fn take(self: &Rc<Self>, engine: &mut Engine<Caller>, message: Message, now: Moment) {
        match message {
            Message::Notice(notice) => {
                self.world.trace(|| format!("{} hears {notice:?}", self.id));
                if let Notice::Contended { number } = notice {
                    self.world.store.borrow_mut().heard_of_contention(&self.id, number);
                }
                engine.notice(notice, now);
            }
            Message::Command(command) => {
                self.world.trace(|| format!("{} is asked: {}", self.id, asked(&command)));
                match &command {
                    Command::Release { hold: name, .. } | Command::Leak(name) => {
                        self.let_go.borrow_mut().insert(name.ownership, self.world.now());
                        let mut holds = self.holds.borrow_mut();
                        if holds.get(&name.ownership).is_some_and(|hold| hold.name == *name)
                            && let Some(hold) = holds.remove(&name.ownership)
                            && hold.lost_at.get().is_some()
                        {
                            engine.command(Command::Expired(*name), now);
                        }
                    }
                    Command::RunTaken(name) => self.look_at(engine, *name, now),
                    Command::Query(query, _) => {
                        self.world.store.borrow_mut().asked(&self.id, query, self.world.now());
                    }
                    _ => {}
                }
                engine.command(command, now);
            }
        }
        self.carry_out(engine, now);
    }

    /// Its holder may have found the deadline passed before the engine does.
    fn look_at(&self, engine: &mut Engine<Caller>, name: HoldName, now: Moment) {
        let holds = self.holds.borrow();
        let hold = holds.get(&name.ownership).filter(|hold| hold.name == name);
        if hold.is_some_and(|hold| hold.lost_at.get().is_some()) {
            engine.command(Command::Expired(name), now);
        }
    }

    fn carry_out(self: &Rc<Self>, engine: &mut Engine<Caller>, now: Moment) -> bool {
        let mut any = false;
        while let Some(output) = engine.poll() {
            any = true;
            match output {
                Output::Granted(to, grant) => self.grant(engine, &to, grant, now),
                Output::Answered(to, answer) => self.tell(&to, answer.map(Told::Else)),
                Output::Deadline(ownership, at) => {
                    let hold = self.holds.borrow().get(&ownership).cloned();
                    let Some(hold) = hold else { continue };
                    hold.deadline.set(at);
                    self.look_at(engine, hold.name, now);
                }
                Output::Lost(ownership, _) => {
                    self.world.trace(|| format!("{} has lost {ownership}", self.id));
                    let hold = self.holds.borrow_mut().remove(&ownership);
                    if let Some(hold) = hold {
                        self.declare_lost(&hold, now);
                    }
                }
                Output::Waiting(_) => unreachable!("no caller asked for that"),
            }
        }
        any
    }

    fn tell(self: &Rc<Self>, to: &Caller, answer: Result<Told, Refusal>) {
        let Some(slot) = &to.0 else { return };
        if !slot.is_closed.get() {
            *slot.answer.borrow_mut() = Some(answer);
            self.wake(slot.task);
        }
    }

    fn grant(self: &Rc<Self>, engine: &mut Engine<Caller>, to: &Caller, grant: Grant, now: Moment) {
        let Grant { hold: name, token, fencing_token, deadline, work } = grant;
        let slot = to.0.as_ref().expect("a caller that asks for a lock waits for it");
        let key = slot.key.clone().expect("a caller that is granted a lock has asked for it");
        if deadline <= now {
            self.world.violation(format!("{key}: a grant that was over when it came"));
        }
        if matches!(work, Work::Own) && !fencing_token.is_multiple_of(1024) {
            self.world.judge.borrow_mut().totals.handed_over += 1;
            self.world.store.borrow_mut().passed_on(self, &key, name.ownership);
        }
        self.world.trace(|| format!("{} is granted {key} {name:?} until {deadline:?}", self.id));
        let hold = Rc::new(Hold {
            name,
            key,
            token,
            fencing_token,
            deadline: Cell::new(deadline),
            lost_at: Cell::new(None),
            task: Cell::new(slot.task),
        });
        self.holds.borrow_mut().insert(name.ownership, Rc::clone(&hold));
        let mut held = Held::new(&hold, self);
        if slot.is_closed.get() {
            // Its caller has just gone away.
            held.defuse();
            self.holds.borrow_mut().remove(&name.ownership);
            engine.command(Command::Release { hold: name, undelivered: true, to: None }, now);
        } else {
            self.tell(to, Ok(Told::Granted(held, work)));
        }
    }

    /// Does a caller or the keeper still take care of what this token holds?
    pub(crate) fn cares_for(&self, number: u64) -> bool {
        self.holds.borrow().contains_key(&number)
    }

    pub(crate) fn waits_for(&self, key: &str) -> bool {
        self.waiting.borrow().get(key).is_some_and(|count| *count > 0)
    }

    /// The lock of this token is left to whichever process adopts it.
    pub(crate) fn leaked(&self, number: u64) {
        self.let_go.borrow_mut().insert(number, u64::MAX);
    }

    /// A caller has gone away: checks that a lock it may have been granted is free soon, where
    /// nothing goes wrong.
    fn judge_cancelled(self: &Rc<Self>, key: &Arc<str>, number: u64) {
        if !self.world.weather.is_calm() || self.is_closing.get() {
            return;
        }
        let key = Arc::clone(key);
        self.world.on(self.world.now() + CANCELLED, self, move |world, process| {
            let holder = world.store.borrow_mut().holder(&key, world.now());
            let is_its = holder.is_some_and(|token| token == token::made_by(&process.id, number));
            let let_go = process.let_go.borrow().get(&number).copied().unwrap_or_default();
            let is_kept = let_go.saturating_add(KEPT) > world.now();
            if is_its && !is_kept && !process.cares_for(number) && !process.waits_for(&key) {
                world.violation(format!("{key}: held by {number}, whose caller has long gone"));
            }
        });
    }

    /// All handles are dropped: no caller asks for anything any more, and the keeper ends in its
    /// own time.
    pub(crate) fn abandon(self: &Rc<Self>) {
        self.is_closing.set(true);
        self.tasks.abort();
        self.send(Command::Abandon);
    }

    /// Ends without telling the store or the callers.
    pub(crate) fn kill(&self) {
        self.end_sections();
        self.is_dead.set(true);
        self.tasks.abort();
        let all = (self.holds.take(), self.answers.take(), self.messages.take());
        drop(all);
        self.connection.forget();
    }

    /// Breaks the reference cycles.
    pub(crate) fn forget(&self) {
        self.kill();
        let engine = Engine::new("gone", Arc::new(|_| 0));
        drop(mem::replace(&mut *self.engine.borrow_mut(), engine));
    }
}

/// A caller's command, as text for a trace.
fn asked(command: &Command<Caller>) -> String {
    match command {
        Command::Acquire(acquire) => {
            format!("{} for {}", acquire.acquirer.number, acquire.acquirer.key)
        }
        Command::Debounce(call) => format!("{} to run", call.acquirer.number),
        Command::Claim(claim) => format!("{} to run {}", claim.acquirer.number, claim.id),
        Command::Cancel(number) => format!("cancel {number}"),
        Command::Release { hold, undelivered, .. } => format!("release {hold:?} {undelivered}"),
        Command::RunTaken(hold) => format!("taken {hold:?}"),
        Command::Extend(hold, by, _) => format!("extend {hold:?} by {by:?}"),
        Command::Leak(hold) => format!("leak {hold:?}"),
        Command::Expired(hold) => format!("expired {hold:?}"),
        Command::Query(..) => "query".to_owned(),
        Command::Flush(_) => "flush".to_owned(),
        Command::Shutdown(_) => "shutdown".to_owned(),
        Command::Abandon => "abandon".to_owned(),
    }
}
