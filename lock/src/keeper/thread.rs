//! The runner of a keeper whose store is reached through a connection: on a thread of its own.
//!
//! Only this thread talks to the store. So no work of the callers can keep leases from being
//! renewed, and requests that come while it is busy gather into one write.

use std::{
    future::Future,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    thread,
};

use lock_core::Moment;
use tokio::{runtime::Builder, sync::oneshot, task};

use super::{
    combiner::{Combiner, Entry},
    held::Owner,
    turns::{Keeper, Message},
    unpark::Unpark,
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind},
    process::Process,
};

/// The callers' handle to a keeper with a thread of its own. It is dropped after the callers' end
/// of the queue, and wakes the thread, which then finds that no caller is left.
pub(super) struct ThreadRunner<O: Owner> {
    combiner: Arc<Combiner<Keeper<O>>>,
    unpark: Arc<Unpark>,
    /// Whether it ended because it was told to.
    ended: Arc<AtomicBool>,
    process: Process,
}

/// The outcome of the preparations on the thread.
pub(crate) struct Started(oneshot::Receiver<Result<(), Error>>);

impl Started {
    pub(crate) async fn wait(self) -> Result<(), Error> {
        self.0.await.map_err(|_| Error::panicked())?
    }
}

impl<O: Owner> ThreadRunner<O> {
    /// Starts the thread, on which everything else happens: first `prepare`, which is given the
    /// waker of the thread, and then, if it succeeds, the keeper. The thread ends when all clients
    /// are gone, or when `prepare` fails.
    pub(super) fn start<F, Fut>(
        clock: Arc<dyn Clock>,
        keeper: Keeper<O>,
        prepare: F,
    ) -> Result<(Self, Started), Error>
    where
        F: FnOnce(Waker) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Error>>,
    {
        let ended = keeper.ended();
        let (combiner, unpark) = (Arc::new(Combiner::new(keeper)), Arc::<Unpark>::default());
        // Whatever happens to the thread, those who wait for it notice.
        let own = OwnThread { combiner: Arc::clone(&combiner), unpark: Arc::clone(&unpark), clock };
        let (started, outcome) = oneshot::channel();
        let body = move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(no_thread(error)))),
            };
            runtime.block_on(async move {
                let prepared = prepare(Arc::clone(&own.unpark).into()).await;
                let is_prepared = prepared.is_ok();
                // Whether or not anybody waits for this.
                let _ = started.send(prepared);
                if is_prepared {
                    own.run().await;
                }
            });
        };
        thread::Builder::new().name("lock-keeper".into()).spawn(body).map_err(no_thread)?;
        let runner = Self { combiner, unpark, ended, process: Process::current() };
        Ok((runner, Started(outcome)))
    }

    /// Lets the keeper do, on a caller's thread, what needs no store, and wakes its own thread for
    /// the rest. Takes `own` along if it gets a turn; otherwise `own` stays where it is.
    pub(super) fn turn(&self, own: &mut Option<Message<O>>) {
        let turn = |keeper: &mut Keeper<O>| {
            let at_once = keeper.local_turn(own).then(Moment::default);
            ControlFlow::Continue(at_once.or_else(|| keeper.next_timer()))
        };
        self.combiner.enter(Entry::Try, turn, |&next| self.unpark.unpark_before(next));
    }

    pub(super) fn gone(&self) -> Error {
        if self.ended.load(Ordering::Acquire) { Error::closed() } else { Error::panicked() }
    }
}

impl<O: Owner> Drop for ThreadRunner<O> {
    fn drop(&mut self) {
        // A forked child has no such thread, and the lock of what wakes one may be held there for
        // ever.
        if self.process.is_current() {
            self.unpark.unpark();
        }
    }
}

/// What the thread owns: it runs until the keeper is shut down, or until all clients are gone and
/// what they left is released.
struct OwnThread<O: Owner> {
    combiner: Arc<Combiner<Keeper<O>>>,
    unpark: Arc<Unpark>,
    clock: Arc<dyn Clock>,
}

impl<O: Owner> OwnThread<O> {
    async fn run(self) {
        let waker = Waker::from(Arc::clone(&self.unpark));
        loop {
            self.unpark.awake();
            let left = self.combiner.enter(Entry::Wait, |keeper| keeper.turn(&waker), |_| ());
            let Some(next) = left else { return };
            let now = self.clock.now();
            if next.is_some_and(|next| next <= now) {
                // The connection's own task is also on this thread.
                task::yield_now().await;
            } else {
                self.unpark.park(now, next.or(Some(Moment::NEVER))).await;
            }
        }
    }
}

impl<O: Owner> Drop for OwnThread<O> {
    fn drop(&mut self) {
        // Even if the connection has panicked: nobody renews these locks any more, and the holders
        // have to know.
        self.combiner.clear();
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "the keeper's thread could not be started ({error}): check the limits of this process"
        ),
    )
    .caused_by(Arc::new(error))
}
