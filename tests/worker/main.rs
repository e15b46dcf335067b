//! A process that uses the library on a test's commands: one line in, lines out.
//!
//! ```text
//! connect URL                        ready
//! hold ID LEASE                      held TOKEN AT          and holds it until `release`
//! release                            released AT
//! lost                               lost AT                when what is held is lost
//! wait ID LEASE WAIT                 waiting, then held TOKEN AT, or failed KIND AT
//! crowd ID TASKS EACH HOLD WAIT      section TOKEN START END  for each, then done
//! durable URL LEASE WAIT             ready                  and runs durable calls from then on
//! call ID ARGUMENT                   called ID ARGUMENT NUMBER, or refused ID ARGUMENT
//! work URL RESOURCE TASKS SEED [MIN-REPLICAS]
//!                                    ready, then what workload.rs says
//! debounce TASKS SEED                what calls.rs says; comes after `work`
//! finish                             done                   when the work has ended
//! rate MILLIONTHS                    rate MEASURED          or it ends, if its clocks run otherwise
//! times                              times MACHINE BOOT MACHINE MONOTONIC MACHINE WALL
//! fork URL                           what fork.rs says, then done
//! subscribe and panic                ready                  each event of the library panics
//! subscribe and count                ready
//! events                             events NUMBER          those that say why there is no connection
//! tls WAY URL                        served WAKE-UPS PROVIDER, or refused PROVIDER KIND TEXT
//! install provider                   installed TRUE-OR-FALSE
//! ```
//!
//! Each durable run is written to the list `log` of its server: `start` and `end`, this process,
//! id, argument, generation and the server's time in microseconds.
//!
//! Times are in milliseconds; AT, START and END in nanoseconds of the machine's monotonic clock,
//! which all processes share, whatever clocks they live by. The process ends with its input.
#![forbid(unsafe_code)]

mod calls;
mod clocks;
mod fork;
mod subscriber;
mod tls;
mod watch;
mod workload;

use std::{
    io::{BufRead, Write, stdin, stdout},
    time::{Duration, Instant},
};

use lock::{Durable, DurableRun, LockGuard, Locks};
use lock_tests::now;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut lines = lines();
    let mut locks: Option<Locks> = None;
    let mut guard: Option<LockGuard> = None;
    let mut durable: Option<Durable<u64>> = None;
    let mut work: Option<workload::Workload> = None;
    // Until it is set.
    let mut rate = 0;
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
                // The first poll passes the request to the keeper.
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
            ["lost"] => {
                guard.as_ref().expect("something is held").lost().await;
                say(&format!("lost {}", now()));
            }
            ["work", url, resource, tasks, seed, ref replicas @ ..] => {
                let replicas = replicas.first().map_or(0, |replicas| number(replicas) as usize);
                let builder = || Locks::builder().url(url).min_replicas(replicas);
                let (tasks, seed) = (number(tasks), number(seed));
                work = Some(workload::start(builder, resource, tasks, seed, rate).await);
                say("ready");
            }
            ["debounce", tasks, seed] => {
                let work = work.as_mut().expect("`work` comes first");
                work.debounce(number(tasks), number(seed));
            }
            ["rate", millionths] => {
                rate = millionths.parse().expect("a number");
                say(&format!("rate {}", clocks::check(rate)));
            }
            ["times"] => say(&clocks::times()),
            ["fork", url] => {
                // It has a runtime of its own, which must not be nested in another.
                let url = url.to_owned();
                let forked = std::thread::spawn(move || fork::run(&url));
                forked.join().expect("the parent's part ends");
                say("done");
            }
            ["subscribe", "and", "count"] => {
                tracing::subscriber::set_global_default(subscriber::Counts).expect("the first");
                say("ready");
            }
            ["tls", ref way @ .., url] => say(&tls::serve(way, url).await),
            ["install", "provider"] => say(&tls::install_provider()),
            ["events"] => say(&format!("events {}", subscriber::counted())),
            ["subscribe", "and", "panic"] => {
                tracing::subscriber::set_global_default(subscriber::Panics).expect("the first");
                say("ready");
            }
            ["finish"] => {
                work.take().expect("`work` comes first").finish().await;
                say("done");
            }
            ["crowd", id, tasks, each, hold, wait] => {
                crowd(known(), id, number(tasks), number(each), millis(hold), millis(wait)).await;
                known().flush().await;
                say("done");
            }
            ["durable", url, lease, wait] => {
                durable = Some(runs(url, millis(lease), millis(wait)).await);
                say("ready");
            }
            ["call", id, argument] => {
                let durable = durable.as_ref().expect("`durable` comes first").id(id);
                let (id, argument) = (id.to_owned(), number(argument));
                tokio::spawn(async move {
                    match durable.call(&argument).await {
                        Ok(receipt) => say(&format!("called {id} {argument} {}", receipt.call())),
                        Err(_) => say(&format!("refused {id} {argument}")),
                    }
                });
            }
            _ => panic!("not understood: {line}"),
        }
    }
}

/// Starts `tasks` tasks, each of which acquires and holds the lock `each` times.
async fn crowd(locks: &Locks, id: &str, tasks: u64, each: u64, hold: Duration, wait: Duration) {
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let lock = locks.lock(id).wait(wait);
        crowd.spawn(async move {
            for _ in 0..each {
                let guard = lock.acquire().await.expect("every task gets it in time");
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

/// A durable function that records its runs.
async fn runs(url: &str, lease: Duration, wait: Duration) -> Durable<u64> {
    let locks = Locks::builder().url(url).lease(lease).build().await.expect("the server is up");
    let client = redis::Client::open(url).expect("a URL of Redis");
    let log = client.get_multiplexed_async_connection().await.expect("the server is up");
    let run = move |argument: u64, run: DurableRun| {
        let log = log.clone();
        async move {
            let (id, generation) = (run.id().to_owned(), run.generation());
            let write = async |what: &str| {
                let entry = format!("{what} {} {id} {argument} {generation}", std::process::id());
                let script = redis::Script::new(
                    "local time = redis.call('TIME') \
                     redis.call('RPUSH', 'log', ARGV[1] .. ' ' .. time[1] .. string.format('%06d', time[2]))",
                );
                let mut log = log.clone();
                let _: () = script
                    .arg(entry)
                    .invoke_async(&mut log)
                    .await
                    .map_err(|error| error.to_string())?;
                Ok::<_, String>(())
            };
            write("start").await?;
            tokio::time::sleep(Duration::from_millis(argument % 4)).await;
            write("end").await
        }
    };
    locks.debounce("any").wait(wait).durable("run", run).expect("it can be registered")
}

/// The lines of the input, until it ends.
fn lines() -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        // The test is gone, or wants this process to end whatever it is doing.
        std::process::exit(0);
    });
    lines
}

fn say(line: &str) {
    let mut out = stdout().lock();
    // A test that no longer listens is over.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn millis(word: &str) -> Duration {
    Duration::from_millis(number(word))
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}
