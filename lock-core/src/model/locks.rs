//! The lock model: clients, their connections, and one store.

mod client;
mod properties;
mod request;
mod store;
mod token;

use std::{sync::Arc, time::Duration};

use stateright::{Model, Property};

use self::{
    client::Client,
    request::{Reply, Request, What},
    store::{Shown, Store, Word},
    token::token,
};
use super::{LEASE, Seen, TICK};
use crate::Moment;

/// Nobody waits for longer than that, whatever happens within the bound: a dead waiter is believed
/// for 15 s, and what follows takes a few leases and reservations.
const END: Duration = Duration::from_secs(60);

/// A mistake on purpose: the model must find what it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mistake {
    /// The lease is counted from the reply instead of from the request.
    DeadlineFromReply,
    /// A grant is believed that comes after its lease.
    LateGrantCounts,
    /// A release frees the lock, whoever holds it.
    ReleaseWithoutOwnerCheck,
    /// All acquisitions of a client have one token.
    TokenPerProcess,
    /// The fence is the counter, without the clock.
    CounterOnlyToken,
    /// A renewal takes a lock that is gone.
    RenewRecreates,
    /// A waiter relies on its notice.
    NoFallbackLook,
    /// A request whose caller went away is forgotten.
    NothingIsUndone,
    /// A lock that was handed over waits for its claim for ever.
    HandOverWithoutExpiry,
    /// A lock is freed, and the first waiter told to be quick.
    HandOverByFreeing,
}

/// What may happen, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Bound {
    /// Ticks that pass though somebody could go on.
    late: u8,
    /// Ticks that pass because a guard is held.
    holding: u8,
    /// Cuts, crashes, cancelled acquires and lost notices, in all.
    faults: u8,
    /// Losses of all data.
    wipes: u8,
}

#[derive(Debug)]
struct Locks {
    /// How many acquisitions each client makes.
    acquisitions: Vec<u8>,
    bound: Bound,
    mistake: Option<Mistake>,
    seen: Seen,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: Moment,
    left: Bound,
    store: Store,
    /// Shared with the states before: a step changes one of them.
    clients: Vec<Arc<Client>>,
    alive: Vec<bool>,
    /// Notices on their way; they come in any order.
    words: Vec<Vec<Word>>,
    /// Requests of connections that are gone: the server may find them in its buffers.
    stale: Vec<Vec<Request>>,
    /// What is done only after some time has passed.
    delayed: Vec<(usize, Step)>,
    /// The fencing token of the last guard.
    last_begun: u64,
    fence_fell: bool,
    token_fell: bool,
    renewed_old: bool,
    handed_to_dead: bool,
    /// An old request may have asked for what nobody wants any more.
    has_executed_stale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Time goes on, though somebody has something to do: it is late.
    Late(u32),
    /// Nobody has anything to do before the next timer.
    Next,
    /// A caller wants the lock.
    Join(usize),
    /// A guard is dropped.
    Drop(usize),
    /// A caller that waits goes away.
    Cancel(usize, u64),
    /// The store executes the next request of a client.
    Execute(usize),
    Step(usize, Step),
    /// A step is not done before some time has passed.
    Delay(usize, Step),
    LoseWake(usize, Word),
    /// A connection breaks, and is replaced.
    Cut(usize),
    /// A request of a connection that is gone is executed.
    ExecuteStale(usize),
    /// A client stops for ever. Does the server notice?
    Crash(usize, bool),
    Wipe,
}

/// What a client does next. The others see nothing of it before the store executes what it asks
/// for, so it makes no difference in which order clients do it, unless time passes in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    /// The oldest reply reaches it.
    Deliver,
    /// Its keeper rechecks at the timers.
    Turn,
    /// A notice reaches it.
    Wake(Word),
}

/// What is to be seen somewhere.
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
    ExecutedStale,
    NotOurs,
    LateReply,
    Withdrawn,
    Renewed,
}

impl Locks {
    fn note(&self, event: Event, happened: bool) {
        self.seen.note(event as u32, happened);
    }

    fn saw(&self, event: Event) -> bool {
        self.seen.has(event as u32)
    }

    fn execute(&self, state: &mut State, client: usize, request: &Request) -> Reply {
        let number =
            if self.mistake == Some(Mistake::TokenPerProcess) { 1 } else { request.number };
        let (token, now) = (token(client, number), state.now);
        let mut shown = Shown::default();
        let store = &mut state.store;
        let reply = match &request.what {
            What::Acquire(if_held) => {
                Reply::Acquired(store.acquire(&token, LEASE, if_held, now, &mut shown))
            }
            What::Renew(lease) => Reply::Renewed(store.renew(&token, *lease, now, &mut shown)),
            What::Release => Reply::Released(store.release(&token, now, &mut shown)),
        };
        for (client, word) in std::mem::take(&mut store.woken) {
            let words = &mut state.words[client];
            if state.alive[client]
                && let Err(at) = words.binary_search(&word)
            {
                words.insert(at, word);
            }
        }
        state.fence_fell |= shown.fence_fell;
        state.renewed_old |= shown.renewed_old;
        state.handed_to_dead |= shown.handed_to_dead;
        self.note(Event::HandedOver, shown.handed_over);
        self.note(Event::Claimed, shown.claimed);
        self.note(Event::PassedOn, shown.passed_on);
        self.note(Event::TookOverExpired, shown.took_over_expired);
        self.note(Event::GrantedAgain, shown.granted_again);
        self.note(Event::Queued, shown.queued);
        self.note(Event::NotOurs, shown.not_ours);
        self.note(Event::Renewed, matches!(reply, Reply::Renewed(_)) && !shown.not_ours);
        reply
    }

    fn deliver(&self, state: &mut State, client: usize) {
        self.note(Event::LateReply, state.clients[client].calls.has_late_reply());
        let now = state.now;
        state.client(client).take_reply(now);
    }

    /// What may befall a client.
    fn faults(&self, state: &State, client: usize, actions: &mut Vec<Action>) {
        let this = &state.clients[client];
        actions.extend(this.waiting().map(|caller| Action::Cancel(client, caller)));
        actions.extend(state.words[client].iter().map(|word| Action::LoseWake(client, *word)));
        if !this.calls.is_empty() {
            actions.push(Action::Cut(client));
        }
        if !this.is_done() && this.to_come < self.acquisitions[client] {
            actions.push(Action::Crash(client, true));
            actions.push(Action::Crash(client, false));
        }
    }

    /// The guards that have begun, in order.
    fn begin(&self, state: &mut State, client: usize) {
        for fencing_token in std::mem::take(&mut state.client(client).begun) {
            state.token_fell |= fencing_token <= state.last_begun;
            state.last_begun = fencing_token.max(state.last_begun);
            self.note(Event::LocalHandOver, fencing_token % 1024 > 0);
        }
    }
}

impl State {
    fn client(&mut self, client: usize) -> &mut Client {
        Arc::make_mut(&mut self.clients[client])
    }

    fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.clients.len()).filter(|client| self.alive[*client])
    }

    /// Has nobody anything to do now?
    fn is_quiet(&self) -> bool {
        self.living().all(|client| {
            self.clients[client].calls.is_empty()
                && self.words[client].is_empty()
                && self.clients[client].next_timer() > self.now
        })
    }

    /// Is everybody on time from now on, and nothing lost? Then replies come with their execution,
    /// and whoever has something to do does it at once: it makes no difference to the others when.
    fn is_calm(&self) -> bool {
        self.left.late == 0 && self.left.faults == 0
    }

    /// What a client has to do now, unless it is late.
    fn next_step(&self) -> Option<(usize, Step)> {
        self.living().find_map(|client| {
            let this = &self.clients[client];
            let steps = [
                (Step::Deliver, this.calls.has_reply()),
                (Step::Turn, this.next_timer() <= self.now),
            ];
            let words = self.words[client].iter().map(|word| (Step::Wake(*word), true));
            let mut steps = steps.into_iter().chain(words);
            let step = steps.find(|(step, due)| *due && !self.delayed.contains(&(client, *step)));
            step.map(|(step, _)| (client, step))
        })
    }

    fn valid_guards(&self) -> usize {
        self.living().filter(|client| self.clients[*client].is_held(self.now)).count()
    }

    /// Does somebody wait for a lock that expired long ago? Whoever waits knows when the holder's
    /// time is up, give or take an answer that was late.
    fn is_left_lying(&self) -> bool {
        let waits = |client: usize| self.clients[client].waiting().next().is_some();
        self.is_quiet()
            && self.store.has_lain_for(LEASE * 3, self.now)
            && self.store.waiters().any(|client| self.alive[client] && waits(client))
    }

    /// Is something in the store of a client that lives and does not want it? It may be about to
    /// undo it.
    fn has_leftovers(&self, but_those_being_undone: bool) -> bool {
        let is_left = |(client, number): (usize, u64)| {
            let this = &self.clients[client];
            let undoes = but_those_being_undone && this.is_releasing(number);
            self.alive[client] && !this.wants(number) && !undoes
        };
        self.store.tokens(self.now).any(is_left)
    }

    fn next_timer(&self) -> Moment {
        let timers = self.living().map(|client| self.clients[client].next_timer());
        let end = self.store.next_end(self.now).map(|end| end + Duration::from_nanos(1));
        timers.chain(end).min().unwrap_or(Moment::NEVER)
    }
}

impl Model for Locks {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let clients = self.acquisitions.len();
        vec![State {
            now: Moment::default(),
            left: self.bound,
            store: Store::new(clients, self.mistake),
            clients: self
                .acquisitions
                .iter()
                .map(|n| Arc::new(Client::new(*n, self.mistake)))
                .collect(),
            alive: vec![true; clients],
            words: vec![Vec::new(); clients],
            stale: vec![Vec::new(); clients],
            delayed: Vec::new(),
            last_begun: 0,
            fence_fell: false,
            token_fell: false,
            renewed_old: false,
            handed_to_dead: false,
            has_executed_stale: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let left = state.left;
        if let Some((client, step)) = state.next_step() {
            actions.push(Action::Step(client, step));
            if left.late > 0 {
                actions.push(Action::Delay(client, step));
            }
            if left.faults > 0 {
                self.faults(state, client, actions);
            }
            return;
        }
        if state.is_quiet() {
            let holding = state.living().any(|client| state.clients[client].hold().is_some());
            let next = state.next_timer();
            if next < Moment::NEVER && (!holding || left.holding > 0) {
                actions.push(Action::Next);
            }
        } else if left.late > 0 {
            actions.push(Action::Late(1));
            actions.push(Action::Late(3));
        }
        for client in state.living() {
            let this = &state.clients[client];
            // The last two are alike: the one begins first, whichever it is.
            let in_order = client < 2 || state.clients[1].to_come < self.acquisitions[1];
            if this.to_come > 0 && in_order {
                actions.push(Action::Join(client));
            }
            if this.hold().is_some() {
                actions.push(Action::Drop(client));
            }
            if this.calls.next_request().is_some() {
                actions.push(Action::Execute(client));
            }
            if left.faults > 0 {
                self.faults(state, client, actions);
            }
        }
        for client in 0..state.clients.len() {
            if !state.stale[client].is_empty() {
                actions.push(Action::ExecuteStale(client));
            }
        }
        if left.wipes > 0 {
            actions.push(Action::Wipe);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now;
        match action {
            Action::Late(ticks) => {
                state.left.late -= 1;
                state.delayed.clear();
                state.now = now + TICK * ticks;
            }
            Action::Next => {
                if state.living().any(|client| state.clients[client].hold().is_some()) {
                    state.left.holding -= 1;
                }
                // No later than the end, where it is noticed.
                state.now = state.next_timer().round_up(TICK).min(Moment::default() + END);
                state.store.expire(state.now);
            }
            Action::Join(client) => state.client(client).join(now),
            Action::Drop(client) => state.client(client).drop_guard(now),
            Action::Cancel(client, caller) => {
                state.left.faults -= 1;
                self.note(Event::Withdrawn, true);
                state.client(client).cancel(caller, now);
            }
            Action::Step(client, Step::Deliver) => self.deliver(&mut state, client),
            Action::Step(client, Step::Turn) => state.client(client).turn(now),
            Action::Step(client, Step::Wake(word)) => {
                state.words[client].retain(|other| *other != word);
                state.client(client).wake(word, now);
            }
            Action::Delay(client, step) => {
                if let Err(at) = state.delayed.binary_search(&(client, step)) {
                    state.delayed.insert(at, (client, step));
                }
            }
            Action::Execute(client) => {
                let request = state.clients[client].calls.next_request()?.clone();
                let reply = self.execute(&mut state, client, &request);
                state.client(client).calls.reply(reply);
                if state.is_calm() {
                    self.deliver(&mut state, client);
                }
            }
            Action::LoseWake(client, word) => {
                state.left.faults -= 1;
                state.words[client].retain(|other| *other != word);
            }
            Action::Cut(client) => {
                state.left.faults -= 1;
                let left = state.client(client).cut(now);
                state.stale[client].extend(left);
            }
            Action::ExecuteStale(client) => {
                self.note(Event::ExecutedStale, true);
                state.has_executed_stale = true;
                let request = state.stale[client].remove(0);
                self.execute(&mut state, client, &request);
            }
            Action::Crash(client, noticed) => {
                state.left.faults -= 1;
                state.alive[client] = false;
                let (left, _) = state.client(client).calls.cut();
                state.stale[client].extend(left);
                *state.client(client) = Client::new(0, self.mistake);
                state.words[client].clear();
                if noticed {
                    state.store.disconnect(client);
                }
            }
            Action::Wipe => {
                state.left.wipes -= 1;
                state.store.wipe();
            }
        }
        for client in 0..state.clients.len() {
            if !state.clients[client].begun.is_empty() {
                self.begin(&mut state, client);
            }
            let State { clients, words, .. } = &mut state;
            words[client].retain(|word| clients[client].minds(*word));
        }
        state.has_executed_stale &= state.has_leftovers(false);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.now <= Moment::default() + END
    }
}

mod tests;
