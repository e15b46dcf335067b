//! Runs the program, and reads its answers.

use std::{
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Command, Output, Stdio},
};

use lock_tests::{RedisServer, end_with_this_process};
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use serde_json::Value;

/// The password of every server here that requires one. No output may contain it.
pub(crate) const PASSWORD: &str = "hush-hush";

/// The result of a run of the program.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "no {text:?} in {self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(f, "exit {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// A command line without an environment that names a store.
pub(crate) fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockctl"));
    for name in ["LOCK_URL", "REDIS_URL", "UPSTASH_REDIS_REST_URL", "LOCK_SENTINEL_PASSWORD"] {
        command.env_remove(name);
    }
    command.args(words).stdin(Stdio::null());
    end_with_this_process(&mut command);
    command
}

/// Runs the program to its end, without a terminal. Its output is searched for secrets.
pub(crate) async fn run(words: &[&str]) -> Ran {
    finish(program(words)).await
}

/// Runs the program with a standard output that nobody reads, like a pipe whose reader has ended.
pub(crate) async fn run_unread(url: &str, words: &[&str]) -> Ran {
    let mut command = program(&[&["--url", url], words].concat());
    command.stdout(unread()).stderr(Stdio::piped());
    let run = move || command.spawn().and_then(std::process::Child::wait_with_output);
    let output = tokio::task::spawn_blocking(run).await.expect("running it does not panic");
    ran(&output.expect("the program can be started"))
}

fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe can be made");
    drop(reader);
    writer.into()
}

pub(crate) async fn run_at(url: &str, words: &[&str]) -> Ran {
    run(&[&["--url", url], words].concat()).await
}

pub(crate) async fn finish(mut command: Command) -> Ran {
    let run = move || command.output().expect("the program can be started");
    let output = tokio::task::spawn_blocking(run).await.expect("running it does not panic");
    ran(&output)
}

pub(crate) fn ran(output: &Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it prints UTF-8");
    let ran = Ran {
        code: output.status.code().expect("no signal ends it"),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    assert_no_secrets(&ran.to_string());
    ran
}

/// Asserts that the text has neither the password nor anything that looks like a token: 32
/// hexadecimal digits, a colon and a number.
#[track_caller]
pub(crate) fn assert_no_secrets(text: &str) {
    assert!(!text.contains(PASSWORD), "the password is in {text}");
    let bytes = text.as_bytes();
    for (at, window) in bytes.windows(33).enumerate() {
        let (digits, end) = window.split_at(32);
        let is_token = end[0] == b':' && digits.iter().all(u8::is_ascii_hexdigit);
        assert!(!is_token, "a token at {at} of {text}");
    }
}

/// A single server, even in a run of the tests in which the others are Clusters.
pub(crate) fn server() -> RedisServer {
    RedisServer::builder().cluster_of_one(false).start()
}

/// Has a server execute a command.
pub(crate) async fn command(server: &RedisServer, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let done: redis::RedisResult<()> = command.exec_async(&mut server.connection().await).await;
    done.unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

/// A file with this text, which is removed when the value is dropped.
pub(crate) fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file can be made");
    file.write_all(text.as_bytes()).expect("it can be written");
    file
}

/// Our end of a terminal, whose other end is the program's standard input. The program asks its
/// questions on the standard error output.
pub(crate) struct Terminal {
    own: std::fs::File,
    pub(crate) child: tokio::process::Child,
    asked: String,
}

/// A terminal: our end of it, and the end that a program gets.
fn terminal() -> (OwnedFd, OwnedFd) {
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal can be made");
    grantpt(&own).expect("it can be used");
    unlockpt(&own).expect("it can be used");
    let name = ptsname(&own, Vec::new()).expect("it has a name");
    let other = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("it opens");
    (own, other)
}

/// What a terminal with this number of columns shows of a run.
pub(crate) async fn shown_in_terminal(mut command: Command, columns: u16) -> String {
    let (own, other) = terminal();
    let size = Winsize { ws_row: 25, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&other, size).expect("it has a size");
    command.env("TERM", "xterm").stdout(other);
    let run = move || {
        let mut child = command.spawn().expect("the program can be started");
        // Then only the program has the other end, so the output ends when the program does.
        drop(command);
        let mut shown = Vec::new();
        // At the end, reading from a terminal fails.
        let _ = std::fs::File::from(own).read_to_end(&mut shown);
        child.wait().expect("it ends");
        String::from_utf8(shown).expect("it prints UTF-8")
    };
    let shown = tokio::task::spawn_blocking(run).await.expect("running it does not panic");
    assert_no_secrets(&shown);
    shown
}

impl Terminal {
    /// Starts the program with a terminal as its standard input.
    pub(crate) fn start(words: &[&str]) -> Self {
        Self::start_with(words, Stdio::piped())
    }

    /// The same, with a standard output that nobody reads.
    pub(crate) fn start_unread(words: &[&str]) -> Self {
        Self::start_with(words, unread())
    }

    fn start_with(words: &[&str], stdout: Stdio) -> Self {
        let (own, other) = terminal();
        let mut command = program(words);
        command.stdin(other).stdout(stdout).stderr(Stdio::piped());
        let child = tokio::process::Command::from(command).spawn().expect("it can be started");
        Self { own: own.into(), child, asked: String::new() }
    }

    /// Waits until the program asks its question.
    pub(crate) async fn is_asked(&mut self) {
        use tokio::io::AsyncReadExt as _;
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        while !self.asked.contains("[y/N]") {
            let mut byte = [0];
            let read = tokio::time::timeout(lock_tests::ms(20_000), stderr.read(&mut byte));
            let read = read.await.expect("it asks in time").expect("it can be read");
            assert!(read > 0, "it asked nothing: {}", self.asked);
            self.asked.push(byte[0].into());
        }
    }

    /// Waits for the end of the program without an answer.
    pub(crate) async fn end(self) -> Ran {
        let wait = tokio::time::timeout(lock_tests::ms(20_000), self.child.wait_with_output());
        ran(&wait.await.expect("it asks nothing").expect("it ends"))
    }

    /// Answers, and waits for the end of the program.
    pub(crate) async fn answer(mut self, line: &str) -> Ran {
        writeln!(self.own, "{line}").expect("the terminal takes an answer");
        let mut ran = ran(&self.child.wait_with_output().await.expect("it ends"));
        ran.stderr.insert_str(0, &self.asked);
        ran
    }
}
