//! A process that uses the library as a test tells it: one line in, lines out.
//!
//! ```text
//! connect URL                        ready
//! hold ID LEASE                      held TOKEN AT          and holds it until `release`
//! release                            released AT
//! wait ID LEASE WAIT                 waiting, then held TOKEN AT, or failed KIND AT
//! crowd ID TASKS EACH HOLD WAIT      section TOKEN START END  for each, then done
//! ```
//!
//! Times are in milliseconds; AT, START and END in nanoseconds of the machine's monotonic clock,
//! which all processes share. It ends with its input.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead, Write, stdin, stdout},
    time::{Duration, Instant},
};

use lock::{LockGuard, Locks};
use rustix::time::{ClockId, clock_gettime};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut lines = lines();
    let mut locks: Option<Locks> = None;
    let mut guard: Option<LockGuard> = None;
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.split(' ').collect();
        let known = || locks.as_ref().expect("`connect` comes first");
        match words[..] {
            ["connect", url] => {
                locks = Some(Locks::connect(url).await.expect("the server is up"));
                say("ready");
            }
            ["hold" | "wait", id, lease, ref wait @ ..] => {
                let wait = wait.first().map_or(Duration::from_secs(10), |wait| millis(wait));
                let acquire = known().lock(id).lease(millis(lease)).wait(wait).acquire();
                let mut acquire = std::pin::pin!(acquire);
                // The first poll hands the request over to the keeper.
                let first = futures_util::poll!(acquire.as_mut());
                say("waiting");
                let acquired = match first {
                    std::task::Poll::Ready(acquired) => acquired,
                    std::task::Poll::Pending => acquire.await,
                };
                match acquired {
                    Ok(held) => {
                        say(&format!("held {} {}", held.fencing_token(), now()));
                        guard = Some(held);
                    }
                    Err(error) => say(&format!("failed {:?} {}", error.kind(), now())),
                }
            }
            ["release"] => {
                guard.take().expect("something is held").release().await.expect("it is ours");
                say(&format!("released {}", now()));
            }
            ["crowd", id, tasks, each, hold, wait] => {
                crowd(known(), id, number(tasks), number(each), millis(hold), millis(wait)).await;
                known().flush().await;
                say("done");
            }
            _ => panic!("not understood: {line}"),
        }
    }
}

/// So many tasks, each of which takes the lock and holds it so often.
async fn crowd(locks: &Locks, id: &str, tasks: u64, each: u64, hold: Duration, wait: Duration) {
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let lock = locks.lock(id).wait(wait);
        crowd.spawn(async move {
            for _ in 0..each {
                let guard = lock.acquire().await.expect("everybody gets it in time");
                let start = now();
                // Not tokio's sleep, which takes up to a millisecond more.
                let until = Instant::now() + hold;
                while Instant::now() < until {
                    tokio::task::yield_now().await;
                }
                assert!(guard.is_held());
                say(&format!("section {} {start} {}", guard.fencing_token(), now()));
            }
        });
    }
    while let Some(ended) = crowd.join_next().await {
        ended.expect("no task panics");
    }
}

/// The lines of the input; nothing more once it ends.
fn lines() -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        // The test is gone, or wants an end, whatever goes on.
        std::process::exit(0);
    });
    lines
}

fn say(line: &str) {
    let mut out = stdout().lock();
    // A test that does not listen any more is a test that is over.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn millis(word: &str) -> Duration {
    Duration::from_millis(number(word))
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}
