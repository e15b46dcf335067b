//! One Redis server: its link, the health of the link, and how it is replaced.
//!
//! Every call has a time limit, counted from when it is sent. A link that has gone silent is
//! pinged, and replaced if there is no answer: a connection that was cut silently never reports an
//! error. While there is no link, calls wait for the next one, within their limit.

mod acknowledge;
mod admit;
mod exchange;
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

use lock_core::contract::{Delivery, StoreError};
use redis::aio::MultiplexedConnection;
use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard, oneshot, watch},
    time::{self, Instant},
};

pub(super) use self::{acknowledge::Acknowledgement, exchange::Terms};
use self::{
    acknowledge::Replicas,
    reconnect::{Before, reconnect},
};
use super::{
    handshake::{Handshake, Opened},
    link::Link,
    notices::Notices,
    place::{Place, Places},
    refusal::Refusal,
    round_trip::RoundTrip,
    stream::STEP,
    trouble::Address,
};
use crate::{Error, events::Events, observe, store::Listener, warning::Warnings};

pub(super) struct Node {
    places: Places,
    handshake: Handshake,
    notices: Arc<Notices>,
    events: Events,
    state: watch::Sender<State>,
    /// Calls that wait for a link continue in the order in which they came: each keeps the gate
    /// until its commands are in the connection's queue.
    gate: AsyncMutex<()>,
    round_trip: RoundTrip,
    replicas: Replicas,
    has_connected: AtomicBool,
    /// How often the server could not be reached, was lost, or did not answer in time.
    troubles: watch::Sender<u64>,
    weak: Weak<Self>,
}

/// The state of the link.
enum State {
    /// No link has been asked for.
    Idle,
    Connecting {
        /// When the server last responded.
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

/// An established link, and its health.
struct Live {
    link: Link,
    address: Address,
    /// The places of the node, as they were when the link was made.
    places: Places,
    since: Instant,
    /// A call got no answer in time, and no call has been answered since.
    is_suspect: AtomicBool,
    /// A call was answered on it.
    has_served: AtomicBool,
    /// How long to wait before the next link, if this one breaks before it has served a call.
    pause: Duration,
}

impl Node {
    /// Its link is made when it is needed, or by [`establish`](Self::establish).
    pub(super) fn new(places: Places, min_replicas: usize, warnings: Warnings) -> Arc<Self> {
        let events = warnings.events().clone();
        let notices = Arc::new(Notices::new(warnings.clone()));
        let replicas = Replicas::new(min_replicas, warnings.clone());
        let handshake =
            Handshake::new(places.member().clone(), min_replicas, Arc::clone(&notices), warnings);
        Arc::new_cyclic(|weak| Self {
            places,
            handshake,
            notices,
            events,
            state: watch::Sender::new(State::Idle),
            gate: AsyncMutex::new(()),
            round_trip: RoundTrip::default(),
            replicas,
            has_connected: AtomicBool::new(false),
            troubles: watch::Sender::default(),
            weak: Weak::clone(weak),
        })
    }

    /// Connects for the first time; fails on the first error.
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

    /// Waits for the first link, or for the reason why there is none.
    pub(super) async fn first_link(&self) -> Result<(), Refusal> {
        let mut changes = self.state.subscribe();
        let decided = |state: &State| match state {
            State::Live(_) | State::Connecting { refusal: Some(_), .. } => true,
            State::Idle | State::Connecting { refusal: None, .. } => false,
        };
        // Fails only when `self` is gone, and it is borrowed here.
        match changes.wait_for(decided).await.as_deref() {
            Ok(State::Connecting { refusal: Some(refusal), .. }) => Err(refusal.clone()),
            _ => Ok(()),
        }
    }

    /// Sends the notices of this client to the listener, over all links that follow.
    pub(super) fn will_listen(&self, client: &str, listener: Listener) {
        self.notices.subscribe(client, listener);
    }

    /// Sends the notices of this client to the listener, over this link and all that follow.
    pub(super) async fn subscribe(&self, client: &str, listener: Listener) -> Delivery {
        self.notices.subscribe(client, listener);
        // Usually there is no connection yet, and the handshake subscribes.
        let live = self.state.borrow().live().cloned();
        if let Some(live) = live {
            self.handshake.listen_on(&live.link, &self.places).await;
        }
        self.delivery()
    }

    /// The address that errors name.
    pub(super) fn address(&self) -> Address {
        self.places.address()
    }

    /// Changes whenever the server cannot be reached, is lost, or does not answer in time.
    pub(super) fn troubles(&self) -> watch::Receiver<u64> {
        self.troubles.subscribe()
    }

    /// Whether there is a link that has not gone silent.
    pub(super) fn is_well(&self) -> bool {
        self.state.borrow().live().is_some_and(|live| !live.is_suspect.load(Ordering::Relaxed))
    }

    /// Begins to connect, unless that was done before.
    pub(super) fn begin(&self) {
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
    }

    /// The current connection, for questions that may come in any order.
    pub(super) fn connection(&self) -> Option<MultiplexedConnection> {
        self.state.borrow().live().map(|live| live.link.connection())
    }

    /// How notices currently travel.
    pub(super) fn delivery(&self) -> Delivery {
        self.notices.delivery()
    }

    /// A fence was drawn here, so its counter exists from now on.
    pub(super) fn found_fence(&self) {
        self.handshake.found_fence();
    }

    /// The gate and the link behind it, once there is one.
    async fn ready(&self) -> Result<(MutexGuard<'_, ()>, Arc<Live>), StoreError> {
        let mut ready = pin!(async { (self.gate.lock().await, self.live().await) });
        let mut by = None;
        loop {
            // Usually the link is there, and no timer is needed to find out.
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
                // The link is there, but other calls hold the gate: it is silent.
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
        self.begin();
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
        let again = self.has_connected.swap(true, Ordering::Relaxed);
        observe::connected(&self.events, live.address.to_string(), again);
        self.watch(&live, ended);
        if let Some(at) = renew_at {
            self.keep_admitted(&live, place, at);
        }
        self.notices.connected();
        if is_other {
            self.notices.replaced();
        }
    }

    /// Gives up a link for this cause, unless that was done already, and begins to connect again.
    fn replace(&self, broken: &Arc<Live>, cause: &'static str) {
        let was_current = self.state.send_if_modified(|state| {
            let same = state.live().is_some_and(|live| Arc::ptr_eq(live, broken));
            if same {
                *state = State::CONNECTING;
            }
            same
        });
        if was_current {
            self.troubles.send_modify(|times| *times += 1);
            let moved = broken.places.has_moved();
            let cause = if moved { "another server has to be asked" } else { cause };
            observe::disconnected(&self.events, broken.address.to_string(), cause);
            if moved {
                // Calls that wait for an answer there fail at once.
                broken.link.close();
            }
            let pause = if moved { Duration::ZERO } else { broken.pause_behind() };
            let before = Before { identity: broken.link.identity().cloned(), moved };
            tokio::spawn(reconnect(Weak::clone(&self.weak), before, pause));
        }
    }

    /// A call on this link got no answer within the limit. If nothing is answered for as long
    /// again, including a ping, the link is replaced. One call is not enough: a pause of the server
    /// delays all calls at once.
    fn suspect(&self, live: &Arc<Live>, limit: Duration) {
        if live.is_suspect.swap(true, Ordering::Relaxed) {
            return;
        }
        self.troubles.send_modify(|times| *times += 1);
        let (weak, live) = (Weak::clone(&self.weak), Arc::clone(live));
        tokio::spawn(async move {
            let answer = time::timeout(limit, live.link.ping()).await;
            if let Ok(Ok(_)) = answer {
                live.answered();
            } else if live.is_suspect.load(Ordering::Relaxed)
                && let Some(node) = weak.upgrade()
            {
                node.replace(&live, "the server has gone silent");
            }
        });
    }

    /// Reports what has failed at this server, and why.
    fn report(&self, what: &'static str, address: &Address, refusal: &Refusal) {
        let (server, cause) = (address.to_string(), refusal.text().to_owned());
        observe::not_connected(&self.events, server, what, cause);
    }

    /// Replaces a link as soon as it ends or the node has moved. Otherwise the end of a link that
    /// is only used for notices would go unnoticed until the next call.
    fn watch(&self, live: &Arc<Live>, ended: Option<oneshot::Receiver<()>>) {
        let (mut places, mut states) = (live.places.clone(), self.state.subscribe());
        let (weak, live) = (Weak::clone(&self.weak), Arc::downgrade(live));
        tokio::spawn(async move {
            let ended = async {
                match ended {
                    // The sender was used or dropped: both mean the end.
                    Some(ended) => drop(ended.await),
                    None => pending().await,
                }
            };
            let watched = Weak::clone(&live);
            let is_gone = states.wait_for(|state| {
                state.live().is_none_or(|current| Arc::as_ptr(current) != watched.as_ptr())
            });
            tokio::select! {
                () = ended => {}
                () = places.moved() => {}
                // The link was already replaced.
                _ = is_gone => return,
            }
            if let (Some(node), Some(live)) = (weak.upgrade(), live.upgrade()) {
                node.replace(&live, "the connection has ended");
            }
        });
    }
}

/// Polls a future once.
pub(super) async fn begin<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

impl Live {
    /// The error of a call whose link was replaced by another.
    fn replaced(&self) -> StoreError {
        if self.places.has_moved() { self.address.moved() } else { self.address.replaced() }
    }

    fn answered(&self) {
        self.is_suspect.store(false, Ordering::Relaxed);
        self.has_served.store(true, Ordering::Relaxed);
    }

    /// How long to wait before another link is made in place of this one. A server, or something on
    /// the way to it, may end each connection as soon as it is made. The client must not reconnect
    /// as fast as that.
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
