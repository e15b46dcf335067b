//! The connection to one Redis server, and its health.
//!
//! Every call is bounded, counted from when it is sent. A connection that has gone silent is asked
//! whether it lives, and replaced if it does not say so: one that was cut without a word never says
//! so by itself. While there is none, calls wait for the next one, within their bound.

use std::{
    borrow::Cow,
    fmt,
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use redis::{Client, Cmd, Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard, oneshot, watch},
    task::AbortHandle,
    time::{self, Instant},
};

use super::{
    backoff::{RECONNECT, jittered},
    handshake::{Identity, Opened, Server},
    script::{self, Invocation, Known},
    stream::STEP,
    trouble::{self, Refusal},
};
use crate::{
    Error,
    store::{Listener, StoreError, WakeUps},
    warning::Warnings,
};

/// How long one call may take on a link without a delay of its own.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// A link that does not answer within this time is counted as silent.
const HEALTHY: Duration = Duration::from_millis(250);

pub(super) struct Connection {
    server: Server,
    state: watch::Sender<State>,
    /// Calls that wait for a connection go on in the order in which they came: each keeps the gate
    /// until its commands are in the connection's queue.
    gate: AsyncMutex<()>,
    /// How long a round trip takes lately, in nanoseconds.
    round_trip: AtomicU64,
    weak: Weak<Self>,
}

/// Is there a connection?
enum State {
    /// Nobody has asked for one.
    Idle,
    Connecting {
        /// When the server has last shown that it is there.
        answered_at: Option<Instant>,
        /// Why the last attempt failed.
        refusal: Option<Refusal>,
    },
    Live(Arc<Live>),
}

impl State {
    const CONNECTING: Self = Self::Connecting { answered_at: None, refusal: None };

    fn live(&self) -> Option<&Arc<Live>> {
        match self {
            Self::Live(live) => Some(live),
            _ => None,
        }
    }
}

/// One connection that was established.
struct Live {
    connection: MultiplexedConnection,
    driver: Option<AbortHandle>,
    identity: Option<Identity>,
    since: Instant,
    known: Known,
    /// A call has gone without an answer, and none has been answered since.
    is_suspect: AtomicBool,
    /// A call was answered on it.
    has_served: AtomicBool,
    /// How long to wait before the next one, if this one breaks without having been of use.
    pause: Duration,
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

impl Connection {
    /// A connection that is made when it is needed, or by [`establish`](Self::establish).
    pub(super) fn new(client: Client, warnings: Warnings) -> RedisResult<Arc<Self>> {
        let server = Server::new(client, warnings)?;
        Ok(Arc::new_cyclic(|weak| Self {
            server,
            state: watch::Sender::new(State::Idle),
            gate: AsyncMutex::new(()),
            round_trip: AtomicU64::new(0),
            weak: Weak::clone(weak),
        }))
    }

    /// Connects for the first time; fails at the first obstacle.
    pub(super) async fn establish(&self) -> Result<(), Error> {
        match self.server.connect(None, || {}).await {
            Ok(opened) => {
                self.install(opened, Duration::ZERO);
                Ok(())
            }
            Err(refusal) => Err(refusal.into_error(&self.server.address)),
        }
    }

    /// Sends the wake-ups of this client to the listener, over this connection and all that follow.
    pub(super) async fn listen(&self, client: &str, listener: Listener) -> WakeUps {
        let notices = &self.server.notices;
        notices.subscribe(client, listener);
        // Mostly nobody has connected yet, and the handshake asks for them.
        let live = self.state.borrow().live().cloned();
        if let Some(live) = live {
            self.server.listen_on(&mut live.connection.clone()).await;
        }
        notices.wake_ups()
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// How wake-ups travel at the moment.
    pub(super) fn wake_ups(&self) -> WakeUps {
        self.server.notices.wake_ups()
    }

    /// How long a call may take: a link that is slow must be able to answer.
    fn call_limit(&self) -> Duration {
        CALL_LIMIT + self.round_trip() * 2
    }

    /// How long a call waits for a connection: before the first one, nothing is known of the link.
    fn connect_limit(&self) -> Duration {
        if self.round_trip().is_zero() { STEP * 3 / 2 } else { self.call_limit() }
    }

    fn round_trip(&self) -> Duration {
        Duration::from_nanos(self.round_trip.load(Ordering::Relaxed))
    }

    /// Follows a link that becomes slow at once, and one that becomes fast again within some calls.
    fn measured(&self, round_trip: Duration) {
        let before = self.round_trip.load(Ordering::Relaxed);
        // A stall of the server is no property of the link.
        let measured = round_trip.min(CALL_LIMIT).as_nanos() as u64;
        // Relaxed, and not in one step: any of two measurements at once is as good.
        self.round_trip.store(measured.max(before - before / 8), Ordering::Relaxed);
    }

    /// Calls a script, by its hash, and again by its source where the server does not know it.
    pub(super) async fn invoke(&self, invocation: &Invocation) -> Result<Value, StoreError> {
        let reply = self.exchange(|live| live.message(invocation)).await?;
        if !script::is_unknown(&reply) {
            return Ok(reply);
        }
        let reply = self.exchange(|live| live.message_to_forgetful(&[invocation])).await?;
        Ok(first(reply))
    }

    /// The same for a call whose answer counts whenever it comes before `limit`: a renewal. The link
    /// is counted as silent long before that; then the answer may still come until there is another
    /// connection, on which the call can be tried again.
    pub(super) async fn invoke_patiently(
        &self,
        invocation: &Invocation,
        limit: Duration,
    ) -> Result<Value, StoreError> {
        let reply = self.exchange_patiently(|live| live.message(invocation).into(), limit).await?;
        if !script::is_unknown(&reply) {
            return Ok(reply);
        }
        let again = |live: &Live| live.message_to_forgetful(&[invocation]);
        self.exchange_patiently(again, limit).await.map(first)
    }

    /// Calls several scripts in one write, and those again that the server does not know.
    pub(super) async fn invoke_all(
        &self,
        invocations: &[Invocation],
    ) -> Result<Vec<Value>, StoreError> {
        let message = |live: &Live| {
            let mut pipeline = Pipeline::with_capacity(invocations.len());
            for invocation in invocations {
                pipeline.add_command(live.message(invocation).into_owned());
            }
            Message::Each { pipeline, skip: 0 }
        };
        let mut replies = self.array(self.exchange(message).await?)?;
        let unknown = |reply: &Value| script::is_unknown(reply);
        let missing = replies.iter().zip(invocations).filter(|(reply, _)| unknown(reply));
        let missing: Vec<_> = missing.map(|(_, invocation)| invocation).collect();
        if !missing.is_empty() {
            let again = self.exchange(|live| live.message_to_forgetful(&missing)).await?;
            let again = self.array(again)?;
            for (reply, again) in replies.iter_mut().filter(|reply| unknown(reply)).zip(again) {
                *reply = again;
            }
        }
        Ok(replies)
    }

    fn array(&self, reply: Value) -> Result<Vec<Value>, StoreError> {
        match reply {
            Value::Array(replies) => Ok(replies),
            _ => Err(self.server.address.makes_no_sense()),
        }
    }

    async fn exchange<'a, M: Into<Message<'a>>>(
        &self,
        message: impl FnOnce(&Live) -> M,
    ) -> Result<Value, StoreError> {
        let (gate, live) = self.ready().await?;
        let limit = self.call_limit();
        let sent_at = Instant::now();
        let sent = message(&live).into().send(live.connection.clone());
        let mut exchange = pin!(time::timeout_at(sent_at + limit, sent));
        let begun = begin(exchange.as_mut()).await;
        drop(gate);
        let outcome = match begun {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => exchange.await,
        };
        match outcome {
            Ok(outcome) => self.take(&live, outcome, sent_at),
            Err(_) => {
                self.suspect(&live, limit);
                Err(self.server.address.no_answer(limit))
            }
        }
    }

    async fn exchange_patiently<'a>(
        &self,
        message: impl FnOnce(&Live) -> Message<'a>,
        limit: Duration,
    ) -> Result<Value, StoreError> {
        let (gate, live) = self.ready().await?;
        let sent_at = Instant::now();
        let mut sent = pin!(message(&live).send(live.connection.clone()));
        let begun = begin(sent.as_mut()).await;
        drop(gate);
        if let Poll::Ready(outcome) = begun {
            return self.take(&live, outcome, sent_at);
        }
        // Time for another connection, and for another try on it, within what the lease leaves.
        let silent_after =
            (limit / 6).max(HEALTHY).min(limit / 3).min(CALL_LIMIT).max(self.round_trip() * 2);
        let mut changes = self.state.subscribe();
        let mut suspicion = pin!(time::sleep_until(sent_at + silent_after));
        loop {
            let replaced = changes
                .wait_for(|state| state.live().is_some_and(|current| !Arc::ptr_eq(current, &live)));
            tokio::select! {
                biased;
                outcome = sent.as_mut() => return self.take(&live, outcome, sent_at),
                () = suspicion.as_mut() => {
                    // And again: the answer to another question may have cleared it meanwhile.
                    self.suspect(&live, silent_after);
                    suspicion.as_mut().reset(Instant::now() + silent_after);
                }
                _ = replaced => return Err(self.server.address.replaced()),
                () = time::sleep_until(sent_at + limit) => {
                    return Err(self.server.address.no_answer(limit));
                }
            }
        }
    }

    fn take(
        &self,
        live: &Arc<Live>,
        outcome: RedisResult<Value>,
        sent_at: Instant,
    ) -> Result<Value, StoreError> {
        match outcome {
            Ok(reply) => {
                live.answered();
                self.measured(sent_at.elapsed());
                // A failover may leave the connections open that led to the primary of before.
                // Where there is no better server, one look a second does no harm.
                if trouble::is_from_replica(&reply) && live.since.elapsed() >= RECONNECT.1 {
                    self.replace(live);
                }
                Ok(reply)
            }
            // The server's errors come as values: this one is the connection's.
            Err(error) => {
                self.replace(live);
                Err(self.server.address.broken(error))
            }
        }
    }

    /// The gate and the connection behind it, once there is one.
    async fn ready(&self) -> Result<(MutexGuard<'_, ()>, Arc<Live>), StoreError> {
        let mut ready = pin!(async { (self.gate.lock().await, self.live().await) });
        let mut by = None;
        loop {
            // Mostly it is there, and no timer is needed to find out.
            if by.is_none()
                && let Poll::Ready(ready) = begin(ready.as_mut()).await
            {
                return Ok(ready);
            }
            let until = by.unwrap_or_else(|| Instant::now() + self.connect_limit());
            if let Ok(ready) = time::timeout_at(until, ready.as_mut()).await {
                return Ok(ready);
            }
            // A server that is answering the handshake is given the time for its next step.
            match &*self.state.borrow() {
                State::Connecting { answered_at: Some(at), .. } if *at + STEP > Instant::now() => {
                    by = Some(*at + STEP);
                }
                State::Connecting { refusal, .. } => {
                    return Err(self.server.address.no_connection(refusal.as_ref()));
                }
                _ => return Err(self.server.address.no_connection(None)),
            }
        }
    }

    /// The connection, once there is one.
    async fn live(&self) -> Arc<Live> {
        if let Some(live) = self.state.borrow().live() {
            return Arc::clone(live);
        }
        let was_idle = self.state.send_if_modified(|state| {
            let is_idle = matches!(state, State::Idle);
            if is_idle {
                *state = State::CONNECTING;
            }
            is_idle
        });
        if was_idle {
            tokio::spawn(reconnect(Weak::clone(&self.weak), None, Duration::ZERO));
        }
        let mut changes = self.state.subscribe();
        loop {
            if let Some(live) = changes.borrow_and_update().live() {
                return Arc::clone(live);
            }
            // Fails only when `self` is gone, and it is borrowed here.
            if changes.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    fn install(&self, opened: Opened, pause: Duration) {
        let Opened { connection, driver, identity, known, ended, round_trip } = opened;
        self.measured(round_trip);
        let live = Arc::new(Live {
            connection,
            driver,
            identity,
            since: Instant::now(),
            known,
            is_suspect: AtomicBool::new(false),
            has_served: AtomicBool::new(false),
            pause,
        });
        self.state.send_replace(State::Live(Arc::clone(&live)));
        self.watch(&live, ended);
        self.server.notices.connected();
    }

    /// Gives up a connection, unless that was done already, and begins to look for another.
    fn replace(&self, broken: &Arc<Live>) {
        let was_current = self.state.send_if_modified(|state| {
            let same = state.live().is_some_and(|live| Arc::ptr_eq(live, broken));
            if same {
                *state = State::CONNECTING;
            }
            same
        });
        if was_current {
            let (weak, identity) = (Weak::clone(&self.weak), broken.identity.clone());
            tokio::spawn(reconnect(weak, identity, broken.pause_behind()));
        }
    }

    /// A call on this connection had no answer for that long. If nothing is answered for as long
    /// again, a question of ours included, the connection is replaced: a pause of the server hits
    /// all calls at once, and says nothing yet.
    fn suspect(&self, live: &Arc<Live>, limit: Duration) {
        if live.is_suspect.swap(true, Ordering::Relaxed) {
            return;
        }
        let (weak, live) = (Weak::clone(&self.weak), Arc::clone(live));
        tokio::spawn(async move {
            let mut connection = live.connection.clone();
            let ping = redis::cmd("PING");
            let answer = time::timeout(limit, connection.send_packed_command(&ping)).await;
            if let Ok(Ok(_)) = answer {
                live.answered();
            } else if live.is_suspect.load(Ordering::Relaxed)
                && let Some(connection) = weak.upgrade()
            {
                connection.replace(&live);
            }
        });
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

/// The answer to the only command.
fn first(reply: Value) -> Value {
    match reply {
        Value::Array(replies) => replies.into_iter().next().unwrap_or(Value::Nil),
        reply => reply,
    }
}

/// Polls a future once.
async fn begin<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// One write, and what its answer is.
enum Message<'a> {
    One(Cow<'a, Cmd>),
    /// The answer is an array of those to all commands but the first few.
    Each {
        pipeline: Pipeline,
        skip: usize,
    },
}

impl<'a> From<Cow<'a, Cmd>> for Message<'a> {
    fn from(command: Cow<'a, Cmd>) -> Self {
        Self::One(command)
    }
}

impl Message<'_> {
    async fn send(self, mut connection: MultiplexedConnection) -> RedisResult<Value> {
        match self {
            Message::One(command) => connection.send_packed_command(&command).await,
            Message::Each { pipeline, skip } => {
                let count = pipeline.len() - skip;
                connection.send_packed_commands(&pipeline, skip, count).await.map(Value::Array)
            }
        }
    }
}

impl Live {
    /// By the hash where the server should know it: what has to be sent a second time is overtaken
    /// by what was sent behind it.
    fn message<'a>(&self, invocation: &'a Invocation) -> Cow<'a, Cmd> {
        if self.known.learn(invocation.script()) {
            Cow::Borrowed(invocation.by_hash())
        } else {
            Cow::Owned(invocation.by_source())
        }
    }

    /// A server that has forgotten one script has forgotten all. It gets them back at once, so that
    /// no client finds it knowing some and not the others.
    fn message_to_forgetful(&self, invocations: &[&Invocation]) -> Message<'static> {
        let mut pipeline = Pipeline::new();
        // A user who may not do that has to send each of them by its source once.
        if self.known.all_were_loaded() {
            script::ALL.iter().for_each(|script| script.load(&mut pipeline));
        } else {
            self.known.forget();
        }
        let skip = pipeline.len();
        for invocation in invocations {
            self.known.learn(invocation.script());
            pipeline.add_command(invocation.by_source());
        }
        Message::Each { pipeline, skip }
    }

    fn answered(&self) {
        self.is_suspect.store(false, Ordering::Relaxed);
        self.has_served.store(true, Ordering::Relaxed);
    }

    /// How long to wait before another connection is made in place of this one. A server, or
    /// something on the way, that ends each connection once it is there must not be asked for the
    /// next one as fast as it can do that.
    fn pause_behind(&self) -> Duration {
        if self.has_served.load(Ordering::Relaxed) { Duration::ZERO } else { self.pause }
    }
}

/// Tries to connect until it succeeds, or nobody wants the connection any more.
async fn reconnect(owner: Weak<Connection>, broken: Option<Identity>, pause: Duration) {
    let mut delay = pause;
    let mut last = None;
    loop {
        if !delay.is_zero() {
            time::sleep(jittered(delay)).await;
        }
        delay = (delay * 2).clamp(RECONNECT.0, RECONNECT.1);
        let Some(connection) = owner.upgrade() else { return };
        let answered = || {
            connection.state.send_modify(|state| {
                if let State::Connecting { answered_at, .. } = state {
                    *answered_at = Some(Instant::now());
                }
            });
        };
        match connection.server.connect(broken.as_ref(), answered).await {
            Ok(opened) => return connection.install(opened, delay),
            Err(refusal) => {
                // Once for each reason, not once for each attempt.
                if last.as_deref() != Some(refusal.text()) {
                    connection.server.cannot_connect(&refusal);
                    last = Some(refusal.text().to_owned());
                }
                connection.state.send_modify(|state| {
                    if let State::Connecting { answered_at, refusal: known } = state {
                        *answered_at = None;
                        *known = Some(refusal);
                    }
                });
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client's own Debug could show a password.
        let connected = self.state.borrow().live().is_some();
        f.debug_struct("Connection").field("connected", &connected).finish_non_exhaustive()
    }
}
