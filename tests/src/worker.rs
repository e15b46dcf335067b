//! Further processes of a test.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use crate::{children::end_with_this_process, host_clock::HostClock, signals};

/// How long a line may take. The tests put tighter bounds on what matters, by the times in the
/// lines.
const PATIENCE: Duration = Duration::from_secs(60);

/// The variable that names the worker of the previous version, which `tests/run` builds.
const BEFORE: &str = "LOCK_WORKER_BEFORE";

/// The worker of the previous version, which has to work beside this one. If there is none, returns
/// `None`, and prints so even if the output of tests is captured.
///
/// # Panics
///
/// When the environment names one that does not exist.
#[must_use]
pub fn worker_of_version_before() -> Option<PathBuf> {
    let Some(path) = env::var_os(BEFORE).filter(|path| !path.is_empty()) else {
        let line =
            format!("left out: the previous version, which {BEFORE} has to name (see tests/run)\n");
        let _ = io::stderr().write_all(line.as_bytes());
        return None;
    };
    let path = PathBuf::from(path);
    assert!(path.is_file(), "{BEFORE}={}: there is no such program", path.display());
    Some(path)
}

/// The locks that workers use on the command `work`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkIds {
    /// Locks that all processes want.
    pub hot: Vec<String>,
    /// Further locks.
    pub cold: Vec<String>,
    /// Locks that one task of each process holds for long, while tasks of the others wait: so that
    /// when such a lease expires, a waiter is there to take the lock.
    pub rivals: Vec<String>,
    /// Ids of debounced calls.
    pub bursts: Vec<String>,
}

impl WorkIds {
    /// The same in every process.
    #[must_use]
    pub fn all() -> Self {
        let numbered =
            |word: &str, count: u64| (0..count).map(|number| format!("{word}-{number}")).collect();
        Self {
            hot: numbered("hot", 3),
            cold: numbered("cold", 300),
            rivals: numbered("rival", 3),
            bursts: numbered("burst", 8),
        }
    }

    /// All ids. The keys of a debounced call are in the slot of the lock of that name.
    pub fn iter(&self) -> impl Iterator<Item = &String> {
        self.hot.iter().chain(&self.cold).chain(&self.rivals).chain(&self.bursts)
    }
}

/// A process that takes commands and answers in lines. It is killed when the value is dropped, and
/// when this process ends.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Worker {
    /// Starts the program.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start(program: impl AsRef<Path>) -> Self {
        Self::spawn(&mut Command::new(program.as_ref()))
    }

    /// Starts the program with these clocks, which have to outlive it.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start_by(clock: &HostClock, program: impl AsRef<Path>) -> Self {
        Self::spawn(Command::new(program.as_ref()).envs(clock.environment()))
    }

    /// Starts the program with these variables in its environment.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start_with<'a>(
        variables: impl IntoIterator<Item = (&'a str, &'a Path)>,
        program: impl AsRef<Path>,
    ) -> Self {
        Self::spawn(Command::new(program.as_ref()).envs(variables))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = end_with_this_process(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the worker can be started");
        let input = child.stdin.take().expect("its input is piped");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, input, lines }
    }

    /// Sends one line.
    ///
    /// # Panics
    ///
    /// When the process is gone.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the worker listens");
    }

    /// The words of the next line.
    ///
    /// # Panics
    ///
    /// When none comes within a minute, or the process has ended.
    pub fn hear(&self) -> Vec<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line.split(' ').map(str::to_owned).collect(),
            Err(RecvTimeoutError::Timeout) => panic!("the worker is silent"),
            Err(RecvTimeoutError::Disconnected) => panic!("the worker has ended"),
        }
    }

    /// The words of the next line, if there is one already or, with `patient`, if it comes within a
    /// minute. Also `None` if the process has ended.
    #[must_use]
    pub fn hear_now(&self, patient: bool) -> Option<Vec<String>> {
        let patience = if patient { PATIENCE } else { Duration::ZERO };
        let line = self.lines.recv_timeout(patience).ok()?;
        Some(line.split(' ').map(str::to_owned).collect())
    }

    /// The process's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The numbers of the next line, which has to begin with this word.
    ///
    /// # Panics
    ///
    /// When it does not, or as [`hear`](Self::hear).
    pub fn expect(&self, word: &str) -> Vec<u64> {
        let words = self.hear();
        assert_eq!(words[0], word, "in {words:?}");
        words[1..].iter().map(|word| word.parse().expect("a number")).collect()
    }

    /// Ends the process at once, by SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops the process, by SIGSTOP, until it is continued; returns when it has stopped.
    pub fn stop(&self) {
        signals::stop(&self.child);
    }

    /// Continues a stopped process.
    pub fn go_on(&self) {
        signals::go_on(&self.child);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
