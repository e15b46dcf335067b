//! How a connection is made: the steps, and what each of them shows about the server.
//!
//! Each step is one round trip with a time limit of its own, so that a slow link is not taken for a
//! dead one: opening the stream (with TLS on it), `HELLO` with user and password, and then
//! everything else in one pipeline. Commands that have to come before the first call, but need no
//! answer, are sent ahead of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, Pipeline, RedisError, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::AbortHandle,
    time::{self, Instant},
};

use super::{
    admission::admitted,
    codes::is_passing,
    endpoint::Endpoint,
    keys::Fence,
    link::{Identity, Link},
    notices::Notices,
    place::{Member, Place, Places},
    refusal::Refusal,
    scripts::{self, Known},
    server_info::{self, ServerInfo, text},
    stream::{STEP, bounded, open_tcp, refused, set_options},
};
use crate::warning::{Warning, Warnings};

/// Commands that may wait to be written. The keeper sends in batches, so this limit is never
/// reached.
const WRITE_QUEUE: usize = 1024;

/// How a server is reached, and what all connections to it have shown.
pub(super) struct Handshake {
    /// What the server belongs to.
    member: Member,
    /// How many replicas have to acknowledge a grant.
    min_replicas: usize,
    protocol: Protocol,
    notices: Arc<Notices>,
    warnings: Warnings,
    /// The fence counter has existed: if it is missing, the data is gone.
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

/// A new link, and what is known about it.
pub(super) struct Opened {
    pub(super) link: Link,
    /// Resolves when the connection ends. RESP3 only.
    pub(super) ended: Option<oneshot::Receiver<()>>,
    /// The server process is another one than that of the previous link.
    pub(super) is_other: bool,
    /// How long the last step of the handshake took.
    pub(super) round_trip: Duration,
    /// When to send other credentials to the server, if they change.
    pub(super) renew_at: Option<Instant>,
}

impl Handshake {
    pub(super) fn new(
        member: Member,
        min_replicas: usize,
        notices: Arc<Notices>,
        warnings: Warnings,
    ) -> Self {
        Self {
            member,
            min_replicas,
            protocol: Protocol::default(),
            notices,
            warnings,
            has_fence: AtomicBool::new(false),
        }
    }

    /// A fence was drawn, so its counter exists from now on.
    pub(super) fn found_fence(&self) {
        self.has_fence.store(true, Ordering::Relaxed);
    }

    /// Opens a connection for notices, if the one for requests does not carry them.
    pub(super) async fn listen_beside(&self, places: &Places) {
        if self.protocol.is(Protocol::RESP2) {
            self.notices.open_pubsub(places.clone()).await;
        }
    }

    /// Asks for pushes on a connection that was made before there was a listener.
    pub(super) async fn listen_on(&self, link: &Link, places: &Places) {
        let pushes = self.protocol.is(Protocol::RESP3);
        self.listen_beside(places).await;
        let mut connection = link.connection();
        let mut pipeline = Pipeline::new();
        self.notices.ask(&mut pipeline, pushes);
        let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len());
        if let Ok(Ok(replies)) = time::timeout(STEP, replies).await
            && let Some(mut mute) =
                self.notices.answered(replies.into_iter(), pushes, &places.address())
        {
            let _ = connection.send_packed_command(mute.set_no_response(true)).await;
        }
    }

    /// Connects to the server at a place of the node; calls `answered` once the server has
    /// responded.
    ///
    /// Makes the server end the previous connection: what was sent on it has either been done by
    /// then, or never will be. Without that, a request that waits in the socket of a stalled server
    /// could take a lock after the release that was to undo it.
    pub(super) async fn connect(
        &self,
        place: &Place,
        broken: Option<&Identity>,
        answered: impl Fn(),
    ) -> Result<Opened, Refusal> {
        if !self.protocol.is(Protocol::RESP2) {
            match self.connect_as(place, Protocol::RESP3, broken, &answered).await {
                Ok(opened) => {
                    self.protocol.found(Protocol::RESP3);
                    return Ok(opened);
                }
                // Servers before Redis 6, proxies, and users that may not call HELLO.
                Err(Failed::Hello(error))
                    if !self.protocol.is(Protocol::RESP3) && may_be_the_protocol(&error) => {}
                Err(failed) => return Err(failed.into()),
            }
        }
        let opened = self.connect_as(place, Protocol::RESP2, broken, &answered).await?;
        self.protocol.found(Protocol::RESP2);
        Ok(opened)
    }

    async fn connect_as(
        &self,
        place: &Place,
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
        let client = if pushes { place.speaks_resp3() } else { place.endpoint().client() };
        let admission = place.endpoint().admission().await?;
        let client = admitted(client, admission.as_ref()).map_err(Refusal::of)?;
        let (mut connection, driver) = open(place.endpoint(), &client, config).await?;
        answered();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("PING");
        pipeline.cmd("CLIENT").arg("ID");
        pipeline.cmd("INFO").arg("server");
        pipeline.cmd("INFO").arg("memory");
        pipeline.cmd("INFO").arg("replication");
        pipeline.cmd("EXISTS").arg(Fence::ONLY);
        if self.min_replicas > 0 {
            // Waits for no replicas: it shows whether this user may ask.
            pipeline.cmd("WAIT").arg(0).arg(1);
        }
        for script in scripts::ALL {
            script.load(&mut pipeline);
        }
        // Before the connection can be used, so that no notice about what is asked on it is missed.
        let listens = self.notices.ask(&mut pipeline, pushes);
        let began = Instant::now();
        let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len());
        let replies = match time::timeout(STEP, replies).await {
            Ok(replies) => replies.map_err(Refusal::of)?,
            Err(_) => return Err(Refusal::silent("to the handshake", STEP).into()),
        };
        let round_trip = began.elapsed();
        let mut replies = replies.into_iter();
        // A server that requires a password, or is still loading, answers even this with an error.
        // The other commands may be forbidden to this user: they are only improvements.
        if let Some(Value::ServerError(error)) = replies.next() {
            return Err(Refusal::of(RedisError::from(error)).into());
        }
        let (number, server) = (replies.next(), text(replies.next()));
        // Behind a proxy, the numbers of connections are those of many servers.
        let is_known = !matches!(self.member, Member::Proxy);
        let identity = server_info::identity(number, server.as_deref()).filter(|_| is_known);
        let same_process = broken.filter(|broken| {
            identity.as_ref().is_some_and(|identity| identity.process == broken.process)
        });
        let found = ServerInfo {
            server,
            memory: text(replies.next()),
            replication: text(replies.next()),
            has_fence: match (replies.next(), &self.member) {
                (Some(Value::Int(keys)), Member::Alone { .. } | Member::Watched) => Some(keys > 0),
                // Each slot has its own counter.
                _ => None,
            },
            is_other: broken.is_some() && identity.is_some() && same_process.is_none(),
        };
        let may_wait = if self.min_replicas > 0 { replies.next() } else { None };
        // A server that has just been chosen as the primary may still be a replica for a moment.
        let is_alone = matches!(self.member, Member::Alone { .. }) && !found.is_of_cluster();
        if found.is_replica() && is_alone {
            self.warnings.say(Warning::Replica, place.address());
        }
        // Refused before anything is warned of: what else it lacks does not matter if it is not
        // used.
        found.refuse(&self.member, place.scheme(), place.address())?;
        if let Some(Value::ServerError(error)) = may_wait {
            return Err(Refusal::may_not_wait(error.into()).into());
        }
        let warnings = (&self.warnings, place.address());
        found.warn(&self.member, warnings, &self.has_fence, self.min_replicas);
        let scripts = replies.by_ref().take(scripts::ALL.len());
        let known = Known::loaded(scripts.map(|reply| matches!(reply, Value::BulkString(_))));
        // These commands only have to be sent ahead of every call on this connection; "no such
        // client" is as good an answer. Dragonfly and Upstash do not name their process in INFO.
        // With them, the number may no longer be that of the old connection, so it is not ended,
        // and a request that waits in it may still be done later.
        if let Some(broken) = same_process {
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("ID").arg(broken.number).set_no_response(true);
            let _ = connection.send_packed_command(&kill).await;
        }
        if let Some(mut mute) =
            listens.then(|| self.notices.answered(replies, pushes, place.address())).flatten()
        {
            let _ = connection.send_packed_command(mute.set_no_response(true)).await;
        }
        let link = Link::new(connection, driver, identity, known);
        let renew_at = admission.and_then(|admission| admission.renew_at);
        Ok(Opened { link, ended, is_other: found.is_other, round_trip, renew_at })
    }
}

/// Why a connection was not made.
enum Failed {
    /// The server refused the greeting.
    Hello(RedisError),
    Otherwise(Refusal),
}

impl Failed {
    fn of(error: RedisError) -> Self {
        if error.is_io_error() { Refusal::of(error).into() } else { Self::Hello(error) }
    }
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

/// Whether the server might accept without HELLO what it refuses with it. Not if it has judged the
/// password, or does not speak the protocol at all.
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

/// The configuration of a connection for questions.
pub(super) fn for_questions() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(STEP))
}

/// Opens a connection for questions that do not concern locks: to a Sentinel, or to a node of a
/// Cluster. The second value is false if nothing is pushed on it.
pub(super) async fn greet_at(
    place: &Place,
    pushes: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, bool), Refusal> {
    let admission = place.endpoint().admission().await?;
    let client = admitted(place.speaks_resp3(), admission.as_ref()).map_err(Refusal::of)?;
    match open(place.endpoint(), &client, pushes).await {
        Ok((connection, _)) => Ok((connection, true)),
        Err(Failed::Hello(error)) if may_be_the_protocol(&error) => {
            let client = place.endpoint().client();
            let client = admitted(client, admission.as_ref()).map_err(Refusal::of)?;
            let (connection, _) = open(place.endpoint(), &client, for_questions()).await?;
            Ok((connection, false))
        }
        Err(failed) => Err(failed.into()),
    }
}

/// Opens the stream and says hello.
async fn open(
    endpoint: &Endpoint,
    client: &Client,
    config: AsyncConnectionConfig,
) -> Result<Greeted, Failed> {
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
        _ => {
            // The two round trips of TLS and the others share one time limit.
            let unexplained =
                match time::timeout(STEP * 3, open_other(endpoint, client, config)).await {
                    Ok(Err(Failed::Otherwise(refusal))) if refusal.is_unexplained() => refusal,
                    Ok(outcome) => return outcome,
                    Err(_) => Refusal::silent("to the connect", STEP * 3),
                };
            #[cfg(feature = "tls")]
            let unexplained = super::tls::last_words::of(endpoint, unexplained).await;
            Err(unexplained.into())
        }
    }
}

/// Opens TLS, or leaves that to the client, and says hello.
async fn open_other(
    endpoint: &Endpoint,
    client: &Client,
    config: AsyncConnectionConfig,
) -> Result<Greeted, Failed> {
    if let Some(stream) = endpoint.open_tls().await? {
        return hello(client, stream, config).await;
    }
    let open = client.get_multiplexed_async_connection_with_config(&config);
    open.await.map(|connection| (connection, None)).map_err(Failed::of)
}

/// A server without room for another client says so before it is asked, and ends the connection.
/// Its message may be lost if the client has sent something that the server has not read, so
/// nothing is sent here.
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

/// A connection, and what aborts the task that reads and writes for it, if that task is ours.
type Greeted = (MultiplexedConnection, Option<AbortHandle>);

/// A stream of bytes both ways.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

async fn greet(
    client: &Client,
    stream: impl Stream,
    config: AsyncConnectionConfig,
) -> Result<Greeted, Failed> {
    bounded("to HELLO", hello(client, stream, config)).await?
}

async fn hello(
    client: &Client,
    stream: impl Stream,
    config: AsyncConnectionConfig,
) -> Result<Greeted, Failed> {
    let settings = client.get_connection_info().redis_settings();
    let hello = MultiplexedConnection::new_with_config(settings, stream, config);
    let (connection, driver) = hello.await.map_err(Failed::of)?;
    let driver = tokio::spawn(driver).abort_handle();
    Ok((connection, Some(driver)))
}
