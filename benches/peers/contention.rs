//! All tasks want one lock: in one process, and in two.
//!
//! A round lasts a fixed time, and counts the acquisitions. The beginning and end of each hold are
//! recorded by the machine's monotonic clock, which all processes share: two holds that overlap
//! make the round void.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    contenders::Failure,
    waiters::{NAMES, Waiter},
};

/// Tasks that compete for one lock.
#[derive(Clone, Copy)]
pub(crate) struct Contention {
    /// The number of processes.
    pub(crate) processes: usize,
    /// The number of tasks in each process.
    pub(crate) tasks: usize,
    /// How long each task holds the lock.
    pub(crate) hold: Duration,
}

/// The result of one round of one contender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Acquisitions a second.
    pub(crate) rate: f64,
    /// The median wait, in seconds.
    pub(crate) median_wait: f64,
    /// The 99th percentile of the waits, in seconds.
    pub(crate) worst_wait: f64,
}

/// One hold of the lock, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy)]
struct Section {
    asked: u64,
    start: u64,
    end: u64,
}

impl Contention {
    /// Runs the rounds, with every contender once in each, and returns the outcomes of each
    /// contender.
    pub(crate) async fn measure(
        self,
        names: &[&'static str],
        url: &str,
        rounds: usize,
        time: Duration,
    ) -> Result<Vec<Vec<Outcome>>, Failure> {
        let mut outcomes = vec![Vec::new(); names.len()];
        for round in 0..rounds {
            for step in 0..names.len() {
                let place = (round + step) % names.len();
                let sections = self.round(names[place], url, time).await;
                let sections =
                    sections.map_err(|failure| format!("{}: {failure}", names[place]))?;
                outcomes[place].push(judge(sections, time)?);
            }
        }
        Ok(outcomes)
    }

    async fn round(self, name: &str, url: &str, time: Duration) -> Result<Vec<Section>, Failure> {
        if self.processes == 1 {
            let waiter = Waiter::connect(name, url).await?;
            return crowd(&waiter, self.tasks, self.hold, now() + nanos(time)).await;
        }
        let (name, url, this) = (name.to_owned(), url.to_owned(), self);
        tokio::task::spawn_blocking(move || this.in_processes(&name, &url, time)).await?
    }

    /// Starts the processes, lets them begin together, and gathers their sections.
    fn in_processes(self, name: &str, url: &str, time: Duration) -> Result<Vec<Section>, Failure> {
        let mut children = Vec::new();
        for _ in 0..self.processes {
            let child = Command::new(std::env::current_exe()?)
                .args(["--worker", name, url, &self.tasks.to_string()])
                .arg(self.hold.as_micros().to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            children.push(Running(child));
        }
        let mut outputs = Vec::new();
        for Running(child) in &mut children {
            let output = child.stdout.take().ok_or("the child's output is piped")?;
            let mut output = BufReader::new(output).lines();
            if output.next().transpose()?.as_deref() != Some("ready") {
                return Err("a child did not get ready".into());
            }
            outputs.push(output);
        }
        let until = now() + nanos(time);
        for Running(child) in &mut children {
            let input = child.stdin.as_mut().ok_or("the child's input is piped")?;
            writeln!(input, "{until}")?;
        }
        let mut sections = Vec::new();
        for output in outputs {
            for line in output {
                let line = line?;
                let mut numbers = line.split(' ').map(str::parse::<u64>);
                let mut next =
                    || numbers.next().ok_or("a number is missing")?.map_err(Failure::from);
                sections.push(Section { asked: next()?, start: next()?, end: next()? });
            }
        }
        Ok(sections)
    }
}

/// A child that does not outlive the benchmark.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs in a child: prints that it is ready, reads the end of the round, and writes its sections.
pub(crate) async fn work(arguments: &[String]) -> Result<(), Failure> {
    let [name, url, tasks, hold] = arguments else { return Err("four arguments".into()) };
    let waiter = Waiter::connect(name, url).await?;
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let hold = Duration::from_micros(hold.parse()?);
    let sections = crowd(&waiter, tasks.parse()?, hold, line.trim().parse()?).await?;
    let mut out = std::io::stdout().lock();
    for Section { asked, start, end } in sections {
        writeln!(out, "{asked} {start} {end}")?;
    }
    Ok(())
}

/// Runs this number of tasks, each of which acquires the lock again and again until that time.
async fn crowd(
    waiter: &Waiter,
    tasks: usize,
    hold: Duration,
    until: u64,
) -> Result<Vec<Section>, Failure> {
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let waiter = waiter.clone();
        crowd.spawn(async move {
            let mut sections = Vec::new();
            loop {
                let asked = now();
                if asked >= until {
                    return Ok::<_, Failure>(sections);
                }
                let held = waiter.take().await?;
                let start = now();
                // Not a timer: its millisecond would add to each hold.
                let release_at = Instant::now() + hold;
                while !hold.is_zero() && Instant::now() < release_at {
                    tokio::task::yield_now().await;
                }
                // Recorded before the release, so that no other task can have begun.
                sections.push(Section { asked, start, end: now() });
                waiter.leave(held).await?;
            }
        });
    }
    let mut sections = Vec::new();
    while let Some(ended) = crowd.join_next().await {
        sections.extend(ended??);
    }
    waiter.settle().await;
    Ok(sections)
}

/// Computes the outcome. The round is void if two tasks held the lock at once.
fn judge(mut sections: Vec<Section>, time: Duration) -> Result<Outcome, Failure> {
    if sections.is_empty() {
        return Err("no task ever got the lock".into());
    }
    sections.sort_by_key(|section| section.start);
    if sections.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err("two tasks held the lock at once".into());
    }
    let first = sections.iter().map(|section| section.asked).min().unwrap_or(0);
    let last = sections.last().map_or(0, |section| section.end);
    // A task that waits at the end of the time may wait much longer. That also counts.
    let took = Duration::from_nanos(last.saturating_sub(first)).max(time);
    let mut waits: Vec<u64> = sections.iter().map(|s| s.start - s.asked).collect();
    waits.sort_unstable();
    let wait = |share: f64| {
        let place = ((waits.len() - 1) as f64 * share).round() as usize;
        waits[place] as f64 / 1e9
    };
    Ok(Outcome {
        rate: sections.len() as f64 / took.as_secs_f64(),
        median_wait: wait(0.5),
        worst_wait: wait(0.99),
    })
}

/// The contenders, by their names in the table.
pub(crate) fn names() -> [&'static str; 4] {
    NAMES
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
