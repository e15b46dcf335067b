//! The nodes of a Cluster: one for each primary, with its own link, health and scripts.
//!
//! A node that is out of reach stops only the calls that go there. A node that no longer has a slot
//! is retired: calls that wait for it fail at once, and are made again at the node that has taken
//! over.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use lock_core::contract::{Delivery, Failure, Notice, StoreError};
use redis::RedisResult;
use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard as AsyncGuard, Notify, watch},
    time,
};

use super::{
    super::{
        endpoint::Endpoint,
        place::{Member, Place, Places},
        refusal::Refusal,
        slots::{SLOTS, Slot},
    },
    calls::{Call, Part, Parts, Route},
    layout::{Making, Server},
    map::{Owners, Peer, View},
    recovery::Recovery,
    words::Words,
};
use crate::{Error, ErrorKind, observe, store::Listener};

/// How long a call waits for the first map: if the reason for its absence is known, and if it is
/// not.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

/// How many nodes there may be that a redirect has named and that are in no map.
const MOST_STRANGERS: usize = 8;

pub(super) struct Cluster(pub(super) Arc<Shared>);

pub(super) struct Shared {
    /// Where to begin, and how the nodes are reached, apart from the address.
    pub(super) seeds: Vec<Endpoint>,
    making: Making,
    map: watch::Sender<Option<Arc<Map>>>,
    /// Nodes that a redirect has named and that are in no map yet.
    strangers: Mutex<HashMap<Peer, Arc<Shard>>>,
    /// Why the last round of questions got no answer.
    pub(super) refused: watch::Sender<Option<Refusal>>,
    /// Signals that the map has to be asked for.
    pub(super) doubted: Arc<Notify>,
    /// Calls that wait for the first map continue in the order in which they came.
    gate: AsyncMutex<()>,
    /// How many calls were sent for each slot.
    sent: Box<[AtomicU32]>,
    recovery: Recovery,
    words: Words,
    /// The next number of a shard. A number is never used again.
    numbers: AtomicUsize,
    subscription: OnceLock<(String, Listener)>,
    /// The search for the nodes has begun.
    pub(super) begun: OnceLock<()>,
}

/// Which node has which slot.
pub(super) struct Map {
    owners: Owners,
    /// The shards of the owners, in the same order.
    shards: Vec<Arc<Shard>>,
}

/// One primary.
pub(super) struct Shard {
    number: usize,
    pub(super) peer: Peer,
    pub(super) server: Server,
    /// It no longer has a slot.
    pub(super) retired: watch::Sender<bool>,
    /// It has slots that another node had, and may not have all that was written there.
    took_over: AtomicBool,
}

impl Shard {
    fn route(&self, renews: bool) -> Route {
        let node = self.server.node_for(renews);
        Route::new(node, Some(self.peer.clone()), Some(self.retired.subscribe()))
    }
}

impl Map {
    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    fn of(&self, slot: Slot) -> Option<&Arc<Shard>> {
        self.shards.get(self.owners.number(slot)?)
    }

    /// Where all nodes are, including replicas.
    pub(super) fn peers(&self) -> impl Iterator<Item = &Peer> {
        let replicas = self.owners.primaries().iter().flat_map(|primary| &primary.replicas);
        self.shards.iter().map(|shard| &shard.peer).chain(replicas)
    }
}

impl Cluster {
    /// Does no I/O. There is at least one seed.
    pub(super) fn new(seeds: Vec<Endpoint>, making: Making) -> RedisResult<Self> {
        for seed in &seeds {
            Place::of(seed.clone())?;
        }
        Ok(Self(Arc::new(Shared {
            seeds,
            making,
            map: watch::Sender::new(None),
            strangers: Mutex::default(),
            refused: watch::Sender::new(None),
            doubted: Arc::default(),
            gate: AsyncMutex::new(()),
            sent: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            recovery: Recovery::default(),
            words: Words::default(),
            // Requests that are made before there is a map are in part 0.
            numbers: AtomicUsize::new(1),
            subscription: OnceLock::new(),
            begun: OnceLock::new(),
        })))
    }

    /// Sends notices to this listener, over all links that are made from now on.
    pub(super) fn will_listen(&self, client: &str, listener: &Listener) {
        let _ = self.0.subscription.set((client.to_owned(), listener.clone()));
    }

    /// The same, and also over the existing links.
    pub(super) async fn subscribe(&self, client: &str, listener: &Listener) -> Delivery {
        self.will_listen(client, listener);
        let map = self.0.map();
        join_all(map.iter().flat_map(|map| map.shards()).map(|shard| self.0.listen_to(shard)))
            .await;
        self.0.delivery()
    }

    pub(super) fn delivery_in(&self, slot: Slot) -> Delivery {
        let map = self.0.map();
        map.and_then(|map| Some(map.of(slot)?.server.node.delivery())).unwrap_or(Delivery::Polling)
    }

    pub(super) fn shard(&self, slot: Slot) -> usize {
        self.0.map.borrow().as_ref().and_then(|map| map.of(slot)).map_or(0, |shard| shard.number)
    }

    /// Connects to all nodes for the first time. Some may be out of reach, but not all.
    pub(super) async fn establish(&self) -> Result<(), Error> {
        let mut map = self.0.map.subscribe();
        let mut refused = self.0.refused.subscribe();
        let map = tokio::select! {
            biased;
            map = map.wait_for(Option::is_some) => map.ok().and_then(|map| map.clone()),
            refusal = refused.wait_for(Option::is_some) => {
                let refusal = refusal.ok().and_then(|refusal| refusal.clone());
                return Err(self.0.nobody_knows(refusal));
            }
        };
        let Some(map) = map else { return Ok(()) };
        let nodes = map.shards().iter().flat_map(|shard| shard.server.nodes());
        let outcomes = join_all(nodes.map(|node| async move { (node, node.first_link().await) }));
        let outcomes = outcomes.await;
        let some = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        for (node, outcome) in outcomes {
            match outcome {
                Err(refusal) if !some || refusal.kind != ErrorKind::Unavailable => {
                    return Err(refusal.into_error(&node.address()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Splits calls by the nodes that have their slots; see `Topology::parts`.
    pub(super) async fn parts(
        &self,
        calls: Vec<Call>,
        renews: bool,
    ) -> Result<Parts<'_>, StoreError> {
        let (gate, map) = self.0.first_map().await?;
        for call in &calls {
            self.0.sent(call).fetch_add(1, Ordering::Relaxed);
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        for mut call in calls {
            let slot = call.invocation.slot();
            // This includes later calls of the same batch, which are about other keys.
            call.sent = self.0.sent(&call).load(Ordering::Relaxed);
            // A call about a slot that no node has goes to one of the others, which refuses it.
            let number = map.owners.number(slot).unwrap_or(0);
            let Some(shard) = map.shards.get(number) else { return Err(self.0.no_primaries()) };
            let part = *numbers.entry(number).or_insert_with(|| {
                parts.push(Part { route: shard.route(renews), calls: Vec::new() });
                parts.len() - 1
            });
            parts[part].calls.push(call);
        }
        Ok(Parts { parts, gate: Some(gate) })
    }

    /// See `Topology::node_from`.
    pub(super) async fn node_from(&self, slot: Slot) -> Result<Option<Slot>, StoreError> {
        let (_, map) = self.0.first_map().await?;
        Ok(map.owners.first_slots().find(|first| *first >= slot))
    }

    /// Whether nothing was sent for the slot of this call since.
    pub(super) fn is_last(&self, call: &Call) -> bool {
        self.0.sent(call).load(Ordering::Relaxed) == call.sent
    }

    /// The route to the node at this place.
    pub(super) fn route_to(&self, peer: &Peer, renews: bool) -> Option<Route> {
        Some(self.0.shard_at(peer)?.route(renews))
    }

    /// The route to the node that has this slot now.
    pub(super) fn route_of(&self, slot: Slot, renews: bool) -> Option<Route> {
        let map = self.0.map()?;
        Some(map.of(slot).or_else(|| map.shards.first())?.route(renews))
    }

    /// Decides which calls may ask a Cluster that is down.
    pub(super) fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// Something does not fit the map, so a new one is asked for.
    pub(super) fn doubt(&self) {
        self.0.doubted.notify_one();
    }
}

impl Shared {
    pub(super) fn map(&self) -> Option<Arc<Map>> {
        self.map.borrow().clone()
    }

    /// How many calls were sent for the slot of this one.
    fn sent(&self, call: &Call) -> &AtomicU32 {
        &self.sent[usize::from(call.invocation.slot())]
    }

    /// The gate, and the map, once there is one.
    async fn first_map(&self) -> Result<(AsyncGuard<'_, ()>, Arc<Map>), StoreError> {
        let behind_gate = async {
            let gate = self.gate.lock().await;
            // Fails only when `self` is gone, and it is borrowed here.
            let map = match self.map() {
                Some(map) => Some(map),
                None => self.map.subscribe().wait_for(Option::is_some).await.ok()?.clone(),
            };
            Some((gate, map?))
        };
        // Each call has its own time limit, even if it waits behind others at the gate.
        let nobody_tells = async {
            let mut refused = self.refused.subscribe();
            time::sleep(PATIENCE.0).await;
            let _ = time::timeout(PATIENCE.1 - PATIENCE.0, refused.wait_for(Option::is_some)).await;
        };
        tokio::select! {
            biased;
            Some(known) = behind_gate => Ok(known),
            () = nobody_tells => Err(self.no_primaries()),
        }
    }

    /// Whether every node in the map has a link that answers.
    pub(super) fn is_well(&self) -> bool {
        self.map().is_some_and(|map| map.shards().iter().all(|shard| shard.server.node.is_well()))
    }

    /// How notices travel at the worst of the nodes with a link that answers.
    fn delivery(&self) -> Delivery {
        let Some(map) = self.map() else { return Delivery::Polling };
        let live = map.shards().iter().filter(|shard| shard.server.node.is_well());
        let worst =
            live.map(|shard| shard.server.node.delivery()).min_by_key(|delivery| *delivery as u8);
        worst.unwrap_or(Delivery::Polling)
    }

    /// The node at this place, whether it has slots or not.
    fn shard_at(self: &Arc<Self>, peer: &Peer) -> Option<Arc<Shard>> {
        if let Some(map) = self.map()
            && let Some(shard) = map.shards().iter().find(|shard| shard.peer == *peer)
        {
            return Some(Arc::clone(shard));
        }
        let mut strangers = self.strangers();
        if let Some(shard) = strangers.get(peer) {
            return Some(Arc::clone(shard));
        }
        let shard = self.make(peer)?;
        // This many are not all nodes of the Cluster.
        if strangers.len() >= MOST_STRANGERS {
            strangers.clear();
        }
        strangers.insert(peer.clone(), Arc::clone(&shard));
        Some(shard)
    }

    fn make(self: &Arc<Self>, peer: &Peer) -> Option<Arc<Shard>> {
        let endpoint = self.seeds.first()?.at(&peer.host, peer.port).ok()?;
        let places = Places::only(Place::of(endpoint).ok()?, Member::OfCluster);
        let shard = Arc::new(Shard {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            peer: peer.clone(),
            server: Server::new(&places, &self.making),
            retired: watch::Sender::new(false),
            took_over: AtomicBool::new(false),
        });
        self.listen(&shard);
        for node in shard.server.nodes() {
            tokio::spawn(notice_troubles(Arc::downgrade(self), node.troubles()));
            node.begin();
        }
        Some(shard)
    }

    /// Passes on the notices of the node, except those that another node has already passed on: a
    /// message published at one node reaches all of them. The client is told how notices travel at
    /// the worst node.
    fn heard_from(self: &Arc<Self>, shard: &Arc<Shard>) -> Option<(&str, Listener)> {
        let (client, listener) = self.subscription.get()?;
        let number = shard.number;
        let (shared, shard) = (Arc::downgrade(self), Arc::downgrade(shard));
        let listener = listener.clone();
        let hear = move |notice| {
            let Some(Notice::Connected(how)) = notice else {
                let Some(notice) = notice else { return listener.is_open() };
                let is_repeated =
                    shared.upgrade().is_some_and(|shared| shared.words.is_repeated(notice, number));
                return if is_repeated { listener.is_open() } else { listener.notify(notice) };
            };
            let how = shared.upgrade().map_or(how, |shared| shared.delivery());
            let took_over =
                shard.upgrade().is_some_and(|shard| shard.took_over.swap(false, Ordering::Relaxed));
            listener.notify(Notice::Connected(how))
                && (!took_over || listener.notify(Notice::Replaced))
        };
        Some((client, Listener::new(hear)))
    }

    /// Listens to a node before it has connected.
    fn listen(self: &Arc<Self>, shard: &Arc<Shard>) {
        if let Some((client, listener)) = self.heard_from(shard) {
            shard.server.node.will_listen(client, listener);
        }
    }

    /// Listens to a node that may have connected.
    async fn listen_to(self: &Arc<Self>, shard: &Arc<Shard>) {
        if let Some((client, listener)) = self.heard_from(shard) {
            shard.server.node.subscribe(client, listener).await;
        }
    }

    /// Takes what some nodes report about the slots.
    pub(super) fn take(self: &Arc<Self>, views: &[View]) {
        let before = self.map();
        let is_well = |peer: &Peer| {
            let shards = before.iter().flat_map(|map| map.shards());
            shards.into_iter().any(|shard| shard.peer == *peer && shard.server.node.is_well())
        };
        let owners = Owners::of(views, before.as_deref().map(|map| &map.owners), is_well);
        if owners.primaries().is_empty() || before.as_ref().is_some_and(|map| map.owners == owners)
        {
            return;
        }
        let mut shards = Vec::with_capacity(owners.primaries().len());
        for primary in owners.primaries() {
            let Some(shard) = self.shard_at(&primary.peer) else { return };
            if let Some(before) = &before
                && !before.shards.iter().any(|known| Arc::ptr_eq(known, &shard))
                && owners.took_over(&primary.peer, &before.owners)
            {
                self.taken_over(&shard);
            }
            shards.push(shard);
        }
        self.map.send_replace(Some(Arc::new(Map { owners, shards })));
        self.strangers().clear();
        let map = self.map();
        for shard in before.iter().flat_map(|before| before.shards()) {
            let stays = map.iter().flat_map(|map| map.shards()).any(|now| Arc::ptr_eq(now, shard));
            if !stays {
                shard.retired.send_replace(true);
            }
        }
    }

    /// Records that this node has slots that another one had.
    fn taken_over(&self, shard: &Arc<Shard>) {
        shard.took_over.store(true, Ordering::Relaxed);
        // It may have connected already, and then nothing else reports it.
        if shard.server.node.is_well()
            && shard.took_over.swap(false, Ordering::Relaxed)
            && let Some((_, listener)) = self.subscription.get()
        {
            listener.notify(Notice::Replaced);
        }
        observe::node_took_over(self.making.warnings.events(), shard.peer.to_string());
    }

    fn nobody_knows(&self, refusal: Option<Refusal>) -> Error {
        let text = format!(
            "no node of the Redis Cluster at {} reports which node serves which slot",
            self.shown()
        );
        match refusal {
            Some(refusal) => refusal.into_error_behind(text),
            None => Error::new(ErrorKind::Unavailable, text),
        }
    }

    fn no_primaries(&self) -> StoreError {
        let refused = self.refused.borrow();
        let why = match &*refused {
            Some(refusal) => refusal.text(),
            None => "there was no answer yet, so check that they are running and can be reached",
        };
        let shown = self.shown();
        let text = format!(
            "no node of the Redis Cluster at {shown} reports which node serves which slot: {why}"
        );
        Failure::new(text, refused.as_ref().and_then(Refusal::cause)).unavailable()
    }

    fn shown(&self) -> String {
        let seeds = self.seeds.iter().filter_map(|seed| Place::of(seed.clone()).ok());
        seeds.map(|place| place.address().to_string()).collect::<Vec<_>>().join(", ")
    }

    fn strangers(&self) -> MutexGuard<'_, HashMap<Peer, Arc<Shard>>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The task that asks finds that the map is no longer wanted.
        self.doubted.notify_one();
    }
}

/// Has the map asked for whenever a node is in trouble.
async fn notice_troubles(shared: Weak<Shared>, mut troubles: watch::Receiver<u64>) {
    while troubles.changed().await.is_ok() {
        let Some(shared) = shared.upgrade() else { return };
        shared.doubted.notify_one();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An endpoint may carry a password.
        let primaries = self.0.map().map_or(0, |map| map.shards().len());
        f.debug_struct("Cluster").field("primaries", &primaries).finish_non_exhaustive()
    }
}
