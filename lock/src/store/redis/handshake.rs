//! How a connection is made: the steps, and what each of them has shown about the server.
//!
//! Each step is one round trip with a bound of its own, so a slow link is not taken for a dead one:
//! open the stream (with TLS on it), `HELLO` with user and password, and then everything else in
//! one pipeline. What has to come before the first call, but needs no answer, is sent ahead of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, Pipeline, ProtocolVersion, RedisError,
    RedisResult, Value, aio::MultiplexedConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::AbortHandle,
    time::{self, Instant},
};

use super::{
    FENCE,
    notices::Notices,
    script::{self, Known},
    stream::{STEP, bounded, open_tcp, refused, set_options},
    trouble::{Address, Refusal, is_passing},
};
use crate::{
    ErrorKind,
    events::Events,
    warning::{Warning, Warnings},
};

/// Commands that may wait to be written. The keeper sends in batches, so this is never the bound.
const WRITE_QUEUE: usize = 1024;

/// How a server is reached, and what all connections to it have shown.
pub(super) struct Server {
    client: Client,
    speaks_resp3: Client,
    pub(super) address: Address,
    protocol: Protocol,
    pub(super) notices: Arc<Notices>,
    pub(super) events: Events,
    warnings: Warnings,
    /// The counter of fences was there once: without it, the data is gone.
    has_fence: AtomicBool,
}

/// Which protocol the server speaks, once that is known.
#[derive(Default)]
struct Protocol(AtomicU8);

impl Protocol {
    const RESP2: u8 = 2;
    const RESP3: u8 = 3;

    fn is(&self, version: u8) -> bool {
        self.0.load(Ordering::Relaxed) == version
    }

    fn found(&self, version: u8) {
        self.0.store(version, Ordering::Relaxed);
    }
}

/// A connection that was made, and what is known about it.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    /// Ends what reads and writes for the connection, where that is ours to do.
    pub(super) driver: Option<AbortHandle>,
    pub(super) identity: Option<Identity>,
    pub(super) known: Known,
    /// Used, or dropped, when the connection ends. RESP3 only.
    pub(super) ended: Option<oneshot::Receiver<()>>,
    /// How long the last step of the handshake took.
    pub(super) round_trip: Duration,
}

/// How a server process names one of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Numbers start again with every process, so they mean nothing without its name.
    process: String,
    number: i64,
}

impl Server {
    pub(super) fn new(client: Client, warnings: Warnings) -> RedisResult<Self> {
        let info = client.get_connection_info().clone();
        let address = Address::of(info.addr());
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let speaks_resp3 = Client::open(info.set_redis_settings(settings))?;
        Ok(Self {
            client,
            speaks_resp3,
            address,
            protocol: Protocol::default(),
            notices: Arc::new(Notices::new(warnings.clone())),
            events: warnings.events().clone(),
            warnings,
            has_fence: AtomicBool::new(false),
        })
    }

    /// A fence was drawn: its counter is there from now on.
    pub(super) fn has_fence(&self) {
        self.has_fence.store(true, Ordering::Relaxed);
    }

    /// Asks for pushes on a connection that was made before anybody listened.
    pub(super) async fn listen_on(&self, connection: &mut MultiplexedConnection) {
        let pushes = self.protocol.is(Protocol::RESP3);
        if !pushes {
            self.notices.open_pubsub(self.client.clone()).await;
        }
        let mut pipeline = Pipeline::new();
        self.notices.ask(&mut pipeline, pushes);
        let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len());
        if let Ok(Ok(replies)) = time::timeout(STEP, replies).await
            && let Some(mut mute) = self.notices.answered(replies.into_iter(), pushes)
        {
            let _ = connection.send_packed_command(mute.set_no_response(true)).await;
        }
    }

    /// One event for each reason.
    pub(super) fn cannot_connect(&self, refusal: &Refusal) {
        let (address, refusal) = (self.address.clone(), refusal.clone());
        self.events.say(move || {
            tracing::warn!(
                target: "lock",
                server = %address,
                "cannot connect to the Redis server: {}",
                refusal.text(),
            );
        });
    }

    /// Connects. `answered` is called once the server has shown that it is there.
    ///
    /// Makes the server forget the connection before: what was sent on it has either been done by
    /// then, or never will be. Without that, a request that waits in the socket of a stalled server
    /// could take a lock after the release that was to undo it.
    pub(super) async fn connect(
        &self,
        broken: Option<&Identity>,
        answered: impl Fn(),
    ) -> Result<Opened, Refusal> {
        if !self.protocol.is(Protocol::RESP2) {
            match self.connect_as(Protocol::RESP3, broken, &answered).await {
                Ok(opened) => {
                    self.protocol.found(Protocol::RESP3);
                    return Ok(opened);
                }
                // Servers before Redis 6, proxies, and users who may not say HELLO.
                Err(Failed::Hello(error))
                    if !self.protocol.is(Protocol::RESP3) && may_be_the_protocol(&error) => {}
                Err(failed) => return Err(failed.into()),
            }
        }
        let opened = self.connect_as(Protocol::RESP2, broken, &answered).await?;
        self.protocol.found(Protocol::RESP2);
        self.notices.open_pubsub(self.client.clone()).await;
        Ok(opened)
    }

    async fn connect_as(
        &self,
        protocol: u8,
        broken: Option<&Identity>,
        answered: impl Fn(),
    ) -> Result<Opened, Failed> {
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(WRITE_QUEUE);
        let pushes = protocol == Protocol::RESP3;
        let mut ended = None;
        if pushes {
            let (receive, ends) = self.notices.pushes();
            config = config.set_push_sender(receive);
            ended = Some(ends);
        }
        let client = if pushes { &self.speaks_resp3 } else { &self.client };
        let (mut connection, driver) = open(client, config).await?;
        answered();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("PING");
        pipeline.cmd("CLIENT").arg("ID");
        pipeline.cmd("INFO").arg("server");
        pipeline.cmd("INFO").arg("memory");
        pipeline.cmd("INFO").arg("replication");
        pipeline.cmd("EXISTS").arg(FENCE);
        for script in script::ALL {
            script.load(&mut pipeline);
        }
        // Before anybody can use the connection: no wake-up of what is asked on it is missed.
        let listens = self.notices.ask(&mut pipeline, pushes);
        let began = Instant::now();
        let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len());
        let replies = match time::timeout(STEP, replies).await {
            Ok(replies) => replies.map_err(Refusal::of)?,
            Err(_) => return Err(Refusal::silent("to the handshake", STEP).into()),
        };
        let round_trip = began.elapsed();
        let mut replies = replies.into_iter();
        // A server that wants a password, or is still loading, answers even this with an error.
        // The other commands may be forbidden to this user: they only make things better.
        if let Some(Value::ServerError(error)) = replies.next() {
            return Err(Refusal::of(RedisError::from(error)).into());
        }
        let (number, server) = (replies.next(), text(replies.next()));
        let identity = identity(number, server.as_deref());
        let same_process = broken.filter(|broken| {
            identity.as_ref().is_some_and(|identity| identity.process == broken.process)
        });
        let found = Found {
            server,
            memory: text(replies.next()),
            replication: text(replies.next()),
            has_fence: match replies.next() {
                Some(Value::Int(keys)) => Some(keys > 0),
                _ => None,
            },
            is_other: broken.is_some() && identity.is_some() && same_process.is_none(),
        };
        if found.is_replica() {
            self.warnings.say(Warning::Replica);
        }
        // What else it lacks does not matter, if it is not used.
        found.refuse()?;
        found.warn(self);
        let scripts = replies.by_ref().take(script::ALL.len());
        let known = Known::loaded(scripts.map(|reply| matches!(reply, Value::BulkString(_))));
        // Sent ahead of every call on this connection, which is all that matters about them. "No
        // such client" is as good. Dragonfly and Upstash do not name their process in INFO: there,
        // nobody can be sure that the number is that of the old connection, and a request that
        // waits in it may still be done later.
        if let Some(broken) = same_process {
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("ID").arg(broken.number).set_no_response(true);
            let _ = connection.send_packed_command(&kill).await;
        }
        if let Some(mut mute) = listens.then(|| self.notices.answered(replies, pushes)).flatten() {
            let _ = connection.send_packed_command(mute.set_no_response(true)).await;
        }
        Ok(Opened { connection, driver, identity, known, ended, round_trip })
    }
}

/// Why a connection was not made.
enum Failed {
    /// The server refused the first words.
    Hello(RedisError),
    Otherwise(Refusal),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Otherwise(refusal)
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Hello(error) => Self::of(error),
            Failed::Otherwise(refusal) => refusal,
        }
    }
}

/// Could the server do without HELLO what it refuses with it? Not if it has judged the password, or
/// does not speak the protocol at all.
fn may_be_the_protocol(error: &RedisError) -> bool {
    let refused = matches!(
        error.kind(),
        redis::ErrorKind::Server(_)
            | redis::ErrorKind::Extension
            | redis::ErrorKind::RESP3NotSupported
            | redis::ErrorKind::AuthenticationFailed
    );
    let said = error.detail().unwrap_or_default();
    refused
        && !error
            .code()
            .is_some_and(|code| matches!(code, "WRONGPASS" | "DENIED") || is_passing(code))
        && !said.contains("max number of clients")
}

/// Opens the stream and says hello.
async fn open(
    client: &Client,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, Option<AbortHandle>), Failed> {
    let info = client.get_connection_info();
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            let stream = open_tcp(host, *port).await?;
            set_options(&stream, info.tcp_settings());
            match greet(client, stream, config).await {
                Err(Failed::Otherwise(refusal)) => {
                    Err(last_words(host, *port).await.unwrap_or(refusal).into())
                }
                outcome => outcome,
            }
        }
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => {
            let open = tokio::net::UnixStream::connect(path);
            let stream = bounded("to the connect", open).await?.map_err(refused)?;
            greet(client, stream, config).await
        }
        // TLS is set up inside of the client; its two round trips and the others have one bound.
        _ => {
            let open = client.get_multiplexed_async_connection_with_config(&config);
            match time::timeout(STEP * 3, open).await {
                Ok(Ok(connection)) => Ok((connection, None)),
                Ok(Err(error)) if error.is_io_error() => Err(Refusal::of(error).into()),
                Ok(Err(error)) => Err(Failed::Hello(error)),
                Err(_) => Err(Refusal::silent("to the connect", STEP * 3).into()),
            }
        }
    }
}

/// A server without room for another client says so before it is asked, and ends the connection. What
/// it says may be lost with what was sent to it and not read: so here nothing is sent.
async fn last_words(host: &str, port: u16) -> Option<Refusal> {
    const LISTENS: Duration = Duration::from_millis(500);
    let stream = open_tcp(host, port).await.ok()?;
    time::timeout(LISTENS, stream.readable()).await.ok()?.ok()?;
    let mut words = [0; 256];
    let read = stream.try_read(&mut words).ok()?;
    match redis::parse_redis_value(&words[..read]).ok()? {
        Value::ServerError(error) => Some(Refusal::of(RedisError::from(error))),
        _ => None,
    }
}

async fn greet<S>(
    client: &Client,
    stream: S,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, Option<AbortHandle>), Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = client.get_connection_info().redis_settings();
    let hello = MultiplexedConnection::new_with_config(settings, stream, config);
    let (connection, driver) = match bounded("to HELLO", hello).await? {
        Ok(connected) => connected,
        Err(error) if error.is_io_error() => return Err(Refusal::of(error).into()),
        Err(error) => return Err(Failed::Hello(error)),
    };
    let driver = tokio::spawn(driver).abort_handle();
    Ok((connection, Some(driver)))
}

/// What a connect has found out about the server, as far as this user may know it.
struct Found {
    server: Option<String>,
    memory: Option<String>,
    replication: Option<String>,
    has_fence: Option<bool>,
    /// It is another process than before.
    is_other: bool,
}

impl Found {
    fn warn(&self, server: &Server) {
        let memory = |name| field(self.memory.as_deref(), name);
        if let (Some(limit), Some(policy)) = (memory("maxmemory:"), memory("maxmemory_policy:"))
            && limit != "0"
            && policy != "noeviction"
        {
            server.warnings.say(Warning::MayEvict { policy: policy.to_owned() });
        }
        if self.is_other {
            server.warnings.say(Warning::Restarted);
        }
        match self.has_fence {
            Some(true) => server.has_fence.store(true, Ordering::Relaxed),
            Some(false) if server.has_fence.swap(false, Ordering::Relaxed) => {
                server.warnings.say(Warning::Wiped);
            }
            _ => {}
        }
    }

    /// A replica that may be written to serves as well as any primary; that is rare, and not the
    /// default. Dragonfly calls one `replica`.
    fn is_replica(&self) -> bool {
        let replication = |name| field(self.replication.as_deref(), name);
        matches!(replication("role:"), Some("slave" | "replica"))
            && replication("slave_read_only:") != Some("0")
    }

    /// Refuses a server that cannot keep locks, whatever is asked of it.
    fn refuse(&self) -> Result<(), Refusal> {
        let replication = |name| field(self.replication.as_deref(), name);
        let server = |name| field(self.server.as_deref(), name);
        // Valkey 9 has a name of its own for it.
        let text = match server("redis_mode:").or_else(|| server("server_mode:")) {
            Some("sentinel") => {
                "it is a Sentinel, which keeps no locks, so connect to the primary \
                                 that it watches: ask it with SENTINEL MASTERS and use \
                                 redis://HOST:PORT/"
                    .to_owned()
            }
            Some("cluster") => {
                "it is a node of a Redis Cluster, which this version cannot use, so \
                                connect to a server without cluster mode: redis://HOST:PORT/"
                    .to_owned()
            }
            _ if self.is_replica() => {
                match (replication("master_host:"), replication("master_port:")) {
                    (Some(host), Some(port)) => format!(
                        "it is a read-only replica, so connect to its primary, which it knows as \
                         redis://{host}:{port}/"
                    ),
                    _ => "it is a read-only replica, so connect to its primary".to_owned(),
                }
            }
            _ => return Ok(()),
        };
        Err(Refusal::new(ErrorKind::Rejected, text))
    }
}

/// The value of one line of INFO.
fn field<'a>(info: Option<&'a str>, name: &str) -> Option<&'a str> {
    info?.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn text(reply: Option<Value>) -> Option<String> {
    match reply? {
        Value::BulkString(text) => String::from_utf8(text).ok(),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

fn identity(number: Option<Value>, info: Option<&str>) -> Option<Identity> {
    let Value::Int(number) = number? else { return None };
    let process = field(info, "run_id:")?.to_owned();
    Some(Identity { process, number })
}
