//! A network between the clients and the store of a simulation, which loses, delays and repeats
//! messages.

use std::{
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use lock::store::{
    AcquireRequest, Acquisition, AdminStore, Answers, DebounceReply, DebounceRequest,
    DebounceStore, Delivery, EmbeddedStore, EndWindowRequest, ExtendRequest, ForceReleaseRequest,
    Holder, Listener, MemoryStore, Release, ReleaseRequest, RenewRequest, Renewal, Store,
    StoreError, StoreFuture,
};
use lock_tests::{Fate, Random};
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use crate::common::ms;

/// How long a call may take, as on a real connection.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// What the server sees of all clients.
#[derive(Default)]
pub(super) struct Ledger {
    /// The last fence of each key, in the order in which the store has granted them.
    fences: HashMap<Arc<str>, u64>,
    /// Fences that did not grow. Judged at the end: a panic here would only look like a lost reply.
    pub(super) violations: Vec<String>,
}

impl Ledger {
    fn note(&mut self, requests: &[AcquireRequest], answers: &[Result<Acquisition, StoreError>]) {
        for (AcquireRequest { key, .. }, answer) in requests.iter().zip(answers) {
            let Ok(Acquisition::Granted { fence, .. }) = answer else { continue };
            let last = self.fences.insert(Arc::clone(key), *fence).unwrap_or(0);
            if *fence <= last {
                self.violations.push(format!("{key}: {fence} granted after {last}"));
            }
        }
    }
}

/// A connection of one client to the shared store.
#[derive(Clone)]
pub(super) struct Network(pub(super) Arc<Connection>);

pub(super) struct Connection {
    pub(super) store: MemoryStore,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) random: Mutex<Random>,
    /// When the last request that was sent arrives: later ones arrive no earlier.
    pub(super) arrival: Mutex<Instant>,
    /// Nothing passes until then.
    pub(super) cut_until: Mutex<Instant>,
    pub(super) faults: AtomicU64,
    /// Nothing goes wrong on it.
    pub(super) calm: bool,
    /// Its process has ended: requests that it has sent may arrive, but it sends no more.
    pub(super) has_ended: AtomicBool,
}

impl Connection {
    /// One exchange: the operation takes effect at its arrival, whether or not the caller still
    /// waits.
    async fn exchange<T, F>(
        self: &Arc<Self>,
        mut operation: impl FnMut() -> F + Send + 'static,
        unknown: impl FnOnce() -> T,
    ) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        let now = Instant::now();
        let (arrival, back, fate) = {
            let mut random = self.random.lock().unwrap();
            let there = ms(random.below(4))
                + if !self.calm && random.one_in(40) { ms(random.below(1500)) } else { ms(0) };
            let back = ms(random.below(4))
                + if !self.calm && random.one_in(40) { ms(random.below(1500)) } else { ms(0) };
            let fate = match Fate::draw(&mut random) {
                _ if self.has_ended.load(Ordering::Relaxed) => Fate::RequestLost,
                _ if self.calm => Fate::Answered,
                fate => fate,
            };
            let cut = *self.cut_until.lock().unwrap();
            let mut arrival = self.arrival.lock().unwrap();
            *arrival = (*arrival).max(now + there).max(cut);
            if !matches!(fate, Fate::Answered) || *arrival > now + CALL_LIMIT {
                self.faults.fetch_add(1, Ordering::Relaxed);
            }
            (*arrival, back, fate)
        };
        let (reply, answer) = oneshot::channel();
        let ledger = Arc::clone(&self.ledger);
        if !matches!(fate, Fate::RequestLost) {
            tokio::spawn(async move {
                time::sleep_until(arrival).await;
                // A panic of the store would only look like a lost reply.
                let executed = async {
                    let outcome = operation().await;
                    if matches!(fate, Fate::Twice) {
                        operation().await;
                    }
                    outcome
                };
                let outcome = match AssertUnwindSafe(executed).catch_unwind().await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        let violation = "the store has panicked".to_owned();
                        ledger
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .violations
                            .push(violation);
                        return;
                    }
                };
                time::sleep(back).await;
                if matches!(fate, Fate::Answered | Fate::Twice) {
                    let _ = reply.send(outcome);
                }
                // Otherwise the caller waits until its time is over.
                else {
                    time::sleep(CALL_LIMIT).await;
                }
            });
        } else {
            tokio::spawn(async move {
                time::sleep(CALL_LIMIT).await;
                drop(reply);
            });
        }
        match time::timeout_at(now + CALL_LIMIT, answer).await {
            Ok(Ok(outcome)) => outcome,
            _ => unknown(),
        }
    }
}

fn unknown<T>(items: usize) -> impl FnOnce() -> Vec<Result<T, StoreError>> {
    move || (0..items).map(|_| Err(StoreError::unavailable("simulated"))).collect()
}

impl Network {
    /// One exchange for a batch, which the store executes with `execute`.
    fn carry<'a, Q, A, F>(
        &'a self,
        batch: &[Q],
        execute: impl Fn(MemoryStore, Vec<Q>) -> F + Send + 'static,
    ) -> Answers<'a, A>
    where
        Q: Clone + Send + 'static,
        A: Send + 'static,
        F: Future<Output = Vec<Result<A, StoreError>>> + Send + 'a,
    {
        let (store, requests) = (self.0.store.clone(), batch.to_vec());
        let operation = move || execute(store.clone(), requests.clone());
        Box::pin(self.0.exchange(operation, unknown(batch.len())))
    }
}

impl Store for Network {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        let ledger = Arc::clone(&self.0.ledger);
        self.carry(batch, move |store, requests| {
            let ledger = Arc::clone(&ledger);
            async move {
                let answers = store.acquire(&requests).await;
                ledger.lock().unwrap().note(&requests, &answers);
                answers
            }
        })
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        self.carry(batch, |store, requests| async move { store.renew(&requests).await })
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        self.carry(batch, |store, requests| async move { store.release(&requests).await })
    }

    fn subscribe<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, Delivery> {
        self.0.store.subscribe(client, listener)
    }

    fn admin(&self) -> Option<&dyn AdminStore> {
        Some(self)
    }

    fn debounce(&self) -> Option<&dyn DebounceStore> {
        Some(self)
    }

    fn embedded(&self) -> Option<&dyn EmbeddedStore> {
        Some(self)
    }
}

/// It is not really embedded, but runs on the caller's runtime and clock, which are virtual.
impl EmbeddedStore for Network {}

impl AdminStore for Network {
    fn extend<'a>(&'a self, batch: &'a [ExtendRequest]) -> Answers<'a, Option<Duration>> {
        self.carry(batch, |store, requests| async move { store.extend(&requests).await })
    }

    fn holder<'a>(&'a self, batch: &'a [Arc<str>]) -> Answers<'a, Option<Holder>> {
        self.0.store.holder(batch)
    }

    fn force_release<'a>(&'a self, batch: &'a [ForceReleaseRequest]) -> Answers<'a, Release> {
        self.0.store.force_release(batch)
    }
}

impl DebounceStore for Network {
    fn register<'a>(&'a self, batch: &'a [DebounceRequest]) -> Answers<'a, DebounceReply> {
        self.carry(batch, |store, requests| async move { store.register(&requests).await })
    }

    fn end_window<'a>(&'a self, batch: &'a [EndWindowRequest]) -> Answers<'a, bool> {
        self.carry(batch, |store, requests| async move { store.end_window(&requests).await })
    }
}
