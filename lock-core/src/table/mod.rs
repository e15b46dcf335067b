//! A store as one table: locks, their queues, the windows of debounced calls, durable calls.
//!
//! The time is passed in with each operation, and notices are returned as a list. This is the
//! reference of the contract: the memory store is this table behind a mutex, and the Redis scripts
//! are compared with it.
//!
//! - `queue`: who waits for one lock;
//! - `window`: the debounced calls of one id; `debounced`: the operations on them;
//! - `book`: the durable calls of one function; `durable`: the operations on them;
//! - `operator`: who holds a lock, and which ids there are.

pub mod book;
mod debounced;
mod durable;
mod operator;
mod queue;
#[cfg(lock_mutants)]
mod test_access;
mod window;

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use self::{book::Book, queue::Queue, window::Window};
use crate::{
    contract::{
        ALIVE, ALIVE_POLLING, AcquireRequest, Acquisition, ClientRecord, IfHeld, Notice,
        RESERVATION, Release, ReleaseRequest, RenewRequest, Renewal,
    },
    limits::whole_millis,
    maps::ByKey,
    mutant::Mutant,
    time::Moment,
    token::{self, Token},
};

/// When an operation takes effect.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// On the clock that leases are measured with.
    pub moment: Moment,
    /// Microseconds since the Unix epoch, which fences and tickets are drawn from.
    pub micros: u64,
}

/// How the owner of a table reaches a client.
pub trait Subscriber: Clone {
    /// Is the client still there?
    fn is_there(&self) -> bool;
}

/// Everything that a store knows. `L` is how its owner reaches a client.
#[derive(Clone, Debug)]
pub struct Table<L> {
    locks: ByKey<Lock>,
    queues: ByKey<Queue>,
    /// The clients that listen, and those that did and are gone: requests of theirs may still
    /// arrive.
    subscribers: ByKey<Option<L>>,
    /// The notices for them, sent once the operation is over: a client that receives one may ask at
    /// once.
    notices: Vec<(L, Notice)>,
    windows: ByKey<(Window, Moment)>,
    /// Durable calls, by the key `due` of their book.
    books: ByKey<Book>,
    /// What clients say about themselves.
    records: ByKey<(ClientRecord, Moment)>,
    fence: u64,
    /// The number of entries above which expired ones are removed.
    sweep_at: usize,
}

#[derive(Clone, Debug, Hash)]
struct Lock {
    token: Token,
    expiry: Moment,
}

impl<L> Default for Table<L> {
    fn default() -> Self {
        Self {
            locks: ByKey::default(),
            queues: ByKey::default(),
            subscribers: ByKey::default(),
            notices: Vec::new(),
            windows: ByKey::default(),
            books: ByKey::default(),
            records: ByKey::default(),
            fence: 0,
            sweep_at: 0,
        }
    }
}

impl<L: Subscriber> Table<L> {
    /// The lock of a key, unless it has expired. Redis expires a key strictly after its time.
    fn held(&mut self, key: &str, now: Moment) -> Option<&mut Lock> {
        self.locks.get_mut(key).filter(|lock| now <= lock.expiry)
    }

    fn held_by(&mut self, key: &str, token: &Token, now: Moment) -> Option<&mut Lock> {
        self.held(key, now).filter(|lock| lock.token == *token)
    }

    fn take(&mut self, key: &Arc<str>, token: &Token, lease: Duration, at: Now) -> u64 {
        let lock = Lock { token: token.clone(), expiry: at.moment + lease };
        self.locks.insert(Arc::clone(key), lock);
        let counted = self.fence + 1;
        let by_the_clock = if Mutant::CounterOnlyToken.is_on() { 0 } else { at.micros };
        self.fence = by_the_clock.max(counted);
        self.fence
    }

    /// Grants a lock that is free, already held by the token, or taken over.
    fn grant(&mut self, request: &AcquireRequest, at: Now) -> Acquisition {
        let (key, token) = (&request.key, &request.token);
        let contended = self.queues.get(key).is_some_and(|queue| queue.has_others(token));
        self.leave(key, token);
        let fence = self.take(key, token, request.lease, at);
        Acquisition::granted(fence).contended(contended)
    }

    fn wait(&mut self, key: &Arc<str>, token: &Token, ticket: Option<u64>, at: Now) -> u64 {
        let listens = self.subscribers.contains_key(token::parts(token).0);
        let alive = if listens { ALIVE } else { ALIVE_POLLING };
        let queue = self.queues.entry(Arc::clone(key)).or_default();
        queue.wait(token, ticket, at.micros, (at.moment, alive), listens)
    }

    fn leave(&mut self, key: &str, token: &Token) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.leave(token);
            if queue.is_empty() {
                self.queues.remove(key);
            }
        }
    }

    /// The first living waiter for a lock, and its ticket.
    fn first_waiter(&mut self, key: &str, now: Moment) -> Option<(Token, u64)> {
        let Self { queues, subscribers, .. } = self;
        let queue = queues.get_mut(key)?;
        let first = queue.first(now, |token| hears(subscribers, token));
        if queue.is_empty() {
            self.queues.remove(key);
        }
        first
    }

    /// Is any waiter for a lock alive? Those that joined before its holder took it may be dead.
    fn is_waited_for(&self, key: &str, now: Moment) -> bool {
        let hears = |token: &Token| hears(&self.subscribers, token);
        self.queues.get(key).is_some_and(|queue| queue.has_living(now, hears))
    }

    /// Gives a lock that nobody holds to a waiter.
    fn hand_over(&mut self, key: &Arc<str>, waiter: Token, now: Moment) {
        self.leave(key, &waiter);
        self.tell(&waiter, |number| Notice::Granted { number });
        let mut expiry = now + RESERVATION;
        if Mutant::HandOverWithoutExpiry.is_on() {
            expiry = Moment::NEVER;
        } else if Mutant::HandOverByFreeing.is_on() {
            return;
        }
        self.locks.insert(Arc::clone(key), Lock { token: waiter, expiry });
    }

    /// Will the client of this holder release the lock here, and so wake the waiters?
    fn notifies(&self, holder: &Token) -> bool {
        let subscriber = self.subscribers.get(token::parts(holder).0);
        subscriber.and_then(Option::as_ref).is_some_and(L::is_there)
    }

    fn tell(&mut self, token: &Token, notice: impl FnOnce(u64) -> Notice) {
        let (client, number) = token::parts(token);
        self.tell_client(client, notice(number));
    }

    fn tell_client(&mut self, client: &str, notice: Notice) {
        if let Some(Some(subscriber)) = self.subscribers.get(client) {
            self.notices.push((subscriber.clone(), notice));
        }
    }

    fn entries(&self) -> usize {
        self.locks.len() + self.windows.len() + self.queues.len() + self.records.len()
    }

    /// Forgets expired entries whenever the number of entries has doubled: each entry costs a
    /// constant number of looks, and leaked locks do not fill the memory.
    pub fn sweep(&mut self, now: Moment) {
        if self.entries() > self.sweep_at {
            self.forget_expired(now);
            self.sweep_at = 2 * self.entries() + 64;
        }
    }

    /// Forgets expired entries, which no operation would have seen.
    pub fn forget_expired(&mut self, now: Moment) {
        self.locks.retain(|_, lock| now <= lock.expiry);
        self.windows.retain(|_, (_, expiry)| now <= *expiry);
        self.queues.retain(|_, queue| now <= queue.expiry());
        self.records.retain(|_, (_, expiry)| now <= *expiry);
    }
}

/// For the owner of the table.
impl<L: Subscriber> Table<L> {
    /// A client listens from now on; clients that are gone are forgotten.
    pub fn subscribe(&mut self, client: &str, subscriber: L) {
        self.subscribers.retain(|_, other| other.as_ref().is_some_and(L::is_there));
        self.subscribers.insert(client.into(), Some(subscriber));
    }

    /// Returns the notices of the operations since the last call, in order, each with its
    /// recipient.
    pub fn notices(&mut self) -> Vec<(L, Notice)> {
        std::mem::take(&mut self.notices)
    }

    /// Returns the number of locks, including those that have expired and that nobody has looked at
    /// since.
    #[must_use]
    pub fn locks(&self) -> usize {
        self.locks.len()
    }
}

impl<L> Hash for Table<L> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.locks, &self.queues, &self.windows, &self.books, self.fence).hash(state);
        self.records.hash(state);
        // Clones of a subscriber are the same.
        let there = self.subscribers.keys_where(Option::is_some);
        (self.subscribers.keys(), there).hash(state);
    }
}

/// The operations on locks.
impl<L: Subscriber> Table<L> {
    /// Takes a lock, or joins its queue.
    pub fn acquire(&mut self, request: &AcquireRequest, at: Now) -> Acquisition {
        let now = at.moment;
        let (key, token) = (&request.key, &request.token);
        let holder = self.held(key, now).map(|lock| (lock.token.clone(), lock.expiry));
        let ticket = match (&holder, &request.if_held) {
            (Some((holder, _)), IfHeld::Adopt(from)) if holder == from => {
                return self.grant(request, at);
            }
            (Some((holder, _)), _) if holder == token => {
                return self.grant(request, at);
            }
            // The queue is not looked at: a free lock has none, unless a lease ran out.
            (None, IfHeld::GiveUp | IfHeld::Wait) => {
                let fence = self.take(key, token, request.lease, at);
                return Acquisition::granted(fence);
            }
            (Some(_), IfHeld::GiveUp) | (_, IfHeld::Adopt(_)) => None,
            (Some((holder, _)), IfHeld::Wait) => {
                // The holder was told of the first waiter, and so knows of those that follow. But a
                // dead waiter may date from the time of another holder.
                if !self.is_waited_for(key, now) {
                    self.tell(holder, |number| Notice::Contended { number });
                }
                Some(self.wait(key, token, None, at))
            }
            (Some((holder, _)), IfHeld::KeepWaiting(ticket)) => {
                self.tell(holder, |number| Notice::Contended { number });
                Some(self.wait(key, token, *ticket, at))
            }
            (None, IfHeld::KeepWaiting(ticket)) => {
                // Before the dead are removed: the token may be one that was taken for dead.
                let kept = self.queues.get(key).and_then(|queue| queue.ticket(token));
                match self.first_waiter(key, now) {
                    // A lease has run out, and somebody else is next.
                    Some((first, its_ticket))
                        if first != *token && ticket.is_none_or(|ticket| its_ticket < ticket) =>
                    {
                        let notifies = self.notifies(&first);
                        self.hand_over(key, first, now);
                        let ticket = self.wait(key, token, kept.or(*ticket), at);
                        return Acquisition::held(Some(RESERVATION)).waiting(ticket, notifies);
                    }
                    _ => return self.grant(request, at),
                }
            }
        };
        let remaining = holder.as_ref().map_or(Duration::ZERO, |(_, expiry)| expiry.after(now));
        let held = Acquisition::held(Some(whole_millis(remaining)));
        // Only a waiter is told whether the holder notifies.
        let Some(ticket) = ticket else { return held };
        let notifies = holder.is_some_and(|(holder, _)| self.notifies(&holder));
        held.waiting(ticket, notifies)
    }

    /// Makes a lock last longer, if its token holds it.
    pub fn renew(&mut self, request: &RenewRequest, at: Now) -> Renewal {
        let now = at.moment;
        let contended = self.queues.contains_key(&request.key);
        if Mutant::RenewRecreates.is_on() && self.held(&request.key, now).is_none() {
            let lock = Lock { token: request.token.clone(), expiry: now };
            self.locks.insert(Arc::clone(&request.key), lock);
        }
        let Some(lock) = self.held_by(&request.key, &request.token, now) else {
            return Renewal::not_ours();
        };
        lock.expiry = lock.expiry.max(now + request.lease);
        Renewal::renewed().contended(contended)
    }

    /// Releases a lock, or leaves its queue.
    pub fn release(&mut self, request: &ReleaseRequest, at: Now) -> Release {
        let now = at.moment;
        let (key, token) = (&request.key, &request.token);
        let holder = self.held(key, now).map(|lock| lock.token.clone());
        let ours = holder.as_ref() == Some(token)
            || (Mutant::ReleaseWithoutOwnerCheck.is_on() && holder.is_some());
        self.leave(key, token);
        if let Some(other) = holder.filter(|_| !ours) {
            // The other token may have taken the lock after a reservation ran out, without knowing
            // of the waiters.
            if self.queues.contains_key(key) {
                self.tell(&other, |number| Notice::Contended { number });
            }
            return Release::not_ours();
        }
        let first = self.first_waiter(key, now);
        if ours && !request.keep.is_zero() {
            if let Some(lock) = self.held(key, now) {
                lock.expiry = now + request.keep;
            }
            // The waiter knows of a lease that may end later.
            if let Some((first, _)) = first {
                self.tell(&first, |number| Notice::Granted { number });
            }
            return Release { ours, handed_over: false };
        }
        self.locks.remove(key);
        let handed_over = first.is_some();
        if let Some((first, _)) = first {
            self.hand_over(key, first, now);
        }
        Release { ours, handed_over }
    }
}

/// Does the client of this token still receive notices?
fn hears<L>(subscribers: &ByKey<Option<L>>, token: &Token) -> bool {
    subscribers.get(token::parts(token).0).is_some_and(Option::is_some)
}

#[cfg(all(test, lock_mutants))]
mod tests;
