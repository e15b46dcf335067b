//! Access to a table for tests (`--cfg lock_mutants`).

use super::{Queue, Subscriber, Table};
use crate::{Token, time::Moment};

impl<L: Subscriber> Table<L> {
    /// A client no longer listens: its connection is gone.
    pub fn unsubscribe(&mut self, client: &str) {
        if let Some(subscriber) = self.subscribers.get_mut(client) {
            *subscriber = None;
        }
    }

    /// All data is lost, and the counter of the fences with it. Clients stay connected.
    pub fn lose_all(&mut self) {
        let subscribers = std::mem::take(&mut self.subscribers);
        *self = Self { subscribers, ..Self::default() };
    }

    /// A replica takes over that has received nothing since it was cloned from this table. Clients
    /// stay connected.
    pub fn fail_over(&mut self, replica: Self) {
        let subscribers = std::mem::take(&mut self.subscribers);
        *self = Self { subscribers, notices: Vec::new(), ..replica };
    }

    /// The token that holds the lock of this key, and until when; also after that time, as long as
    /// nobody has taken the lock since.
    #[must_use]
    pub fn last_holder(&self, key: &str) -> Option<(&Token, Moment)> {
        self.locks.get(key).map(|lock| (&lock.token, lock.expiry))
    }

    /// The waiters for the lock of this key, in order, and until when each is alive.
    pub fn waiters(&self, key: &str) -> impl Iterator<Item = (&Token, Moment)> {
        self.queues.get(key).into_iter().flat_map(Queue::waiters)
    }
}
