//! What all worlds of histories share: processes that lock, the resource that their locks protect,
//! and the ledger of their reports. Each world has its own servers and faults.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use lock_tests::{
    Forgetting, HostClock, Random, RedisServer, Worker, eventually, ms, now,
    worker_of_version_before,
};
use redis::FromRedisValue;
use tokio::{select, time::sleep};

use super::{
    end::End,
    ledger::{Ledger, Resource, Usage},
};

/// The only keys that may stay: one, or in a Cluster one for each slot in use.
const FENCES: &str = "~fence";

/// How many tasks of each process lock, and how many make debounced calls.
const TASKS: u64 = 16;
const CALLERS: u64 = 4;

/// By how many millionths a clock may run faster or slower than the machine's, and so the server's:
/// slightly less than the hundredth that leases allow for.
const RATE: i64 = 9500;

/// How long a fault has effects: the lease of a run whose process is gone, and a reconnection.
const SETTLED: Duration = Duration::from_millis(1500);

/// The longest lifetime of a key: the longest lease, and a reservation.
const LONGEST_KEY: Duration = Duration::from_millis(2000 + 1000);

pub(super) struct World {
    seed: u64,
    began: u64,
    pub(super) clients: Vec<Client>,
    resource: RedisServer,
    ledger: Mutex<Ledger>,
    number: AtomicU64,
}

pub(super) struct Client {
    program: PathBuf,
    /// The URL it connects to, and the other settings of its program.
    url: String,
    settings: String,
    /// Whether it is of the previous version, which makes no debounced calls here, and does not
    /// support rates.
    is_old: bool,
    /// Its clock, if it does not have the machine's.
    pub(super) clock: Option<HostClock>,
    worker: Mutex<Worker>,
    number: AtomicU64,
}

/// The versions of the processes.
#[derive(Clone, Copy)]
pub(super) enum Versions {
    /// The second one is of the previous version, if there is such a program.
    Two,
    /// All are of this version: the previous one does not support everything that is asked for.
    One {
        /// How many replicas have to acknowledge a lock.
        min_replicas: u64,
    },
}

/// The clocks of the processes.
#[derive(Clone, Copy)]
pub(super) enum Clocks {
    /// The machine's clocks.
    Shared,
    /// Each process has clocks with a rate of their own, and a wall clock that is stepped.
    OfTheirOwn,
}

impl World {
    /// Starts the work, in a process for each of these URLs.
    pub(super) fn start(
        seed: u64,
        urls: impl IntoIterator<Item = String>,
        versions: Versions,
        clocks: Clocks,
    ) -> Self {
        let mut clients: Vec<_> = urls.into_iter().map(Client::new).collect();
        match versions {
            Versions::One { min_replicas } => {
                clients.iter_mut().for_each(|client| client.settings = format!(" {min_replicas}"));
            }
            Versions::Two => {
                if let Some(program) = worker_of_version_before() {
                    clients[1].program = program;
                    clients[1].is_old = true;
                }
            }
        }
        if matches!(clocks, Clocks::OfTheirOwn) {
            clients.iter_mut().for_each(|client| client.clock = Some(HostClock::build()));
        }
        let world = Self {
            seed,
            began: now(),
            clients,
            resource: RedisServer::start(),
            ledger: Mutex::default(),
            number: AtomicU64::new(0),
        };
        for client in &world.clients {
            client.begin(&world);
        }
        world
    }

    pub(super) fn acquisitions(&self) -> usize {
        self.ledger().history.len()
    }

    pub(super) fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.ledger().faults.clone()
    }

    /// Records the clients' reports until `end` has completed.
    pub(super) async fn listen_until<T>(&self, end: impl Future<Output = T>) -> T {
        let listening = async {
            loop {
                sleep(ms(20)).await;
                self.listen();
            }
        };
        select! {
            end = end => end,
            never = listening => never,
        }
    }

    /// Waits until all clients have connected.
    pub(super) async fn ready(&self) {
        let clients = self.clients.len() as u64;
        eventually(ms(40_000), async || {
            self.listen();
            self.ledger().ready >= clients
        })
        .await;
    }

    /// Lets all clients finish.
    pub(super) async fn finish(&self) {
        for client in &self.clients {
            client.worker().tell("finish");
        }
        let clients = self.clients.len() as u64;
        eventually(ms(40_000), async || {
            self.listen();
            let done = self.ledger().done;
            if done == clients { Ok(()) } else { Err(format!("{done} clients have ended")) }
        })
        .await;
    }

    /// Checks what is left after all clients have finished: on the servers that have the locks, and
    /// through the URL that leads to them. `late` is how much longer than its lease a key may stay.
    pub(super) async fn end(self, servers: &[&RedisServer], url: &str, late: Duration) -> End {
        let keys = async || join_all(servers.iter().map(|server| server.keys())).await.concat();
        let locks = async || {
            let keys = keys().await.into_iter();
            keys.map(|(key, _, _)| key).filter(|key| is_lock(key)).collect::<Vec<_>>()
        };
        let began = now();
        let mut leaks = locks().await;
        while !leaks.is_empty() && now() - began < nanos(LONGEST_KEY + late) {
            sleep(ms(50)).await;
            leaks = locks().await;
        }
        leaks.extend(
            keys()
                .await
                .into_iter()
                .filter(|(key, _, left)| *left == -1 && !key.starts_with(FENCES))
                .map(|(key, _, _)| key),
        );
        let mut ids = Vec::new();
        let resource = Resource::of(&self.resource, &mut ids).await;
        // The final acquire: every lock is available.
        let all = lock::Locks::connect(url).await.unwrap();
        for id in ids {
            let guard = all.lock(&id).wait(ms(5000)).acquire().await;
            guard.unwrap().release().await.unwrap();
        }
        all.shutdown().await;
        let mut ledger = self.ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
        ledger.calls.into_iter().for_each(|call| ledger.history.call(call));
        End {
            verdict: ledger.history.judge(),
            faults: ledger.faults,
            failures: ledger.failures,
            forgettings: ledger.forgettings,
            ran_out: ledger.ran_out,
            took: Duration::from_nanos(now() - self.began),
            resource,
            leaks,
            usage: Usage::of(&ledger.usage),
        }
    }

    /// Records what the clients have reported since.
    fn listen(&self) {
        let mut ledger = self.ledger();
        for client in &self.clients {
            let worker = client.worker();
            while let Some(words) = worker.hear_now(false) {
                ledger.hear(client.number.load(Ordering::Relaxed), &words);
            }
        }
    }

    /// Records what a client has reported until it ended.
    pub(super) fn hear_out(&self, client: &Client) {
        let mut ledger = self.ledger();
        let number = client.number.load(Ordering::Relaxed);
        while let Some(words) = client.worker().hear_now(true) {
            ledger.hear(number, &words);
        }
        ledger.ended(number);
    }

    pub(super) fn count(&self, kind: &'static str) {
        *self.ledger().faults.entry(kind).or_default() += 1;
    }

    /// Lets all clients go on without faults: until the last fault has no more effect, and then for
    /// this time.
    pub(super) async fn calm(&self, time: Duration) {
        sleep(SETTLED).await;
        self.ledger().history.well_since(now());
        sleep(time).await;
    }

    /// Everything may have been forgotten between this time and now.
    pub(super) fn forgetting(&self, from: u64) {
        let mut ledger = self.ledger();
        ledger.forgettings += 1;
        ledger.history.forgetting(Forgetting { id: None, from, to: now() });
    }

    /// These ids may have been forgotten between this time and now.
    pub(super) fn forgetting_of(&self, ids: &[String], from: u64) {
        let (mut ledger, to) = (self.ledger(), now());
        ledger.forgettings += 1;
        for id in ids {
            ledger.history.forgetting(Forgetting { id: Some(id.clone()), from, to });
        }
    }

    /// The clock of the servers is about to be set back.
    pub(super) fn set_back(&self) {
        self.ledger().history.set_back(now());
    }

    /// Adds a violation that no holder has reported.
    pub(super) fn violation(&self, what: String) {
        self.ledger().history.violation(what);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    fn new(url: String) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_worker"));
        let worker = Mutex::new(Worker::start(&program));
        Self {
            program,
            url,
            settings: String::new(),
            is_old: false,
            clock: None,
            worker,
            number: AtomicU64::new(0),
        }
    }

    /// Starts the work in a new process.
    pub(super) fn begin(&self, world: &World) {
        let number = world.number.fetch_add(1, Ordering::Relaxed);
        let (url, resource, seed) = (&self.url, world.resource.url(), world.seed + number);
        let mut worker = match &self.clock {
            None => Worker::start(&self.program),
            Some(clock) => {
                // The previous version asks the kernel for the time, and only sees steps.
                let rate = if self.is_old { 0 } else { any_rate(&mut Random::new(!seed)) };
                clock.run_at(rate);
                let mut worker = Worker::start_by(clock, &self.program);
                if !self.is_old {
                    worker.tell(&format!("rate {rate}"));
                }
                worker
            }
        };
        worker.tell(&format!("work {url} {resource} {TASKS} {seed}{}", self.settings));
        if !self.is_old {
            worker.tell(&format!("debounce {CALLERS} {seed}"));
        }
        self.number.store(number, Ordering::Relaxed);
        *self.worker() = worker;
    }

    pub(super) fn worker(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is this the key of a lock or of a run? The window of a debounce stays for a minute, and a
/// client's record for ten.
fn is_lock(key: &str) -> bool {
    let is_kept = key.contains("~debounce:") || key.contains("~client:");
    (key.starts_with("lock:") || key.contains("lock:~run:")) && !is_kept
}

/// Usually one of the two extremes.
fn any_rate(random: &mut Random) -> i64 {
    match random.below(3) {
        0 => -RATE,
        1 => RATE,
        _ => random.below(2 * RATE.unsigned_abs()).cast_signed() - RATE,
    }
}

/// Runs a command on a server.
pub(super) async fn ask(server: &RedisServer, words: &str) {
    let _: redis::Value = answer(server, words).await;
}

pub(super) async fn answer<T: FromRedisValue>(server: &RedisServer, words: &str) -> T {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>());
    command.query_async(&mut server.connection().await).await.unwrap()
}

pub(super) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
