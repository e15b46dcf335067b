//! A machine of a simulation (feature `__mutants`): its clock runs at a rate of its own, and all of
//! it stands still for a while.

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

use crate::clock::Clock;
use crate::core::Moment;

type Bell = Box<dyn Fn() + Send + Sync>;

/// The machine that one client of a simulation runs on, in virtual time.
#[doc(hidden)]
pub struct Host {
    origin: Instant,
    /// How much faster its clock runs than the others', in millionths.
    faster: i64,
    is_stopped: AtomicBool,
    /// What waits until it goes on.
    waiting: Mutex<Vec<Waker>>,
    /// The keepers of it.
    bells: Mutex<Vec<Bell>>,
}

impl Host {
    /// One with a clock that is faster by so many millionths, or slower.
    #[must_use]
    pub fn new(faster: i64) -> Self {
        Self {
            origin: Instant::now(),
            faster,
            is_stopped: AtomicBool::new(false),
            waiting: Mutex::default(),
            bells: Mutex::default(),
        }
    }

    /// Stops everything on it. Its clock goes on.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }

    /// Lets everything on it go on.
    pub fn go_on(&self) {
        self.is_stopped.store(false, Ordering::SeqCst);
        for waker in std::mem::take(&mut *lock(&self.waiting)) {
            waker.wake();
        }
        for bell in &*lock(&self.bells) {
            bell();
        }
    }

    /// Runs something on it, which stands still while it is stopped.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            if self.is_stopped() {
                lock(&self.waiting).push(context.waker().clone());
                return Poll::Pending;
            }
            future.as_mut().poll(context)
        })
        .await
    }

    /// How long it is for everybody else what is so long for this one.
    #[must_use]
    pub fn elsewhere(&self, time: Duration) -> Duration {
        scaled(time, 1_000_000, 1_000_000 + self.faster)
    }
}

impl Clock for Host {
    fn now(&self) -> Moment {
        let time = Instant::now().saturating_duration_since(self.origin);
        Moment::since_origin(scaled(time, 1_000_000 + self.faster, 1_000_000))
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    fn when_it_goes_on(&self, bell: Bell) {
        lock(&self.bells).push(bell);
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
