//! The world of a history: a server with a standby, clients behind proxies, and the resource that
//! their locks protect.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_tests::{
    Forgetting, History, Proxy, Random, RedisServer, WallClock, Worker, eventually, ms, now,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    faults::JUMP,
    ledger::{Ledger, Resource, Usage},
};

/// The one key that may stay.
const FENCE: &str = "~fence";

/// How many processes lock, and how many tasks each of them has.
pub(super) const CLIENTS: u64 = 4;
const TASKS: u64 = 16;

pub(super) struct World {
    seed: u64,
    /// The hand that breaks the server has them to itself.
    pub(super) servers: tokio::sync::Mutex<Servers>,
    pub(super) clients: Vec<Client>,
    resource: RedisServer,
    ledger: Mutex<Ledger>,
    number: AtomicU64,
}

pub(super) struct Servers {
    pub(super) primary: RedisServer,
    /// Takes the primary's place at a failover; not in use before.
    pub(super) standby: RedisServer,
    pub(super) clock: WallClock,
    /// No data is lost before, because the counter is ahead of the clock.
    pub(super) keeps_data_until: u64,
}

pub(super) struct Client {
    pub(super) proxy: Proxy,
    worker: Mutex<Worker>,
    number: AtomicU64,
}

/// What there is to judge.
pub(super) struct End {
    pub(super) history: History,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) forgettings: u64,
    pub(super) resource: Resource,
    pub(super) leaks: Vec<String>,
    pub(super) usage: Usage,
}

impl World {
    pub(super) async fn start(seed: u64) -> Self {
        let clock = WallClock::build();
        let server = || {
            RedisServer::builder()
                .append_only(true)
                .flag("--auto-aof-rewrite-min-size", "16mb")
                .flag("--repl-diskless-sync-delay", "0")
                .wall_clock(&clock)
                .start()
        };
        let (primary, standby) = (server(), server());
        let world = Self {
            seed,
            clients: (0..CLIENTS).map(|_| Client::new(primary.port())).collect(),
            servers: Servers { primary, standby, clock, keeps_data_until: 0 }.into(),
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

    /// Breaks things until it is enough.
    pub(super) async fn run(&self, is_enough: impl Fn() -> bool) {
        let enough = CancellationToken::new();
        let listening = async {
            while !is_enough() {
                sleep(ms(20)).await;
                self.listen();
            }
            enough.cancel();
        };
        tokio::join!(
            listening,
            self.break_network(Random::new(self.seed.wrapping_mul(3)), &enough),
            self.break_server(Random::new(self.seed.wrapping_mul(3) + 1), &enough),
            self.break_processes(Random::new(self.seed.wrapping_mul(3) + 2), &enough),
        );
    }

    /// Mends everything, lets everybody finish, and looks at what is left.
    pub(super) async fn end(self) -> End {
        for client in &self.clients {
            client.proxy.heal();
            client.worker().tell("finish");
        }
        eventually(ms(40_000), async || {
            self.listen();
            let done = self.ledger().done;
            if done == CLIENTS { Ok(()) } else { Err(format!("{done} clients have ended")) }
        })
        .await;
        let servers = self.servers.into_inner();
        // The longest lease and a claim window; what the clock of the server adds to both.
        let limit = ms(2000 + 1000 + JUMP.unsigned_abs() + 2000);
        let locks = async || {
            let keys = servers.primary.keys().await.into_iter();
            keys.map(|(key, _, _)| key).filter(|key| key.starts_with("lock:")).collect::<Vec<_>>()
        };
        let began = now();
        let mut leaks = locks().await;
        while !leaks.is_empty() && now() - began < nanos(limit) {
            sleep(ms(50)).await;
            leaks = locks().await;
        }
        let keys = servers.primary.keys().await;
        leaks.extend(
            keys.into_iter()
                .filter(|(key, _, left)| *left == -1 && key != FENCE)
                .map(|(key, _, _)| key),
        );
        let mut ids = Vec::new();
        let resource = Resource::of(&self.resource, &mut ids).await;
        // The final acquire: everything can be had.
        let all = lock::Locks::connect(&servers.primary.url()).await.unwrap();
        for id in ids {
            let guard = all.lock(&id).wait(ms(5000)).acquire().await;
            guard.unwrap().release().await.unwrap();
        }
        all.shutdown().await;
        let ledger = self.ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
        End {
            history: ledger.history,
            faults: ledger.faults,
            failures: ledger.failures,
            forgettings: ledger.forgettings,
            resource,
            leaks,
            usage: Usage::of(&ledger.usage),
        }
    }

    /// Takes down what the clients have said since.
    pub(super) fn listen(&self) {
        let mut ledger = self.ledger();
        for client in &self.clients {
            let worker = client.worker();
            while let Some(words) = worker.hear_now(false) {
                ledger.hear(client.number.load(Ordering::Relaxed), &words);
            }
        }
    }

    /// Takes down what a client has said until it ended.
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

    /// Everything was forgotten, between then and now.
    pub(super) fn forgetting(&self, from: u64) {
        let mut ledger = self.ledger();
        ledger.forgettings += 1;
        ledger.history.forgetting(Forgetting { id: None, from, to: now() });
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    fn new(port: u16) -> Self {
        let worker = Mutex::new(Worker::start(env!("CARGO_BIN_EXE_worker")));
        Self { proxy: Proxy::start(port), worker, number: AtomicU64::new(0) }
    }

    /// Begins to work, in a new process.
    pub(super) fn begin(&self, world: &World) {
        let number = world.number.fetch_add(1, Ordering::Relaxed);
        let mut worker = Worker::start(env!("CARGO_BIN_EXE_worker"));
        let (url, resource) = (self.proxy.url(), world.resource.url());
        worker.tell(&format!("work {url} {resource} {TASKS} {}", world.seed + number));
        self.number.store(number, Ordering::Relaxed);
        *self.worker() = worker;
    }

    pub(super) fn worker(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has a server do something.
pub(super) async fn ask(server: &RedisServer, words: &str) {
    answer(server, words).await;
}

pub(super) async fn answer(server: &RedisServer, words: &str) -> String {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>());
    let answer: redis::Value = command.query_async(&mut server.connection().await).await.unwrap();
    format!("{answer:?}")
}

pub(super) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
