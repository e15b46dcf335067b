//! Work under locks, without end, with a record of every hold: what a service does all day, on a
//! server and a network that break.
//!
//! ```text
//! section ID TOKEN ASKED GRANTED UNTIL   one hold, once it is over
//! refused ID TOKEN ASKED AT              a write was refused to a holder that was told it is valid
//! late ID TOKEN                          a guard was past its deadline, and its loss not signalled
//! lost ID TOKEN ASKED AT told|late       a hold was lost: before its deadline, or because that passed
//! failed KIND ASKED AT                   an acquire came to nothing
//! forcing ID FROM                        a lock is about to be forced free
//! forced ID FROM TO                      it was
//! usage KIB THREADS FILES TASKS          what the process takes
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

/// How often a holder looks whether it is still one.
const STEP: Duration = ms(4);

/// At how many looks in a row a deadline may have passed without a signal, on a busy machine.
const UNHEARD: u32 = 50;

/// The resource that a lock protects: a counter that each holder reads, and writes one higher. It
/// checks fencing tokens, on reading too: what a stale holder has read it must not write back. And a
/// second counter, which checks nothing.
///
/// Tokens are compared as text: a number of Lua is exact up to 2^53 only.
const ENTER: &str = "
    local last = redis.call('HGET', KEYS[1], 'token') or '0'
    local token = ARGV[1]
    local fresh = #token > #last or (#token == #last and token >= last)
    if fresh then redis.call('HSET', KEYS[1], 'token', token) end
    return {fresh and 1 or 0, tonumber(redis.call('HGET', KEYS[1], 'count') or '0'),
        tonumber(redis.call('HGET', KEYS[1], 'unchecked') or '0')}";

/// Its second half: writes both counters.
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

/// The work that goes on.
pub(crate) struct Workload {
    finishing: CancellationToken,
    tasks: JoinSet<()>,
    locks: Locks,
    /// Kept to the end, so that what the process takes can be compared with the beginning.
    resource: MultiplexedConnection,
    /// By how many millionths this process's clocks are faster than the machine's.
    rate: i64,
}

/// Begins to work.
pub(crate) async fn start(
    builder: impl Fn() -> LocksBuilder,
    resource: &str,
    tasks: u64,
    seed: u64,
    rate: i64,
) -> Workload {
    let locks = loop {
        // The server may be down at the moment.
        if let Ok(locks) = builder().lease(calls::LEASE).build().await {
            break locks;
        }
        sleep(ms(20)).await;
    };
    let client = redis::Client::open(resource).expect("a URL of Redis");
    // A process that was stopped hears an answer late, and has heard it all the same.
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
    /// Makes debounced calls as well, in so many tasks.
    pub(crate) fn debounce(&mut self, tasks: u64, seed: u64) {
        let calls = Calls::new(self.locks.clone(), self.rate);
        for task in 0..tasks {
            let random = Random::new(seed.wrapping_mul(1000).wrapping_add(500 + task));
            self.tasks.spawn(calls.clone().make(random, self.finishing.clone()));
        }
    }

    /// Lets each task finish what it does.
    pub(crate) async fn finish(mut self) {
        self.finishing.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no task panics");
        }
        self.locks.flush().await;
        // A connection that was given up a moment ago is closed by then.
        sleep(ms(500)).await;
        usage();
    }
}

struct Task {
    /// The one lock that it takes again and again, if it is such a task.
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
                // Said before it is done: who is killed in between says nothing afterwards.
                say(&format!("forcing {id} {from}"));
                let known = self.locks.lock(id).force_release().await.is_ok();
                // Without an answer it may be done while a request can still be on its way.
                let late = if known { 0 } else { 10_000_000_000 };
                say(&format!("forced {id} {from} {}", now() + late));
            }
            let asked = now();
            match self.acquire(id).await {
                Ok(Some(guard)) => self.section(id, asked, guard).await,
                Ok(None) => {}
                Err(kind) => {
                    say(&format!("failed {kind:?} {asked} {}", now()));
                    // As a service would, and not as fast as it can.
                    sleep(ms(self.random.below(30))).await;
                }
            }
        }
    }

    /// In one of the ways in which a lock can be asked for.
    async fn acquire(&mut self, id: &str) -> Result<Option<LockGuard>, ErrorKind> {
        // Of one that is held for long it is short, so that a fault outlasts it.
        let longest = if self.rival.is_some() { 500 } else { 1700 };
        let lease = ms(300 + self.random.below(longest));
        let mut lock = self.locks.lock(id).lease(lease).wait(ms(3000));
        if self.random.one_in(50) {
            lock = lock.hold_at_least(ms(self.random.below(20)));
        }
        let outcome = match self.random.below(10) {
            0 => lock.try_acquire().await,
            1 => lock.retry(3, ms(5)).acquire().await.map(Some),
            // Given up somewhere on the way.
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
        // One that is lost already is no section, but its token was granted.
        if watch.look() {
            let (is_fresh, count, unchecked): (bool, u64, u64) =
                self.script(ENTER, id, &[&token]).await;
            self.hold(&mut watch).await;
            let (count, unchecked) = ((count + 1).to_string(), (unchecked + 1).to_string());
            if is_fresh && self.random.one_in(20) {
                // Adds to what remains; whether it could is no matter.
                let _ = guard.extend(ms(100)).await;
            }
            // What was not fresh on reading is not written; that it was not is told below.
            let is_accepted =
                is_fresh && self.script(WRITE, id, &[&token, &count, &unchecked]).await;
            if !is_accepted && watch.look() {
                say(&format!("refused {id} {token} {asked} {}", now()));
            }
        }
        watch.say_if_lost(asked);
        let until = watch.valid_until.min(now());
        // A validity ends before the release is asked for.
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

    /// Holds it for a while, mostly a short one, and stops at a loss.
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

/// Holds it, and only listens: whoever looks at a guard has it look at the clock, and so hears of a
/// loss that nobody has signalled.
async fn listen(watch: &Watch<&LockGuard>, end: u64) {
    let signal = watch.guard.lost_token();
    // Each of these looks comes after a sleep, so this process was running meanwhile, and so was
    // its keeper: a stop of the process costs one look, however long it lasts.
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

/// Says what the process takes of the machine.
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
