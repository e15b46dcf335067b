//! A `redis-server`, or one of its kin, of one's own.

mod append_only;
mod builder;
mod cluster_of_one;
mod node;
mod process;
mod program;
mod tls;

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo, RedisResult, aio::MultiplexedConnection,
};
use tempfile::TempDir;

pub(crate) use self::{builder::Ports, node::bus_port};
pub use self::{builder::RedisServerBuilder, program::ServerVersion};
use self::{
    process::{Process, Start},
    program::Program,
};
use crate::{
    certificates::Certificates,
    commands::{CommandCounts, CommandWatch},
    ports::Port,
};

/// Bound on everything that a healthy server does at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running `redis-server`, on a loopback port and in a temporary directory of its own. The
/// environment's `REDIS_SERVER` names another program for all of them, such as `valkey-server`.
///
/// Dropping it kills the process, even a stopped one, and removes the directory; clients may not
/// learn of that before their next command. Both also happen when the process that started it is
/// killed.
///
/// Every method takes `&self`, so one server can be shared by the tasks of a test.
#[derive(Debug)]
#[must_use = "the server is killed when the value is dropped"]
pub struct RedisServer {
    // Dropped in this order: the process dies before its directory goes.
    process: Mutex<Process>,
    settings: Settings,
    directory: TempDir,
    sentinel: OnceLock<Box<RedisServer>>,
}

/// The variable that makes clients of the library ask a Sentinel for the address of a server.
const OVER_SENTINEL: &str = "LOCK_SENTINEL";

/// The settings that stay the same over restarts.
#[derive(Debug)]
struct Settings {
    port: Port,
    flags: Vec<String>,
    password: Option<String>,
    certificates: Option<Certificates>,
    tls_port: Option<Port>,
    unix_socket: bool,
    cluster_of_one: bool,
    environment: Vec<(String, PathBuf)>,
}

impl RedisServer {
    /// Starts a server with the defaults: no password, no persistence.
    ///
    /// # Panics
    ///
    /// As [`RedisServerBuilder::start`].
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Prepares a server with other flags.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// The program and version of all servers of this process.
    ///
    /// # Panics
    ///
    /// When the program does not exist.
    pub fn version() -> &'static ServerVersion {
        &Program::of_this_process().version
    }

    /// The address over plain TCP, `redis://127.0.0.1:PORT/`, without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port())
    }

    /// The address for a client of the library. That is the one over plain TCP, or that of a Redis
    /// Cluster if the server is a cluster of one node, as all are where the environment has
    /// `LOCK_CLUSTER=1`. Where it has `LOCK_SENTINEL=1`, it is that of a Sentinel that watches only
    /// this server.
    ///
    /// # Panics
    ///
    /// When that Sentinel does not start.
    pub fn locks_url(&self) -> String {
        if self.settings.cluster_of_one {
            return format!("redis+cluster://127.0.0.1:{}", self.port());
        }
        if env::var_os(OVER_SENTINEL).is_none_or(|value| value.is_empty() || value == "0") {
            return self.url();
        }
        let start = || Box::new(Self::builder().sentinel_of(self.port()).start());
        let sentinel = self.sentinel.get_or_init(start);
        format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port())
    }

    /// The address over plain TCP with a login and a database. An empty `user` is the default
    /// user.
    pub fn url_with(&self, user: &str, password: &str, database: i64) -> String {
        format!(
            "redis://{}:{}@127.0.0.1:{}/{database}",
            percent_encoded(user),
            percent_encoded(password),
            self.port(),
        )
    }

    /// The address over TLS, `rediss://127.0.0.1:PORT/`.
    ///
    /// # Panics
    ///
    /// When the server was built without [`RedisServerBuilder::tls`].
    pub fn tls_url(&self) -> String {
        format!("rediss://127.0.0.1:{}/", self.tls_port())
    }

    /// The port of TLS. It stays the same over restarts.
    ///
    /// # Panics
    ///
    /// When the server was built without [`RedisServerBuilder::tls`].
    pub fn tls_port(&self) -> u16 {
        let port = self.settings.tls_port.as_ref();
        port.expect("the server should have been built with tls(true)").number()
    }

    /// The address of the Unix domain socket, `redis+unix:///…`.
    ///
    /// # Panics
    ///
    /// When the server was built without [`RedisServerBuilder::unix_socket`].
    pub fn unix_url(&self) -> String {
        assert!(
            self.settings.unix_socket,
            "the server should have been built with unix_socket(true)",
        );
        let path = self.directory.path().join(builder::UNIX_SOCKET);
        format!("redis+unix://{}", path.display())
    }

    /// The port that other servers and Sentinels know it by: that of TLS if it has one.
    pub(crate) fn known_port(&self) -> u16 {
        self.settings.known_port()
    }

    /// The password of the default user, if it has one.
    pub(crate) fn password(&self) -> Option<&str> {
        self.settings.password.as_deref()
    }

    /// Whether it can answer: it is neither killed nor stopped, nor being started.
    pub(crate) fn is_running(&self) -> bool {
        match self.process.try_lock() {
            Ok(process) => process.is_running(),
            Err(TryLockError::Poisoned(process)) => process.get_ref().is_running(),
            Err(TryLockError::WouldBlock) => false,
        }
    }

    /// The certificate, in PEM, of the authority that signed the server's own.
    ///
    /// # Panics
    ///
    /// When the server was built without [`RedisServerBuilder::tls`].
    pub fn certificate_authority(&self) -> &str {
        self.certificates().authority()
    }

    /// The server's certificates, whose authority can sign others.
    ///
    /// # Panics
    ///
    /// When the server was built without [`RedisServerBuilder::tls`].
    pub fn certificates(&self) -> &Certificates {
        let certificates = self.settings.certificates.as_ref();
        certificates.expect("the server should have been built with tls(true)")
    }

    /// Replaces the server's certificates. The server reads them when it starts: see
    /// [`restart`](Self::restart).
    pub fn replace_certificates(&self, certificates: &Certificates) {
        certificates.install(self.directory());
    }

    /// The port of plain TCP. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.settings.port.number()
    }

    /// The directory with the server's log and, if it has one, its append-only file.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The id of the process, which changes with each [`restart`](Self::restart).
    pub fn process_id(&self) -> u32 {
        self.process().id()
    }

    /// Stops the process with SIGSTOP, and returns when it has stopped. Connections stay open, and
    /// the kernel still accepts new ones; nothing is answered, and data that is sent meanwhile is
    /// read after [`continue_process`](Self::continue_process).
    ///
    /// # Panics
    ///
    /// When the process is not running.
    pub fn stop_process(&self) {
        self.process().stop();
    }

    /// Continues a stopped process with SIGCONT.
    ///
    /// # Panics
    ///
    /// When the process was killed.
    pub fn continue_process(&self) {
        self.process().go_on();
    }

    /// Kills the process with SIGKILL, stopped or not, and returns when it is gone. The directory
    /// stays, for [`restart`](Self::restart). Does nothing if the process is already gone.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Kills the process if it runs, and starts another one with the same flags, on the same
    /// ports, in the same directory. Without an append-only file it starts empty.
    ///
    /// # Panics
    ///
    /// When the new process is not ready in time, with the end of its log.
    pub fn restart(&self) {
        let mut process = self.process();
        process.kill();
        let bound = Instant::now() + PATIENCE;
        *process = loop {
            match self.settings.spawn(self.directory.path()) {
                Start::Ready(process) => break process,
                // A program that does not take part in the claims has it, and may end soon.
                Start::PortTaken if Instant::now() < bound => std::thread::sleep(process::STEP),
                Start::PortTaken => panic!("port {} is taken", self.port()),
                Start::Failed(message) => panic!("{message}"),
            }
        };
    }

    /// Opens a direct connection, on database 0 and with the password of the server if it has
    /// one. A command fails when its reply takes longer than 10 seconds.
    ///
    /// The connection does not announce a library name, so it sends nothing of its own except the
    /// password.
    ///
    /// # Panics
    ///
    /// When the server does not take the connection within 10 seconds.
    ///
    /// # Cancel safety
    ///
    /// Safe: the connection is closed.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.try_connection().await.expect("the server should take a connection")
    }

    /// The same for a server that may be down, or may close its connections.
    ///
    /// # Errors
    ///
    /// When it does not take the connection within 10 seconds.
    ///
    /// # Cancel safety
    ///
    /// Safe: the connection is closed.
    pub async fn try_connection(&self) -> RedisResult<MultiplexedConnection> {
        self.try_connection_within(PATIENCE).await
    }

    /// The same with another bound, on the connection and on each reply.
    pub(crate) async fn try_connection_within(
        &self,
        bound: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let information =
            self.url().into_connection_info().expect("the harness's own URL is valid");
        let mut login = information.redis_settings().clone().set_skip_set_lib_name();
        if let Some(password) = &self.settings.password {
            login = login.set_password(password);
        }
        let client = Client::open(information.set_redis_settings(login))
            .expect("the harness's own settings are valid");
        let bounds = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(bound))
            .set_response_timeout(Some(bound));
        client.get_multiplexed_async_connection_with_config(&bounds).await
    }

    /// How often each command ran since the server started, including inside scripts: see
    /// [`CommandCounts`].
    ///
    /// # Panics
    ///
    /// When the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn commands(&self) -> CommandCounts {
        self.try_commands().await.expect("the server should answer INFO")
    }

    /// The same for a server that may be down, or may close its connections.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn try_commands(&self) -> RedisResult<CommandCounts> {
        let mut connection = self.try_connection().await?;
        let mut question = redis::cmd("INFO");
        let report: String = question.arg("commandstats").query_async(&mut connection).await?;
        Ok(CommandCounts::parse(&report))
    }

    /// Starts to record what clients send, one by one and without what scripts run: see
    /// [`CommandWatch`].
    ///
    /// # Panics
    ///
    /// When the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: the recording ends.
    pub async fn watch_commands(&self) -> CommandWatch {
        CommandWatch::start(self.port(), self.settings.password.as_deref()).await
    }

    /// All keys of all databases: name, type, and the milliseconds until it expires (-1 when it
    /// never does). Sorted within a database; bytes that are not UTF-8 are replaced.
    ///
    /// # Panics
    ///
    /// When the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn keys(&self) -> Vec<(String, String, i64)> {
        let mut connection = self.connection().await;
        let report: String = redis::cmd("INFO")
            .arg("keyspace")
            .query_async(&mut connection)
            .await
            .expect("the server should answer INFO");
        let databases = report
            .lines()
            .filter_map(|line| line.strip_prefix("db")?.split_once(':'))
            .map(|(database, _)| database.parse().expect("a database has a number"));
        let mut keys = Vec::new();
        for database in databases {
            keys.extend(keys_of_database(&mut connection, database).await);
        }
        keys
    }

    /// Checks that every key will expire, except the ones that may stay.
    ///
    /// # Panics
    ///
    /// When a key has no time to live and is not in `allowed_without_ttl`, with the name and the
    /// type of every such key; or when the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn assert_every_key_expires(&self, allowed_without_ttl: &[&str]) {
        let keys = self.keys().await;
        let staying: Vec<_> = keys
            .iter()
            .filter(|(key, _, left)| *left < 0 && !allowed_without_ttl.contains(&key.as_str()))
            .map(|(key, kind, _)| format!("{key:?} ({kind})"))
            .collect();
        assert!(
            staying.is_empty(),
            "{} of {} keys never expire: {}",
            staying.len(),
            keys.len(),
            staying.join(", "),
        );
    }

    /// Ignores poison: a test that panicked while it held the process leaves one that can be
    /// killed.
    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of one database. A key that expires between the two questions is left out.
async fn keys_of_database(
    connection: &mut MultiplexedConnection,
    database: i64,
) -> Vec<(String, String, i64)> {
    const ANSWER: &str = "the server should answer about its keys";
    let (mut keys,): (Vec<Vec<u8>>,) = redis::pipe()
        .cmd("SELECT")
        .arg(database)
        .ignore()
        .cmd("KEYS")
        .arg("*")
        .query_async(connection)
        .await
        .expect(ANSWER);
    if keys.is_empty() {
        return Vec::new();
    }
    keys.sort();
    let mut questions = redis::pipe();
    for key in &keys {
        questions.cmd("TYPE").arg(key).cmd("PTTL").arg(key);
    }
    // Flat, because a pipeline returns one value per command.
    let answers: Vec<redis::Value> = questions.query_async(connection).await.expect(ANSWER);
    keys.iter()
        .zip(answers.chunks_exact(2))
        .map(|(key, answer)| {
            let kind: String = redis::from_redis_value(answer[0].clone()).expect(ANSWER);
            let left: i64 = redis::from_redis_value(answer[1].clone()).expect(ANSWER);
            (String::from_utf8_lossy(key).into_owned(), kind, left)
        })
        .filter(|(_, kind, left)| kind != "none" && *left != -2)
        .collect()
}

/// `text` as a part of a URL.
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
