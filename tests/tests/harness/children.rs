//! A test process leaves nothing behind, even when it is killed.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use lock_tests::{HostClock, RedisServer, Worker, end_with_this_process, eventually};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::SOON;

/// The process of the other test: it starts children, prints them, and waits for the end of its
/// input.
#[test]
#[ignore = "run as a process by the test below; it ends with its input"]
fn a_process_with_children() {
    let (server, stopped) =
        (RedisServer::start(), RedisServer::builder().append_only(true).start());
    stopped.stop_process();
    let (worker, stopped_worker) = (worker(), worker());
    stopped_worker.stop();
    let clock = HostClock::build();
    let by_clock = RedisServer::builder().clock(&clock).start();
    let servers = [&server, &stopped, &by_clock].map(RedisServer::process_id);
    let ids = servers.into_iter().chain([worker.id(), stopped_worker.id()]);
    let ids: Vec<_> = ids.map(|id| id.to_string()).collect();
    let directory = server.directory().parent().unwrap();
    eprintln!("children {} in {}", ids.join(" "), directory.display());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn worker() -> Worker {
    Worker::start(env!("CARGO_BIN_EXE_worker"))
}

/// The process, its directory, and its children.
struct Family {
    process: Child,
    directory: PathBuf,
    children: Vec<Pid>,
}

impl Family {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "harness::children::a_process_with_children"]);
        command.args(["--ignored", "--nocapture"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = end_with_this_process(&mut command).spawn().unwrap();
        let mut said = Vec::new();
        for line in BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap) {
            if let Some((ids, directory)) =
                line.strip_prefix("children ").and_then(|rest| rest.split_once(" in "))
            {
                let ids = ids.split(' ').map(|id| Pid::from_raw(id.parse().unwrap()).unwrap());
                return Self { process, directory: directory.into(), children: ids.collect() };
            }
            said.push(line);
        }
        panic!("it has ended with {}: {said:?}", process.wait().unwrap());
    }

    /// What is left of it, apart from the process itself.
    fn left(&self) -> (Vec<Pid>, bool) {
        let living = self.children.iter().copied().filter(|id| lives(*id));
        (living.collect(), self.directory.exists())
    }
}

/// For a failing test.
impl Drop for Family {
    fn drop(&mut self) {
        for id in self.left().0 {
            let _ = kill_process(id, Signal::KILL);
        }
    }
}

/// Whether a process runs or is stopped. A zombie does not count.
fn lives(id: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero()));
    let is_dead = state.is_ok_and(|state| state.rsplit(") ").next().unwrap().starts_with('Z'));
    test_kill_process(id).is_ok() && !is_dead
}

#[tokio::test]
async fn nothing_is_left_of_a_process_that_is_killed_or_ends() {
    for is_killed in [true, false] {
        let mut family = Family::start();
        assert_eq!((family.left().0.len(), family.left().1), (5, true));
        if is_killed {
            family.process.kill().unwrap();
        } else {
            drop(family.process.stdin.take());
        }
        let status = family.process.wait().unwrap();
        assert_eq!(status.success(), !is_killed, "{status}");
        eventually(SOON, async || match family.left() {
            (living, false) if living.is_empty() => Ok(()),
            left => Err(left),
        })
        .await;
    }
}
