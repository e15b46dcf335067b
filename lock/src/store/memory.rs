//! Locks in the memory of this process: the embedded default, and the reference of the contract.

mod durable;
#[cfg(feature = "__mutants")]
pub(super) mod faults;
pub(crate) mod queue;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[cfg(feature = "__mutants")]
use std::sync::atomic::Ordering;

use self::queue::Queue;
use super::{
    AcquireRequest, Acquisition, CLAIM_WINDOW, DebounceReply, DebounceRequest, DurableReply,
    DurableRequest, EndWindowRequest, ExtendRequest, Holder, IfHeld, Listener, Release,
    ReleaseRequest, RenewRequest, Renewal, Store, StoreError, StoreFuture, Wake, WakeUps,
    WindowEnd,
};
use crate::{
    Token,
    core::{
        Moment,
        debounce::{Call, Verdict, Window},
        durable::Book,
        queue::{ALIVE, ALIVE_POLLING},
    },
    keeper::clock::{Clock, TokioClock},
    limits::whole_millis,
};

/// A store in the memory of this process.
///
/// [`Locks::in_memory`](crate::Locks::in_memory) makes one of its own. Make one yourself to let
/// several `Locks` share it, as several instances of a service would share a Redis. Clones are
/// the same store. Time is tokio's, so a paused clock drives it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{Locks, MemoryStore};
///
/// let store = MemoryStore::new();
/// let one = Locks::builder().store(store.clone()).build().await?;
/// let other = Locks::builder().store(store).build().await?;
///
/// let guard = one.lock("report").acquire().await?;
/// assert!(other.lock("report").try_acquire().await?.is_none());
/// # drop(guard);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Shared>);

struct Shared {
    clock: TokioClock,
    /// Microseconds since the Unix epoch at the clock's origin.
    epoch: u64,
    state: Mutex<State>,
    /// By how many nanoseconds the clock was set ahead, and by how many microseconds that of the
    /// fencing tokens was set back.
    #[cfg(feature = "__mutants")]
    ahead: std::sync::atomic::AtomicU64,
    #[cfg(feature = "__mutants")]
    behind: std::sync::atomic::AtomicU64,
}

#[derive(Default)]
struct State {
    locks: HashMap<Arc<str>, Lock>,
    queues: HashMap<Arc<str>, Queue>,
    listeners: HashMap<String, Listener>,
    /// Wake-ups that go out once the state is free again: who hears them may want to look.
    wakes: Vec<(Listener, Wake)>,
    windows: HashMap<Arc<str>, (Window, Moment)>,
    /// Durable calls, by the key of their book's order.
    books: HashMap<Arc<str>, Book>,
    fence: u64,
    /// The number of entries at which expired ones are looked for.
    sweep_at: usize,
}

#[derive(Clone)]
struct Lock {
    token: Token,
    expiry: Moment,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Arc::new(Shared {
            clock: TokioClock::new(),
            epoch: u64::try_from(epoch.as_micros()).unwrap_or(0),
            state: Mutex::default(),
            #[cfg(feature = "__mutants")]
            ahead: Default::default(),
            #[cfg(feature = "__mutants")]
            behind: Default::default(),
        }))
    }

    /// One operation on the state, and the time at which it finds it.
    fn at_once<T>(&self, operation: impl FnOnce(&mut State, Moment) -> T) -> T {
        // A panic cannot leave the state half changed: nothing below panics between two writes.
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        state.sweep(now);
        let answer = operation(&mut state, now);
        if state.wakes.is_empty() {
            return answer;
        }
        let wakes = std::mem::take(&mut state.wakes);
        drop(state);
        for (listener, wake) in wakes {
            listener.wake(wake);
        }
        answer
    }

    /// The same for each item of a batch, when it is polled.
    fn each<'a, T: Sync, A>(
        &'a self,
        batch: &'a [T],
        operation: impl Fn(&mut State, &T, Moment) -> A + Send + 'a,
    ) -> StoreFuture<'a, Vec<Result<A, StoreError>>> {
        Box::pin(async move {
            self.at_once(|state, now| {
                batch.iter().map(|request| Ok(operation(state, request, now))).collect()
            })
        })
    }

    fn now(&self) -> Moment {
        let now = self.0.clock.now();
        #[cfg(feature = "__mutants")]
        let now = now + Duration::from_nanos(self.0.ahead.load(Ordering::Relaxed));
        now
    }

    fn micros(&self, now: Moment) -> u64 {
        let micros = self.0.epoch + now.as_nanos() / 1000;
        #[cfg(feature = "__mutants")]
        let micros = micros - self.0.behind.load(Ordering::Relaxed);
        micros
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let locks = self.at_once(|state, _| state.locks.len());
        f.debug_struct("MemoryStore").field("locks", &locks).finish_non_exhaustive()
    }
}

impl State {
    /// The lock of a key, unless it has expired. Redis expires a key strictly after its time.
    fn held(&mut self, key: &str, now: Moment) -> Option<&mut Lock> {
        self.locks.get_mut(key).filter(|lock| now <= lock.expiry)
    }

    fn held_by(&mut self, key: &str, token: &Token, now: Moment) -> Option<&mut Lock> {
        self.held(key, now).filter(|lock| lock.token == *token)
    }

    fn take(
        &mut self,
        key: &Arc<str>,
        token: &Token,
        lease: Duration,
        micros: u64,
        now: Moment,
    ) -> u64 {
        let lock = Lock { token: token.clone(), expiry: now + lease };
        self.locks.insert(Arc::clone(key), lock);
        self.fence = micros.max(self.fence + 1);
        self.fence
    }

    /// Grants a lock that is free, held by the token already, or taken over.
    fn grant(&mut self, request: &AcquireRequest, micros: u64, now: Moment) -> Acquisition {
        let (key, token) = (&request.key, &request.token);
        let contended = self.queues.get(key).is_some_and(|queue| queue.has_others(token));
        self.leave(key, token);
        let fence = self.take(key, token, request.lease, micros, now);
        Acquisition::Granted { fence, contended }
    }

    fn wait(
        &mut self,
        key: &Arc<str>,
        token: &Token,
        place: Option<u64>,
        micros: u64,
        now: Moment,
    ) -> u64 {
        let listens = self.listeners.contains_key(token.parts().0);
        let alive = if listens { ALIVE } else { ALIVE_POLLING };
        let queue = self.queues.entry(Arc::clone(key)).or_default();
        queue.wait(token, place, micros, (now, alive), listens)
    }

    fn leave(&mut self, key: &str, token: &Token) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.leave(token);
            if queue.is_empty() {
                self.queues.remove(key);
            }
        }
    }

    /// The first living waiter for a lock, and its place.
    fn first_waiter(&mut self, key: &str, now: Moment) -> Option<(Token, u64)> {
        let Self { queues, listeners, .. } = self;
        let queue = queues.get_mut(key)?;
        let first = queue.first(now, |token| hears(listeners, token));
        if queue.is_empty() {
            self.queues.remove(key);
        }
        first
    }

    /// Does any waiter for a lock live? Those who joined before its holder took it may not.
    fn is_waited_for(&self, key: &str, now: Moment) -> bool {
        let hears = |token: &Token| hears(&self.listeners, token);
        self.queues.get(key).is_some_and(|queue| queue.has_living(now, hears))
    }

    /// Gives a lock that nobody holds to a waiter.
    fn hand_over(&mut self, key: &Arc<str>, waiter: Token, now: Moment) {
        self.leave(key, &waiter);
        self.tell(&waiter, |number| Wake::Granted { number });
        self.locks.insert(Arc::clone(key), Lock { token: waiter, expiry: now + CLAIM_WINDOW });
    }

    /// Will the client of this holder release the lock here, which wakes those who wait?
    fn notifies(&self, holder: &Token) -> bool {
        let listener = self.listeners.get(holder.parts().0);
        listener.is_some_and(Listener::is_open)
    }

    fn tell(&mut self, token: &Token, wake: impl FnOnce(u64) -> Wake) {
        let (client, number) = token.parts();
        self.tell_client(client, wake(number));
    }

    fn tell_client(&mut self, client: &str, wake: Wake) {
        if let Some(listener) = self.listeners.get(client) {
            self.wakes.push((listener.clone(), wake));
        }
    }

    fn entries(&self) -> usize {
        self.locks.len() + self.windows.len() + self.queues.len()
    }

    /// Forgets what has expired, whenever the number of entries has doubled: each entry pays for
    /// a constant number of looks, and leaked locks do not fill the memory.
    fn sweep(&mut self, now: Moment) {
        if self.entries() > self.sweep_at {
            self.locks.retain(|_, lock| now <= lock.expiry);
            self.windows.retain(|_, (_, expiry)| now <= *expiry);
            self.queues.retain(|_, queue| now <= queue.expiry());
            self.sweep_at = 2 * self.entries() + 64;
        }
    }
}

/// Does anybody hear what is said to the client of this token?
fn hears(listeners: &HashMap<String, Listener>, token: &Token) -> bool {
    listeners.contains_key(token.parts().0)
}

impl Store for MemoryStore {
    fn acquire<'a>(
        &'a self,
        batch: &'a [AcquireRequest],
    ) -> StoreFuture<'a, Vec<Result<Acquisition, StoreError>>> {
        let answer = |state: &mut State, request: &AcquireRequest, now: Moment| {
            let (key, token) = (&request.key, &request.token);
            let micros = self.micros(now);
            let holder = state.held(key, now).map(|lock| (lock.token.clone(), lock.expiry));
            let place = match (&holder, &request.if_held) {
                (Some((holder, _)), IfHeld::Adopt(from)) if holder == from => {
                    return state.grant(request, micros, now);
                }
                (Some((holder, _)), _) if holder == token => {
                    return state.grant(request, micros, now);
                }
                // Without a look at the queue: a lock that is free has none, unless a lease ran out.
                (None, IfHeld::GiveUp | IfHeld::Wait) => {
                    let fence = state.take(key, token, request.lease, micros, now);
                    return Acquisition::Granted { fence, contended: false };
                }
                (Some(_), IfHeld::GiveUp) | (_, IfHeld::Adopt(_)) => None,
                (Some((holder, _)), IfHeld::Wait) => {
                    // The holder was told of the first that came, and knows of those that follow;
                    // but whoever is dead may have come in the time of another holder.
                    if !state.is_waited_for(key, now) {
                        state.tell(holder, |number| Wake::Wanted { number });
                    }
                    Some(state.wait(key, token, None, micros, now))
                }
                (Some((holder, _)), IfHeld::KeepPlace(place)) => {
                    state.tell(holder, |number| Wake::Wanted { number });
                    Some(state.wait(key, token, *place, micros, now))
                }
                (None, IfHeld::KeepPlace(place)) => {
                    // Before the dead are removed: it may be one that was taken for dead.
                    let kept = state.queues.get(key).and_then(|queue| queue.place(token));
                    match state.first_waiter(key, now) {
                        // A lease has run out, and somebody else is next.
                        Some((first, its_place))
                            if first != *token && place.is_none_or(|place| its_place < place) =>
                        {
                            let notifies = state.notifies(&first);
                            state.hand_over(key, first, now);
                            let place = state.wait(key, token, kept.or(*place), micros, now);
                            let (remaining, place) = (Some(CLAIM_WINDOW), Some(place));
                            return Acquisition::Held { remaining, place, notifies };
                        }
                        _ => return state.grant(request, micros, now),
                    }
                }
            };
            // Who does not wait is not told.
            let notifies = place.is_some()
                && holder.as_ref().is_some_and(|(holder, _)| state.notifies(holder));
            let remaining = holder.map_or(Duration::ZERO, |(_, expiry)| expiry.after(now));
            Acquisition::Held { remaining: Some(whole_millis(remaining)), place, notifies }
        };
        self.each(batch, answer)
    }

    fn renew<'a>(
        &'a self,
        batch: &'a [RenewRequest],
    ) -> StoreFuture<'a, Vec<Result<Renewal, StoreError>>> {
        let answer = |state: &mut State, request: &RenewRequest, now: Moment| {
            let contended = state.queues.contains_key(&request.key);
            let Some(lock) = state.held_by(&request.key, &request.token, now) else {
                return Renewal::NotOurs;
            };
            lock.expiry = lock.expiry.max(now + request.lease);
            Renewal::Renewed { contended }
        };
        self.each(batch, answer)
    }

    fn release<'a>(
        &'a self,
        batch: &'a [ReleaseRequest],
    ) -> StoreFuture<'a, Vec<Result<Release, StoreError>>> {
        let answer = |state: &mut State, request: &ReleaseRequest, now: Moment| {
            let (key, token) = (&request.key, &request.token);
            let holder = state.held(key, now).map(|lock| lock.token.clone());
            let ours = holder.as_ref() == Some(token);
            state.leave(key, token);
            if let Some(other) = holder.filter(|_| !ours) {
                // It may have come between a claim window that passed and this release.
                if state.queues.contains_key(key) {
                    state.tell(&other, |number| Wake::Wanted { number });
                }
                return Release::default();
            }
            let first = state.first_waiter(key, now);
            if ours && !request.keep.is_zero() {
                if let Some(lock) = state.held(key, now) {
                    lock.expiry = now + request.keep;
                }
                // It knows of a lease that may end later.
                if let Some((first, _)) = first {
                    state.tell(&first, |number| Wake::Granted { number });
                }
                return Release { ours, handed_over: false };
            }
            state.locks.remove(key);
            let handed_over = first.is_some();
            if let Some((first, _)) = first {
                state.hand_over(key, first, now);
            }
            Release { ours, handed_over }
        };
        self.each(batch, answer)
    }

    fn extend<'a>(
        &'a self,
        batch: &'a [ExtendRequest],
    ) -> StoreFuture<'a, Vec<Result<Option<Duration>, StoreError>>> {
        let answer = |state: &mut State, request: &ExtendRequest, now: Moment| {
            state.held_by(&request.key, &request.token, now).map(|lock| {
                lock.expiry = lock.expiry + request.by;
                whole_millis(lock.expiry.after(now))
            })
        };
        self.each(batch, answer)
    }

    fn holder<'a>(
        &'a self,
        keys: &'a [Arc<str>],
    ) -> StoreFuture<'a, Vec<Result<Option<Holder>, StoreError>>> {
        let answer = |state: &mut State, key: &Arc<str>, now: Moment| {
            let waiters = state.queues.get(key).map_or(0, |queue| queue.living(now));
            state.held(key, now).map(|lock| Holder {
                token: lock.token.clone(),
                remaining: Some(whole_millis(lock.expiry.after(now))),
                waiters,
            })
        };
        self.each(keys, answer)
    }

    fn force_release<'a>(
        &'a self,
        keys: &'a [Arc<str>],
    ) -> StoreFuture<'a, Vec<Result<Release, StoreError>>> {
        let answer = |state: &mut State, key: &Arc<str>, now: Moment| {
            let holder = state.held(key, now).map(|lock| lock.token.clone());
            state.locks.remove(key);
            let first = state.first_waiter(key, now);
            let answer = Release { ours: holder.is_some(), handed_over: first.is_some() };
            if let Some((first, _)) = first {
                state.hand_over(key, first, now);
            }
            if let Some(holder) = holder {
                state.tell(&holder, |number| Wake::Taken { number });
            }
            answer
        };
        self.each(keys, answer)
    }

    fn debounce<'a>(
        &'a self,
        batch: &'a [DebounceRequest],
    ) -> StoreFuture<'a, Vec<Result<DebounceReply, StoreError>>> {
        let answer = |state: &mut State, request: &DebounceRequest, now: Moment| {
            let micros = self.micros(now);
            let token = &request.token;
            let caller = token.parts();
            let call = Call {
                caller,
                age: request.age,
                wait: request.wait,
                max_wait: request.max_wait,
                leading: request.leading,
            };
            let (mut window, expiry) = match state.windows.get(&request.window) {
                Some((window, expiry)) if now <= *expiry => (window.clone(), *expiry),
                _ => Default::default(),
            };
            // A part of a millisecond counts as one: asking too early is in vain.
            let until = |left: Duration| whole_millis(left + Duration::from_micros(999));
            let running = state.held(&request.run, now);
            let running = running.map(|lock| (lock.token == *token, lock.expiry.after(now)));
            let mut keep = Duration::ZERO;
            let reply = match (running, window.ask(&call, micros)) {
                // The answer to an earlier claim was lost.
                (Some((true, _)), _) | (None, Verdict::Due) => {
                    for (client, number) in window.begin(caller, micros) {
                        state.tell_client(&client, Wake::Granted { number });
                    }
                    let fence = state.take(&request.run, token, request.lease, micros, now);
                    DebounceReply::Granted { fence }
                }
                (_, Verdict::Superseded) => DebounceReply::Superseded,
                (_, Verdict::NotYet { left, newest }) => {
                    DebounceReply::NotYet { left: until(left), newest }
                }
                (Some((false, left)), Verdict::Due) => {
                    window.wait_for_run(caller, micros);
                    // Whoever waits keeps the window: a run may go on for longer than that.
                    keep = left;
                    DebounceReply::Running(whole_millis(left))
                }
            };
            // A tombstone is never kept for less than somebody has asked for.
            let kept_until = (now + window.due_in(micros).max(keep) + request.keep).max(expiry);
            state.windows.insert(Arc::clone(&request.window), (window, kept_until));
            reply
        };
        self.each(batch, answer)
    }

    fn end_window<'a>(
        &'a self,
        batch: &'a [EndWindowRequest],
    ) -> StoreFuture<'a, Vec<Result<bool, StoreError>>> {
        let answer = |state: &mut State, request: &EndWindowRequest, now: Moment| {
            let micros = self.micros(now);
            let known = state.windows.get_mut(&request.window).filter(|(_, expiry)| now <= *expiry);
            let Some((window, _)) = known else { return false };
            let told: Vec<_> = match request.end {
                WindowEnd::Flush => {
                    let newest = window.flush(micros);
                    newest.into_iter().map(|(of, number)| (of, Wake::Due { number })).collect()
                }
                WindowEnd::Cancel => {
                    let told = window.cancel(micros).unwrap_or_default();
                    told.into_iter().map(|(of, number)| (of, Wake::Granted { number })).collect()
                }
            };
            let pending = !told.is_empty();
            for (client, wake) in told {
                state.tell_client(&client, wake);
            }
            pending
        };
        self.each(batch, answer)
    }

    fn durable<'a>(
        &'a self,
        batch: &'a [DurableRequest],
    ) -> StoreFuture<'a, Vec<Result<DurableReply, StoreError>>> {
        let answer = |state: &mut State, request: &DurableRequest, now: Moment| {
            state.durable(request, self.micros(now), now)
        };
        self.each(batch, answer)
    }

    fn listen<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, WakeUps> {
        Box::pin(async move {
            self.at_once(|state, _| {
                state.listeners.retain(|_, other| other.is_open());
                state.listeners.insert(client.to_owned(), listener);
            });
            WakeUps::Push
        })
    }

    fn is_embedded(&self) -> bool {
        true
    }
}
