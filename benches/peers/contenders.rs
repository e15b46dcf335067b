//! The contenders: one type for each library.
//!
//! Each has its own connection and its own keys. Objects that a library lets its user keep
//! (connections, scripts, distkit's mutexes) are made before the clock starts.

use std::{
    error::Error,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use distkit::{
    DistkitRedisKey,
    lock::{LockOptions, Mutex},
};
use lock::Locks;
use lock_tests::RedisServer;
use redis::{Client, Script, aio::MultiplexedConnection};
use rslock::LockManager;

use crate::{LEASE, census::Census};

/// Why a round is void.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The ids of one load, shared by its contenders.
pub(crate) type Ids = Arc<[String]>;

/// A way to acquire and release a lock.
pub(crate) trait Contender: Send + Sync + 'static {
    /// Its name in the table.
    const NAME: &str;

    /// Acquires and releases the lock of the id at this place.
    fn cycle(&self, place: usize) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Waits for releases that run in the background. This is part of the measured time.
    fn settle(&self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// This library: acquire, and drop the guard. The keeper releases in the background, and every
/// grant has a fencing token.
pub(crate) struct Ours {
    locks: Locks,
    ids: Ids,
}

impl Ours {
    /// Connects with the defaults.
    pub(crate) async fn connect(server: &RedisServer, ids: Ids) -> Result<Self, Failure> {
        let locks = Locks::builder().url(server.url()).lease(LEASE).build().await?;
        Ok(Self { locks, ids })
    }
}

impl Contender for Ours {
    const NAME: &str = "lock";

    async fn cycle(&self, place: usize) -> Result<(), Failure> {
        let guard = self.locks.lock(self.ids[place].as_str()).acquire().await?;
        if guard.fencing_token() == 0 {
            return Err("a grant without a fencing token".into());
        }
        drop(guard);
        Ok(())
    }

    async fn settle(&self) -> Result<(), Failure> {
        self.locks.flush().await;
        Ok(())
    }
}

/// rslock: lock, and await the unlock. All tasks share one manager, which connects on first use. It
/// has no fencing token and no renewal.
pub(crate) struct Rslock {
    manager: LockManager,
    ids: Ids,
}

impl Rslock {
    /// A manager of this one server, with the defaults: the delay between tries does not matter,
    /// because every lock is free.
    pub(crate) fn connect(server: &RedisServer, ids: Ids) -> Self {
        Self { manager: LockManager::new(vec![server.url()]), ids: prefixed("rslock:", &ids) }
    }
}

impl Contender for Rslock {
    const NAME: &str = "rslock 0.10";

    async fn cycle(&self, place: usize) -> Result<(), Failure> {
        let lock = self.manager.lock(self.ids[place].as_str(), LEASE).await?;
        self.manager.unlock(&lock).await;
        Ok(())
    }

    async fn settle(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// distkit: lock a mutex, and drop the guard. Its tasks release in the background; it has no
/// fencing token.
///
/// It takes part twice. `lock` waits for a lock, as `acquire` does here, but begins with a tokio
/// timer, which takes up to a millisecond even if the lock is free. `try_lock` has no timer, and is
/// the call that its authors measure.
pub(crate) struct Distkit<const WAITING: bool> {
    mutexes: Vec<Arc<Mutex>>,
    census: Census,
}

impl<const WAITING: bool> Distkit<WAITING> {
    /// The longest that its releases may take: less than the lease, whose end would hide a missing
    /// release.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// One connection manager, and one mutex for each id, as distkit intends.
    pub(crate) async fn connect(
        server: &RedisServer,
        ids: &Ids,
        census: Census,
    ) -> Result<Self, Failure> {
        let manager = Client::open(server.url())?.get_connection_manager().await?;
        let mutexes = ids.iter().map(|id| {
            let key = DistkitRedisKey::try_from(id.clone())?;
            Ok(Mutex::new(LockOptions::builder(key, manager.clone()).ttl(LEASE).build()))
        });
        Ok(Self { mutexes: mutexes.collect::<Result<_, Failure>>()?, census })
    }
}

impl<const WAITING: bool> Contender for Distkit<WAITING> {
    const NAME: &str = if WAITING { "distkit 0.7" } else { "distkit, try_lock" };

    async fn cycle(&self, place: usize) -> Result<(), Failure> {
        let mutex = &self.mutexes[place];
        drop(if WAITING { mutex.lock().await? } else { mutex.try_lock().await? });
        Ok(())
    }

    /// distkit has no way to wait for its releases, so this polls until its keys are gone.
    async fn settle(&self) -> Result<(), Failure> {
        let start = Instant::now();
        while self.census.locks().await? > 0 {
            if start.elapsed() > Self::PATIENCE {
                return Err("distkit's releases did not arrive".into());
            }
        }
        Ok(())
    }
}

/// No library: hand-written code on the redis crate, with `SET NX PX` and a script that compares
/// and deletes, both awaited.
pub(crate) struct Bare {
    connection: MultiplexedConnection,
    release: Script,
    keys: Ids,
    tokens: AtomicU64,
}

impl Bare {
    /// One multiplexed connection, with the defaults.
    pub(crate) async fn connect(server: &RedisServer, ids: Ids) -> Result<Self, Failure> {
        let connection = Client::open(server.url())?.get_multiplexed_async_connection().await?;
        let release = Script::new(
            "if redis.call('GET', KEYS[1]) == ARGV[1] then \
               return redis.call('DEL', KEYS[1]) \
             end \
             return 0",
        );
        let tokens = AtomicU64::new(1);
        Ok(Self { connection, release, keys: prefixed("bare:", &ids), tokens })
    }
}

impl Contender for Bare {
    const NAME: &str = "redis crate";

    async fn cycle(&self, place: usize) -> Result<(), Failure> {
        let key = &self.keys[place];
        let token = format!("bare:{}", self.tokens.fetch_add(1, Ordering::Relaxed));
        let mut connection = self.connection.clone();
        let taken: bool = redis::cmd("SET")
            .arg(key)
            .arg(&token)
            .arg("NX")
            .arg("PX")
            .arg(LEASE.as_millis() as u64)
            .query_async(&mut connection)
            .await?;
        if !taken {
            return Err(format!("{key} is held").into());
        }
        let released: bool =
            self.release.key(key).arg(&token).invoke_async(&mut connection).await?;
        if released { Ok(()) } else { Err(format!("{key} was lost").into()) }
    }

    async fn settle(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// The ids as keys, for contenders without a prefix of their own.
fn prefixed(prefix: &str, ids: &Ids) -> Ids {
    ids.iter().map(|id| format!("{prefix}{id}")).collect()
}
