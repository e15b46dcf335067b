//! Locks in the memory of this process: the embedded default, and the reference of the contract.

use std::{
    collections::HashMap,
    fmt, future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    AcquireRequest, Acquisition, DebounceReply, DebounceRequest, DebounceStep, Holder, Ownership,
    ReleaseRequest, RenewRequest, Store, StoreError, StoreFuture,
};
use crate::{
    Token,
    core::{
        Moment,
        debounce::{Claim, Window},
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
}

#[derive(Default)]
struct State {
    locks: HashMap<Arc<str>, Lock>,
    windows: HashMap<Arc<str>, (Window, Moment)>,
    fence: u64,
    /// The number of entries at which expired ones are looked for.
    sweep_at: usize,
}

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
        }))
    }

    /// The state, and the time at which an operation finds it.
    fn at_once(&self) -> (MutexGuard<'_, State>, Moment) {
        // A panic cannot leave the state half changed: nothing below panics between two writes.
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.clock.now();
        state.sweep(now);
        (state, now)
    }

    fn micros(&self, now: Moment) -> u64 {
        self.0.epoch + now.as_nanos() / 1000
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, _) = self.at_once();
        f.debug_struct("MemoryStore").field("locks", &state.locks.len()).finish_non_exhaustive()
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

    /// Forgets what has expired, whenever the number of entries has doubled: each entry pays for
    /// a constant number of looks, and leaked locks do not fill the memory.
    fn sweep(&mut self, now: Moment) {
        if self.locks.len() + self.windows.len() > self.sweep_at {
            self.locks.retain(|_, lock| now <= lock.expiry);
            self.windows.retain(|_, (_, expiry)| now <= *expiry);
            self.sweep_at = 2 * (self.locks.len() + self.windows.len()) + 64;
        }
    }
}

impl Store for MemoryStore {
    fn acquire<'a>(
        &'a self,
        batch: &'a [AcquireRequest],
    ) -> StoreFuture<'a, Vec<Result<Acquisition, StoreError>>> {
        Box::pin(future::poll_fn(move |_| {
            let (mut state, now) = self.at_once();
            let answer = |request: &AcquireRequest| {
                let grant = match state.held(&request.key, now) {
                    Some(lock)
                        if lock.token != request.token
                            && request.adopt.as_ref() != Some(&lock.token) =>
                    {
                        let remaining = Some(whole_millis(lock.expiry.after(now)));
                        return Ok(Acquisition::Held { remaining });
                    }
                    None if request.adopt.is_some() => {
                        return Ok(Acquisition::Held { remaining: Some(Duration::ZERO) });
                    }
                    _ => state.take(
                        &request.key,
                        &request.token,
                        request.lease,
                        self.micros(now),
                        now,
                    ),
                };
                Ok(Acquisition::Granted { fence: grant })
            };
            std::task::Poll::Ready(batch.iter().map(answer).collect())
        }))
    }

    fn renew<'a>(
        &'a self,
        batch: &'a [RenewRequest],
    ) -> StoreFuture<'a, Vec<Result<Ownership, StoreError>>> {
        Box::pin(future::poll_fn(move |_| {
            let (mut state, now) = self.at_once();
            let answer = |request: &RenewRequest| {
                let Some(lock) = state.held_by(&request.key, &request.token, now) else {
                    return Ok(Ownership::NotOurs);
                };
                lock.expiry = lock.expiry.max(now + request.lease);
                Ok(Ownership::Ours)
            };
            std::task::Poll::Ready(batch.iter().map(answer).collect())
        }))
    }

    fn release<'a>(
        &'a self,
        batch: &'a [ReleaseRequest],
    ) -> StoreFuture<'a, Vec<Result<Ownership, StoreError>>> {
        Box::pin(future::poll_fn(move |_| {
            let (mut state, now) = self.at_once();
            let answer = |request: &ReleaseRequest| {
                let Some(lock) = state.held_by(&request.key, &request.token, now) else {
                    return Ok(Ownership::NotOurs);
                };
                if request.keep.is_zero() {
                    state.locks.remove(&request.key);
                } else {
                    lock.expiry = now + request.keep;
                }
                Ok(Ownership::Ours)
            };
            std::task::Poll::Ready(batch.iter().map(answer).collect())
        }))
    }

    fn extend<'a>(
        &'a self,
        key: &'a str,
        token: &'a Token,
        by: Duration,
    ) -> StoreFuture<'a, Result<Option<Duration>, StoreError>> {
        Box::pin(async move {
            let (mut state, now) = self.at_once();
            Ok(state.held_by(key, token, now).map(|lock| {
                lock.expiry = lock.expiry + by;
                whole_millis(lock.expiry.after(now))
            }))
        })
    }

    fn holder<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Result<Option<Holder>, StoreError>> {
        Box::pin(async move {
            let (mut state, now) = self.at_once();
            Ok(state.held(key, now).map(|lock| Holder {
                token: lock.token.clone(),
                remaining: Some(whole_millis(lock.expiry.after(now))),
            }))
        })
    }

    fn force_release<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let (mut state, now) = self.at_once();
            let held = state.held(key, now).is_some();
            state.locks.remove(key);
            Ok(held)
        })
    }

    fn debounce<'a>(
        &'a self,
        request: &'a DebounceRequest,
    ) -> StoreFuture<'a, Result<DebounceReply, StoreError>> {
        Box::pin(async move {
            let (mut state, now) = self.at_once();
            let micros = self.micros(now);
            let token = &request.token;
            let mut window = match state.windows.get(&request.window) {
                Some((window, expiry)) if now <= *expiry => window.clone(),
                _ => Window::default(),
            };
            let caller = token.parts();
            // A part of a millisecond counts as one: asking too early is in vain.
            let until = |left: Duration| whole_millis(left + Duration::from_micros(999));
            let (reply, kept_until) = match request.step {
                DebounceStep::Register { wait, max_wait } => {
                    let registered = window.register(caller, wait, max_wait, micros, now);
                    let due_in = until(registered.due_in);
                    let reply = DebounceReply::Registered { call: registered.call, due_in };
                    (reply, now + registered.due_in + request.keep)
                }
                DebounceStep::Claim { call } => {
                    let running = state.held(&request.run, now);
                    let running =
                        running.map(|lock| (lock.token == *token, lock.expiry.after(now)));
                    match (running, window.claim(caller, call, now)) {
                        // The answer to an earlier claim was lost.
                        (Some((true, _)), _) | (None, Claim::Due) => {
                            window.begin(caller, call);
                            let fence = state.take(&request.run, token, request.lease, micros, now);
                            (DebounceReply::Granted { fence }, now + request.keep)
                        }
                        (_, Claim::Superseded) => return Ok(DebounceReply::Superseded),
                        // Whoever waits keeps the window: a run may go on for longer than that.
                        (_, Claim::NotYet(left)) => {
                            (DebounceReply::NotYet(until(left)), now + left + request.keep)
                        }
                        (Some((false, left)), Claim::Due) => {
                            window.wait_for_run(caller, now);
                            (DebounceReply::Running(whole_millis(left)), now + left + request.keep)
                        }
                    }
                }
            };
            state.windows.insert(Arc::clone(&request.window), (window, kept_until));
            Ok(reply)
        })
    }

    fn is_embedded(&self) -> bool {
        true
    }
}
