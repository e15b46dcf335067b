//! A client that keeps trying: how soon there are locks again.

use std::thread::{self, JoinHandle};

use lock::Locks;
use lock_tests::{RedisServer, ms, now};
use redis::aio::MultiplexedConnection;
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, error::TryRecvError, unbounded_channel},
        oneshot,
    },
    time::sleep,
};

/// On a thread and a runtime of its own, as a process would be that does nothing else. It ends when
/// the value is dropped.
pub(super) struct Prober {
    wanted: UnboundedSender<Wanted>,
    thread: JoinHandle<()>,
}

/// A lock on this server, and who wants to know when it was granted.
struct Wanted {
    server: MultiplexedConnection,
    granted: oneshot::Sender<u64>,
}

impl Prober {
    pub(super) fn start(url: String) -> Self {
        let (wanted, receiver) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = thread::spawn(move || runtime.block_on(probe(url, receiver)));
        Self { wanted, thread }
    }

    /// When the first lock is granted on this server from now on. It has to be one that had none to
    /// grant before.
    pub(super) async fn first_lock_on(&self, server: &RedisServer) -> oneshot::Receiver<u64> {
        let (granted, receiver) = oneshot::channel();
        let wanted = Wanted { server: server.connection().await, granted };
        // If it has ended, the receiver tells.
        let _ = self.wanted.send(wanted);
        receiver
    }

    /// Ends it, and waits for that.
    pub(super) fn finish(self) {
        drop(self.wanted);
        self.thread.join().expect("the prober does not panic");
    }
}

async fn probe(url: String, mut questions: UnboundedReceiver<Wanted>) {
    // Nothing waits for a server here: calls do.
    let locks = Locks::builder().url(url).build_lazy().unwrap();
    let (mut number, mut wanted) = (0_u64, None);
    loop {
        match questions.try_recv() {
            Ok(question) => wanted = Some(question),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => break,
        }
        number += 1;
        let lock = locks.lock(format!("probe-{number}")).lease(ms(2000)).wait(ms(3000));
        if let Ok(guard) = lock.acquire().await {
            let at = now();
            if let Some(mut question) = wanted.take() {
                if is_on(&mut question.server, &lock.key()).await {
                    // Nobody may want to know any more.
                    let _ = question.granted.send(at);
                } else {
                    wanted = Some(question);
                }
            }
            // It may be lost, by a failover.
            let _ = guard.release().await;
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
