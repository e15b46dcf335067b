//! The cost of a Cluster compared with one server, in one run: renewals of ten thousand locks, and
//! hand-overs of a lock from client to client.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use lock::{LockGuard, Locks};
use lock_tests::{Cluster, RedisServer};
use tokio::{task::JoinSet, time::sleep};

const HELD: usize = 10_000;
const LEASE: Duration = Duration::from_secs(10);
/// Two periods of a renewal each.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(6667);
const PASSED_ON: usize = 2000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The arguments are cargo's own, and are ignored.
    let one = RedisServer::builder().cluster_of_one(false).start();
    let cluster = Cluster::start().await;
    let nodes = cluster.primaries().await;
    let nodes: Vec<&RedisServer> = nodes.iter().map(|node| &**node).collect();

    let idle = Spent::of(&nodes).await?;
    let began = Instant::now();
    sleep(ROUND).await;
    let idle = (Spent::of(&nodes).await?.cpu - idle.cpu) / began.elapsed().as_secs_f64();
    println!("a Cluster of {} that does nothing: {:.2} % of a core", nodes.len(), idle * 100.0);

    let single = Locks::builder().url(one.url()).lease(LEASE).build().await?;
    let many = Locks::builder().url(cluster.url()).lease(LEASE).build().await?;
    let held = (hold(&single).await?, hold(&many).await?);
    sleep(LEASE).await;
    let mut ratios = Vec::new();
    println!("\nrenewing {HELD} locks, lease {LEASE:?}; both at once, each on servers of its own");
    for _ in 0..ROUNDS {
        let before = (Spent::of(&[&one]).await?, Spent::of(&nodes).await?, Instant::now());
        sleep(ROUND).await;
        let time = before.2.elapsed().as_secs_f64();
        let one = Spent::of(&[&one]).await?.since(before.0);
        let many = Spent::of(&nodes).await?.since(before.1);
        let own = many.cpu - idle * time;
        let each = |cpu: f64, locks: f64| cpu / locks * 1e6;
        let ratio = each(own, many.locks) / each(one.cpu, one.locks);
        println!(
            "one server: {:.0} locks, {:.2} us of it a lock, {:.2} writes for 100 locks | Cluster: {:.0} \
             locks, {:.2} us a lock ({:.2} with what it costs idle), {:.2} writes for 100 locks and node | \
             {ratio:.2} x",
            one.locks,
            each(one.cpu, one.locks),
            one.reads / one.locks * 100.0,
            many.locks,
            each(own, many.locks),
            each(many.cpu, many.locks),
            many.reads / many.locks * 100.0 / nodes.len() as f64,
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "CPU of the servers a lock, against one server: {:.2} x in the middle",
        ratios[ROUNDS / 2]
    );
    for guard in held.0.iter().chain(&held.1) {
        assert!(guard.is_held(), "{} was lost", guard.id());
    }
    drop(held);

    println!("\n{PASSED_ON} hand-overs between two clients, from the release to the next guard");
    let slots = [1000, 7000, 13_000].map(|slot| format!("{{{}}}", Cluster::word_of(slot)));
    for (what, url, id) in [
        ("one server", one.url(), "passed"),
        ("Cluster, first node", cluster.url(), &*slots[0]),
        ("Cluster, second node", cluster.url(), &*slots[1]),
        ("Cluster, third node", cluster.url(), &*slots[2]),
    ] {
        let mut times = pass_on(&url, id).await?;
        times.sort();
        let at = |part: usize| times[times.len() * part / 1000];
        println!("{what}: p50 {:?}, p99 {:?}, max {:?}", at(500), at(990), times[times.len() - 1]);
    }
    Ok(())
}

/// Two clients take turns: each waits while the other holds the lock.
async fn pass_on(url: &str, id: &str) -> Result<Vec<Duration>, Box<dyn Error>> {
    let clients = [Locks::connect(url).await?, Locks::connect(url).await?];
    let mut held = clients[0].lock(id).acquire().await?;
    let mut times = Vec::new();
    for turn in 0..PASSED_ON {
        let lock = clients[(turn + 1) % 2].lock(id);
        let waiter = tokio::spawn(async move { (lock.acquire().await, Instant::now()) });
        // Long enough for the waiter to be in line.
        sleep(Duration::from_millis(2)).await;
        let released_at = Instant::now();
        drop(held);
        let (next, had_at) = waiter.await?;
        held = next?;
        times.push(had_at - released_at);
    }
    Ok(times)
}

async fn hold(locks: &Locks) -> Result<Vec<LockGuard>, Box<dyn Error>> {
    let mut guards = Vec::with_capacity(HELD);
    let mut wanted = JoinSet::new();
    for number in 0..HELD {
        wanted.spawn(locks.lock(format!("invoice-{number}")).acquire());
        if wanted.len() >= 64
            && let Some(guard) = wanted.join_next().await
        {
            guards.push(guard??);
        }
    }
    for guard in wanted.join_all().await {
        guards.push(guard?);
    }
    Ok(guards)
}

/// The resources that servers have used since they started.
struct Spent {
    /// CPU time, in seconds.
    cpu: f64,
    /// Reads from connections: mostly one for each write of a client.
    reads: f64,
    /// Locks that a script has read: a renewal reads each lock once.
    locks: f64,
}

impl Spent {
    async fn of(servers: &[&RedisServer]) -> Result<Self, Box<dyn Error>> {
        let mut all = Self { cpu: 0.0, reads: 0.0, locks: 0.0 };
        for server in servers {
            let mut info = redis::cmd("INFO");
            let info: String =
                info.arg("everything").query_async(&mut server.connection().await).await?;
            let field = |name: &str| {
                let line = info.lines().find_map(|line| line.strip_prefix(name))?;
                line.split(',').next()?.trim().parse::<f64>().ok()
            };
            let field = |name: &str| field(name).ok_or_else(|| format!("INFO has no {name}"));
            all.cpu += field("used_cpu_user:")? + field("used_cpu_sys:")?;
            all.reads += field("total_reads_processed:")?;
            all.locks += field("cmdstat_get:calls=").unwrap_or(0.0);
        }
        Ok(all)
    }

    fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
            reads: self.reads - before.reads,
            locks: self.locks - before.locks,
        }
    }
}
