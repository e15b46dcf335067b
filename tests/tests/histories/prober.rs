//! A client that keeps acquiring: it measures how soon locks are granted again, and the longest
//! acquire.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

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

/// Runs on a thread and a runtime of its own, like a process that does nothing else. It ends when
/// the value is dropped.
pub(super) struct Prober {
    questions: UnboundedSender<Question>,
    thread: JoinHandle<()>,
}

enum Question {
    First(Wanted),
    Aim(Vec<String>, oneshot::Sender<Aimed>),
    Since(oneshot::Sender<Aimed>),
}

/// A request for the time of the first grant on a server.
struct Wanted {
    server: MultiplexedConnection,
    granted: oneshot::Sender<u64>,
}

/// The results of all acquires since the prober was aimed.
#[derive(Clone, Debug, Default)]
pub(super) struct Aimed {
    /// The longest acquire, whether it was granted or not.
    pub(super) longest: Duration,
    /// The errors of those that were not granted.
    pub(super) failures: Vec<String>,
}

impl Prober {
    pub(super) fn start(url: String) -> Self {
        let (questions, receiver) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = thread::spawn(move || runtime.block_on(probe(url, receiver)));
        Self { questions, thread }
    }

    /// Reports when the first lock from now on is granted on this server, which must not have
    /// granted locks before.
    pub(super) async fn first_lock_on(&self, server: &RedisServer) -> oneshot::Receiver<u64> {
        let (granted, receiver) = oneshot::channel();
        let wanted = Wanted { server: server.connection().await, granted };
        // If the prober has ended, the receiver reports it.
        let _ = self.questions.send(Question::First(wanted));
        receiver
    }

    /// From now on, it tries locks in the slots of these keys, one after another.
    pub(super) async fn aim(&self, keys: Vec<String>) {
        self.answer(|aimed| Question::Aim(keys, aimed)).await;
    }

    /// The results since the prober was aimed.
    pub(super) async fn aimed(&self) -> Aimed {
        self.answer(Question::Since).await
    }

    async fn answer(&self, question: impl FnOnce(oneshot::Sender<Aimed>) -> Question) -> Aimed {
        let (answer, receiver) = oneshot::channel();
        let _ = self.questions.send(question(answer));
        receiver.await.expect("the prober goes on")
    }

    /// Ends the prober, and waits for it.
    pub(super) fn finish(self) {
        drop(self.questions);
        self.thread.join().expect("the prober does not panic");
    }
}

async fn probe(url: String, mut questions: UnboundedReceiver<Question>) {
    // Building does not wait for a server; calls do.
    let locks = Locks::builder().url(url).build_lazy().unwrap();
    let (mut number, mut wanted) = (0_usize, None);
    let (mut keys, mut aimed) = (Vec::new(), Aimed::default());
    loop {
        match questions.try_recv() {
            // Here and below, the receiver of the answer may be gone.
            Ok(Question::First(question)) => wanted = Some(question),
            Ok(Question::Aim(at, answer)) => {
                (keys, aimed) = (at, Aimed::default());
                let _ = answer.send(aimed.clone());
            }
            Ok(Question::Since(answer)) => {
                let _ = answer.send(aimed.clone());
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => break,
        }
        number += 1;
        let id = match keys.get(number % keys.len().max(1)) {
            Some(key) => format!("probe-{number}{{{key}}}"),
            None => format!("probe-{number}"),
        };
        let lock = locks.lock(id).lease(ms(2000)).wait(ms(3000));
        let began = Instant::now();
        let outcome = lock.acquire().await;
        aimed.longest = aimed.longest.max(began.elapsed());
        match outcome {
            Ok(guard) => {
                let at = now();
                if let Some(mut question) = wanted.take() {
                    if is_on(&mut question.server, &lock.key()).await {
                        let _ = question.granted.send(at);
                    } else {
                        wanted = Some(question);
                    }
                }
                // A failover may have lost the lock.
                let _ = guard.release().await;
            }
            Err(error) => aimed.failures.push(error.to_string()),
        }
        sleep(ms(1)).await;
    }
    locks.shutdown().await;
}

/// Each lock has a name of its own, so its key is on the server that granted it, or on that
/// server's replicas.
async fn is_on(server: &mut MultiplexedConnection, key: &str) -> bool {
    redis::cmd("EXISTS").arg(key).query_async(server).await.unwrap_or(false)
}
