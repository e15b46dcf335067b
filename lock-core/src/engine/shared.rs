//! What the parts of an engine share: the time, the timers, and the output.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{
    calls::Asker,
    io::{Caller, Outcome, Output, Refusal},
    timers::Timers,
};
use crate::{
    contract::Delivery,
    mutant::Mutant,
    time::{Jitter, Moment},
    token::{self, Token},
};

/// If a store has more parts than this, several of them share one number.
const MOST_SHARDS: usize = 1024;

/// The part of the store that a key is in, counted from 0. It may change.
pub type ShardOf = Arc<dyn Fn(&str) -> usize + Send + Sync>;

/// What one part of the engine wants of another.
#[derive(Clone)]
pub(super) enum Effect {
    /// Ask the store for a lock.
    Request(Asker),
    /// Release what this token may hold, or wait for, in the store. `look_at`: look at the lock
    /// once more at this moment, at which perhaps nobody else looks.
    Undo { number: u64, key: Arc<str>, token: Token, look_at: Option<Moment> },
}

#[derive(Clone)]
pub(super) struct Shared<C> {
    /// What this client's tokens begin with.
    client: Arc<str>,
    /// The last number that was drawn here. These numbers are odd; callers draw even ones.
    drawn: u64,
    /// How notices travel at the moment.
    pub(super) delivery: Delivery,
    shard_of: ShardOf,
    /// The time from which the actions of this turn count. A turn that was delayed uses a time that
    /// is too early, which makes a lease shorter and never longer; a holder reads the clock itself.
    pub(super) now: Moment,
    pub(super) timers: Timers,
    effects: VecDeque<Effect>,
    outputs: VecDeque<Output<C>>,
}

impl<C> Shared<C> {
    pub(super) fn new(client: Arc<str>, shard_of: ShardOf) -> Self {
        Self {
            client,
            drawn: 0,
            delivery: Delivery::Polling,
            shard_of,
            now: Moment::default(),
            timers: Timers::default(),
            effects: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The number of the part of the store that this key is in.
    pub(super) fn shard(&self, key: &str) -> usize {
        (self.shard_of)(key) % MOST_SHARDS
    }

    /// Draws a number that is larger than all those drawn before, and that no caller has.
    pub(super) fn draw(&mut self) -> u64 {
        self.drawn = if self.drawn == 0 { 1 } else { self.drawn + 2 };
        self.drawn
    }

    /// Notes a number that a caller has drawn, which may be a time: numbers drawn here from now on
    /// are larger.
    pub(super) fn saw(&mut self, number: u64) {
        self.drawn = self.drawn.max(number.saturating_sub(1) | 1);
    }

    /// The token of this number.
    pub(super) fn token(&self, number: u64) -> Token {
        let owner = if Mutant::OwnerPerProcess.is_on() { 1 } else { number };
        token::made_by(&self.client, owner)
    }

    /// The jitter of this number: its sequence differs from client to client, and from entry to
    /// entry.
    pub(super) fn jitter(&self, number: u64) -> Jitter {
        let seed = self.client.bytes().fold(number, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Jitter::new(seed >> 32)
    }

    pub(super) fn request(&mut self, asker: Asker) {
        self.effects.push_back(Effect::Request(asker));
    }

    pub(super) fn undo(&mut self, number: u64, key: &Arc<str>, token: &Token) {
        self.undo_and_look(number, key, token, None);
    }

    /// Undoes what this token may hold, and looks at the lock once more at that moment.
    pub(super) fn undo_and_look(
        &mut self,
        number: u64,
        key: &Arc<str>,
        token: &Token,
        look_at: Option<Moment>,
    ) {
        let (key, token) = (Arc::clone(key), token.clone());
        self.effects.push_back(Effect::Undo { number, key, token, look_at });
    }

    pub(super) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(super) fn tell(&mut self, output: Output<C>) {
        self.outputs.push_back(output);
    }

    pub(super) fn answer(&mut self, to: impl Into<Option<C>>, answer: Result<Outcome, Refusal>) {
        self.outputs.extend(to.into().map(|to| Output::Answered(to, answer)));
    }

    pub(super) fn refuse(&mut self, to: impl Into<Option<C>>, refusal: Refusal) {
        self.answer(to, Err(refusal));
    }

    /// This caller waits in line from now on.
    pub(super) fn waits(&mut self, caller: &C)
    where
        C: Caller,
    {
        self.outputs.extend(caller.told_as().map(Output::Waiting));
    }

    pub(super) fn next_output(&mut self) -> Option<Output<C>> {
        self.outputs.pop_front()
    }
}

/// Hashes what affects the next decision. The rest is the same in every state of a client, or is
/// also kept in other parts (the timers), or is empty between two inputs.
impl<C> Hash for Shared<C> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.drawn, self.delivery).hash(state);
    }
}
