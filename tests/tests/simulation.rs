//! The library on a network that loses, delays and repeats, in virtual time, from a seed.
//!
//! Several clients share one store, each over a connection of its own: requests arrive in order and
//! late, are lost, or are answered to nobody; the connection is cut for a while; locks are forced
//! free. All of it is drawn from the seed, so a seed that fails can be run again:
//!
//! ```text
//! LOCK_SEED=4711 cargo test -p lock-tests --test suite simulation -- --nocapture
//! LOCK_SEEDS=1000000 cargo test --release -p lock-tests --test suite simulation -- --nocapture
//! ```

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lock::{
    AcquireRequest, Acquisition, DebounceReply, DebounceRequest, ErrorKind, Holder, Listener,
    LockGuard, Locks, MemoryStore, Release, ReleaseRequest, RenewRequest, Renewal, Store,
    StoreError, StoreFuture, Token, WakeUps, WindowEnd,
};
use lock_tests::Random;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{self, Instant},
};

use crate::common::ms;

/// How many seeds a run of the suite tries.
const SEEDS: u64 = 10_000;

/// How long a call may take, as on a real connection.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// What the server sees, whoever asks.
#[derive(Default)]
struct Ledger {
    /// The last fence of each key, in the order in which the store has granted them.
    fences: HashMap<Arc<str>, u64>,
}

/// A connection of one client to the shared store.
#[derive(Clone)]
struct Network(Arc<Connection>);

struct Connection {
    store: MemoryStore,
    ledger: Arc<Mutex<Ledger>>,
    random: Mutex<Random>,
    /// When the last request arrives that was sent: those behind it arrive no earlier.
    arrival: Mutex<Instant>,
    /// Nothing passes until then.
    cut_until: Mutex<Instant>,
    faults: AtomicU64,
    /// Nothing goes wrong on it.
    calm: bool,
}

enum Fate {
    Answered,
    RequestLost,
    ReplyLost,
}

impl Connection {
    /// One exchange: the operation takes effect at its arrival, whether or not anybody waits.
    async fn exchange<T: Send + 'static>(
        self: &Arc<Self>,
        operation: impl Future<Output = T> + Send + 'static,
        unknown: impl FnOnce() -> T,
    ) -> T {
        let now = Instant::now();
        let (arrival, back, fate) = {
            let mut random = self.random.lock().unwrap();
            let there = ms(random.below(4))
                + if !self.calm && random.one_in(40) { ms(random.below(1500)) } else { ms(0) };
            let back = ms(random.below(4))
                + if !self.calm && random.one_in(40) { ms(random.below(1500)) } else { ms(0) };
            let fate = match random.below(30) {
                _ if self.calm => Fate::Answered,
                0 => Fate::RequestLost,
                1 => Fate::ReplyLost,
                _ => Fate::Answered,
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
        if !matches!(fate, Fate::RequestLost) {
            tokio::spawn(async move {
                time::sleep_until(arrival).await;
                let outcome = operation.await;
                time::sleep(back).await;
                if matches!(fate, Fate::Answered) {
                    let _ = reply.send(outcome);
                }
                // Or else the caller waits until its time is over.
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

impl Store for Network {
    fn acquire<'a>(
        &'a self,
        batch: &'a [AcquireRequest],
    ) -> StoreFuture<'a, Vec<Result<Acquisition, StoreError>>> {
        let (connection, requests) = (Arc::clone(&self.0), batch.to_vec());
        let operation = async move {
            let answers = connection.store.acquire(&requests).await;
            let mut ledger = connection.ledger.lock().unwrap();
            for (request, answer) in requests.iter().zip(&answers) {
                if let Ok(Acquisition::Granted { fence, .. }) = answer {
                    let last = ledger.fences.insert(Arc::clone(&request.key), *fence).unwrap_or(0);
                    assert!(*fence > last, "fences grow in the order of the grants");
                }
            }
            drop(ledger);
            answers
        };
        Box::pin(self.0.exchange(operation, unknown(batch.len())))
    }

    fn renew<'a>(
        &'a self,
        batch: &'a [RenewRequest],
    ) -> StoreFuture<'a, Vec<Result<Renewal, StoreError>>> {
        let (store, requests) = (self.0.store.clone(), batch.to_vec());
        let operation = async move { store.renew(&requests).await };
        Box::pin(self.0.exchange(operation, unknown(batch.len())))
    }

    fn release<'a>(
        &'a self,
        batch: &'a [ReleaseRequest],
    ) -> StoreFuture<'a, Vec<Result<Release, StoreError>>> {
        let (store, requests) = (self.0.store.clone(), batch.to_vec());
        let operation = async move { store.release(&requests).await };
        Box::pin(self.0.exchange(operation, unknown(batch.len())))
    }

    fn extend<'a>(
        &'a self,
        key: &'a str,
        token: &'a Token,
        by: Duration,
    ) -> StoreFuture<'a, Result<Option<Duration>, StoreError>> {
        let (store, key, token) = (self.0.store.clone(), key.to_owned(), token.clone());
        let operation = async move { store.extend(&key, &token, by).await };
        Box::pin(self.0.exchange(operation, || Err(StoreError::unavailable("simulated"))))
    }

    fn holder<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Result<Option<Holder>, StoreError>> {
        self.0.store.holder(key)
    }

    fn force_release<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Result<Release, StoreError>> {
        self.0.store.force_release(key)
    }

    fn debounce<'a>(
        &'a self,
        request: &'a DebounceRequest,
    ) -> StoreFuture<'a, Result<DebounceReply, StoreError>> {
        let (store, request) = (self.0.store.clone(), request.clone());
        let operation = async move { store.debounce(&request).await };
        Box::pin(self.0.exchange(operation, || Err(StoreError::unavailable("simulated"))))
    }

    fn end_window<'a>(
        &'a self,
        window: &'a str,
        end: WindowEnd,
    ) -> StoreFuture<'a, Result<bool, StoreError>> {
        let (store, window) = (self.0.store.clone(), window.to_owned());
        let operation = async move { store.end_window(&window, end).await };
        Box::pin(self.0.exchange(operation, || Err(StoreError::unavailable("simulated"))))
    }

    fn listen<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, WakeUps> {
        self.0.store.listen(client, listener)
    }

    fn is_embedded(&self) -> bool {
        // It is not, but on the caller's runtime and clock, which are the virtual ones.
        true
    }
}

/// What the holders see.
#[derive(Default)]
struct Judge {
    /// Everybody who was given the lock of an id and has not let go of it.
    guards: Mutex<HashMap<u64, Vec<Arc<LockGuard>>>>,
    forced: AtomicU64,
    acquisitions: AtomicU64,
    lost: AtomicU64,
}

impl Judge {
    fn enter(&self, id: u64, guard: LockGuard) -> Arc<LockGuard> {
        let guard = Arc::new(guard);
        let mut guards = self.guards.lock().unwrap();
        let holders = guards.entry(id).or_default();
        let valid = holders.iter().filter(|other| other.is_held()).count();
        // A holder that was forced out believes for as long as the message takes.
        if self.forced.load(Ordering::Relaxed) == 0 {
            assert!(!guard.is_held() || valid == 0, "two valid guards of one lock");
        }
        for other in holders.iter().filter(|other| !other.is_held()) {
            assert!(other.fencing_token() < guard.fencing_token(), "a later grant, a larger token");
        }
        holders.push(Arc::clone(&guard));
        self.acquisitions.fetch_add(1, Ordering::Relaxed);
        guard
    }

    fn leave(&self, id: u64, guard: Arc<LockGuard>) -> LockGuard {
        let mut guards = self.guards.lock().unwrap();
        let holders = guards.entry(id).or_default();
        holders.retain(|other| !Arc::ptr_eq(other, &guard));
        drop(guards);
        if !guard.is_held() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Arc::into_inner(guard).expect("nobody else keeps it")
    }
}

/// One world: its clients, their tasks, its faults. What it did: acquisitions, losses, faults.
async fn world(seed: u64) -> [u64; 3] {
    const CLIENTS: u64 = 3;
    const IDS: u64 = 2;
    let mut random = Random::new(seed);
    let calm = random.one_in(5);
    let store = MemoryStore::new();
    let ledger = Arc::<Mutex<Ledger>>::default();
    let judge = Arc::<Judge>::default();
    let (mut clients, mut connections) = (Vec::new(), Vec::new());
    for client in 0..CLIENTS {
        let connection = Arc::new(Connection {
            store: store.clone(),
            ledger: Arc::clone(&ledger),
            random: Mutex::new(Random::new(random.any())),
            arrival: Mutex::new(Instant::now()),
            cut_until: Mutex::new(Instant::now()),
            faults: AtomicU64::new(0),
            calm,
        });
        connections.push(Arc::clone(&connection));
        let lease = ms(500 + random.below(3000));
        let id = u128::from(client + 1) << 64 | u128::from(seed);
        let builder = Locks::builder().store(Network(connection)).lease(lease).__client_id(id);
        clients.push(builder.build().await.unwrap());
    }
    let forces = !calm && random.one_in(3);
    if forces {
        judge.forced.store(1, Ordering::Relaxed);
    }
    let mut tasks = JoinSet::new();
    for task in 0..CLIENTS * 2 {
        let (locks, judge) = (clients[(task % CLIENTS) as usize].clone(), Arc::clone(&judge));
        let mut random = Random::new(random.any());
        tasks.spawn(async move {
            for _ in 0..4 {
                let id = random.below(IDS);
                let mut lock = locks.lock(format!("id-{id}")).wait(ms(20_000));
                if random.one_in(4) {
                    lock = lock.hold_at_least(ms(random.below(300)));
                }
                let acquire = async {
                    match random.below(6) {
                        0 => lock.try_acquire().await,
                        1 => {
                            let patience = ms(random.below(200));
                            match time::timeout(patience, lock.acquire()).await {
                                Ok(outcome) => outcome.map(Some),
                                Err(_) => Ok(None),
                            }
                        }
                        2 => lock.clone().retry(3, ms(50)).acquire().await.map(Some),
                        _ => lock.acquire().await.map(Some),
                    }
                };
                let guard = match acquire.await {
                    Ok(Some(guard)) => judge.enter(id, guard),
                    Ok(None) => continue,
                    Err(error) => {
                        let kind = error.kind();
                        let expected = [ErrorKind::Busy, ErrorKind::Unavailable];
                        assert!(expected.contains(&kind), "{error:?}");
                        continue;
                    }
                };
                let longest = if random.one_in(5) { 3000 } else { 60 };
                let hold = ms(random.below(longest));
                tokio::select! {
                    () = time::sleep(hold) => {}
                    () = guard.lost() => assert!(!guard.is_held()),
                }
                let guard = judge.leave(id, guard);
                match random.below(3) {
                    0 => drop(guard.release().await),
                    1 => drop(guard),
                    // Stopped by a panic, as far as the lock is concerned.
                    _ => drop(tokio::spawn(async move { drop(guard) }).await),
                }
            }
        });
    }
    let chaos = tokio::spawn({
        let (clients, connections, mut random) =
            (clients.clone(), connections.clone(), Random::new(random.any()));
        async move {
            loop {
                time::sleep(ms(random.below(1500))).await;
                let connection = &connections[random.below(CLIENTS) as usize];
                if calm {
                    continue;
                }
                if random.one_in(4) {
                    let until = Instant::now() + ms(random.below(2500));
                    *connection.cut_until.lock().unwrap() = until;
                    connection.faults.fetch_add(1, Ordering::Relaxed);
                } else if forces {
                    let locks = &clients[random.below(CLIENTS) as usize];
                    let _ = locks.lock(format!("id-{}", random.below(IDS))).force_release().await;
                }
            }
        }
    });
    let ended = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    };
    time::timeout(Duration::from_secs(600), ended).await.expect("somebody is stuck");
    chaos.abort();
    for locks in &clients {
        time::timeout(Duration::from_secs(60), locks.flush()).await.expect("a flush is stuck");
    }
    // What was kept on purpose, or given up, has expired by then.
    time::sleep(Duration::from_secs(60)).await;
    for id in 0..IDS {
        let held = store.holder(&format!("lock:id-{id}")).await.unwrap();
        assert!(held.is_none(), "a lock is left: {held:?}");
    }
    let lost = judge.lost.load(Ordering::Relaxed);
    assert!(!calm || lost == 0, "{lost} locks were lost where nothing went wrong");
    let faults = connections.iter().map(|c| c.faults.load(Ordering::Relaxed)).sum();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    [count(&judge.acquisitions), count(&judge.lost), faults]
}

fn run(seed: u64) -> [u64; 3] {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(world(seed))
}

#[test]
fn worlds_of_many_seeds_hold_the_guarantees() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    if let Some(seed) = number("LOCK_SEED") {
        let counts = run(seed);
        println!("seed {seed}: {counts:?}");
        assert_eq!(run(seed), counts, "the same seed, the same world");
        return;
    }
    let seeds = number("LOCK_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let totals = Mutex::new([0_u64; 3]);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    match std::panic::catch_unwind(|| run(seed)) {
                        Ok(counts) => {
                            let mut totals = totals.lock().unwrap();
                            for (total, count) in totals.iter_mut().zip(counts) {
                                *total += count;
                            }
                        }
                        Err(_) => *failed.lock().unwrap() = Some(seed),
                    }
                }
            });
        }
    });
    let [acquisitions, lost, faults] = *totals.lock().unwrap();
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "the same seed, the same world");
    }
    println!("{seeds} seeds: {acquisitions} acquisitions, {lost} lost, {faults} faults");
    assert_eq!(*failed.lock().unwrap(), None, "run it again with LOCK_SEED");
    assert!(acquisitions > seeds * 8 && lost > seeds / 20 && faults > seeds, "too quiet");
}
