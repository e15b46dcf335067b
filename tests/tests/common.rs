//! Shared parts of the library's tests: a store of either kind, watched for keys that never expire.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use lock::{
    __private::redis_store,
    Locks, LocksBuilder, Warning,
    store::{MemoryStore, Store},
};
pub(crate) use lock_tests::ms;
use lock_tests::{RedisServer, RedisServerBuilder, eventually};

/// The counter of fences on a server that has all keys.
pub(crate) const FENCE: &str = "~fence";

/// Is it a counter of fences? Only these may stay.
pub(crate) fn is_fence(key: &str) -> bool {
    key == FENCE || key.starts_with("~fence:{")
}

/// May it stay when everything is released? The records of clients also stay until they expire.
pub(crate) fn may_stay(key: &str) -> bool {
    is_fence(key) || key.contains("~client:")
}

/// A store that several `Locks` can share, as several instances of a service would.
pub(crate) enum Engine {
    Memory(MemoryStore),
    Redis(Box<WatchedServer>),
}

impl Engine {
    pub(crate) fn memory() -> Self {
        Self::Memory(MemoryStore::new())
    }

    pub(crate) fn redis() -> Self {
        Self::Redis(Box::new(WatchedServer::start(RedisServer::builder())))
    }

    /// A standalone server, even where the others are Clusters: for tests that put something
    /// between it and the client, or that look at the names of its keys.
    pub(crate) fn redis_alone() -> Self {
        let builder = RedisServer::builder().cluster_of_one(false);
        Self::Redis(Box::new(WatchedServer::start(builder)))
    }

    pub(crate) fn builder(&self) -> LocksBuilder {
        match self {
            Self::Memory(store) => Locks::builder().store(store.clone()),
            Self::Redis(server) => Locks::builder().url(server.locks_url()),
        }
    }

    /// A client of a Redis server.
    pub(crate) async fn locks_of(server: &RedisServer) -> Locks {
        Locks::connect(&server.locks_url()).await.unwrap()
    }

    /// The store itself, without a keeper.
    pub(crate) async fn store(&self) -> Box<dyn Store> {
        match self {
            Self::Memory(store) => Box::new(store.clone()),
            Self::Redis(server) => Box::new(redis_store(&server.locks_url()).await.unwrap()),
        }
    }

    /// A new client of the same store.
    pub(crate) async fn locks(&self) -> Locks {
        self.builder().build().await.unwrap()
    }
}

/// Runs each of the named functions both on the memory store under a paused clock, and on a Redis
/// server of its own.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod on_memory {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(&$crate::common::Engine::memory()).await;
            })*
        }
        mod on_redis {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&$crate::common::Engine::redis()).await;
            })*
        }
    };
}
pub(crate) use on_both_stores;

/// The warnings that some `Locks` have given.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<Warning>>>);

impl Heard {
    /// Collects the warnings of the `Locks` that this builder makes.
    pub(crate) fn by(&self, builder: LocksBuilder) -> LocksBuilder {
        let heard = self.clone();
        builder.on_warning(move |warning| heard.0.lock().unwrap().push(warning.clone()))
    }

    pub(crate) async fn connect(&self, url: &str) -> Locks {
        self.by(Locks::builder().url(url)).build().await.unwrap()
    }

    pub(crate) fn all(&self) -> Vec<Warning> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until exactly these were received: warnings are given on a thread of their own.
    pub(crate) async fn until(&self, expected: &[Warning]) {
        eventually(ms(5000), async || {
            let all = self.all();
            if all == expected { Ok(()) } else { Err(all) }
        })
        .await;
    }
}

/// Waits until this many clients have introduced themselves, which they do after connecting: for
/// tests that count commands.
pub(crate) async fn introduced(server: &RedisServer, clients: usize) {
    eventually(ms(5000), async || {
        let keys = server.keys().await;
        let records = keys.iter().filter(|(key, ..)| key.contains("~client:")).count();
        if records == clients { Ok(()) } else { Err(keys) }
    })
    .await;
}

/// Runs a command on a server, and ignores the answer.
pub(crate) async fn command(server: &RedisServer, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.exec_async(&mut server.connection().await).await.unwrap();
}

/// A Redis server whose keys are watched all the time: each must have an expiry, at any moment of
/// any test, except the fence counter and keys that the test itself has created.
pub(crate) struct WatchedServer {
    server: RedisServer,
    watch: Option<Watch>,
}

struct Watch {
    stop: Arc<AtomicBool>,
    looks: JoinHandle<u32>,
    staying: Arc<Mutex<BTreeSet<String>>>,
}

impl WatchedServer {
    pub(crate) fn start(builder: RedisServerBuilder) -> Self {
        Self::start_with(builder, String::new())
    }

    /// For a server that requires a password.
    pub(crate) fn start_with(builder: RedisServerBuilder, password: String) -> Self {
        let server = builder.start();
        let url = server.url_with("", &password, 0);
        let stop = Arc::new(AtomicBool::new(false));
        let staying = Arc::new(Mutex::new(BTreeSet::new()));
        let looks = {
            let (stop, staying) = (Arc::clone(&stop), Arc::clone(&staying));
            thread::spawn(move || watch(&url, &stop, &staying))
        };
        Self { server, watch: Some(Watch { stop, looks, staying }) }
    }

    /// Allows a key without an expiry, which the test itself has created.
    pub(crate) fn allow(&self, key: &str) {
        // Recorded whether or not it is seen: it is subtracted from the findings when the test
        // ends.
        self.watch.as_ref().unwrap().staying.lock().unwrap().insert(format!("allowed {key}"));
    }
}

impl std::ops::Deref for WatchedServer {
    type Target = RedisServer;

    fn deref(&self) -> &RedisServer {
        &self.server
    }
}

impl Drop for WatchedServer {
    fn drop(&mut self) {
        let Some(watch) = self.watch.take() else { return };
        watch.stop.store(true, Ordering::Relaxed);
        // A server that a failed test left stopped would not let the last look end.
        self.server.continue_process();
        let looks = watch.looks.join();
        if thread::panicking() {
            return;
        }
        assert!(looks.unwrap() > 0, "the keys were never looked at");
        let found = watch.staying.lock().unwrap();
        let staying: Vec<_> = found
            .iter()
            .filter(|key| {
                !key.starts_with("allowed ") && !found.contains(&format!("allowed {key}"))
            })
            .collect();
        assert!(staying.is_empty(), "keys that never expire: {staying:?}");
    }
}

/// Looks until it is stopped, and then once more. A server that is down is skipped until later.
fn watch(url: &str, stop: &AtomicBool, staying: &Mutex<BTreeSet<String>>) -> u32 {
    const SCRIPT: &str = "
        local staying = {}
        for _, key in ipairs(redis.call('KEYS', '*')) do
          if redis.call('PTTL', key) == -1 then staying[#staying + 1] = key end
        end
        return staying";
    let client = redis::Client::open(url).unwrap();
    let mut connection = None;
    let mut looks = 0;
    loop {
        let last = stop.load(Ordering::Relaxed);
        let began = Instant::now();
        if connection.is_none() {
            connection = client.get_connection_with_timeout(ms(500)).ok();
        }
        if let Some(open) = &mut connection {
            let _ = open.set_read_timeout(Some(ms(500)));
            match redis::cmd("EVAL").arg(SCRIPT).arg(0).query::<Vec<String>>(open) {
                Ok(keys) => {
                    looks += 1;
                    staying.lock().unwrap().extend(keys.into_iter().filter(|key| !is_fence(key)));
                }
                Err(_) => connection = None,
            }
        }
        if last {
            return looks;
        }
        // A server with many keys is looked at less often: the watch must not be the load.
        thread::sleep((began.elapsed() * 20).clamp(ms(10), ms(200)));
    }
}
