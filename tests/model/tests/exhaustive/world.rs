//! A world: processes, their connections and one server, and all that can happen to them.
//!
//! A [`Play`] defines what callers do and what is judged. The rest is the same for locks, debounced
//! calls and durable calls, and is here.

use std::{
    fmt::{self, Debug},
    hash::{Hash, Hasher},
    time::Duration,
};

use lock_core::{
    Moment, Token,
    engine::{
        calls::{Answer, Call},
        io::Output,
    },
    table::{Now, Subscriber, Table},
};
use lock_model::{Process, Who, server::answer};

use crate::{
    EPOCH, NAMES,
    kept::{Kept, hash_of},
    play::{Bound, Executed, Play},
    word::Word,
};

/// Timers are rounded to a grid of this width, so that states that differ only by a jitter are one.
const GRID: Duration = Duration::from_millis(100);

/// How the table reaches a client.
#[derive(Clone, Copy)]
pub(crate) struct Client(pub(crate) usize);

impl Subscriber for Client {
    fn is_there(&self) -> bool {
        true
    }
}

/// One process, and its callers.
#[derive(Clone, Hash)]
pub(crate) struct Peer<C> {
    pub(crate) process: Process,
    pub(crate) callers: C,
}

/// The state of a world.
pub(crate) struct World<P: Play> {
    pub(crate) now: Moment,
    pub(crate) left: Bound,
    pub(crate) table: Kept<Table<Client>>,
    pub(crate) peers: Vec<Kept<Peer<P::Callers>>>,
    pub(crate) alive: [bool; NAMES.len()],
    /// The processes that the server believes to be connected.
    pub(crate) connected: [bool; NAMES.len()],
    /// Notices on their way, each with the index of its process; they arrive in any order.
    pub(crate) words: Vec<(usize, Word)>,
    /// Calls of connections that are gone: the server may find them in its buffers.
    pub(crate) stale: Vec<(usize, Kept<Call<Who>>)>,
    /// Steps that are put off until some time has passed.
    pub(crate) delayed: Vec<(usize, Step<P::Act>)>,
    /// How often all data was lost. Each loss takes a while.
    pub(crate) wiped: u64,
    /// The last reading of the server's clock, in microseconds, if it advances with each operation.
    pub(crate) clock: Option<u64>,
    pub(crate) judge: P::Judge,
    /// A stale call was executed, and may have asked for something that is no longer wanted.
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

/// Prints little: the steps that lead to a state say more than the state.
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

/// What a process does next. The others see nothing of it before the server executes its calls, so
/// the order in which processes do it makes no difference, unless time passes in between.
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
    /// Changes a process, and passes the resulting outputs to its callers.
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

    /// Is there nothing to do now?
    pub(crate) fn is_quiet(&self, play: &P) -> bool {
        self.living().all(|index| {
            self.peers[index].process.calls.is_empty()
                && self.words_to(index).next().is_none()
                && self.timer_of(play, index) > self.now
                && play.due(self, index).is_none()
        })
    }

    /// The notices that are on their way to a process.
    pub(crate) fn words_to(&self, index: usize) -> impl Iterator<Item = Word> {
        self.words.iter().filter(move |(to, _)| *to == index).map(|(_, word)| *word)
    }

    /// Is nothing late or lost from now on? Then answers arrive as soon as their calls are
    /// executed, and what is due is done at once: when it happens makes no difference to the
    /// others.
    pub(crate) fn is_calm(&self) -> bool {
        self.left.late == 0 && self.left.faults == 0
    }

    fn timer_of(&self, play: &P, index: usize) -> Moment {
        self.peers[index].process.next_timer().min(play.next_timer(self, index))
    }

    /// What a process has to do now, unless it is late.
    pub(crate) fn next_step(&self, play: &P) -> Option<(usize, Step<P::Act>)> {
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

    /// When the next thing is due in a process, or something in the server expires.
    pub(crate) fn next_timer(&self, play: &P) -> Moment {
        let timers = self.living().map(|index| self.timer_of(play, index));
        let now = self.now;
        let key = play.key();
        let expiry = self.table.last_holder(key).map(|(_, expiry)| expiry);
        let waiters = self.table.waiters(key).map(|(_, end)| end).max();
        let ends = expiry.into_iter().chain(waiters).filter(|end| *end >= now);
        // Something has expired only once its time has passed.
        let ends = ends.map(|end| end + Duration::from_nanos(1));
        timers.chain(ends).min().unwrap_or(Moment::NEVER)
    }

    /// Moves time to the next timer. Effects of a timer that neither the server nor a caller can
    /// see happen in the same step: a state in between would say nothing.
    pub(crate) fn go_on(&mut self, play: &P) {
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

    /// The holder of the lock, unless its time is up.
    pub(crate) fn holder(&self, key: &str) -> Option<Token> {
        let holder = self.table.last_holder(key).filter(|(_, expiry)| self.now <= *expiry);
        holder.map(|(token, _)| token.clone())
    }

    pub(crate) fn execute(&mut self, play: &P, call: &Call<Who>) -> Answer<Who> {
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
}
