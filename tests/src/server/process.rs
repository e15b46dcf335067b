//! The process of a server: start, readiness, signals and end.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{PATIENCE, Settings, cluster_of_one, program::Program};
use crate::{children::end_with_this_process, signals, wire::encoded};

/// The pause between two looks at a process that is starting.
pub(super) const STEP: Duration = Duration::from_millis(10);

const LOG: &str = "server.log";
/// How much of the log a panic shows.
const LOG_TAIL_LINES: usize = 20;

/// The result of an attempt to start.
pub(super) enum Start {
    Ready(Process),
    /// Another process has one of the ports.
    PortTaken,
    /// It has ended, or is not ready; the text says which, with the end of its log.
    Failed(String),
}

/// A child process, killed and reaped at the latest when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Set when the child was reaped: from then on, its id may belong to another process.
    gone: bool,
    stopped: bool,
}

impl Settings {
    /// Starts one process and waits until it answers.
    pub(super) fn spawn(&self, directory: &Path) -> Start {
        if self.cluster_of_one {
            cluster_of_one::prepare(directory, self.known_port());
        }
        let log = directory.join(LOG);
        let output = File::create(&log).expect("the server's directory can be written");
        let errors = output.try_clone().expect("a file handle can be copied");
        let program = Program::of_this_process();
        let child = end_with_this_process(&mut Command::new(&program.path))
            .args(&self.flags)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
        let mut process = Process { child, gone: false, stopped: false };
        let failed =
            |what: &str| Start::Failed(format!("{} {what}:\n{}", program.version, tail(&log)));
        let bound = Instant::now() + PATIENCE;
        loop {
            match self.probe(process.id()) {
                Ok(Answer::Ready) => return Start::Ready(process),
                Ok(Answer::Stranger) => return Start::PortTaken,
                Ok(Answer::NotYet) | Err(_) => {}
            }
            if let Some(status) = process.ended() {
                if tail(&log).contains("Address already in use") {
                    return Start::PortTaken;
                }
                return failed(&format!("ended with {status} before it was ready"));
            }
            if Instant::now() >= bound {
                return failed(&format!("was not ready within {PATIENCE:?}"));
            }
            thread::sleep(STEP);
        }
    }

    /// Asks the process that listens on the port who it is.
    fn probe(&self, process_id: u32) -> io::Result<Answer> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.number()));
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        if let Some(password) = &self.password {
            ask(&mut stream, &["AUTH", password])?;
        }
        let pong = ask(&mut stream, &["PING"])?;
        if pong.starts_with("-LOADING") {
            return Ok(Answer::NotYet);
        }
        // Two test runs may have tried the same port at the same time.
        let Some(report) = ask_for_text(&mut stream, &["INFO", "server"])? else {
            // The server admits only named users: it answers, but says no more.
            return Ok(Answer::Ready);
        };
        let own = format!("process_id:{process_id}");
        if !report.lines().any(|line| line == own) {
            return Ok(Answer::Stranger);
        }
        if self.cluster_of_one && !cluster_of_one::take_over(&mut stream, self.known_port())? {
            return Ok(Answer::NotYet);
        }
        Ok(Answer::Ready)
    }

    /// The port that other servers and Sentinels know the server by: that of TLS if it has one.
    pub(super) fn known_port(&self) -> u16 {
        self.tls_port.as_ref().unwrap_or(&self.port).number()
    }
}

enum Answer {
    Ready,
    NotYet,
    Stranger,
}

/// Sends one command and returns the first line of the reply.
pub(super) fn ask(stream: &mut BufReader<TcpStream>, words: &[&str]) -> io::Result<String> {
    stream.get_mut().write_all(&encoded(words))?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// The same for a command whose reply is a text. `None` if it is an error.
pub(super) fn ask_for_text(
    stream: &mut BufReader<TcpStream>,
    words: &[&str],
) -> io::Result<Option<String>> {
    let size = ask(stream, words)?;
    let Some(size) = size.strip_prefix('$').and_then(|size| size.parse::<u64>().ok()) else {
        return Ok(None);
    };
    let mut text = String::new();
    // Including the line break after it.
    stream.take(size + 2).read_to_string(&mut text)?;
    Ok(Some(text))
}

impl Process {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGSTOP, and waits until it has taken effect.
    pub(super) fn stop(&mut self) {
        signals::stop(self.running());
        self.stopped = true;
    }

    /// Sends SIGCONT.
    pub(super) fn go_on(&mut self) {
        signals::go_on(self.running());
        self.stopped = false;
    }

    /// Whether it is neither killed nor stopped.
    pub(super) fn is_running(&self) -> bool {
        !self.gone && !self.stopped
    }

    /// Sends SIGKILL, which a stopped process also obeys, and reaps the process. There is no
    /// SIGCONT before: a crash must not let it run the commands that wait in its sockets.
    pub(super) fn kill(&mut self) {
        if self.gone {
            return;
        }
        // Neither can fail in a way that matters, and a drop must not panic.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.gone = true;
    }

    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.child.try_wait().expect("a child can be asked");
        self.gone = status.is_some();
        status
    }

    fn running(&self) -> &Child {
        assert!(!self.gone, "the server was already killed");
        &self.child
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of the log.
fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
