//! The cost of ten thousand held locks for their process: memory, as counted by the allocator, and
//! CPU time. This is a separate program, so that the counting slows nothing else.
#![forbid(unsafe_code)]

use std::{
    alloc::System,
    error::Error,
    io::stdin,
    time::{Duration, Instant},
};

use lock::Locks;
use rustix::time::{ClockId, clock_gettime};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Arguments: the URL, the number of locks, the lease and the time to measure, both in
/// milliseconds. Prints `held BYTES` when it holds the locks, waits for a line, and at the end
/// prints `spent` with the CPU time and the elapsed time, both in nanoseconds.
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, count, lease, time] = &arguments[..] else { return Err("four arguments".into()) };
    let (count, lease, time) = (count.parse::<usize>()?, lease.parse()?, time.parse()?);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let locks = Locks::builder().url(url).lease(Duration::from_millis(lease)).build().await?;
        // Connections, buffers and the runtime's queues grow once, and must not count.
        hold(&locks, 100).await?;
        locks.flush().await;
        let before = in_use();
        let guards = hold(&locks, count).await?;
        println!("held {}", in_use().saturating_sub(before));
        stdin().read_line(&mut String::new())?;
        let (began, spent) = (Instant::now(), processor_time());
        tokio::time::sleep(Duration::from_millis(time)).await;
        let spent = processor_time() - spent;
        if let Some(lost) = guards.iter().find(|guard| !guard.is_held()) {
            return Err(format!("{} was lost", lost.id()).into());
        }
        println!("spent {} {}", spent.as_nanos(), began.elapsed().as_nanos());
        drop(guards);
        locks.flush().await;
        Ok(())
    })
}

async fn hold(locks: &Locks, count: usize) -> Result<Vec<lock::LockGuard>, Box<dyn Error>> {
    let mut guards = Vec::with_capacity(count);
    let mut wanted = JoinSet::new();
    for number in 0..count {
        wanted.spawn(locks.lock(format!("invoice-{number}")).acquire());
        // Not all at once: waiting tasks also use memory.
        if wanted.len() >= 64
            && let Some(guard) = wanted.join_next().await
        {
            guards.push(guard??);
        }
    }
    while let Some(guard) = wanted.join_next().await {
        guards.push(guard??);
    }
    Ok(guards)
}

fn in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
