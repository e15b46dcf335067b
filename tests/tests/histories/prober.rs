//! A client that keeps trying: how soon there are locks again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use lock::{LockGuard, Locks};
use lock_tests::{RedisServer, ms, now};
use redis::aio::MultiplexedConnection;
use tokio::{sync::oneshot, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// On a thread and a runtime of its own, as a process would be that does nothing else.
pub(super) struct Prober {
    wanted: Arc<Mutex<Option<Wanted>>>,
    thread: Option<JoinHandle<()>>,
    _end: DropGuard,
}

/// A lock on this server, and who wants to know when it was granted.
struct Wanted {
    server: MultiplexedConnection,
    granted: oneshot::Sender<u64>,
}

impl Prober {
    pub(super) fn start(url: String) -> Self {
        let wanted = Arc::new(Mutex::new(None));
        let end = CancellationToken::new();
        let probing = probe(url, Arc::clone(&wanted), end.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = thread::spawn(move || runtime.block_on(probing));
        Self { wanted, thread: Some(thread), _end: end.drop_guard() }
    }

    /// When the first lock is granted on this server from now on. It has to be one that had none to
    /// grant before.
    pub(super) async fn first_lock_on(&self, server: &RedisServer) -> oneshot::Receiver<u64> {
        let (granted, receiver) = oneshot::channel();
        let wanted = Wanted { server: server.connection().await, granted };
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        receiver
    }

    /// Ends it, and lets go of what it holds.
    pub(super) fn finish(mut self) {
        let thread = self.thread.take();
        drop(self);
        thread.unwrap().join().expect("the prober does not panic");
    }
}

async fn probe(url: String, wanted: Arc<Mutex<Option<Wanted>>>, end: CancellationToken) {
    let locks = Locks::connect(&url).await.unwrap();
    let mut number = 0_u64;
    while !end.is_cancelled() {
        number += 1;
        let lock = locks.lock(format!("probe-{number}")).lease(ms(2000)).wait(ms(3000));
        if let Ok(guard) = lock.acquire().await {
            let at = now();
            let is_wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(mut wanted_lock) = is_wanted {
                if is_on(&mut wanted_lock.server, &lock.key()).await {
                    // Nobody may want to know any more.
                    let _ = wanted_lock.granted.send(at);
                } else {
                    let mut wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
                    wanted.get_or_insert(wanted_lock);
                }
            }
            let_go(guard).await;
        }
        sleep(ms(1)).await;
    }
    locks.shutdown().await;
}

/// Each lock has a name of its own, so its key is on the server that has granted it, or on those
/// that follow that one.
async fn is_on(server: &mut MultiplexedConnection, key: &str) -> bool {
    redis::cmd("EXISTS").arg(key).query_async(server).await.unwrap_or(false)
}

async fn let_go(guard: LockGuard) {
    // It may be lost, by a failover.
    let _ = guard.release().await;
}
