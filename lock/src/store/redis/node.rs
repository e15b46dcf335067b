//! One Redis server: its link, how healthy that is, and how the next one comes.
//!
//! Every call is bounded, counted from when it is sent. A link that has gone silent is asked
//! whether it lives, and replaced if it does not say so: one that was cut without a word never says
//! so by itself. While there is none, calls wait for the next one, within their bound.

mod acknowledge;
mod admit;
mod reconnect;

use std::{
    fmt,
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use redis::{RedisResult, Value};
use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard, oneshot, watch},
    time::{self, Instant},
};

pub(super) use self::acknowledge::Acknowledgement;
use self::{
    acknowledge::Replicas,
    reconnect::{Before, reconnect},
};
use super::{
    backoff::RECONNECT,
    codes,
    handshake::{Handshake, Opened},
    link::{self, Link, Message},
    notices::Notices,
    place::{Place, Places},
    refusal::Refusal,
    round_trip::RoundTrip,
    scripts::{self, Invocation},
    stream::STEP,
    trouble::Address,
};
use crate::{
    Error,
    contract::{Delivery, Listener, StoreError},
    events::Events,
    warning::Warnings,
};

pub(super) struct Node {
    places: Places,
    handshake: Handshake,
    notices: Arc<Notices>,
    events: Events,
    state: watch::Sender<State>,
    /// Calls that wait for a link go on in the order in which they came: each keeps the gate until
    /// its commands are in the connection's queue.
    gate: AsyncMutex<()>,
    round_trip: RoundTrip,
    replicas: Replicas,
    /// How often the server could not be reached, or could no longer.
    disconnects: watch::Sender<u64>,
    weak: Weak<Self>,
}

/// Is there a link?
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

/// A link that was established, and its health.
struct Live {
    link: Link,
    address: Address,
    /// Those of the node, as they were when it was made.
    places: Places,
    since: Instant,
    /// A call has gone without an answer, and none has been answered since.
    is_suspect: AtomicBool,
    /// A call was answered on it.
    has_served: AtomicBool,
    /// How long to wait before the next one, if this one breaks before it has served a call.
    pause: Duration,
}

impl Node {
    /// Its link is made when it is needed, or by [`establish`](Self::establish).
    pub(super) fn new(places: Places, min_replicas: usize, warnings: Warnings) -> Arc<Self> {
        let events = warnings.events().clone();
        let notices = Arc::new(Notices::new(warnings.clone()));
        let replicas = Replicas::new(min_replicas, warnings.clone());
        let handshake =
            Handshake::new(places.may_move(), min_replicas, Arc::clone(&notices), warnings);
        Arc::new_cyclic(|weak| Self {
            places,
            handshake,
            notices,
            events,
            state: watch::Sender::new(State::Idle),
            gate: AsyncMutex::new(()),
            round_trip: RoundTrip::default(),
            replicas,
            disconnects: watch::Sender::default(),
            weak: Weak::clone(weak),
        })
    }

    /// Connects for the first time; fails at the first obstacle.
    pub(super) async fn establish(&self) -> Result<(), Error> {
        let mut places = self.places.clone();
        let place = places.current().await;
        match self.handshake.connect(&place, None, || {}).await {
            Ok(opened) => {
                self.install(opened, &place, places, Duration::ZERO).await;
                Ok(())
            }
            Err(refusal) => Err(refusal.into_error(place.address())),
        }
    }

    /// Sends the notices of this client to the listener, over this link and all that follow.
    pub(super) async fn subscribe(&self, client: &str, listener: Listener) -> Delivery {
        self.notices.subscribe(client, listener);
        // Mostly nobody has connected yet, and the handshake asks for them.
        let live = self.state.borrow().live().cloned();
        if let Some(live) = live {
            self.handshake.listen_on(&live.link, &self.places).await;
        }
        self.delivery()
    }

    /// What errors call the server.
    pub(super) fn address(&self) -> Address {
        self.places.address()
    }

    /// Changes whenever the server could not be reached, or could no longer.
    pub(super) fn disconnects(&self) -> watch::Receiver<u64> {
        self.disconnects.subscribe()
    }

    /// How notices travel at the moment.
    pub(super) fn delivery(&self) -> Delivery {
        self.notices.delivery()
    }

    /// A fence was drawn here: its counter is there from now on.
    pub(super) fn found_fence(&self) {
        self.handshake.found_fence();
    }

    /// Calls a script, by its hash, and again by its source where the server does not know it.
    pub(super) async fn invoke(&self, invocation: &Invocation) -> Result<Value, StoreError> {
        self.invoke_granting(invocation, None).await.map(|(reply, _)| reply)
    }

    /// The same for a call that grants locks of this lease, which replicas are to acknowledge.
    pub(super) async fn invoke_granting(
        &self,
        invocation: &Invocation,
        lease: Option<Duration>,
    ) -> Result<(Value, Acknowledgement), StoreError> {
        let answer = self.exchange(|link| link.call(invocation), lease).await?;
        if !scripts::is_unknown(&answer.0) {
            return Ok(answer);
        }
        let again = |link: &Link| link.call_to_forgetful(&[invocation]);
        let (reply, acknowledgement) = self.exchange(again, lease).await?;
        Ok((link::first(reply), acknowledgement))
    }

    /// Calls a script whose answer counts whenever it comes before `limit`: a renewal. The link is
    /// counted as silent long before that; then the answer may still come until there is another
    /// one, on which the call can be tried again. Replicas are to acknowledge it, but nobody waits
    /// for that: if they do not, it is warned of.
    pub(super) async fn invoke_patiently(
        &self,
        invocation: &Invocation,
        limit: Duration,
    ) -> Result<Value, StoreError> {
        let reply = self.exchange_patiently(|link| link.call(invocation), limit).await?;
        if !scripts::is_unknown(&reply) {
            return Ok(reply);
        }
        let again = |link: &Link| link.call_to_forgetful(&[invocation]);
        self.exchange_patiently(again, limit).await.map(link::first)
    }

    /// Calls several scripts in one write, and those again that the server does not know. `lease` is
    /// as for [`invoke_granting`](Self::invoke_granting).
    pub(super) async fn invoke_all(
        &self,
        invocations: &[Invocation],
        lease: Option<Duration>,
    ) -> Result<(Vec<Value>, Acknowledgement), StoreError> {
        let (replies, mut acknowledgement) =
            self.exchange(|link| link.call_all(invocations), lease).await?;
        let mut replies = self.array(replies)?;
        let unknown = |reply: &Value| scripts::is_unknown(reply);
        let missing = replies.iter().zip(invocations).filter(|(reply, _)| unknown(reply));
        let missing: Vec<_> = missing.map(|(_, invocation)| invocation).collect();
        if !missing.is_empty() {
            let again = |link: &Link| link.call_to_forgetful(&missing);
            let (again, later) = self.exchange(again, lease).await?;
            // It counts what was written before, too: on the same connection, or else the first is
            // told that its own has ended.
            acknowledgement = acknowledgement.and(later);
            let again = self.array(again)?;
            for (reply, again) in replies.iter_mut().filter(|reply| unknown(reply)).zip(again) {
                *reply = again;
            }
        }
        Ok((replies, acknowledgement))
    }

    fn array(&self, reply: Value) -> Result<Vec<Value>, StoreError> {
        match reply {
            Value::Array(replies) => Ok(replies),
            _ => Err(self.address().makes_no_sense()),
        }
    }

    /// `lease` is that of the locks which the message may grant.
    async fn exchange<'a>(
        &self,
        message: impl FnOnce(&Link) -> Message<'a>,
        lease: Option<Duration>,
    ) -> Result<(Value, Acknowledgement), StoreError> {
        let (gate, live) = self.ready().await?;
        let limit = self.round_trip.call_limit();
        let sent_at = Instant::now();
        let sent = live.link.send(message(&live.link));
        let mut exchange = pin!(time::timeout_at(sent_at + limit, sent));
        let begun = begin(exchange.as_mut()).await;
        let acknowledgement = match lease {
            Some(lease) => self.acknowledge(&live, lease),
            None => Acknowledgement::NOT_WANTED,
        };
        drop(gate);
        let outcome = match begun {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => exchange.await,
        };
        match outcome {
            Ok(outcome) => self.take(&live, outcome, sent_at).map(|reply| (reply, acknowledgement)),
            Err(_) => {
                self.suspect(&live, limit);
                Err(live.address.no_answer(limit))
            }
        }
    }

    async fn exchange_patiently<'a>(
        &self,
        message: impl FnOnce(&Link) -> Message<'a>,
        limit: Duration,
    ) -> Result<Value, StoreError> {
        let (gate, live) = self.ready().await?;
        let sent_at = Instant::now();
        let mut sent = pin!(live.link.send(message(&live.link)));
        let begun = begin(sent.as_mut()).await;
        let _warned_of = acknowledge::is_worth_it(limit).then(|| self.acknowledge(&live, limit));
        drop(gate);
        if let Poll::Ready(outcome) = begun {
            return self.take(&live, outcome, sent_at);
        }
        let silent_after = self.round_trip.silent_after(limit);
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
                _ = replaced => return Err(live.replaced()),
                () = time::sleep_until(sent_at + limit) => {
                    return Err(live.address.no_answer(limit));
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
        // Whatever a server has said that is no longer the one to ask, it has said to nobody.
        if live.places.has_moved() {
            self.replace(live);
            return Err(live.replaced());
        }
        match outcome {
            Ok(reply) => {
                live.answered();
                self.round_trip.measured(sent_at.elapsed());
                // A failover may leave the connections open that led to the primary of before.
                // Where there is no better server, one look a second does no harm.
                if codes::is_from_replica(&reply) && live.since.elapsed() >= RECONNECT.1 {
                    self.replace(live);
                }
                Ok(reply)
            }
            // The server's errors come as values: this one is the connection's.
            Err(error) => {
                self.replace(live);
                Err(live.address.broken(error))
            }
        }
    }

    /// The gate and the link behind it, once there is one.
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
            let until = by.unwrap_or_else(|| Instant::now() + self.round_trip.connect_limit());
            if let Ok(ready) = time::timeout_at(until, ready.as_mut()).await {
                return Ok(ready);
            }
            // A server that is answering the handshake is given the time for its next step.
            match &*self.state.borrow() {
                State::Connecting { answered_at: Some(at), .. } if *at + STEP > Instant::now() => {
                    by = Some(*at + STEP);
                }
                State::Connecting { refusal, .. } => {
                    return Err(self.address().no_connection(refusal.as_ref()));
                }
                // It is there, and others keep it: it is silent.
                State::Live(live) => {
                    return Err(live.address.no_answer(self.round_trip.connect_limit()));
                }
                State::Idle => return Err(self.address().no_connection(None)),
            }
        }
    }

    /// The link, once there is one.
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
            tokio::spawn(reconnect(Weak::clone(&self.weak), Before::default(), Duration::ZERO));
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

    async fn install(&self, opened: Opened, place: &Arc<Place>, places: Places, pause: Duration) {
        let Opened { link, ended, is_other, round_trip, renew_at } = opened;
        self.handshake.listen_beside(&self.places).await;
        self.round_trip.measured(round_trip);
        let live = Arc::new(Live {
            link,
            address: place.address().clone(),
            places,
            since: Instant::now(),
            is_suspect: AtomicBool::new(false),
            has_served: AtomicBool::new(false),
            pause,
        });
        self.state.send_replace(State::Live(Arc::clone(&live)));
        self.watch(&live, ended);
        if let Some(at) = renew_at {
            self.keep_admitted(&live, place, at);
        }
        self.notices.connected();
        if is_other {
            self.notices.replaced();
        }
    }

    /// Gives up a link, unless that was done already, and begins to look for another.
    fn replace(&self, broken: &Arc<Live>) {
        let was_current = self.state.send_if_modified(|state| {
            let same = state.live().is_some_and(|live| Arc::ptr_eq(live, broken));
            if same {
                *state = State::CONNECTING;
            }
            same
        });
        if was_current {
            self.disconnects.send_modify(|times| *times += 1);
            let moved = broken.places.has_moved();
            if moved {
                // What waits for an answer there is told so at once.
                broken.link.close();
            }
            let pause = if moved { Duration::ZERO } else { broken.pause_behind() };
            let before = Before { identity: broken.link.identity().cloned(), moved };
            tokio::spawn(reconnect(Weak::clone(&self.weak), before, pause));
        }
    }

    /// A call on this link had no answer for that long. If nothing is answered for as long again, a
    /// question of ours included, the link is replaced: a pause of the server hits all calls at
    /// once, and says nothing yet.
    fn suspect(&self, live: &Arc<Live>, limit: Duration) {
        if live.is_suspect.swap(true, Ordering::Relaxed) {
            return;
        }
        let (weak, live) = (Weak::clone(&self.weak), Arc::clone(live));
        tokio::spawn(async move {
            let answer = time::timeout(limit, live.link.ping()).await;
            if let Ok(Ok(_)) = answer {
                live.answered();
            } else if live.is_suspect.load(Ordering::Relaxed)
                && let Some(node) = weak.upgrade()
            {
                node.replace(&live);
            }
        });
    }

    /// Says what has failed at this server, and why.
    fn report(&self, what: &'static str, address: &Address, refusal: &Refusal) {
        let (address, refusal) = (address.clone(), refusal.clone());
        self.events.say(move || {
            tracing::warn!(target: "lock", server = %address, "{what}: {}", refusal.text());
        });
    }

    /// Replaces a link as soon as it ends, or the node is elsewhere. Without that, one that nobody
    /// uses but to be woken would be missed at the next call only.
    fn watch(&self, live: &Arc<Live>, ended: Option<oneshot::Receiver<()>>) {
        let mut places = live.places.clone();
        let (weak, live) = (Weak::clone(&self.weak), Arc::downgrade(live));
        tokio::spawn(async move {
            let ended = async {
                match ended {
                    // Used, or dropped.
                    Some(ended) => drop(ended.await),
                    None => pending().await,
                }
            };
            tokio::select! {
                () = ended => {}
                () = places.moved() => {}
            }
            if let (Some(node), Some(live)) = (weak.upgrade(), live.upgrade()) {
                node.replace(&live);
            }
        });
    }
}

/// Polls a future once.
async fn begin<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

impl Live {
    /// Another link has taken its place.
    fn replaced(&self) -> StoreError {
        if self.places.has_moved() { self.address.moved() } else { self.address.replaced() }
    }

    fn answered(&self) {
        self.is_suspect.store(false, Ordering::Relaxed);
        self.has_served.store(true, Ordering::Relaxed);
    }

    /// How long to wait before another link is made in place of this one. A server, or something on
    /// the way, that ends each connection once it is there must not be asked for the next one as
    /// fast as it can do that.
    fn pause_behind(&self) -> Duration {
        if self.has_served.load(Ordering::Relaxed) { Duration::ZERO } else { self.pause }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client's own Debug could show a password.
        let connected = self.state.borrow().live().is_some();
        f.debug_struct("Node").field("connected", &connected).finish_non_exhaustive()
    }
}
