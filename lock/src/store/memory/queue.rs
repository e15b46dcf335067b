//! The queue of one lock in memory.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::{Token, core::Moment};

/// Who waits for one lock, in the order of their places.
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
#[derive(Clone, Default)]
pub(crate) struct Queue {
    by_place: BTreeMap<u64, Token>,
    waiters: HashMap<Token, Waiter>,
}

#[cfg_attr(test, derive(Debug, PartialEq, Eq, Hash))]
#[derive(Clone)]
struct Waiter {
    place: u64,
    /// Not heard of after that, it is dead.
    alive_until: Moment,
    /// It hears when the lock is given to it; else it looks by itself.
    listens: bool,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Does anybody but this token wait?
    pub(crate) fn has_others(&self, token: &Token) -> bool {
        self.waiters.len() > usize::from(self.waiters.contains_key(token))
    }

    /// Is anybody in it alive? Mostly the first is; the dead before it go with the next who waits.
    pub(crate) fn has_living(&self, now: Moment) -> bool {
        self.by_place.values().any(|token| self.waiters[token].alive_until > now)
    }

    pub(crate) fn living(&self, now: Moment) -> usize {
        self.waiters.values().filter(|waiter| waiter.alive_until > now).count()
    }

    /// Until when anybody in it is alive.
    pub(crate) fn expiry(&self) -> Moment {
        self.waiters.values().map(|waiter| waiter.alive_until).max().unwrap_or_default()
    }

    /// Lets a token wait, or go on waiting: its place.
    pub(crate) fn wait(
        &mut self,
        token: &Token,
        place: Option<u64>,
        micros: u64,
        (now, alive): (Moment, Duration),
        listens: bool,
    ) -> u64 {
        // Taken for dead, it still keeps its place if nobody has looked.
        let kept = self.waiters.get(token).map(|waiter| waiter.place);
        let last = self.by_place.last_key_value().map_or(0, |(place, _)| *place);
        self.forget_dead(now);
        let mut place = kept.or(place).unwrap_or_else(|| micros.max(last + 1));
        // A place that somebody made up must not push another waiter out.
        while self.by_place.get(&place).is_some_and(|other| other != token) {
            place += 1;
        }
        self.by_place.insert(place, token.clone());
        let waiter = Waiter { place, alive_until: now + alive, listens };
        self.waiters.insert(token.clone(), waiter);
        place
    }

    pub(crate) fn leave(&mut self, token: &Token) {
        if let Some(waiter) = self.waiters.remove(token) {
            self.by_place.remove(&waiter.place);
        }
    }

    /// The first living waiter and its place. Those before it, who are dead, are removed; one
    /// that does not listen any more knows its place, and takes it again if it lives.
    pub(crate) fn first(
        &mut self,
        now: Moment,
        hears: impl Fn(&Token) -> bool,
    ) -> Option<(Token, u64)> {
        while let Some(entry) = self.by_place.first_entry() {
            let (place, token) = (*entry.key(), entry.get().clone());
            let waiter = self.waiters.get(&token);
            let lives = waiter.is_some_and(|waiter| {
                waiter.alive_until > now && (!waiter.listens || hears(&token))
            });
            if lives {
                return Some((token, place));
            }
            entry.remove();
            self.waiters.remove(&token);
        }
        None
    }

    fn forget_dead(&mut self, now: Moment) {
        while let Some(entry) = self.by_place.first_entry() {
            if self.waiters.get(entry.get()).is_some_and(|waiter| waiter.alive_until > now) {
                return;
            }
            self.waiters.remove(&entry.remove());
        }
    }
}

/// In the order of the places: a hash map has none.
#[cfg(test)]
impl std::hash::Hash for Queue {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        for (place, token) in &self.by_place {
            (place, token, self.waiters.get(token)).hash(state);
        }
    }
}

#[cfg(test)]
impl Queue {
    /// In order.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.by_place.values()
    }
}
