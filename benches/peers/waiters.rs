//! How each library waits for one lock that all tasks want.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use distkit::{
    DistkitRedisKey,
    lock::{LockOptions, Mutex, MutexGuard},
};
use lock::{LockGuard, Locks};
use redis::{Client, Script, aio::MultiplexedConnection};
use rslock::LockManager;

use crate::{LEASE, contenders::Failure};

/// The id that all waiters share.
const ID: &str = "invoice-hot";

/// The waiters, by their names in the table.
pub(crate) const NAMES: [&str; 4] = ["lock", "rslock 0.10", "distkit 0.7", "redis crate, polling"];

/// One library on one connection.
#[derive(Clone)]
pub(crate) enum Waiter {
    /// This library.
    Ours(Locks),
    /// It tries three times, up to 200 ms apart, and starts again.
    Rslock(Arc<LockManager>),
    /// Its `lock` waits.
    Distkit(Arc<Mutex>),
    /// Hand-written code: `SET NX PX` every 10 ms.
    Bare(Box<(MultiplexedConnection, Script, Arc<AtomicU64>)>),
}

/// A lock that a waiter has acquired.
pub(crate) enum Held {
    /// A guard that releases in the background.
    Ours(LockGuard),
    /// A lock that must be unlocked.
    Rslock(rslock::Lock),
    /// A guard that releases in the background.
    Distkit(MutexGuard),
    /// The token in the key.
    Bare(String),
}

impl Waiter {
    /// Connects the library of this name.
    pub(crate) async fn connect(name: &str, url: &str) -> Result<Self, Failure> {
        Ok(match NAMES.iter().position(|known| *known == name) {
            Some(0) => Self::Ours(Locks::builder().url(url).lease(LEASE).build().await?),
            Some(1) => Self::Rslock(Arc::new(LockManager::new(vec![url]))),
            Some(2) => {
                let manager = Client::open(url)?.get_connection_manager().await?;
                let key = DistkitRedisKey::try_from(ID.to_owned())?;
                Self::Distkit(Mutex::new(LockOptions::builder(key, manager).ttl(LEASE).build()))
            }
            Some(3) => {
                let connection = Client::open(url)?.get_multiplexed_async_connection().await?;
                let release = Script::new(
                    "if redis.call('GET', KEYS[1]) == ARGV[1] then \
                       return redis.call('DEL', KEYS[1]) \
                     end \
                     return 0",
                );
                Self::Bare(Box::new((connection, release, Arc::default())))
            }
            _ => return Err(format!("no library is called {name}").into()),
        })
    }

    /// Waits until the lock is acquired.
    pub(crate) async fn take(&self) -> Result<Held, Failure> {
        Ok(match self {
            Self::Ours(locks) => {
                let lock = locks.lock(ID).wait(Duration::from_secs(60));
                Held::Ours(lock.acquire().await?)
            }
            Self::Rslock(manager) => Held::Rslock(manager.acquire_no_guard(ID, LEASE).await?),
            Self::Distkit(mutex) => Held::Distkit(mutex.lock().await?),
            Self::Bare(bare) => {
                let (connection, _, tokens) = &**bare;
                let number = tokens.fetch_add(1, Ordering::Relaxed);
                let token = format!("{}:{number}", std::process::id());
                let mut connection = connection.clone();
                loop {
                    let taken: bool = redis::cmd("SET")
                        .arg(ID)
                        .arg(&token)
                        .arg("NX")
                        .arg("PX")
                        .arg(LEASE.as_millis() as u64)
                        .query_async(&mut connection)
                        .await?;
                    if taken {
                        return Ok(Held::Bare(token));
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        })
    }

    /// Releases the lock, as the library's authors intend.
    pub(crate) async fn leave(&self, held: Held) -> Result<(), Failure> {
        match (self, held) {
            (Self::Rslock(manager), Held::Rslock(lock)) => manager.unlock(&lock).await,
            (Self::Bare(bare), Held::Bare(token)) => {
                let (connection, release, _) = &**bare;
                let _: i64 =
                    release.key(ID).arg(token).invoke_async(&mut connection.clone()).await?;
            }
            // The drop releases.
            (_, Held::Ours(guard)) => drop(guard),
            (_, Held::Distkit(guard)) => drop(guard),
            // Never happens: a library releases only its own locks.
            (_, Held::Rslock(_) | Held::Bare(_)) => {}
        }
        Ok(())
    }

    /// Waits for background releases, if the library offers that.
    pub(crate) async fn settle(&self) {
        if let Self::Ours(locks) = self {
            locks.flush().await;
        }
    }
}
