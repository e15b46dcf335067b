//! Running copies of the demo.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use lock_tests::end_with_this_process;
use rustix::process::{Pid, Signal, kill_process};

use crate::browser::PATIENCE;

/// A process of the demo. It is killed when the value is dropped, and when this process ends.
pub(crate) struct Copy {
    child: Child,
    pub(crate) url: String,
}

impl Copy {
    /// Starts the demo with its locks on this server, or in memory without one.
    pub(crate) fn start(server: Option<&str>, port: u16) -> Self {
        let mut child =
            command(server, port).stdout(Stdio::piped()).spawn().expect("the demo can be started");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("its output is a pipe"))
            .read_line(&mut line)
            .expect("it says where it is");
        let url = line.split_whitespace().next().unwrap_or_default().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "the first line is the address: {line:?}");
        Self { child, url }
    }

    /// Starts a copy that has to fail at once, and returns its output.
    pub(crate) fn fail(server: Option<&str>, port: u16) -> Output {
        command(server, port).output().expect("the demo can be started")
    }

    pub(crate) fn port(&self) -> u16 {
        let port = self.url.trim_end_matches('/').rsplit(':').next();
        port.and_then(|port| port.parse().ok()).expect("an address has a port")
    }

    /// The number of its open files and connections.
    #[cfg(target_os = "linux")]
    pub(crate) fn open_files(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        open.expect("it is a process").count()
    }

    /// Asks it to end, and returns its exit status.
    pub(crate) fn end(mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).expect("the id of a process is positive");
        let pid = Pid::from_raw(pid).expect("the id of a process is not zero");
        kill_process(pid, Signal::TERM).expect("it can be sent a signal");
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "the demo does not end");
            thread::sleep(Duration::from_millis(20));
        };
        let mut rest = String::new();
        let output = self.child.stdout.as_mut().expect("its output is a pipe");
        output.read_to_string(&mut rest).expect("it writes text");
        assert_eq!(rest, "", "it prints one line");
        status
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(server: Option<&str>, port: u16) -> Command {
    let mut command = Command::new(program());
    end_with_this_process(&mut command).args(["--port", &port.to_string()]).env_remove("LOCK_URL");
    if let Some(server) = server {
        command.env("LOCK_URL", server);
    }
    command
}

/// Cargo builds examples with the tests, and puts them next to them.
fn program() -> PathBuf {
    let test = env::current_exe().expect("a test knows where it is");
    let folder =
        test.ancestors().nth(2).expect("a test is in `deps`, in the folder of its profile");
    let program = folder.join("examples").join("demo");
    assert!(
        program.exists(),
        "{} is missing: run `cargo build -p examples --example demo`, or `cargo test --workspace`",
        program.display()
    );
    program
}
