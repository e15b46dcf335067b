//! The queue of one lock, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{Token, maps::Map, time::Moment};

/// The waiters for one lock, in the order of their tickets, and in the order in which they die if
/// nothing is heard from them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    by_ticket: BTreeMap<u64, Token>,
    by_end: BTreeSet<(Moment, u64)>,
    waiters: Map<Token, Waiter, foldhash::fast::RandomState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiter {
    ticket: u64,
    /// If nothing is heard from it until then, it is dead.
    alive_until: Moment,
    /// It is notified when the lock is given to it; otherwise it polls.
    listens: bool,
}

/// How many of the dead are removed by one operation that does not look for the first waiter.
const SWEEP: usize = 10;

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Does anybody but this token wait?
    pub(crate) fn has_others(&self, token: &Token) -> bool {
        self.waiters.len() > usize::from(self.waiters.contains_key(token))
    }

    /// The ticket with which a token waits.
    pub(crate) fn ticket(&self, token: &Token) -> Option<u64> {
        self.waiters.get(token).map(|waiter| waiter.ticket)
    }

    /// Is any waiter alive? Usually the first is.
    pub(crate) fn has_living(&self, now: Moment, hears: impl Fn(&Token) -> bool) -> bool {
        self.by_ticket.values().any(|token| self.lives(token, now, &hears))
    }

    pub(crate) fn living(&self, now: Moment) -> usize {
        self.by_end.range((now, u64::MAX)..).count()
    }

    /// Until when any waiter is alive.
    pub(crate) fn expiry(&self) -> Moment {
        self.by_end.last().map(|(end, _)| *end).unwrap_or_default()
    }

    /// Lets a token wait, or go on waiting; returns its ticket. A token that was taken for dead
    /// keeps its ticket if nobody has looked since.
    pub(crate) fn wait(
        &mut self,
        token: &Token,
        ticket: Option<u64>,
        micros: u64,
        (now, alive): (Moment, Duration),
        listens: bool,
    ) -> u64 {
        let last = self.by_ticket.last_key_value().map_or(0, |(ticket, _)| *ticket);
        let mut ticket = self.ticket(token).or(ticket).unwrap_or_else(|| micros.max(last + 1));
        self.leave(token);
        self.forget_dead(now);
        // A made-up ticket must not push another waiter out.
        while self.by_ticket.contains_key(&ticket) {
            ticket += 1;
        }
        let waiter = Waiter { ticket, alive_until: now + alive, listens };
        self.by_ticket.insert(ticket, token.clone());
        self.by_end.insert((waiter.alive_until, ticket));
        self.waiters.insert(token.clone(), waiter);
        ticket
    }

    pub(crate) fn leave(&mut self, token: &Token) {
        if let Some(waiter) = self.waiters.remove(token) {
            self.by_ticket.remove(&waiter.ticket);
            self.by_end.remove(&(waiter.alive_until, waiter.ticket));
        }
    }

    /// The first living waiter and its ticket. Those before it are dead, and are removed. One of
    /// them that merely stopped listening knows its ticket, and takes it again if it lives.
    pub(crate) fn first(
        &mut self,
        now: Moment,
        hears: impl Fn(&Token) -> bool,
    ) -> Option<(Token, u64)> {
        while let Some((ticket, token)) = self.by_ticket.first_key_value() {
            let (ticket, token) = (*ticket, token.clone());
            if self.lives(&token, now, &hears) {
                return Some((token, ticket));
            }
            self.leave(&token);
        }
        None
    }

    /// All waiters, in order, and until when each is alive.
    #[cfg(lock_mutants)]
    pub(crate) fn waiters(&self) -> impl Iterator<Item = (&Token, Moment)> {
        self.by_ticket
            .values()
            .filter_map(|token| Some((token, self.waiters.get(token)?.alive_until)))
    }

    fn lives(&self, token: &Token, now: Moment, hears: impl Fn(&Token) -> bool) -> bool {
        self.waiters
            .get(token)
            .is_some_and(|waiter| waiter.alive_until > now && (!waiter.listens || hears(token)))
    }

    fn forget_dead(&mut self, now: Moment) {
        let dead = self.by_end.range(..=(now, u64::MAX)).take(SWEEP);
        let dead: Vec<_> = dead.map(|(_, ticket)| self.by_ticket[ticket].clone()).collect();
        for token in dead {
            self.leave(&token);
        }
    }
}

/// In the order of the tickets, since a hash map has no order.
impl std::hash::Hash for Queue {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        for (ticket, token) in &self.by_ticket {
            (ticket, token, self.waiters.get(token)).hash(state);
        }
    }
}
