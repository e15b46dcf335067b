//! The world with Sentinels: a primary and two replicas, each of which becomes the primary in turn.
//!
//! Every fault ends in a failover. Replication is asynchronous, so grants around its beginning may
//! be lost: that time is recorded as a loss of data. It ends a second after the first Sentinel has
//! published `+switch-master`. From then on nothing excuses two holders: no client may ask the old
//! primary for a lock, although it still believes for ten more seconds that it is the primary.

use std::{iter, time::Duration};

use lock_tests::{Random, RedisServer, SentinelEvents, Sentinels, eventually, ms, now};
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

use super::{
    end::End,
    prober::Prober,
    timings::{NEXT_LOCK, Timings},
    world::{Clocks, Versions, World, ask, nanos},
};

/// How many replicas follow the primary.
pub(super) const REPLICAS: u64 = 2;

/// How many processes lock.
const CLIENTS: usize = 3;

/// The causes of failovers.
pub(super) const KINDS: [&str; 5] = [
    "failover by command",
    "primary killed",
    "primary stopped",
    "primary cut off",
    "Sentinels stopped",
];

/// An additional failover, begun by a Sentinel that took a slow server for dead.
const UNASKED: &str = "failover that nobody asked for";

/// A further measurement: how soon the old primary is no longer asked.
const LAST_SCRIPT: &str = "from the first Sentinel's word to the last script on the old primary";

/// How soon after the first Sentinel's message every client knows of a failover: each is subscribed
/// to all Sentinels, and asks each of them once a second.
const HEARD: Duration = Duration::from_secs(1);

/// Bound on a failover; a failed election is repeated after twenty seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The minimum of holds while no Sentinel answers.
const WITHOUT_SENTINELS: usize = 300;

/// How long a failover took.
struct Timing {
    next_lock: Duration,
    /// `None` if there was no script.
    last_script: Option<Duration>,
}

pub(super) struct Failovers {
    seed: u64,
    world: World,
    sentinels: Sentinels,
    events: SentinelEvents,
    prober: Prober,
}

impl Failovers {
    pub(super) async fn start(seed: u64, min_replicas: Option<u64>) -> Self {
        let sentinels = Sentinels::start_guarded().await;
        let url = sentinels.url();
        let versions = match min_replicas {
            None => Versions::Two,
            Some(min_replicas) => Versions::One { min_replicas },
        };
        Self {
            seed,
            world: World::start(
                seed,
                iter::repeat_n(url.clone(), CLIENTS),
                versions,
                Clocks::Shared,
            ),
            events: SentinelEvents::of(&sentinels).await,
            sentinels,
            prober: Prober::start(url),
        }
    }

    /// Runs this many failovers of each kind. The Sentinels take ten seconds to make an old primary
    /// a replica: with `in_a_hurry`, only one kind waits for that, and the others are cut short.
    pub(super) async fn run(&self, each: u64, in_a_hurry: bool) -> Timings {
        // Clients that have not connected yet can learn the primary's address only from the
        // Sentinels.
        self.world.ready().await;
        let mut random = Random::new(self.seed);
        let (mut bag, mut timings) = (Vec::new(), Timings::default());
        for _ in 0..each * KINDS.len() as u64 {
            let kind = random.draw(&mut bag, || KINDS.to_vec());
            let patient = kind == "primary stopped" || !in_a_hurry && random.one_in(2);
            let failover = async {
                loop {
                    match self.fail_over(kind, patient, &mut random).await {
                        Some(timing) => return timing,
                        None => self.world.count(UNASKED),
                    }
                }
            };
            let Timing { next_lock, last_script } = self.world.listen_until(failover).await;
            timings.add(NEXT_LOCK, kind, next_lock);
            if let Some(last_script) = last_script {
                timings.add(LAST_SCRIPT, kind, last_script);
            }
            self.world.count(kind);
        }
        timings
    }

    /// Lets all clients finish, and checks what is left.
    pub(super) async fn end(self) -> End {
        let primary = self.sentinels.in_order().await;
        self.prober.finish();
        self.world.finish().await;
        self.world.end(&[primary], &self.sentinels.url(), ms(2000)).await
    }

    /// One fault, from an orderly state until the former primary follows the new one. `None` if
    /// there was another failover that was not asked for: the times mean nothing then.
    async fn fail_over(&self, kind: &str, patient: bool, random: &mut Random) -> Option<Timing> {
        let old = self.sentinels.in_order().await;
        sleep(ms(random.below(500))).await;
        let from = self.begin(kind, old, random).await;
        let promoted = self.events.first(from, "+promoted-slave", PATIENCE).await;
        let new = self.sentinels.at(promoted.port(3));
        let granted = self.prober.first_lock_on(new).await;
        let switched = self.events.first(from, "+switch-master", PATIENCE).await;
        let heard = switched.at + nanos(HEARD);
        let last_script = match kind {
            "primary killed" | "primary stopped" => {
                sleep(Duration::from_nanos(heard.saturating_sub(now()))).await;
                None
            }
            _ => last_script(old, heard).await,
        };
        self.world.forgetting(from);

        match kind {
            "primary killed" => {
                sleep(ms(random.below(1000))).await;
                block_in_place(|| old.restart());
            }
            "primary stopped" => {
                old.continue_process();
                // It now executes requests from before, whose clients have long given up.
                sleep(ms(500)).await;
            }
            "primary cut off" => {
                sleep(ms(random.below(1000))).await;
                self.sentinels.let_in(old).await;
            }
            _ => {}
        }
        let before = scripts(old).await;
        if !patient {
            sleep(ms(500 + random.below(1500))).await;
            if self.sentinels.primary().await.port() == new.port() {
                ask(old, &format!("REPLICAOF 127.0.0.1 {}", new.port())).await;
            }
        }
        self.sentinels.in_order().await;
        let events = self.events.since(from).await;
        let mut moves = events.iter().filter(|event| event.name == "+switch-master");
        if moves.any(|event| event.port(4) != new.port()) {
            println!("{kind}, and one more failover: {events:#?}");
            sleep(HEARD).await;
            self.world.forgetting(from);
            return None;
        }
        let after = scripts(old).await;
        if after != before {
            let what = format!("{kind}: {} scripts on the old primary", after - before);
            self.world.violation(what);
        }
        let granted = timeout(PATIENCE, granted).await.expect("no lock is granted");
        Some(Timing {
            next_lock: since(promoted.at, granted.expect("the prober goes on")),
            last_script: last_script.map(|at| since(switched.at, at)),
        })
    }

    /// Causes a failover, and returns the beginning of the time in which grants may be lost.
    async fn begin(&self, kind: &str, old: &RedisServer, random: &mut Random) -> u64 {
        let mut from = now();
        let sentinel = random.below(3) as usize;
        match kind {
            "failover by command" => self.sentinels.command_failover(sentinel).await,
            "primary killed" => old.kill(),
            "primary stopped" => old.stop_process(),
            "primary cut off" => self.sentinels.cut_off(old).await,
            "Sentinels stopped" => {
                self.sentinels.sentinels().iter().for_each(RedisServer::stop_process);
                self.without_sentinels(old, random).await;
                from = now();
                self.sentinels.sentinels().iter().for_each(RedisServer::continue_process);
                self.sentinels.command_failover(sentinel).await;
            }
            unknown => unreachable!("{unknown}"),
        }
        from
    }

    /// While no Sentinel answers, the known primary goes on serving, also over new connections.
    async fn without_sentinels(&self, primary: &RedisServer, random: &mut Random) {
        sleep(ms(random.below(500))).await;
        for which in ["normal", "pubsub"] {
            ask(primary, &format!("CLIENT KILL TYPE {which} SKIPME yes")).await;
        }
        let before = self.world.acquisitions();
        eventually(ms(20_000), async || self.world.acquisitions() >= before + WITHOUT_SENTINELS)
            .await;
        // A Sentinel that was stopped for more than two seconds waits for thirty more before it
        // does anything; only newer versions can be given another limit.
        if !RedisServer::version().is_before(7, 0) {
            sleep(ms(1000 + random.below(3000))).await;
        }
    }
}

/// How many scripts a server has run for its own clients. A replica runs none: it is sent their
/// effects.
async fn scripts(server: &RedisServer) -> u64 {
    // Its connections are closed when it becomes a replica.
    let counts = eventually(ms(5000), || server.try_commands()).await;
    counts.client_commands(&["evalsha", "eval"])
}

/// When a server has run its last script before `until`, to the precision of the looks.
async fn last_script(server: &RedisServer, until: u64) -> Option<u64> {
    let (mut last, mut known) = (None, scripts(server).await);
    while now() < until {
        sleep(ms(5)).await;
        let scripts = scripts(server).await;
        if scripts != known {
            (last, known) = (Some(now()), scripts);
        }
    }
    last
}

fn since(before: u64, after: u64) -> Duration {
    Duration::from_nanos(after.saturating_sub(before))
}
