//! Works under locks all the time, with a record of every hold: what a service does all day, with a
//! server and a network that break.
//!
//! ```text
//! section ID TOKEN ASKED GRANTED UNTIL   one hold, once it is over
//! refused ID TOKEN ASKED AT              a write was refused although the lock seemed valid
//! late ID TOKEN                          a guard passed its deadline without a signal
//! lost ID TOKEN ASKED AT told|late       a hold was lost before its deadline, or when it passed
//! failed KIND ASKED AT                   an acquire failed
//! forcing ID FROM                        a lock is about to be forced free
//! forced ID FROM TO                      it was forced free
//! usage KIB THREADS FILES TASKS          what the process uses
//! ```

use std::{fs, sync::Arc, time::Duration};

use lock::{ErrorKind, LockGuard, Locks, LocksBuilder};
use lock_tests::{Random, WorkIds, ms, now};
use redis::{AsyncConnectionConfig, Script, aio::MultiplexedConnection};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    calls::{self, Calls},
    say,
    watch::Watch,
};

/// How often a holder checks whether it still holds the lock.
const STEP: Duration = ms(4);

/// For how many looks in a row a passed deadline may lack a signal, on a busy machine.
const UNHEARD: u32 = 50;

/// The resource that a lock protects: a counter that each holder reads and increments. It checks
/// fencing tokens, also on reading: a stale holder must not write back what it has read. There is a
/// second counter, which checks nothing.
///
/// Tokens are compared as text: a Lua number is exact only up to 2^53.
const ENTER: &str = "
    local last = redis.call('HGET', KEYS[1], 'token') or '0'
    local token = ARGV[1]
    local fresh = #token > #last or (#token == #last and token >= last)
    if fresh then redis.call('HSET', KEYS[1], 'token', token) end
    return {fresh and 1 or 0, tonumber(redis.call('HGET', KEYS[1], 'count') or '0'),
        tonumber(redis.call('HGET', KEYS[1], 'unchecked') or '0')}";

/// The second half: writes both counters.
const WRITE: &str = "
    redis.call('HSET', KEYS[1], 'unchecked', ARGV[3])
    redis.call('HINCRBY', KEYS[1], 'writes', 1)
    if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
        redis.call('HINCRBY', KEYS[1], 'refused', 1)
        return 0
    end
    redis.call('HSET', KEYS[1], 'count', ARGV[2])
    redis.call('HINCRBY', KEYS[1], 'accepted', 1)
    return 1";

/// The running work.
pub(crate) struct Workload {
    finishing: CancellationToken,
    tasks: JoinSet<()>,
    locks: Locks,
    /// Kept to the end, so that the process's usage can be compared with the beginning.
    resource: MultiplexedConnection,
    /// By how many millionths this process's clocks are faster than the machine's.
    rate: i64,
}

/// Starts the work.
pub(crate) async fn start(
    builder: impl Fn() -> LocksBuilder,
    resource: &str,
    tasks: u64,
    seed: u64,
    rate: i64,
) -> Workload {
    let locks = loop {
        // The server may be down.
        if let Ok(locks) = builder().lease(calls::LEASE).build().await {
            break locks;
        }
        sleep(ms(20)).await;
    };
    let client = redis::Client::open(resource).expect("a URL of Redis");
    // A process that was stopped gets an answer late, but must not lose it.
    let patient = AsyncConnectionConfig::new().set_response_timeout(None);
    let resource = client.get_multiplexed_async_connection_with_config(&patient).await;
    let resource = resource.expect("the resource is never down");
    let finishing = CancellationToken::new();
    usage();
    let ids = Arc::new(WorkIds::all());
    let mut work = Workload { finishing, tasks: JoinSet::new(), locks, resource, rate };
    for task in 0..tasks + ids.rivals.len() as u64 {
        let one = Task {
            rival: task.checked_sub(tasks).map(|number| ids.rivals[number as usize].clone()),
            locks: work.locks.clone(),
            resource: work.resource.clone(),
            ids: Arc::clone(&ids),
            random: Random::new(seed.wrapping_mul(1000).wrapping_add(task)),
            rate,
        };
        work.tasks.spawn(one.run(work.finishing.clone()));
    }
    work.tasks.spawn(report_usage(work.finishing.clone()));
    work
}

impl Workload {
    /// Also makes debounced calls, in this many tasks.
    pub(crate) fn debounce(&mut self, tasks: u64, seed: u64) {
        let calls = Calls::new(self.locks.clone(), self.rate);
        for task in 0..tasks {
            let random = Random::new(seed.wrapping_mul(1000).wrapping_add(500 + task));
            self.tasks.spawn(calls.clone().make(random, self.finishing.clone()));
        }
    }

    /// Lets each task finish its work.
    pub(crate) async fn finish(mut self) {
        self.finishing.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no task panics");
        }
        self.locks.flush().await;
        // By then, a connection that was just given up is closed.
        sleep(ms(500)).await;
        usage();
    }
}

struct Task {
    /// The single lock that this task takes again and again, if it is of that kind.
    rival: Option<String>,
    locks: Locks,
    resource: MultiplexedConnection,
    ids: Arc<WorkIds>,
    random: Random,
    rate: i64,
}

impl Task {
    async fn run(mut self, finishing: CancellationToken) {
        while !finishing.is_cancelled() {
            let ids = Arc::clone(&self.ids);
            let ids = if self.random.one_in(8) { &ids.hot } else { &ids.cold };
            let any = &ids[self.random.below(ids.len() as u64) as usize];
            let id = &self.rival.clone().unwrap_or_else(|| any.clone());
            if self.random.one_in(2000) {
                let from = now();
                // Reported beforehand: a process that is killed in between reports nothing
                // afterwards.
                say(&format!("forcing {id} {from}"));
                let known = self.locks.lock(id).force_release().await.is_ok();
                // Without an answer, it may still happen while the request can be on its way.
                let late = if known { 0 } else { 10_000_000_000 };
                say(&format!("forced {id} {from} {}", now() + late));
            }
            let asked = now();
            match self.acquire(id).await {
                Ok(Some(guard)) => self.section(id, asked, guard).await,
                Ok(None) => {}
                Err(kind) => {
                    say(&format!("failed {kind:?} {asked} {}", now()));
                    // Like a service, and not as fast as possible.
                    sleep(ms(self.random.below(30))).await;
                }
            }
        }
    }

    /// Acquires in one of the possible ways.
    async fn acquire(&mut self, id: &str) -> Result<Option<LockGuard>, ErrorKind> {
        // A lock that is held for long has a short lease, so that a fault outlasts it.
        let longest = if self.rival.is_some() { 500 } else { 1700 };
        let lease = ms(300 + self.random.below(longest));
        let mut lock = self.locks.lock(id).lease(lease).wait(ms(3000));
        if self.random.one_in(50) {
            lock = lock.hold_at_least(ms(self.random.below(20)));
        }
        let outcome = match self.random.below(10) {
            0 => lock.try_acquire().await,
            1 => lock.retry(3, ms(5)).acquire().await.map(Some),
            // Given up at a random moment.
            2 => {
                let patience = Duration::from_micros(self.random.below(5000));
                timeout(patience, lock.acquire())
                    .await
                    .map_or(Ok(None), |outcome| outcome.map(Some))
            }
            _ => lock.acquire().await.map(Some),
        };
        outcome.map_err(|error| error.kind())
    }

    async fn section(&mut self, id: &str, asked: u64, guard: LockGuard) {
        let granted = now();
        let mut watch = Watch::new(id, &guard, self.rate);
        let token = guard.fencing_token().to_string();
        // A lock that is already lost is not used, but its token was granted.
        if watch.look() {
            let (is_fresh, count, unchecked): (bool, u64, u64) =
                self.script(ENTER, id, &[&token]).await;
            self.hold(&mut watch).await;
            let (count, unchecked) = ((count + 1).to_string(), (unchecked + 1).to_string());
            if is_fresh && self.random.one_in(20) {
                // Extends the lease; the outcome does not matter.
                let _ = guard.extend(ms(100)).await;
            }
            // A value that was stale on reading is not written; the refusal is reported below.
            let is_accepted =
                is_fresh && self.script(WRITE, id, &[&token, &count, &unchecked]).await;
            if !is_accepted && watch.look() {
                say(&format!("refused {id} {token} {asked} {}", now()));
            }
        }
        watch.say_if_lost(asked);
        let until = watch.valid_until.min(now());
        // The validity ends before the release is requested.
        match self.random.below(4) {
            0 => drop(guard.release().await),
            1 => {
                let panics = tokio::task::spawn_blocking(move || drop(guard));
                panics.await.expect("a drop does not panic");
            }
            _ => drop(guard),
        }
        say(&format!("section {id} {token} {asked} {granted} {until}"));
    }

    /// Holds the lock for a while, usually a short one, and stops at a loss.
    async fn hold(&mut self, watch: &mut Watch<&LockGuard>) {
        let time = match self.random.below(1000) {
            _ if self.rival.is_some() => self.random.below(1_000_000),
            0 => self.random.below(3_000_000),
            1..10 => self.random.below(300_000),
            10..100 => self.random.below(10_000),
            _ => self.random.below(500),
        };
        let end = now() + time * 1000;
        if time > 10_000 && self.rival.is_none() && self.random.one_in(2) {
            return listen(watch, end).await;
        }
        let mut lost = std::pin::pin!(watch.guard.lost());
        while now() < end && watch.look() {
            let step = STEP.min(Duration::from_nanos(end.saturating_sub(now())));
            tokio::select! {
                () = &mut lost => assert!(!watch.guard.is_held(), "lost, and held"),
                () = sleep(step) => {}
            }
        }
    }

    async fn script<T: redis::FromRedisValue>(&self, code: &str, id: &str, values: &[&str]) -> T {
        let mut connection = self.resource.clone();
        let script = Script::new(code);
        let mut call = script.key(id);
        values.iter().for_each(|value| {
            call.arg(value);
        });
        call.invoke_async(&mut connection).await.expect("the resource is never down")
    }
}

/// Holds the lock, and only listens for the signal: a look at the guard would check the clock, and
/// so find a loss that was not signalled.
async fn listen(watch: &Watch<&LockGuard>, end: u64) {
    let signal = watch.guard.lost_token();
    // Each of these looks comes after a sleep, during which this process and its keeper were
    // running: a stop of the process costs one look, however long it lasts.
    let mut unheard = 0;
    while now() < end && !signal.is_cancelled() {
        unheard = if watch.guard.__overdue().is_zero() { 0 } else { unheard + 1 };
        if unheard == UNHEARD {
            return watch.say_late();
        }
        sleep(STEP).await;
    }
}

async fn report_usage(finishing: CancellationToken) {
    while timeout(ms(1000), finishing.cancelled()).await.is_err() {
        usage();
    }
}

/// Reports the process's usage of the machine.
fn usage() {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()).expect("Linux has it").to_owned()
    };
    let files = fs::read_dir("/proc/self/fd").expect("Linux has it").count();
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    say(&format!("usage {} {} {files} {tasks}", field("VmRSS:"), field("Threads:")));
}
