//! The commands that a server ran, and those that its clients sent.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::wire::encoded;

/// Bound on each answer of the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often each command ran since the server started: a snapshot of `INFO commandstats`.
///
/// **A command that a script runs counts like one that a client sends**, under its own name, and
/// the server does not tell them apart. So take the difference of two snapshots, by
/// [`minus`](Self::minus), and only for names that the scripts of the test do not use: `evalsha`
/// and `eval` always, `get` only if no script reads. When the names are not enough, use
/// [`CommandWatch`].
///
/// The harness's own commands also count: each snapshot one `info`, each
/// [`RedisServer::keys`](crate::RedisServer::keys) `info`, `select`, `keys`, `type` and `pttl`. Its
/// connections send nothing else, except `auth` if there is a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandCounts {
    calls: BTreeMap<String, u64>,
}

impl CommandCounts {
    pub(crate) fn parse(report: &str) -> Self {
        let calls = report
            .lines()
            .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
            .map(|(name, rest)| {
                let calls = rest.split(',').next().and_then(|calls| calls.parse().ok());
                (name.to_owned(), calls.expect("a count is a number"))
            })
            .collect();
        Self { calls }
    }

    /// The calls of one command, in lower case. The name of a command with subcommands stands
    /// for all of them: `config` for `config|get` and `config|set`.
    pub fn calls(&self, name: &str) -> u64 {
        let name = name.to_lowercase();
        self.calls
            .iter()
            .filter(|(command, _)| {
                let rest = command.strip_prefix(&name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('|'))
            })
            .map(|(_, calls)| calls)
            .sum()
    }

    /// The calls of the named commands together: what clients sent, when the names are all that
    /// they send and none is used inside a script.
    pub fn client_commands(&self, names: &[&str]) -> u64 {
        names.iter().map(|name| self.calls(name)).sum()
    }

    /// All commands that ran, with their calls, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.calls.iter().map(|(name, calls)| (name.as_str(), *calls))
    }

    /// What ran since `earlier`. Commands that did not run are left out.
    ///
    /// # Panics
    ///
    /// When a count went back, so that the difference means nothing: the server was restarted in
    /// between.
    pub fn minus(&self, earlier: &Self) -> Self {
        let mut calls = self.calls.clone();
        for (name, before) in &earlier.calls {
            let now = calls.remove(name).unwrap_or(0);
            let since = now.checked_sub(*before);
            let since = since.expect("the server should not have been restarted in between");
            if since > 0 {
                calls.insert(name.clone(), since);
            }
        }
        Self { calls }
    }
}

/// One command as a client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCommand {
    /// The address of the client, or `unix:` and a path.
    pub client: String,
    /// The database that the client had selected.
    pub database: i64,
    /// The name, in lower case.
    pub name: String,
    /// The arguments; bytes that are not printable ASCII are written `\xNN`.
    pub arguments: Vec<String>,
}

/// A recording of what clients send, by `MONITOR`: in the order of execution, without what
/// scripts run.
///
/// The server keeps administration commands (`CONFIG`, `DEBUG`, `CLIENT KILL` and the like) out
/// of it. The harness's own commands are in it, except the ones that end the recording.
///
/// Recording slows the server down, so it is for counting and not for measuring time. Dropping
/// it ends the recording and loses it.
#[derive(Debug)]
#[must_use = "the recording is read by `finish`"]
pub struct CommandWatch {
    stream: BufReader<TcpStream>,
    port: u16,
    password: Option<String>,
}

impl CommandWatch {
    pub(crate) async fn start(port: u16, password: Option<&str>) -> Self {
        let mut stream = login(port, password).await;
        assert_eq!(ask(&mut stream, &["MONITOR"]).await, "+OK");
        Self { stream, port, password: password.map(str::to_owned) }
    }

    /// Ends the recording: everything that the server ran between the start and now.
    ///
    /// # Panics
    ///
    /// When the server does not answer within 10 seconds.
    ///
    /// # Cancel safety
    ///
    /// Not safe: the recording is lost.
    pub async fn finish(mut self) -> Vec<ClientCommand> {
        // A command on a connection of our own marks the end.
        let mut stream = login(self.port, self.password.as_deref()).await;
        let marker = stream.get_ref().local_addr();
        let marker = marker.expect("a connected socket has an address").to_string();
        ask(&mut stream, &["ECHO", &marker]).await;

        let mut commands = Vec::new();
        loop {
            let line = read_line(&mut self.stream).await;
            let Some(command) = parse_monitor_line(&line) else {
                continue;
            };
            if command.client != marker {
                commands.push(command);
            } else if command.name == "echo" {
                return commands;
            }
        }
    }
}

async fn login(port: u16, password: Option<&str>) -> BufReader<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let mut stream = BufReader::new(stream.expect("the server should take a connection"));
    if let Some(password) = password {
        assert_eq!(ask(&mut stream, &["AUTH", password]).await, "+OK");
    }
    stream
}

/// Sends one command and returns the first line of the reply.
async fn ask(stream: &mut BufReader<TcpStream>, words: &[&str]) -> String {
    let sent = stream.get_mut().write_all(&encoded(words)).await;
    sent.expect("the server should take a command");
    read_line(stream).await
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = Vec::new();
    let read = timeout(PATIENCE, stream.read_until(b'\n', &mut line)).await;
    let read = read.expect("the server should answer within 10 seconds");
    assert_ne!(read.expect("the server should answer"), 0, "the server closed the connection");
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

/// `+1700000000.123456 [0 127.0.0.1:1234] "set" "a" "1"`; nothing for a line about a script.
fn parse_monitor_line(line: &str) -> Option<ClientCommand> {
    let (origin, words) = line.split_once('[')?.1.split_once("] ")?;
    let (database, client) = origin.split_once(' ')?;
    if client == "lua" {
        return None;
    }
    let mut words = quoted_words(words).into_iter();
    Some(ClientCommand {
        client: client.to_owned(),
        database: database.parse().ok()?,
        name: words.next()?.to_lowercase(),
        arguments: words.collect(),
    })
}

/// The words between quotes, with `\"` and `\\` resolved and other escapes left as they are.
fn quoted_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, &mut word) {
            ('"', None) => word = Some(String::new()),
            ('"', Some(_)) => words.extend(word.take()),
            ('\\', Some(word)) => match characters.next() {
                Some(escaped @ ('"' | '\\')) => word.push(escaped),
                Some(other) => word.extend(['\\', other]),
                None => {}
            },
            (_, Some(word)) => word.push(character),
            (_, None) => {}
        }
    }
    words
}
