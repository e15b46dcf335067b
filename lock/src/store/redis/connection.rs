//! The connection to one Redis server, and its health.
//!
//! Every call is bounded, and two time-outs in a row replace the connection: one that was cut
//! without a word never says so by itself. While there is none, calls wait for the next one,
//! within their bound.

use std::{
    borrow::Cow,
    fmt,
    future::{Future, poll_fn},
    hash::{BuildHasher, Hasher, RandomState},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, Pipeline, ProtocolVersion, RedisError, RedisResult, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::{Mutex as AsyncMutex, oneshot, watch},
    time::{self, Instant},
};

use super::{
    FENCE,
    script::{self, Invocation, Known},
    wake::Ear,
};
use crate::{
    store::{Listener, StoreError, WakeUps},
    warning::{Warning, Warnings},
};

/// How long one call may take.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(1);

/// A link that does not answer within this time is counted as silent. Calls with a shorter limit
/// say nothing about the connection when they run into it.
pub(super) const HEALTHY: Duration = Duration::from_millis(250);

/// How long it may take to connect: for a whole handshake, TLS included.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The pauses between two tries to connect again.
pub(super) const RECONNECT: (Duration, Duration) =
    (Duration::from_millis(20), Duration::from_secs(1));

/// Commands that may wait to be written. The keeper sends in batches, so this is never the bound.
const WRITE_QUEUE: usize = 1024;

pub(super) struct Connection {
    server: Server,
    /// `None` while there is no connection.
    current: watch::Sender<Option<Arc<Live>>>,
    gate: AsyncMutex<()>,
    weak: Weak<Self>,
}

/// How the server is reached, and who wants to hear from it.
#[derive(Clone)]
struct Server {
    client: Client,
    /// It speaks RESP3, as the first connect has shown.
    pushes: bool,
    ear: Arc<Ear>,
    warnings: Warnings,
    /// The counter of fences was there once: without it, the data is gone.
    has_fence: Arc<AtomicBool>,
}

/// One connection that was established.
struct Live {
    connection: MultiplexedConnection,
    identity: Option<Identity>,
    since: Instant,
    known: Known,
    /// Since when calls have gone without an answer.
    suspect_since: Mutex<Option<Instant>>,
    /// A call was answered on it.
    has_served: AtomicBool,
    /// How long to wait before the next one, if this one breaks without having been of use.
    pause: Duration,
}

/// How a server process names one of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    /// Numbers start again with every process, so they mean nothing without its name.
    process: String,
    number: i64,
}

impl Connection {
    /// Connects for the first time; fails at the first obstacle.
    pub(super) async fn establish(client: Client, warnings: Warnings) -> RedisResult<Arc<Self>> {
        let info = client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let speaks_resp3 = Client::open(info.set_redis_settings(settings))?;
        let ear = Arc::new(Ear::new(warnings.clone()));
        let has_fence = Arc::default();
        let mut server = Server { client: speaks_resp3, pushes: true, ear, warnings, has_fence };
        let (live, ended) = match connect(&server, None).await {
            Ok(connected) => connected,
            Err(error) if error.is_io_error() => return Err(error),
            // Servers before Redis 6, proxies, and users who may not say HELLO.
            Err(_) => {
                server = Server { client, pushes: false, ..server };
                connect(&server, None).await?
            }
        };
        let live = Arc::new(live);
        let connection = Arc::new_cyclic(|weak| Self {
            server,
            current: watch::Sender::new(Some(Arc::clone(&live))),
            gate: AsyncMutex::new(()),
            weak: weak.clone(),
        });
        connection.watch(&live, ended);
        Ok(connection)
    }

    /// Sends the wake-ups of this client to the listener, over this connection and all that follow.
    pub(super) async fn listen(&self, client: &str, listener: Listener) -> WakeUps {
        let Server { client: server, pushes, ear, .. } = &self.server;
        ear.open(client, listener);
        if *pushes {
            let live = self.live().await;
            let mut connection = live.connection.clone();
            if time::timeout(CALL_LIMIT, ear.subscribe(&mut connection)).await.is_err() {
                self.replace(&live);
            }
        } else {
            ear.subscribe_apart(server.clone()).await;
        }
        ear.wake_ups()
    }

    /// A fence was drawn: its counter is there from now on.
    pub(super) fn has_fence(&self) {
        self.server.has_fence.store(true, Ordering::Relaxed);
    }

    /// How wake-ups travel at the moment.
    pub(super) fn wake_ups(&self) -> WakeUps {
        self.server.ear.wake_ups()
    }

    /// Calls a script, by its hash, and again by its source where the server does not know it.
    pub(super) async fn invoke(
        &self,
        invocation: &Invocation,
        limit: Duration,
    ) -> Result<Value, StoreError> {
        let reply = self.exchange(|live| live.message(invocation), limit).await?;
        if !script::is_unknown(&reply) {
            return Ok(reply);
        }
        self.exchange(|live| live.message_to_forgetful(invocation), limit).await
    }

    async fn exchange<'a>(
        &self,
        message: impl FnOnce(&Live) -> Message<'a>,
        limit: Duration,
    ) -> Result<Value, StoreError> {
        let by = Instant::now() + limit;
        // Calls that wait for a connection go on in the order in which they came: each keeps the
        // gate until its commands are in the connection's queue.
        let Ok((gate, live)) =
            time::timeout_at(by, async { (self.gate.lock().await, self.live().await) }).await
        else {
            return Err(StoreError::unavailable("there is no connection to the server"));
        };
        let sent_at = Instant::now();
        let sent = message(&live).send(live.connection.clone());
        let mut exchange = pin!(time::timeout_at(by, sent));
        let begun = poll_fn(|context| Poll::Ready(exchange.as_mut().poll(context))).await;
        drop(gate);
        let outcome = match begun {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => exchange.await,
        };
        match outcome {
            Ok(Ok(reply)) => {
                live.answered();
                // A failover may leave the connections open that led to the primary of before.
                // Where there is no better server, one look a second does no harm.
                if script::is_from_replica(&reply) && live.since.elapsed() >= RECONNECT.1 {
                    self.replace(&live);
                }
                Ok(reply)
            }
            Ok(Err(error)) => {
                // The server's errors come as values: this one is the connection's.
                self.replace(&live);
                Err(StoreError::Unavailable(Arc::new(error)))
            }
            Err(_) => {
                if limit >= HEALTHY && live.timed_out(sent_at) {
                    self.replace(&live);
                }
                Err(StoreError::unavailable(format!("no answer within {limit:?}")))
            }
        }
    }

    /// The connection, once there is one.
    async fn live(&self) -> Arc<Live> {
        if let Some(live) = &*self.current.borrow() {
            return Arc::clone(live);
        }
        let mut changes = self.current.subscribe();
        loop {
            if let Some(live) = &*changes.borrow_and_update() {
                return Arc::clone(live);
            }
            // Fails only when `self` is gone, and it is borrowed here.
            let _ = changes.changed().await;
        }
    }

    /// Gives up a connection, unless that was done already, and begins to look for another.
    fn replace(&self, broken: &Arc<Live>) {
        let was_current = self.current.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|live| Arc::ptr_eq(live, broken));
            if same {
                *current = None;
            }
            same
        });
        if was_current {
            tokio::spawn(reconnect(
                Weak::clone(&self.weak),
                broken.identity.clone(),
                broken.pause_behind(),
            ));
        }
    }

    /// Replaces a connection as soon as it ends. Without that, one that nobody uses but to be
    /// woken would be missed at the next call only.
    fn watch(&self, live: &Arc<Live>, ended: Option<oneshot::Receiver<()>>) {
        let Some(ended) = ended else { return };
        let (weak, live) = (Weak::clone(&self.weak), Arc::downgrade(live));
        tokio::spawn(async move {
            let _ = ended.await;
            if let (Some(connection), Some(live)) = (weak.upgrade(), live.upgrade()) {
                connection.replace(&live);
            }
        });
    }
}

/// One write, and what its answer is.
enum Message<'a> {
    One(Cow<'a, Cmd>),
    /// The answer is that to the last command.
    Last(Pipeline),
}

impl Message<'_> {
    async fn send(self, mut connection: MultiplexedConnection) -> RedisResult<Value> {
        match self {
            Message::One(command) => connection.send_packed_command(&command).await,
            Message::Last(pipeline) => {
                let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
                Ok(replies.into_iter().next_back().unwrap_or(Value::Nil))
            }
        }
    }
}

impl Live {
    /// By the hash where the server should know it: what has to be sent a second time is overtaken
    /// by what was sent behind it.
    fn message<'a>(&self, invocation: &'a Invocation) -> Message<'a> {
        Message::One(if self.known.learn(invocation.script()) {
            Cow::Borrowed(invocation.by_hash())
        } else {
            Cow::Owned(invocation.by_source())
        })
    }

    /// A server that has forgotten one script has forgotten all. It gets them back at once, so that
    /// no client finds it knowing some and not the others.
    fn message_to_forgetful(&self, invocation: &Invocation) -> Message<'static> {
        let mut pipeline = Pipeline::new();
        // A user who may not do that has to send each of them by its source once.
        if self.known.all_were_loaded() {
            script::ALL.iter().for_each(|script| script.load(&mut pipeline));
        } else {
            self.known.forget();
            self.known.learn(invocation.script());
        }
        pipeline.add_command(invocation.by_source());
        Message::Last(pipeline)
    }

    fn suspect_since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.suspect_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) {
        *self.suspect_since() = None;
        self.has_served.store(true, Ordering::Relaxed);
    }

    /// How long to wait before another connection is made in place of this one. A server, or
    /// something on the way, that ends each connection once it is there must not be asked for the
    /// next one as fast as it can do that.
    fn pause_behind(&self) -> Duration {
        if self.has_served.load(Ordering::Relaxed) { Duration::ZERO } else { self.pause }
    }

    /// A call that was sent at `sent_at` had no answer. Is it the second in a row? Calls that
    /// were on their way together count as one: a pause of the server hits them all.
    fn timed_out(&self, sent_at: Instant) -> bool {
        let mut suspect_since = self.suspect_since();
        match *suspect_since {
            Some(since) => sent_at >= since,
            None => {
                *suspect_since = Some(Instant::now());
                false
            }
        }
    }
}

/// Tries to connect until it succeeds, or nobody wants the connection any more.
async fn reconnect(owner: Weak<Connection>, broken: Option<Identity>, pause: Duration) {
    let mut delay = pause;
    loop {
        if !delay.is_zero() {
            time::sleep(jittered(delay)).await;
        }
        delay = (delay * 2).clamp(RECONNECT.0, RECONNECT.1);
        let Some(server) = owner.upgrade().map(|connection| connection.server.clone()) else {
            return;
        };
        if let Ok((live, ended)) = connect(&server, broken.as_ref()).await {
            if let Some(connection) = owner.upgrade() {
                let live = Arc::new(Live { pause: delay, ..live });
                connection.current.send_replace(Some(Arc::clone(&live)));
                connection.watch(&live, ended);
                server.ear.connected();
            }
            return;
        }
    }
}

/// Connects, and makes the server forget the connection before: what was sent on it has either
/// been done by then, or never will be. Without that, a request that waits in the socket of a
/// stalled server could take a lock after the release that was to undo it.
async fn connect(
    server: &Server,
    broken: Option<&Identity>,
) -> RedisResult<(Live, Option<oneshot::Receiver<()>>)> {
    let mut config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_LIMIT))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(WRITE_QUEUE);
    let mut ended = None;
    if server.pushes {
        let (pushes, ends) = server.ear.pushes();
        config = config.set_push_sender(pushes);
        ended = Some(ends);
    }
    let handshake = async {
        let client = &server.client;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
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
        let mut replies =
            connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?.into_iter();
        // A server that wants a password, or is still loading, answers even this with an error.
        // The other commands may be forbidden to this user: they only make things better.
        if let Some(Value::ServerError(error)) = replies.next() {
            return Err(RedisError::from(error));
        }
        let identity = identity(replies.next(), replies.next());
        let found = Found {
            memory: text(replies.next()),
            replication: text(replies.next()),
            has_fence: match replies.next() {
                Some(Value::Int(keys)) => Some(keys > 0),
                _ => None,
            },
            is_other: match (broken, &identity) {
                (Some(broken), Some(identity)) => broken.process != identity.process,
                _ => false,
            },
        };
        found.warn(server);
        if let (Some(broken), Some(identity)) = (broken, &identity)
            && broken.process == identity.process
        {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("CLIENT").arg("KILL").arg("ID").arg(broken.number);
            // "No such client" is as good.
            connection.send_packed_commands(&pipeline, 0, 1).await?;
        }
        let known = Known::loaded(replies.map(|reply| matches!(reply, Value::BulkString(_))));
        // Before anybody can use the connection: no wake-up of what is asked on it is missed.
        if server.pushes {
            server.ear.subscribe(&mut connection).await;
        }
        let since = Instant::now();
        Ok(Live {
            connection,
            identity,
            since,
            known,
            suspect_since: Mutex::new(None),
            has_served: AtomicBool::new(false),
            pause: Duration::ZERO,
        })
    };
    let live = time::timeout(CONNECT_LIMIT, handshake).await.unwrap_or_else(|_| {
        let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer to the handshake");
        Err(RedisError::from(error))
    })?;
    Ok((live, ended))
}

/// What a connect has found out about the server, as far as this user may know it.
struct Found {
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
        // One that may be written to serves as well as any primary; that is rare, and not the
        // default.
        if field(self.replication.as_deref(), "role:") == Some("slave") {
            server.warnings.say(Warning::Replica);
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

fn identity(number: Option<Value>, info: Option<Value>) -> Option<Identity> {
    let (Value::Int(number), info) = (number?, text(info)?) else { return None };
    let process = field(Some(&info), "run_id:")?.to_owned();
    Some(Identity { process, number })
}

/// Between half of a delay and all of it, so that the clients of a server that comes back do not
/// come back all at once.
pub(super) fn jittered(delay: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1024;
    delay / 2 + delay / 2048 * random as u32
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client's own Debug could show a password.
        let connected = self.current.borrow().is_some();
        f.debug_struct("Connection").field("connected", &connected).finish_non_exhaustive()
    }
}
