//! A client that keeps trying: how soon there are locks again, and how long one takes at most.

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

/// On a thread and a runtime of its own, as a process would be that does nothing else. It ends when
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

/// A lock on this server, and who wants to know when it was granted.
struct Wanted {
    server: MultiplexedConnection,
    granted: oneshot::Sender<u64>,
}

/// What came of all locks since the prober was aimed.
#[derive(Clone, Debug, Default)]
pub(super) struct Aimed {
    /// How long one took at most, whether it was granted or not.
    pub(super) longest: Duration,
    /// Those that were not granted: why.
    pub(super) failures: Vec<String>,
}

impl Prober {
    pub(super) fn start(url: String) -> Self {
        let (questions, receiver) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = thread::spawn(move || runtime.block_on(probe(url, receiver)));
        Self { questions, thread }
    }

    /// When the first lock is granted on this server from now on. It has to be one that had none to
    /// grant before.
    pub(super) async fn first_lock_on(&self, server: &RedisServer) -> oneshot::Receiver<u64> {
        let (granted, receiver) = oneshot::channel();
        let wanted = Wanted { server: server.connection().await, granted };
        // If it has ended, the receiver tells.
        let _ = self.questions.send(Question::First(wanted));
        receiver
    }

    /// From now on it tries locks whose keys are in the slots of these keys, one after the other.
    pub(super) async fn aim(&self, keys: Vec<String>) {
        self.answer(|aimed| Question::Aim(keys, aimed)).await;
    }

    /// What has come of that.
    pub(super) async fn aimed(&self) -> Aimed {
        self.answer(Question::Since).await
    }

    async fn answer(&self, question: impl FnOnce(oneshot::Sender<Aimed>) -> Question) -> Aimed {
        let (answer, receiver) = oneshot::channel();
        let _ = self.questions.send(question(answer));
        receiver.await.expect("the prober goes on")
    }

    /// Ends it, and waits for that.
    pub(super) fn finish(self) {
        drop(self.questions);
        self.thread.join().expect("the prober does not panic");
    }
}

async fn probe(url: String, mut questions: UnboundedReceiver<Question>) {
    // Nothing waits for a server here: calls do.
    let locks = Locks::builder().url(url).build_lazy().unwrap();
    let (mut number, mut wanted) = (0_usize, None);
    let (mut keys, mut aimed) = (Vec::new(), Aimed::default());
    loop {
        match questions.try_recv() {
            // Nobody may want to know any more, here and below.
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
                // It may be lost, by a failover.
                let _ = guard.release().await;
            }
            Err(error) => aimed.failures.push(error.to_string()),
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
