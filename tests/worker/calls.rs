//! Makes debounced calls all the time, with a record of every call and of every run.
//!
//! ```text
//! called ID NUMBER MADE BOUND      a call is made now; when all is well, its answer comes in BOUND
//! began ID NUMBER TOKEN AT         its run began
//! ended ID NUMBER UNTIL            its run, and until when its lock was believed valid
//! superseded ID NUMBER AT          another call runs in its place
//! withdrawn ID NUMBER AT           its caller went away; its run may have begun
//! errored ID NUMBER KIND AT        it failed; its run may have begun
//! ```
//!
//! BOUND is in milliseconds. A lost run is reported like a lost hold: see workload.rs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lock::{Debounce, LockGuard, Locks};
use lock_tests::{Random, WorkIds, ms, now};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{say, watch::Watch};

/// The lease of a run. A process that is killed blocks its id for this long.
pub(crate) const LEASE: Duration = ms(1000);

/// How often a run checks whether its lock is still valid.
const STEP: Duration = ms(4);

/// The time that a call may need besides its burst when all is well: for the runs before it,
/// callers that vanished, and a busy machine.
const BESIDES: Duration = ms(5000);

/// The settings that decide when a burst of an id is over.
#[derive(Clone, Copy)]
struct Burst {
    wait: u64,
    max_wait: Option<u64>,
    leading: bool,
}

/// The settings for each id, the same in every process.
const BURSTS: [Burst; 8] = [
    Burst { wait: 30, max_wait: Some(150), leading: false },
    Burst { wait: 50, max_wait: Some(250), leading: true },
    Burst { wait: 80, max_wait: None, leading: false },
    Burst { wait: 150, max_wait: Some(400), leading: false },
    Burst { wait: 150, max_wait: None, leading: true },
    Burst { wait: 300, max_wait: Some(600), leading: false },
    Burst { wait: 300, max_wait: Some(900), leading: true },
    Burst { wait: 400, max_wait: Some(800), leading: false },
];

impl Burst {
    fn of(self, locks: &Locks, id: &str) -> Debounce {
        let debounce = locks.debounce(id).wait(ms(self.wait)).leading(self.leading);
        match self.max_wait {
            Some(limit) => debounce.max_wait(ms(limit)),
            None => debounce,
        }
    }

    fn bound(self) -> Duration {
        // A burst without `max_wait` is also over soon, because calls are rare.
        ms(self.max_wait.unwrap_or(10 * self.wait)) + BESIDES
    }
}

/// State that all tasks of a process share.
#[derive(Clone)]
pub(crate) struct Calls {
    locks: Locks,
    ids: Arc<Vec<String>>,
    /// The number of the next call: calls are made in the order of their numbers.
    number: Arc<AtomicU64>,
    rate: i64,
}

impl Calls {
    pub(crate) fn new(locks: Locks, rate: i64) -> Self {
        let ids = Arc::new(WorkIds::all().bursts);
        assert_eq!(ids.len(), BURSTS.len(), "an id for each kind of burst");
        Self { locks, ids, number: Arc::default(), rate }
    }

    /// Makes one call after another.
    pub(crate) async fn make(self, mut random: Random, finishing: CancellationToken) {
        while !finishing.is_cancelled() {
            // A pause in which this task has no waiting call, so that the process may have no newer
            // one.
            let _ = timeout(ms(random.below(600)), finishing.cancelled()).await;
            let place = random.below(BURSTS.len() as u64) as usize;
            self.call(&self.ids[place], BURSTS[place], &mut random).await;
        }
    }

    async fn call(&self, id: &str, burst: Burst, random: &mut Random) {
        let debounce = burst.of(&self.locks, id);
        let runs_for = match random.below(10) {
            0 => ms(random.below(400)),
            1..5 => ms(random.below(30)),
            _ => Duration::ZERO,
        };
        let kept_for = if random.one_in(6) { ms(random.below(200)) } else { Duration::ZERO };
        let patience = random.one_in(8).then(|| ms(random.below(2 * burst.wait)));
        // Nothing is awaited from here to the first poll of the call.
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let made = now();
        say(&format!("called {id} {number} {made} {}", burst.bound().as_millis()));
        let call = debounce.call_with(async |guard| {
            let mut run = Run::begin(id, number, made, guard, self.rate);
            run.last(runs_for).await;
            run
        });
        let answer = match patience {
            None => call.await,
            Some(patience) => match timeout(patience, call).await {
                Ok(answer) => answer,
                Err(_) => {
                    self.until_it_is_answered().await;
                    return say(&format!("withdrawn {id} {number} {}", now()));
                }
            },
        };
        match answer {
            // The run holds its lock for as long as its guard exists.
            Ok(Some(mut run)) => run.last(kept_for).await,
            Ok(None) => say(&format!("superseded {id} {number} {}", now())),
            Err(error) => {
                self.until_it_is_answered().await;
                say(&format!("errored {id} {number} {:?} {}", error.kind(), now()));
                sleep(ms(random.below(30))).await;
            }
        }
    }
}

impl Calls {
    /// After a call has been dropped, its request may still be on its way for as long as the
    /// network holds it back, and may be granted the run when it arrives.
    async fn until_it_is_answered(&self) {
        self.locks.flush().await;
    }
}

/// A run, which reports its end when it is dropped, for whatever reason.
struct Run {
    number: u64,
    made: u64,
    watch: Watch<Arc<LockGuard>>,
}

impl Run {
    fn begin(id: &str, number: u64, made: u64, guard: Arc<LockGuard>, rate: i64) -> Self {
        say(&format!("began {id} {number} {} {}", guard.fencing_token(), now()));
        let mut watch = Watch::new(id, guard, rate);
        watch.look();
        Self { number, made, watch }
    }

    async fn last(&mut self, time: Duration) {
        let end = now() + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        while now() < end && self.watch.look() {
            sleep(STEP.min(Duration::from_nanos(end.saturating_sub(now())))).await;
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.watch.look();
        self.watch.say_if_lost(self.made);
        let until = self.watch.valid_until.min(now());
        say(&format!("ended {} {} {until}", self.watch.id, self.number));
    }
}
