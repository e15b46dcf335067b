//! A world: processes, their connections, one server; and all that can happen to them.
//!
//! What the callers of the processes do, and what is judged, is a [`Play`]. All the rest is the same for
//! locks, debounced calls and durable calls, and is here.

use std::{
    fmt::{self, Debug},
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use foldhash::quality::FixedState;
use lock_core::{
    Moment, Token,
    contract::Notice,
    engine::{
        calls::{Answer, Call},
        io::Output,
    },
    table::{Now, Subscriber, Table},
};
use lock_model::{Process, Who, server::answer};
use stateright::{Model, Property};

use crate::{EPOCH, NAMES, TICK, checker::Seen};

/// Timers are looked at on a grid of this width, so that what differs by a jitter only is one state.
const GRID: Duration = Duration::from_millis(100);

/// What callers do, and what is made of it.
pub(crate) trait Play: Sized + Debug + Send + Sync + 'static {
    /// What the callers of one process know.
    type Callers: Clone + Hash + Send + Sync;
    /// What is known to nobody but the model.
    type Judge: Clone + Hash + Send + Sync;
    /// What a caller does.
    type Act: Copy + Debug + PartialEq + Eq + Ord + Hash + Send + Sync;

    fn callers(&self, process: usize) -> Self::Callers;
    fn judge(&self) -> Self::Judge;

    /// What the callers of a process may do, each in its own time.
    fn acts(&self, world: &World<Self>, process: usize) -> Vec<Self::Act>;
    /// What they may do that is counted as a fault.
    fn faults(&self, world: &World<Self>, process: usize) -> Vec<Self::Act>;
    /// What they do at once, unless they are late, and when they do something by themselves.
    fn due(&self, world: &World<Self>, process: usize) -> Option<Self::Act>;
    fn next_timer(&self, world: &World<Self>, process: usize) -> Moment;
    fn act(&self, world: &mut World<Self>, process: usize, act: Self::Act);

    /// A caller of a process is told something.
    fn told(&self, world: &mut World<Self>, process: usize, output: Output<Who>);
    /// The server has executed a call.
    fn executed(&self, world: &mut World<Self>, executed: &Executed<'_>);

    /// Does something go on that lasts, in this process?
    fn lasts(&self, callers: &Self::Callers) -> bool;
    /// Have the callers of this process begun with anything?
    fn has_begun(&self, process: usize, callers: &Self::Callers) -> bool;
    /// Do the callers of this process want to do something later?
    fn is_calling(&self, callers: &Self::Callers) -> bool;
    /// Are the callers of this process done?
    fn is_done(&self, callers: &Self::Callers) -> bool;
    /// Is something in the server that no caller of a living process wants any more?
    fn has_leftovers(&self, world: &World<Self>) -> bool;
    /// Is the server as it has to be when all are done?
    fn is_left_well(&self, world: &World<Self>) -> bool;

    /// Which lock is looked at before and after each call.
    fn key(&self) -> &'static str;
    /// By when all must be over.
    fn end(&self) -> Duration;
    fn properties(&self, bound: Bound) -> Vec<Property<Scene<Self>>>;
}

/// A call that was executed, and who held the lock before and after it.
pub(crate) struct Executed<'a> {
    pub(crate) call: &'a Call<Who>,
    pub(crate) answer: &'a Answer<Who>,
    pub(crate) before: Option<Token>,
    pub(crate) after: Option<Token>,
}

/// What may happen, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bound {
    /// Times that pass though somebody could go on.
    pub(crate) late: u8,
    /// Times that pass while something goes on that lasts.
    pub(crate) lasting: u8,
    /// Times that pass before callers do what they want to do later.
    pub(crate) calling: u8,
    /// Cuts, crashes, callers that go away, notices that are lost, in all.
    pub(crate) faults: u8,
    /// Losses of all data.
    pub(crate) wipes: u8,
}

/// A play within a bound.
#[derive(Debug)]
pub(crate) struct Scene<P> {
    pub(crate) play: P,
    pub(crate) processes: usize,
    pub(crate) bound: Bound,
    /// Does the clock that fences are drawn from go on with each operation?
    pub(crate) ticking: bool,
    pub(crate) seen: Seen,
}

/// How the table reaches a client.
#[derive(Clone, Copy)]
pub(crate) struct Client(usize);

impl Subscriber for Client {
    fn is_there(&self) -> bool {
        true
    }
}

/// The same in each run.
fn hash_of(value: &impl Hash) -> u64 {
    FixedState::with_seed(7).hash_one(value)
}

/// Something large that most steps leave as it was: shared with the states before, and hashed once.
pub(crate) struct Kept<T>(Arc<(u64, T)>);

impl<T: Hash> Kept<T> {
    fn new(value: T) -> Self {
        Self(Arc::new((hash_of(&value), value)))
    }
}

impl<T: Hash + Clone> Kept<T> {
    /// What would come of changing it.
    pub(crate) fn change_nothing<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.1.clone())
    }

    /// Changes it.
    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.0.1.clone();
        let result = change(&mut value);
        *self = Self::new(value);
        result
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::ops::Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.1
    }
}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.0.hash(state);
    }
}

/// One process, and its callers.
#[derive(Clone, Hash)]
pub(crate) struct Peer<C> {
    pub(crate) process: Process,
    pub(crate) callers: C,
}

/// A notice on its way, in an order of its own: what it is, and the number in the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Word {
    Granted(u64),
    Contended(u64),
    Revoked(u64),
    Flushed(u64),
}

impl Word {
    fn of(notice: Notice) -> Self {
        match notice {
            Notice::Granted { number } => Self::Granted(number),
            Notice::Contended { number } => Self::Contended(number),
            Notice::Revoked { number } => Self::Revoked(number),
            Notice::Flushed { number } => Self::Flushed(number),
            other => panic!("no server says {other:?} about one lock"),
        }
    }

    fn notice(self) -> Notice {
        match self {
            Self::Granted(number) => Notice::Granted { number },
            Self::Contended(number) => Notice::Contended { number },
            Self::Revoked(number) => Notice::Revoked { number },
            Self::Flushed(number) => Notice::Flushed { number },
        }
    }

    fn number(self) -> u64 {
        let (Self::Granted(number)
        | Self::Contended(number)
        | Self::Revoked(number)
        | Self::Flushed(number)) = self;
        number
    }
}

/// The state of a world.
pub(crate) struct World<P: Play> {
    pub(crate) now: Moment,
    pub(crate) left: Bound,
    pub(crate) table: Kept<Table<Client>>,
    pub(crate) peers: Vec<Kept<Peer<P::Callers>>>,
    pub(crate) alive: [bool; NAMES.len()],
    /// Which processes the server takes for connected.
    pub(crate) connected: [bool; NAMES.len()],
    /// Notices on their way, and to which process; they come in any order.
    words: Vec<(usize, Word)>,
    /// Calls of connections that are gone: the server may find them in its buffers.
    stale: Vec<(usize, Kept<Call<Who>>)>,
    /// What is done only after some time has passed.
    delayed: Vec<(usize, Step<P::Act>)>,
    /// How often all data was lost. Each loss takes a while.
    wiped: u64,
    /// What the server's clock has shown last, in microseconds, if it goes on with each operation.
    clock: Option<u64>,
    pub(crate) judge: P::Judge,
    /// An old call may have asked for what nobody wants any more.
    pub(crate) has_executed_stale: bool,
}

impl<P: Play> Clone for World<P> {
    fn clone(&self) -> Self {
        Self {
            now: self.now,
            left: self.left,
            table: self.table.clone(),
            peers: self.peers.clone(),
            alive: self.alive,
            connected: self.connected,
            words: self.words.clone(),
            stale: self.stale.clone(),
            delayed: self.delayed.clone(),
            wiped: self.wiped,
            clock: self.clock,
            judge: self.judge.clone(),
            has_executed_stale: self.has_executed_stale,
        }
    }
}

impl<P: Play> Hash for World<P> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.now, self.left, &self.table, &self.peers).hash(state);
        (&self.alive, &self.connected, &self.words, &self.stale, &self.delayed).hash(state);
        (self.wiped, self.clock, &self.judge, self.has_executed_stale).hash(state);
    }
}

/// For the steps that lead to a state: what happened tells more than what is.
impl<P: Play> Debug for World<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?}, left {:?}", self.now, self.left)
    }
}

impl<P: Play> PartialEq for World<P> {
    fn eq(&self, other: &Self) -> bool {
        hash_of(self) == hash_of(other)
    }
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action<A> {
    /// Time goes on, though somebody has something to do: it is late, by so many ticks.
    Late(u32),
    /// Nobody has anything to do before the next timer.
    Next,
    /// Callers do later what they want to do later.
    Pause,
    /// A caller does something in its own time.
    Act(usize, A),
    /// The same, and it is a fault.
    Fault(usize, A),
    /// The server executes the next call of a process.
    Execute(usize),
    Step(usize, Step<A>),
    /// A step is not done before some time has passed.
    Delay(usize, Step<A>),
    Lose(usize, Word),
    /// A connection breaks, and is replaced.
    Cut(usize),
    /// A call of a connection that is gone is executed.
    ExecuteStale(usize),
    /// A process stops for ever. Does the server notice?
    Crash(usize, bool),
    Wipe,
}

/// What a process does next. The others see nothing of it before the server executes what it asks
/// for, so it makes no difference in which order processes do it, unless time passes in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Step<A> {
    /// The oldest answer reaches it.
    Deliver,
    /// Its keeper looks at its timers.
    Turn,
    /// A notice reaches it.
    Hear(Word),
    /// A caller does what is due.
    Act(A),
}

impl<P: Play> World<P> {
    /// Changes a process, and passes on what its callers are told by that.
    pub(crate) fn process(
        &mut self,
        play: &P,
        index: usize,
        change: impl FnOnce(&mut Process) -> Vec<Output<Who>>,
    ) {
        let told = self.peers[index].change(|peer| change(&mut peer.process));
        for output in told {
            play.told(self, index, output);
        }
    }

    pub(crate) fn callers<R>(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut P::Callers) -> R,
    ) -> R {
        self.peers[index].change(|peer| change(&mut peer.callers))
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.peers.len()).filter(|index| self.alive[*index])
    }

    /// Has nobody anything to do now?
    pub(crate) fn is_quiet(&self, play: &P) -> bool {
        self.living().all(|index| {
            self.peers[index].process.calls.is_empty()
                && self.words_to(index).next().is_none()
                && self.timer_of(play, index) > self.now
                && play.due(self, index).is_none()
        })
    }

    /// The notices that are on their way to a process.
    fn words_to(&self, index: usize) -> impl Iterator<Item = Word> {
        self.words.iter().filter(move |(to, _)| *to == index).map(|(_, word)| *word)
    }

    /// Is everybody on time from now on, and nothing lost? Then answers come with their execution, and
    /// what is to be done is done at once: it makes no difference to the others when.
    fn is_calm(&self) -> bool {
        self.left.late == 0 && self.left.faults == 0
    }

    fn timer_of(&self, play: &P, index: usize) -> Moment {
        self.peers[index].process.next_timer().min(play.next_timer(self, index))
    }

    /// What a process has to do now, unless it is late.
    fn next_step(&self, play: &P) -> Option<(usize, Step<P::Act>)> {
        self.living().find_map(|index| {
            let peer = &self.peers[index];
            let deliver = peer.process.calls.has_answer().then_some(Step::Deliver);
            let turn = (peer.process.next_timer() <= self.now).then_some(Step::Turn);
            let words = self.words_to(index).map(Step::Hear);
            let act = play.due(self, index).map(Step::Act);
            let mut steps = deliver.into_iter().chain(turn).chain(words).chain(act);
            let step = steps.find(|step| !self.delayed.contains(&(index, *step)));
            step.map(|step| (index, step))
        })
    }

    /// When somebody has something to do, or something in the server ends by itself.
    fn next_timer(&self, play: &P) -> Moment {
        let timers = self.living().map(|index| self.timer_of(play, index));
        let now = self.now;
        let key = play.key();
        let expiry = self.table.last_holder(key).map(|(_, expiry)| expiry);
        let waiters = self.table.waiters(key).map(|(_, end)| end).max();
        let ends = expiry.into_iter().chain(waiters).filter(|end| *end >= now);
        // Expired is what has passed its time.
        let ends = ends.map(|end| end + Duration::from_nanos(1));
        timers.chain(ends).min().unwrap_or(Moment::NEVER)
    }

    /// Time goes on to the next timer. What a timer does that neither the server nor a caller can see,
    /// it does right there: a state in between says nothing.
    fn go_on(&mut self, play: &P) {
        let end = Moment::default() + play.end();
        loop {
            self.now = self.next_timer(play).round_up(GRID).min(end);
            let due: Vec<_> =
                self.living().filter(|index| self.timer_of(play, *index) <= self.now).collect();
            let mut is_seen = due.is_empty();
            for index in due {
                let mut peer = self.peers[index].clone();
                let sent = peer.process.calls.len();
                let told = peer.change(|peer| peer.process.turn(self.now));
                let acts = play.due(self, index).is_some();
                if told.is_empty() && sent == peer.process.calls.len() && !acts {
                    self.peers[index] = peer;
                } else {
                    is_seen = true;
                }
            }
            if is_seen || self.now >= end || self.next_timer(play) == Moment::NEVER {
                return;
            }
        }
    }

    fn micros(&mut self) -> u64 {
        let mut micros = EPOCH + self.now.as_nanos() / 1000 + self.wiped * 1000;
        if let Some(clock) = &mut self.clock {
            micros = micros.max(*clock + 10);
            *clock = micros;
        }
        micros
    }

    /// Who holds the lock, if its time is not up.
    pub(crate) fn holder(&self, key: &str) -> Option<Token> {
        let holder = self.table.last_holder(key).filter(|(_, expiry)| self.now <= *expiry);
        holder.map(|(token, _)| token.clone())
    }

    fn execute(&mut self, play: &P, call: &Call<Who>) -> Answer<Who> {
        let before = self.holder(play.key());
        let at = Now { moment: self.now, micros: self.micros() };
        let (answer, notices) =
            self.table.change(|table| (answer(table, call, at), table.notices()));
        for (Client(client), notice) in notices {
            let word = (client, Word::of(notice));
            if self.alive[client]
                && let Err(place) = self.words.binary_search(&word)
            {
                self.words.insert(place, word);
            }
        }
        let after = self.holder(play.key());
        play.executed(self, &Executed { call, answer: &answer, before, after });
        answer
    }

    fn deliver(&mut self, scene: &Scene<P>, index: usize) {
        scene.seen.note(Seen::LATE_ANSWER, self.peers[index].process.calls.has_late_answer());
        let now = self.now;
        self.process(&scene.play, index, |process| process.take_answer(now));
    }
}

impl<P: Play> Model for Scene<P> {
    type State = World<P>;
    type Action = Action<P::Act>;

    fn init_states(&self) -> Vec<World<P>> {
        let count = self.processes;
        let peer = |index: usize| {
            let (process, callers) = (Process::new(NAMES[index]), self.play.callers(index));
            Kept::new(Peer { process, callers })
        };
        let mut table = Table::default();
        (0..count).for_each(|index| table.subscribe(NAMES[index], Client(index)));
        vec![World {
            now: Moment::default() + TICK,
            left: self.bound,
            table: Kept::new(table),
            peers: (0..count).map(peer).collect(),
            alive: [true; NAMES.len()],
            connected: [true; NAMES.len()],
            words: Vec::new(),
            stale: Vec::new(),
            delayed: Vec::new(),
            wiped: 0,
            clock: self.ticking.then_some(0),
            judge: self.play.judge(),
            has_executed_stale: false,
        }]
    }

    fn actions(&self, world: &World<P>, actions: &mut Vec<Action<P::Act>>) {
        let (play, left) = (&self.play, world.left);
        let faults = |index: usize, actions: &mut Vec<Action<P::Act>>| {
            let peer = &world.peers[index];
            let acts = play.faults(world, index).into_iter();
            actions.extend(acts.map(|act| Action::Fault(index, act)));
            actions.extend(world.words_to(index).map(|word| Action::Lose(index, word)));
            if !peer.process.calls.is_empty() {
                actions.push(Action::Cut(index));
            }
            if play.has_begun(index, &peer.callers) && !self.is_done(peer) {
                actions.push(Action::Crash(index, true));
                actions.push(Action::Crash(index, false));
            }
        };
        if let Some((index, step)) = world.next_step(play) {
            actions.push(Action::Step(index, step));
            if left.late > 0 {
                actions.push(Action::Delay(index, step));
            }
            if left.faults > 0 {
                faults(index, actions);
            }
            return;
        }
        let callers = |index: usize| &world.peers[index].callers;
        if world.is_quiet(play) {
            let lasts = world.living().any(|index| play.lasts(callers(index)));
            let next = world.next_timer(play);
            if next < Moment::NEVER && (!lasts || left.lasting > 0) {
                actions.push(Action::Next);
            }
            let calling = world.living().any(|index| play.is_calling(callers(index)));
            if left.calling > 0 && calling && next == Moment::NEVER {
                actions.push(Action::Pause);
            }
        } else if left.late > 0 {
            actions.push(Action::Late(1));
            actions.push(Action::Late(3));
        }
        for index in world.living() {
            let acts = play.acts(world, index).into_iter();
            actions.extend(acts.map(|act| Action::Act(index, act)));
            if world.peers[index].process.calls.next_call().is_some() {
                actions.push(Action::Execute(index));
            }
            if left.faults > 0 {
                faults(index, actions);
            }
        }
        for index in 0..world.peers.len() {
            if world.stale.iter().any(|(of, _)| *of == index) {
                actions.push(Action::ExecuteStale(index));
            }
        }
        if left.wipes > 0 {
            actions.push(Action::Wipe);
        }
    }

    fn next_state(&self, last: &World<P>, action: Action<P::Act>) -> Option<World<P>> {
        let (mut world, play, now) = (last.clone(), &self.play, last.now);
        match action {
            Action::Late(ticks) => {
                world.left.late -= 1;
                world.delayed.clear();
                world.now = now + TICK * ticks;
            }
            Action::Next => {
                let lasts = |index: usize| play.lasts(&world.peers[index].callers);
                if world.living().any(lasts) {
                    world.left.lasting -= 1;
                }
                world.go_on(play);
            }
            Action::Pause => {
                world.left.calling -= 1;
                world.now = now + TICK;
            }
            Action::Act(index, act) | Action::Step(index, Step::Act(act)) => {
                play.act(&mut world, index, act);
            }
            Action::Fault(index, act) => {
                world.left.faults -= 1;
                play.act(&mut world, index, act);
            }
            Action::Step(index, Step::Deliver) => world.deliver(self, index),
            Action::Step(index, Step::Turn) => {
                world.process(play, index, |process| process.turn(now));
            }
            Action::Step(index, Step::Hear(word)) => {
                world.words.retain(|other| *other != (index, word));
                world.process(play, index, |process| process.notice(word.notice(), now));
            }
            Action::Delay(index, step) => {
                world.delayed.push((index, step));
                world.delayed.sort_unstable();
            }
            Action::Execute(index) => {
                let peer = world.peers[index].clone();
                let answer = world.execute(play, peer.process.calls.next_call()?);
                if world.is_calm() {
                    let late = peer.process.calls.is_next_late();
                    self.seen.note(Seen::LATE_ANSWER, late);
                    world.process(play, index, |process| {
                        process.calls.answer(answer);
                        process.take_answer(now)
                    });
                } else {
                    world.peers[index].change(|peer| peer.process.calls.answer(answer));
                }
            }
            Action::Lose(index, word) => {
                world.left.faults -= 1;
                world.words.retain(|other| *other != (index, word));
            }
            Action::Cut(index) => {
                world.left.faults -= 1;
                let mut left = Vec::new();
                world.process(play, index, |process| {
                    let (calls, told) = process.cut(now);
                    left = calls;
                    told
                });
                world.stale.extend(left.into_iter().map(|call| (index, Kept::new(call))));
            }
            Action::ExecuteStale(index) => {
                self.seen.note(Seen::EXECUTED_STALE, true);
                world.has_executed_stale = true;
                let next = world.stale.iter().position(|(of, _)| *of == index)?;
                let (_, call) = world.stale.remove(next);
                world.execute(play, &call);
            }
            Action::Crash(index, is_noticed) => {
                world.left.faults -= 1;
                world.alive[index] = false;
                world.words.retain(|(to, _)| *to != index);
                let left = world.peers[index].change(|peer| peer.process.calls.cut().0);
                world.stale.extend(left.into_iter().map(|call| (index, Kept::new(call))));
                let (process, callers) = (Process::new(NAMES[index]), play.callers(index));
                world.peers[index] = Kept::new(Peer { process, callers });
                if is_noticed {
                    world.connected[index] = false;
                    world.table.change(|table| table.unsubscribe(NAMES[index]));
                }
            }
            Action::Wipe => {
                world.left.wipes -= 1;
                world.wiped += 1;
                world.table.change(Table::lose_all);
            }
        }
        // In which order they left different processes makes no difference.
        world.stale.sort_by_key(|(of, _)| *of);
        // A notice about what a process knows nothing of changes nothing, now or later.
        let World { peers, words, .. } = &mut world;
        words.retain(|(to, word)| peers[*to].process.engine().is_in_use(word.number()));
        world.has_executed_stale = world.has_executed_stale && play.has_leftovers(&world);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("nobody waits for ever", |scene: &Self, world: &World<P>| {
                world.now < Moment::default() + scene.play.end()
            }),
            Property::always("in the end all is done", |scene: &Self, world: &World<P>| {
                scene.is_over(world).is_none_or(|is_done| is_done)
            }),
        ];
        if self.bound.late > 0 {
            properties.push(Property::sometimes("an answer comes too late", |scene: &Self, _| {
                scene.seen.has(Seen::LATE_ANSWER)
            }));
        }
        if self.bound.faults > 0 {
            properties.push(Property::sometimes("an old call is executed", |scene: &Self, _| {
                scene.seen.has(Seen::EXECUTED_STALE)
            }));
        }
        properties.extend(self.play.properties(self.bound));
        properties
    }

    fn within_boundary(&self, world: &World<P>) -> bool {
        world.now <= Moment::default() + self.play.end()
    }
}

impl<P: Play> Scene<P> {
    /// If nothing more happens by itself: is everything done?
    fn is_over(&self, world: &World<P>) -> Option<bool> {
        if !world.is_quiet(&self.play) {
            return None;
        }
        let mut actions = Vec::new();
        self.actions(world, &mut actions);
        let goes_on = |action: &Action<P::Act>| {
            use Action::{Crash, ExecuteStale, Fault, Pause, Wipe};
            !matches!(action, ExecuteStale(_) | Wipe | Pause | Fault(..) | Crash(..))
        };
        if actions.iter().any(goes_on) {
            return None;
        }
        let is_done = world.living().all(|index| self.is_done(&world.peers[index]));
        Some(is_done && self.play.is_left_well(world))
    }

    fn is_done(&self, peer: &Peer<P::Callers>) -> bool {
        let Peer { process, callers } = peer;
        self.play.is_done(callers) && process.engine().is_idle() && process.calls.is_empty()
    }
}
