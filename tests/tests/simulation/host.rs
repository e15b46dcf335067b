//! A machine of a simulation: its clock runs at a rate of its own, and all of it stands still for a
//! while.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

/// The machine that one client of a simulation runs on, in virtual time.
pub(super) struct Host {
    origin: Instant,
    /// How much faster its clock runs than the others', in millionths.
    faster: i64,
    is_stopped: AtomicBool,
    /// What waits until it goes on.
    waiting: Mutex<Vec<Waker>>,
    /// The keepers of it.
    keepers: Mutex<Vec<Waker>>,
}

impl Host {
    /// One with a clock that is faster by so many millionths, or slower.
    pub(super) fn new(faster: i64) -> Self {
        Self {
            origin: Instant::now(),
            faster,
            is_stopped: AtomicBool::new(false),
            waiting: Mutex::default(),
            keepers: Mutex::default(),
        }
    }

    /// Stops everything on it. Its clock goes on.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }

    /// Lets everything on it go on.
    pub(super) fn go_on(&self) {
        self.is_stopped.store(false, Ordering::SeqCst);
        for waker in std::mem::take(&mut *lock(&self.waiting)) {
            waker.wake();
        }
        for keeper in &*lock(&self.keepers) {
            keeper.wake_by_ref();
        }
    }

    /// Runs something on it, which stands still while it is stopped.
    pub(super) async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            if lock::__Host::is_stopped(self) {
                lock(&self.waiting).push(context.waker().clone());
                return Poll::Pending;
            }
            future.as_mut().poll(context)
        })
        .await
    }

    /// How long it is for everybody else what is so long for this one.
    pub(super) fn elsewhere(&self, time: Duration) -> Duration {
        scaled(time, 1_000_000, 1_000_000 + self.faster)
    }
}

impl lock::__Host for Host {
    fn now(&self) -> Duration {
        let time = Instant::now().saturating_duration_since(self.origin);
        scaled(time, 1_000_000 + self.faster, 1_000_000)
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    fn when_it_goes_on(&self, keeper: Waker) {
        lock(&self.keepers).push(keeper);
    }
}

fn scaled(time: Duration, by: i64, of: i64) -> Duration {
    let nanos = i128::try_from(time.as_nanos()).expect("a simulated time");
    let nanos = nanos * i128::from(by) / i128::from(of);
    Duration::from_nanos(nanos.try_into().expect("a simulated time"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("faster", &self.faster).finish_non_exhaustive()
    }
}
