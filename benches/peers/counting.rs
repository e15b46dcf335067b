//! Figures that are counted instead of timed: commands, memory, CPU time.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Duration,
};

use lock::Locks;
use lock_tests::RedisServer;
use redis::Client;
use rslock::LockManager;
use tokio::task::JoinSet;

use crate::{LEASE, contenders::Failure};

/// The number of locks that are held.
pub(crate) const HELD: usize = 10_000;

/// The cost of holding many locks.
pub(crate) struct Footprint {
    /// Commands in the time in which each lock is renewed once.
    pub(crate) commands: f64,
    /// CPU time, as a fraction of a core.
    pub(crate) processor: f64,
    /// Bytes per lock.
    pub(crate) memory: f64,
}

/// Holds the locks in a separate process, for three renewal periods.
pub(crate) async fn footprint() -> Result<Footprint, Failure> {
    let server = RedisServer::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_footprint"))
        .args([&server.url(), &HELD.to_string(), &LEASE.as_millis().to_string()])
        .arg(LEASE.as_millis().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the child's output is piped")?;
    let mut output = BufReader::new(output).lines();
    let held = numbers(output.next().transpose()?, "held")?;
    let before = server.commands().await;
    writeln!(child.stdin.as_mut().ok_or("the child's input is piped")?)?;
    let spent = tokio::task::spawn_blocking(move || numbers(output.next().transpose()?, "spent"));
    let spent = spent.await??;
    let commands = server.commands().await.minus(&before).client_commands(&["evalsha", "eval"]);
    child.wait()?;
    // A lease has three renewal periods.
    Ok(Footprint {
        commands: commands as f64 / 3.0,
        processor: spent[0] / spent[1],
        memory: held[0] / HELD as f64,
    })
}

fn numbers(line: Option<String>, word: &str) -> Result<Vec<f64>, Failure> {
    let line = line.ok_or("the child has failed")?;
    let rest = line.strip_prefix(word).ok_or_else(|| format!("not expected: {line}"))?;
    rest.split_whitespace().map(|number| Ok(number.parse()?)).collect()
}

/// Returns the commands in five seconds of a process that waits for a lock with ten callers, and of
/// one caller of rslock, which tries again and again.
pub(crate) async fn waiting(time: Duration) -> Result<(f64, f64), Failure> {
    let server = RedisServer::start();
    let holder = Locks::builder().url(server.url()).lease(LEASE).build().await?;
    let guard = holder.lock("hot").acquire().await?;
    let locks = Locks::builder().url(server.url()).lease(LEASE).build().await?;
    let manager = LockManager::new(vec![server.url()]);
    let mut waiting = JoinSet::new();
    for _ in 0..10 {
        let lock = locks.lock("hot").wait(Duration::from_secs(300));
        waiting.spawn(async move { lock.acquire().await.map(drop).map_err(Failure::from) });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ours = rate(&server, &["evalsha", "eval"], time).await;
    // The holder renews three times in a lease.
    let renewals = 5.0 * 3.0 / LEASE.as_secs_f64();
    waiting.shutdown().await;
    let theirs = {
        waiting.spawn(async move {
            let lock = manager.acquire_no_guard("lock:hot", LEASE).await;
            lock.map(drop).map_err(|error| format!("{error:?}").into())
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        rate(&server, &["set", "evalsha", "eval"], time / 3).await
    };
    waiting.shutdown().await;
    drop(guard);
    Ok(((ours - renewals).max(0.0), (theirs - renewals).max(0.0)))
}

/// Commands in five seconds.
async fn rate(server: &RedisServer, names: &[&str], time: Duration) -> f64 {
    let before = server.commands().await;
    tokio::time::sleep(time).await;
    let commands = server.commands().await.minus(&before).client_commands(names);
    commands as f64 * 5.0 / time.as_secs_f64()
}

/// Returns the commands for a thousand calls in one window: ours, and those of @upstash/lock.
pub(crate) async fn debounce() -> Result<(f64, f64), Failure> {
    const CALLS: usize = 1000;
    const WAIT: Duration = Duration::from_secs(1);
    let server = RedisServer::start();
    let locks = Locks::builder().url(server.url()).build().await?;
    let before = server.commands().await;
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let debounce = locks.debounce("reindex").wait(WAIT);
        calls.spawn(async move { debounce.call(|| async {}).await });
    }
    let mut runs = 0;
    while let Some(call) = calls.join_next().await {
        runs += usize::from(call??.is_some());
    }
    locks.flush().await;
    if runs != 1 {
        return Err(format!("{runs} runs of one burst").into());
    }
    let ours = server.commands().await.minus(&before).client_commands(&["evalsha", "eval"]);

    // For each call, @upstash/lock increments a counter, waits, and checks whether the call was the
    // last.
    let connection = Client::open(server.url())?.get_multiplexed_async_connection().await?;
    let before = server.commands().await;
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let mut connection = connection.clone();
        calls.spawn(async move {
            let mine: i64 = redis::cmd("INCR").arg("seed").query_async(&mut connection).await?;
            tokio::time::sleep(WAIT).await;
            let last: i64 = redis::cmd("GET").arg("seed").query_async(&mut connection).await?;
            Ok::<_, Failure>(mine == last)
        });
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    let theirs = server.commands().await.minus(&before).client_commands(&["incr", "get"]);
    Ok((ours as f64, theirs as f64))
}
