//! What can happen in a world, and its effects.

use lock_core::{Moment, table::Table};
use lock_model::Process;
use stateright::{Model, Property};

use crate::{
    NAMES, TICK,
    checker::Seen,
    kept::Kept,
    play::{Bound, Play},
    word::Word,
    world::{Client, Peer, Step, World},
};

/// A play within a bound.
#[derive(Debug)]
pub(crate) struct Scene<P> {
    pub(crate) play: P,
    pub(crate) processes: usize,
    pub(crate) bound: Bound,
    /// Does the clock that fences are drawn from advance with each operation?
    pub(crate) ticking: bool,
    pub(crate) seen: Seen,
}

impl<P> Scene<P> {
    pub(crate) fn new(play: P, processes: usize, bound: Bound) -> Self {
        Self { play, processes, bound, ticking: false, seen: Seen::default() }
    }
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action<A> {
    /// Time goes on although something is due, which is then late by this many ticks.
    Late(u32),
    /// Time goes on to the next timer: nothing is due before it.
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
    /// A step is put off until some time has passed.
    Delay(usize, Step<A>),
    Lose(usize, Word),
    /// A connection breaks, and is replaced.
    Cut(usize),
    /// A call of a connection that is gone is executed.
    ExecuteStale(usize),
    /// A process stops for ever, and the server notices or does not.
    Crash(usize, bool),
    Wipe,
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
            Action::Step(index, Step::Deliver) => self.deliver(&mut world, index),
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
        // The order in which they left different processes makes no difference.
        world.stale.sort_by_key(|(of, _)| *of);
        // A notice about a token that its process does not know changes nothing, now or later.
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
    fn deliver(&self, world: &mut World<P>, index: usize) {
        self.seen.note(Seen::LATE_ANSWER, world.peers[index].process.calls.has_late_answer());
        let now = world.now;
        world.process(&self.play, index, |process| process.take_answer(now));
    }

    /// If nothing more can happen: is everything done?
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
