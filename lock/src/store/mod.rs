//! The contract between the library and the stores that keep its locks.
//!
//! The library decides on waiting, renewal and deadlines, and when a lock counts as lost. A store
//! performs one atomic operation at a time and reports what it found. [`MemoryStore`] is the
//! reference implementation.
//!
//! A store of your own needs the three required methods of [`Store`]. Everything else is an
//! optional capability. A call that needs a capability that the store lacks fails with
//! [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), and the error names what is missing.
//!
//! | capability | needed for | offered by |
//! |---|---|---|
//! | [`Store::subscribe`] | waiters with a [ticket](Acquisition::waiting) are notified instead of polling | the [`Delivery`] it returns |
//! | [`AdminStore`] | `extend`, `status`, `list`, `force_release`, `end_run` | [`Store::admin`] |
//! | [`DebounceStore`] | `debounce`, `#[debounced]` | [`Store::debounce`] |
//! | [`DurableStore`] | durable debounce | [`Store::durable`] |
//! | [`EmbeddedStore`] | a store in this process, which needs no separate thread | [`Store::embedded`] |
//!
#![cfg_attr(
    feature = "test-util",
    doc = "[`test_util::contract`](crate::test_util::contract) has tests for each of them."
)]
//! `docs/stores.md` in the repository walks through a store that keeps its locks in files and has
//! the three methods.
//!
//! A store with the three required methods, which keeps its locks in a map:
//!
//! ```
//! use std::{
//!     collections::HashMap,
//!     sync::{Arc, Mutex},
//!     time::{Duration, SystemTime, UNIX_EPOCH},
//! };
//! use lock::{Locks, Token, store::*};
//! use tokio::time::Instant;
//!
//! #[derive(Default)]
//! struct MapStore(Mutex<State>);
//!
//! #[derive(Default)]
//! struct State {
//!     /// The token that holds the lock of each key, and the end of its lease.
//!     locks: HashMap<Arc<str>, (Token, Instant)>,
//!     last_fence: u64,
//! }
//!
//! impl Store for MapStore {
//!     fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
//!         self.each(batch, |State { locks, last_fence }, request, now| {
//!             let AcquireRequest { key, token, lease, if_held, .. } = request;
//!             let may_take = match (locks.get(key), if_held) {
//!                 (Some((holder, _)), IfHeld::Adopt(from)) => holder == token || holder == from,
//!                 (Some((holder, _)), _) => holder == token,
//!                 (None, how) => !matches!(how, IfHeld::Adopt(_)),
//!             };
//!             if !may_take {
//!                 // Zero if nobody holds the lock that was to be adopted.
//!                 let remaining = locks.get(key).map_or(Duration::ZERO, |(_, end)| *end - now);
//!                 return Acquisition::held(Some(remaining));
//!             }
//!             locks.insert(key.clone(), (token.clone(), now + *lease));
//!             let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
//!             *last_fence = (*last_fence + 1).max(clock.as_micros() as u64);
//!             Acquisition::granted(*last_fence)
//!         })
//!     }
//!
//!     fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
//!         self.each(batch, |state, request, now| match state.locks.get_mut(&request.key) {
//!             Some((holder, end)) if *holder == request.token => {
//!                 *end = (*end).max(now + request.lease);
//!                 Renewal::renewed()
//!             }
//!             _ => Renewal::not_ours(),
//!         })
//!     }
//!
//!     fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
//!         self.each(batch, |state, request, now| match state.locks.get_mut(&request.key) {
//!             Some((holder, end)) if *holder == request.token => {
//!                 *end = now + request.keep; // usually zero
//!                 Release::freed()
//!             }
//!             _ => Release::not_ours(),
//!         })
//!     }
//! }
//!
//! impl MapStore {
//!     /// Applies an operation to each request, when the future is first polled.
//!     fn each<'a, Q: Sync, A: Send + 'a>(
//!         &'a self,
//!         batch: &'a [Q],
//!         apply: fn(&mut State, &Q, Instant) -> A,
//!     ) -> Answers<'a, A> {
//!         Box::pin(async move {
//!             let (mut state, now) = (self.0.lock().expect("no panic"), Instant::now());
//!             state.locks.retain(|_, (_, end)| *end > now); // every key expires
//!             batch.iter().map(|request| Ok(apply(&mut state, request, now))).collect()
//!         })
//!     }
//! }
//!
//! # #[cfg(feature = "test-util")]
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn check() { lock::test_util::contract::locks(&MapStore::default()).await }
//! # #[cfg(not(feature = "test-util"))]
//! # fn check() {}
//! # fn main() -> Result<(), lock::Error> {
//! #     check();
//! #     use_it()
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn use_it() -> Result<(), lock::Error> {
//! let locks = Locks::builder().store(MapStore::default()).build().await?;
//! let guard = locks.lock("report").acquire().await?;
//! assert!(locks.lock("report").try_acquire().await?.is_none());
//! guard.release().await?;
//! assert!(locks.lock("report").try_acquire().await?.is_some());
//! # Ok(())
//! # }
//! ```

mod listener;
mod memory;
mod operations;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use lock_core::contract::answer_each;

pub(crate) use self::listener::CurrentDelivery;
pub use self::{listener::Listener, memory::MemoryStore};
pub use lock_core::contract::{
    AcquireRequest, Acquisition, ClaimRequest, ClientRecord, DebounceReply, DebounceRequest,
    Delivery, DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish, EndWindowRequest,
    ExtendRequest, FinishRequest, ForceReleaseRequest, Holder, IfHeld, IntroduceRequest,
    KeepRequest, Kept, Notice, RESERVATION, Release, ReleaseRequest, RenewRequest, Renewal,
    ScanFor, ScanPage, ScanRequest, SetAside, StoreError, TakeBackRequest, WaitingCalls, WindowEnd,
};

/// The boxed future that the methods of a store return.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The answers to a batch: one for each item, in the order of the items.
pub type Answers<'a, T> = StoreFuture<'a, Vec<Result<T, StoreError>>>;

/// A system that keeps locks: one atomic operation per method.
///
/// Implement it to keep locks in another system, or to wrap a store in tests. Three methods are
/// required; the [module](self) lists the optional capabilities. An implementation must keep these
/// rules:
///
/// - **Atomic.** Each item of a batch takes effect in one step or not at all, even if the store or
///   the connection fails. A batch as a whole need not be atomic. A batch is never empty, and
///   contains each pair of key and token at most once.
/// - **Idempotent for one token.** An item that is sent twice takes effect once, because the
///   library repeats a request whose answer it did not get. The second answer may differ: after a
///   release, the token no longer holds the lock. There are two exceptions:
///   [`extend`](AdminStore::extend) is never repeated, and a repeated [`keep`](DurableStore::keep)
///   counts as another call.
/// - **In order for one key.** Operations on one key take effect in the order in which their
///   futures are first polled. This lets a release undo an abandoned acquire that was sent before
///   it. Operations on different keys may overtake each other.
/// - **Bounded.** Every future resolves within a few seconds. If its outcome is not known, an
///   operation answers [`StoreError::Unavailable`], never "not ours".
/// - **The store's own clock** decides when a lock expires and which waiters are alive. It is never
///   compared with the clock of a client. Every key expires, except the fence counter.
///
/// # Key names
///
/// The application determines a lock's key: a prefix, followed by the id. The library's own keys
/// have a `~` and a kind between the two:
///
/// - `~debounce:ID` and `~run:ID`: the window of a debounce, and the lock of its runs;
/// - `~client:CLIENT`: the record of a client;
/// - `~due:NAME`, `~calls:NAME` and `~aside:NAME`: the book of a durable function;
/// - `~durable:LENGTH-OF-NAME:NAME:ID`: the lock of a durable function's runs of one id.
///
/// All keys in one request belong to one id, or to one function. No prefix contains a `~`, and no
/// id begins with one.
///
/// # The queue
///
/// Each lock has a queue of tokens, in the order of their *tickets*. A request that finds its lock
/// held [joins](IfHeld::Wait) the queue in the same operation. The request is then repeated at
/// intervals, which shows that the waiter is alive. An operation that would free a lock hands it to
/// the first living waiter instead: it [reserves](RESERVATION) the lock for a second and
/// [notifies](Listener) that waiter's client. The client repeats its request and is granted the
/// lock, with the lease that it requests. A waiter that lets the reservation expire loses its turn:
/// the next waiter that repeats its request hands the lock to the first living waiter, itself
/// included, unless a newcomer takes it before.
///
/// A waiter repeats its request at least every 5 seconds, and several times a second if its client
/// polls. It counts as dead after 15 seconds without a request, or after 2 seconds if its client
/// polls.
///
/// A store without a queue answers [`Acquisition::held`] without a ticket, and its waiters poll.
/// Then no client knows of waiters in other processes: a process with many callers of one lock
/// passes the lock among its own callers for as long as more of them arrive.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::store::StoreError> {
/// use std::time::Duration;
/// use lock::{Token, store::*};
///
/// let (store, lease) = (MemoryStore::new(), Duration::from_secs(10));
/// let token = |text: &str| Token::from(text.to_owned());
/// let take = |holder: &str| AcquireRequest::new("lock:report", token(holder), lease);
///
/// // Client `a` takes the lock, and `b` waits for it.
/// let answers = store.acquire(&[take("a:1"), take("b:1").if_held(IfHeld::Wait)]).await;
/// assert!(matches!(answers[0], Ok(Acquisition::Granted { .. })));
/// assert!(matches!(answers[1], Ok(Acquisition::Held { ticket: Some(_), .. })));
/// let again = store.acquire(&[take("a:1")]).await.remove(0)?;
/// assert!(matches!(again, Acquisition::Granted { .. }), "idempotent for one token");
///
/// let renew = RenewRequest::new("lock:report", token("a:1"), lease);
/// assert_eq!(store.renew(&[renew]).await.remove(0)?, Renewal::renewed().contended(true));
///
/// // The release hands the lock to `b`, for which it is reserved until `b` repeats its request.
/// let release = ReleaseRequest::new("lock:report", token("a:1"));
/// assert_eq!(store.release(&[release]).await.remove(0)?, Release::freed().handed_over(true));
/// let other = store.acquire(&[take("c:1")]).await.remove(0)?;
/// assert_eq!(other, Acquisition::held(Some(RESERVATION)));
/// let next = store.acquire(&[take("b:1").if_held(IfHeld::KeepWaiting(None))]).await.remove(0)?;
/// assert!(matches!(next, Acquisition::Granted { .. }));
/// # Ok(())
/// # }
/// ```
///
/// # A store around another one
///
/// A wrapper changes some answers, and passes on everything else, including the capabilities: a
/// capability that it does not pass on is not offered.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// use std::{sync::{Arc, atomic::{AtomicBool, Ordering}}, time::Duration};
/// use lock::{ErrorKind, Locks, store::*};
///
/// /// Grants no locks while the service drains; held locks, and debounced runs, go on.
/// #[derive(Clone, Default)]
/// struct Draining {
///     inner: MemoryStore,
///     drains: Arc<AtomicBool>,
/// }
///
/// impl Store for Draining {
///     fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
///         if !self.drains.load(Ordering::Relaxed) {
///             return self.inner.acquire(batch);
///         }
///         let refuse = |_| Err(StoreError::rejected("the service is draining"));
///         Box::pin(async move { batch.iter().map(refuse).collect() })
///     }
///     fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
///         self.inner.renew(batch)
///     }
///     fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
///         self.inner.release(batch)
///     }
///     fn subscribe<'a>(&'a self, client: &'a str, to: Listener) -> StoreFuture<'a, Delivery> {
///         self.inner.subscribe(client, to)
///     }
///     fn shard(&self, key: &str) -> usize {
///         self.inner.shard(key)
///     }
///     fn admin(&self) -> Option<&dyn AdminStore> {
///         self.inner.admin()
///     }
///     fn debounce(&self) -> Option<&dyn DebounceStore> {
///         self.inner.debounce()
///     }
///     fn durable(&self) -> Option<&dyn DurableStore> {
///         self.inner.durable()
///     }
///     fn embedded(&self) -> Option<&dyn EmbeddedStore> {
///         self.inner.embedded().map(|_| self as _) // itself: see `EmbeddedStore`
///     }
/// }
/// impl EmbeddedStore for Draining {}
///
/// let store = Draining::default();
/// let locks = Locks::builder().store(store.clone()).build().await?;
/// let guard = locks.lock("report").acquire().await?;
/// store.drains.store(true, Ordering::Relaxed);
/// let error = locks.lock("invoice:7").acquire().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Rejected);
/// tokio::time::sleep(Duration::from_secs(60)).await;
/// guard.release().await?; // it was not lost
/// # Ok(())
/// # }
/// ```
pub trait Store: Send + Sync + 'static {
    /// Takes each lock that is free, or already held by the same token. A lock that another token
    /// holds is left as it is; [`if_held`](AcquireRequest::if_held) says what the request does in
    /// that case. An adoption passes the lock from the named token to the new one, so a lock can be
    /// adopted only once.
    ///
    /// A waiter that repeats its request and finds the lock free takes it only if no living waiter
    /// is ahead of it. Otherwise the lock is handed to the first living waiter. The first request
    /// of a token may take a free lock without looking at the queue: because a release hands
    /// the lock over, a free lock with a queue is one whose lease, or whose `hold_at_least`, has
    /// run out.
    ///
    /// Every grant, including a repeated one, draws a fence. The fence is larger than all fences
    /// drawn earlier for that key, even across expiry, release and loss of data. Fences come from a
    /// hybrid logical clock (Kulkarni et al., 2014): `max(last + 1, microseconds of the store's
    /// clock)`.
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition>;

    /// Renews each lock that its token holds: the lock lasts for at least the lease from now on.
    /// Never shortens a lease, and never creates a lock.
    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal>;

    /// Releases each lock: hands it to the first living waiter, or frees it if nobody waits. With a
    /// non-zero `keep`, the lock stays held for that time instead.
    ///
    /// Also removes the token from the lock's queue, which is how a waiter leaves the queue. A lock
    /// that nobody holds is handed to its first living waiter. So when a release is repeated after
    /// the reservation has expired, it passes on a lock that the previous waiter did not claim.
    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release>;

    /// Sends the notices of this client to the listener from now on, and returns how they travel.
    /// The client's tokens are `client:number`. Called once for each client, before its first
    /// acquire.
    ///
    /// A notice is a hint: losing one costs time, and nothing else. A store that may have missed
    /// notices, because its connection broke, sends [`Notice::Connected`] once notices arrive
    /// again, and every waiter then repeats its request. By default there are no notices, and
    /// waiters poll.
    fn subscribe<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, Delivery> {
        let _ = (client, listener);
        Box::pin(std::future::ready(Delivery::Polling))
    }

    /// Returns the number of the part of the store that holds this key, counted from 0. Requests
    /// about different parts are sent in separate calls, so that a part that does not answer does
    /// not delay the others. This is only a hint: a call may contain requests about several parts,
    /// and the store must serve them all.
    fn shard(&self, key: &str) -> usize {
        let _ = key;
        0
    }

    /// Returns the operations for operators, such as finding out who holds a lock; `None` if this
    /// store offers none of them.
    fn admin(&self) -> Option<&dyn AdminStore> {
        None
    }

    /// Returns the operations on debounced calls; `None` if this store offers none.
    fn debounce(&self) -> Option<&dyn DebounceStore> {
        None
    }

    /// Returns the operations on durable calls; `None` if this store offers none.
    fn durable(&self) -> Option<&dyn DurableStore> {
        None
    }

    /// Returns the store as one that lives in this process; `None` if it is reached through a
    /// connection.
    ///
    /// An embedded store is driven by its callers, on their own tasks, and by the timers of their
    /// runtimes, on tokio's clock (so that tests can pause it). Any other store gets a separate
    /// thread, so that a busy runtime does not delay the renewal of leases.
    fn embedded(&self) -> Option<&dyn EmbeddedStore> {
        None
    }
}

/// The capability behind [`extend`](crate::LockGuard::extend), [`status`](crate::Lock::status),
/// [`list`](crate::Locks::list), [`force_release`](crate::Lock::force_release) and
/// [`end_run`](crate::Debounce::end_run).
///
/// A store may answer any single method with [`StoreError::unsupported`], as the default methods
/// do.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::store::StoreError> {
/// use std::{sync::Arc, time::Duration};
/// use lock::{Token, store::*};
///
/// let (store, lease) = (MemoryStore::new(), Duration::from_secs(10));
/// let (key, token) = (Arc::from("lock:report"), Token::from("client:1".to_owned()));
/// store.acquire(&[AcquireRequest::new("lock:report", token.clone(), lease)]).await.remove(0)?;
/// let extend = ExtendRequest::new("lock:report", token.clone(), lease);
/// assert_eq!(store.extend(&[extend]).await.remove(0)?, Some(lease * 2));
///
/// // Who holds the lock?
/// let holder = store.holder(&[key]).await.remove(0)?;
/// assert_eq!(holder, Some(Holder::new(token.clone(), Some(lease * 2))));
/// let record = ClientRecord::unknown().name(Some("billing-7".to_owned()));
/// let introduce = IntroduceRequest::new("lock:~client:client", record.clone(), lease);
/// store.introduce(&[introduce]).await.remove(0)?;
/// assert_eq!(store.client(&["lock:~client:client".into()]).await.remove(0)?, Some(record));
///
/// // Which locks are held?
/// let scan = ScanRequest::new(ScanFor::HeldLocks, "lock:", 100);
/// let page = store.scan(&[scan]).await.remove(0)?;
/// assert_eq!(page, ScanPage::new(vec!["report".into()], None));
///
/// let by_force = ForceReleaseRequest::new("lock:report").only_from(Some(token));
/// assert_eq!(store.force_release(&[by_force]).await.remove(0)?, Release::freed());
/// # Ok(())
/// # }
/// ```
pub trait AdminStore: Send + Sync {
    /// Adds to the remaining time of each lock that its token holds, and returns the new remaining
    /// time; `None` if the token does not hold the lock.
    fn extend<'a>(&'a self, batch: &'a [ExtendRequest]) -> Answers<'a, Option<Duration>>;

    /// Returns the holder of the lock of each key, if there is one.
    fn holder<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<Holder>>;

    /// Takes each lock away from its holder and notifies the holder's client; otherwise works like
    /// [`release`](Store::release). [`Release::ours`] says whether the lock was held and, if the
    /// request names a token, whether that token held it. A lock held by a token other than the
    /// named one is left as it is.
    fn force_release<'a>(&'a self, batch: &'a [ForceReleaseRequest]) -> Answers<'a, Release>;

    /// Stores a client's description of itself until it expires.
    fn introduce<'a>(&'a self, batch: &'a [IntroduceRequest]) -> Answers<'a, ()> {
        unsupported("client records", batch.len())
    }

    /// Returns the stored description of each client, given the keys of the records.
    fn client<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<ClientRecord>> {
        unsupported("client records", keys.len())
    }

    /// Lists the ids that have an entry in the store, page by page. A page must not block the
    /// store's other clients for more than a few milliseconds.
    fn scan<'a>(&'a self, batch: &'a [ScanRequest]) -> Answers<'a, ScanPage> {
        unsupported("listing", batch.len())
    }
}

/// The answers of a store that does not have this method.
fn unsupported<'a, A: Send + 'a>(what: &'static str, items: usize) -> Answers<'a, A> {
    Box::pin(std::future::ready(answer_each(Err(StoreError::unsupported(what)), items)))
}

/// The capability behind [`Locks::debounce`](crate::Locks::debounce).
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::store::StoreError> {
/// use std::{sync::Arc, time::Duration};
/// use lock::{Token, store::*};
/// use tokio::time::sleep;
///
/// let (store, second) = (MemoryStore::new(), Duration::from_secs(1));
/// let window: Arc<str> = "lock:~debounce:report".into();
/// let call = |token: &str| {
///     let token = Token::from(token.to_owned());
///     DebounceRequest::new(window.clone(), "lock:~run:report", token, second, second * 10)
/// };
///
/// // Client `a` calls, then `b`. A second after the last call, that call runs for both.
/// let first = store.register(&[call("a:1")]).await.remove(0)?;
/// assert_eq!(first, DebounceReply::not_yet(second, true));
/// sleep(second / 2).await;
/// let last = store.register(&[call("b:1")]).await.remove(0)?;
/// assert_eq!(last, DebounceReply::not_yet(second, true));
/// assert_eq!(store.due_in(&[window.clone()]).await.remove(0)?, Some(second));
/// sleep(second).await;
/// let run = store.register(&[call("b:1")]).await.remove(0)?;
/// assert!(matches!(run, DebounceReply::Granted { .. }));
/// assert_eq!(store.register(&[call("a:1")]).await.remove(0)?, DebounceReply::Superseded);
///
/// // A call during the run is due at once if it is flushed, and then waits for the run.
/// store.register(&[call("a:2")]).await.remove(0)?;
/// let flush = EndWindowRequest::new(window.clone(), WindowEnd::Flush);
/// assert!(store.end_window(&[flush]).await.remove(0)?);
/// let next = store.register(&[call("a:2")]).await.remove(0)?;
/// assert_eq!(next, DebounceReply::Running(second * 10));
/// # Ok(())
/// # }
/// ```
pub trait DebounceStore: Send + Sync {
    /// Registers the newest call of a process in each window, and lets it run if its burst is over;
    /// see [`DebounceRequest`].
    fn register<'a>(&'a self, batch: &'a [DebounceRequest]) -> Answers<'a, DebounceReply>;

    /// Ends each window before its time; `false` if no call waits in it. A run in progress is not
    /// affected.
    fn end_window<'a>(&'a self, batch: &'a [EndWindowRequest]) -> Answers<'a, bool>;

    /// Returns how long it is until the call that waits in each window is due; `None` if no call
    /// waits in it.
    fn due_in<'a>(&'a self, windows: &'a [Arc<str>]) -> Answers<'a, Option<Duration>> {
        unsupported("asking about a debounce", windows.len())
    }
}

/// The capability behind durable debounce: calls that are kept in the store.
///
/// Each step is atomic, and idempotent for one token. The exception is [`keep`](Self::keep): a
/// repeated request counts as another call.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::store::StoreError> {
/// use std::time::Duration;
/// use lock::{Token, store::*};
///
/// let (store, second) = (MemoryStore::new(), Duration::from_secs(1));
/// let book = DurableBook::new("lock:~due:mail", "lock:~calls:mail", "lock:~aside:mail");
/// let run = "lock:~durable:4:mail:invoice:7";
///
/// // A call is kept, and is due after a second.
/// let keep = KeepRequest::new(book.clone(), "invoice:7", "[7]", second);
/// let kept = store.keep(&[keep]).await.remove(0)?;
/// assert_eq!(kept, Kept::new(kept.call, second));
/// let all = DueRequest::new(book.clone(), 10);
/// let waiting = store.waiting(&[all.clone()]).await.remove(0)?;
/// assert_eq!(waiting, WaitingCalls::new(1, vec![("invoice:7".to_owned(), second)]));
/// tokio::time::sleep(second).await;
/// let due = store.due(&[all]).await.remove(0)?;
/// assert_eq!(due, DueCalls::new(vec!["invoice:7".to_owned()], None).of(1));
///
/// // A worker claims a run of it.
/// let token = Token::from("client:1".to_owned());
/// let claim = ClaimRequest::new(book.clone(), "invoice:7", run, token.clone(), second * 10);
/// let claimed = store.claim(&[claim]).await.remove(0)?;
/// let DurableClaim::Granted { fence, call, attempt, arguments, .. } = claimed else {
///     panic!("the call is due: {claimed:?}")
/// };
/// assert_eq!((call, attempt, &*arguments), (kept.call, 1, "[7]"));
///
/// // The run fails, and its caller has asked for one attempt only.
/// let finish = FinishRequest::new(book.clone(), "invoice:7", run, token, (call, fence));
/// let finish = finish.failed(Some("no such address".into()));
/// assert_eq!(store.finish(&[finish]).await.remove(0)?, DurableFinish::SetAside);
/// let (id, error) = ("invoice:7".to_owned(), "no such address".to_owned());
/// let failed = store.set_aside(&[book.clone()]).await.remove(0)?;
/// assert_eq!(failed, [SetAside::new(id, 1, fence, error, "[7]".to_owned())]);
///
/// // An operator has it run again; after that, it is not there to be forgotten.
/// let again = TakeBackRequest::run_again(book.clone(), "invoice:7");
/// assert!(store.take_back(&[again]).await.remove(0)?);
/// let forget = TakeBackRequest::forget(book, "invoice:7");
/// assert!(!store.take_back(&[forget]).await.remove(0)?);
/// # Ok(())
/// # }
/// ```
pub trait DurableStore: Send + Sync {
    /// Stores each call.
    fn keep<'a>(&'a self, batch: &'a [KeepRequest]) -> Answers<'a, Kept>;

    /// Returns the calls that are due.
    fn due<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, DueCalls>;

    /// Returns the calls that wait for each function, due or not, up to the limit in the request.
    fn waiting<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, WaitingCalls> {
        unsupported("listing durable calls", batch.len())
    }

    /// Claims a run for each call, if the call is due and no other run of its id is in progress.
    fn claim<'a>(&'a self, batch: &'a [ClaimRequest]) -> Answers<'a, DurableClaim>;

    /// Ends each run, and frees its lock.
    fn finish<'a>(&'a self, batch: &'a [FinishRequest]) -> Answers<'a, DurableFinish>;

    /// Returns the calls of each function that were set aside.
    fn set_aside<'a>(&'a self, books: &'a [DurableBook]) -> Answers<'a, Vec<SetAside>>;

    /// Takes back each call from those that were set aside; `false` if the call is not among them.
    fn take_back<'a>(&'a self, batch: &'a [TakeBackRequest]) -> Answers<'a, bool>;
}

/// A store in this process, on the runtimes and the clock of its callers.
///
/// The methods are those of [`Store`] without a future, for a store that can answer immediately:
/// they append the answers and return `true`. A method that returns `false` has done nothing, and
/// the library then calls the method of [`Store`]. So an empty `impl` is enough for an embedded
/// store whose operations take time. (The future of its [`subscribe`](Store::subscribe) must still
/// be ready at the first poll.)
///
/// A store that wraps another one returns itself, `self.inner.embedded().map(|_| self as _)`. If it
/// returned the answer of the inner store, the library would bypass the wrapper.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use std::time::Duration;
/// use lock::{Token, store::*};
///
/// let (store, lease) = (MemoryStore::new(), Duration::from_secs(10));
/// let token = Token::from("client:1".to_owned());
///
/// let mut acquired = Vec::new();
/// let acquire = [AcquireRequest::new("lock:report", token.clone(), lease)];
/// assert!(store.acquire_now(&acquire, &mut acquired));
/// assert!(matches!(acquired[..], [Ok(Acquisition::Granted { .. })]));
///
/// let mut renewed = Vec::new();
/// let renew = RenewRequest::new("lock:report", token.clone(), lease);
/// assert!(store.renew_now(&[renew], &mut renewed));
/// assert!(matches!(renewed[..], [Ok(Renewal::Renewed { .. })]));
///
/// let mut released = Vec::new();
/// let release = ReleaseRequest::new("lock:report", token);
/// assert!(store.release_now(&[release], &mut released));
/// assert!(matches!(released[..], [Ok(Release { ours: true, .. })]));
///
/// // A store whose operations take time does nothing at once.
/// struct Slow;
/// impl EmbeddedStore for Slow {}
/// assert!(!Slow.acquire_now(&acquire, &mut acquired));
/// assert_eq!(acquired.len(), 1, "no answer was appended");
/// # }
/// ```
pub trait EmbeddedStore: Send + Sync {
    /// Does what [`Store::acquire`] does, without a future.
    fn acquire_now(
        &self,
        batch: &[AcquireRequest],
        answers: &mut Vec<Result<Acquisition, StoreError>>,
    ) -> bool {
        let _ = (batch, answers);
        false
    }

    /// Does what [`Store::renew`] does, without a future.
    fn renew_now(
        &self,
        batch: &[RenewRequest],
        answers: &mut Vec<Result<Renewal, StoreError>>,
    ) -> bool {
        let _ = (batch, answers);
        false
    }

    /// Does what [`Store::release`] does, without a future.
    fn release_now(
        &self,
        batch: &[ReleaseRequest],
        answers: &mut Vec<Result<Release, StoreError>>,
    ) -> bool {
        let _ = (batch, answers);
        false
    }
}
