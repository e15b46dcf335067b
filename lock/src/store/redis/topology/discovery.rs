//! Asks the nodes of a Cluster which node has which slot: at first, whenever something does not
//! fit, and when one of them reports a change. For the last, one node is asked once a second. It is
//! needed because a client that only waits for a lock sends nothing to its node, and a primary that
//! is replaced by command still answers. The new primary would take clients that do not listen to
//! it for dead.
//!
//! A few healthy nodes are asked over their existing links. If there are fewer than two, some known
//! nodes are asked over separate connections. Silent nodes are not waited for once another has
//! answered.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt, future::Either, stream::FuturesUnordered};
use redis::{Pipeline, Value, aio::MultiplexedConnection};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use super::{
    super::{
        backoff::{any, jittered},
        endpoint::Endpoint,
        handshake::{for_questions, greet_at},
        place::Place,
        refusal::Refusal,
        server_info::{field, text},
        stream::STEP,
    },
    cluster::{Cluster, Shared},
    map::{Peer, View},
};
use crate::ErrorKind;

/// How many healthy nodes are asked.
const ASKED: usize = 3;
/// How many nodes are asked over separate connections, if too few are healthy.
const MOST_ASKED: usize = 8;
/// How much longer the others may take once one of them has answered.
const OTHERS: Duration = Duration::from_millis(50);
/// How long a healthy node may take.
const WELL: Duration = Duration::from_millis(250);
/// The least time between two rounds.
const APART: Duration = Duration::from_millis(100);
/// The pause between two rounds while a node is out of reach, at first and after a while. A new
/// primary is known soon after it was chosen. After a while none is expected.
const LOOKS: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(1));
const A_WHILE: Duration = Duration::from_secs(60);

/// How often a node is asked whether anything has changed.
const QUIET: Duration = Duration::from_secs(1);

/// Begins to look for the nodes, for as long as the store lives.
pub(super) fn begin(cluster: &Cluster) {
    cluster.0.begun.get_or_init(|| {
        tokio::spawn(follow(Arc::downgrade(&cluster.0)));
    });
}

/// Keeps the map up to date for as long as the store lives.
async fn follow(weak: Weak<Shared>) {
    let mut unwell_since: Option<Instant> = None;
    let mut epoch = Epoch::default();
    loop {
        let Some(shared) = weak.upgrade() else { return };
        let doubted = Arc::clone(&shared.doubted);
        round(&shared).await;
        if shared.is_well() {
            unwell_since = None;
        } else {
            unwell_since.get_or_insert_with(Instant::now);
        }
        // Otherwise this task would keep it alive.
        drop(shared);
        time::sleep(APART).await;
        match unwell_since {
            None => until_doubted(&weak, &doubted, &mut epoch).await,
            Some(since) => {
                let pause = if since.elapsed() < A_WHILE { LOOKS.0 } else { LOOKS.1 };
                let _ = time::timeout(jittered(pause), doubted.notified()).await;
            }
        }
    }
}

/// The highest epoch that a node has reported. Each failover, and each node that gets its first
/// slots, makes a higher one.
#[derive(Default)]
struct Epoch {
    known: u64,
    /// The other nodes may not have known of it yet when they were asked.
    is_new: bool,
}

impl Epoch {
    /// Whether to ask for the map, now that a node has reported this epoch.
    fn told(&mut self, epoch: u64) -> bool {
        let is_higher = epoch > self.known;
        self.known = self.known.max(epoch);
        std::mem::replace(&mut self.is_new, is_higher) || is_higher
    }
}

/// Waits until the map has to be asked for.
async fn until_doubted(weak: &Weak<Shared>, doubted: &Notify, epoch: &mut Epoch) {
    while time::timeout(jittered(QUIET), doubted.notified()).await.is_err() {
        let Some(shared) = weak.upgrade() else { return };
        let asked = well(&shared).into_iter().next();
        drop(shared);
        let Some((connection, _)) = asked else { return };
        // If there is no answer, calls find out what has changed.
        if let Some(told) = epoch_at(connection).await
            && epoch.told(told)
        {
            return;
        }
    }
}

/// The epoch of the Cluster, as one node knows it.
async fn epoch_at(mut connection: MultiplexedConnection) -> Option<u64> {
    let mut question = redis::cmd("CLUSTER");
    question.arg("INFO");
    let answer = time::timeout(WELL, connection.send_packed_command(&question)).await.ok()?.ok()?;
    field(text(Some(answer)).as_deref(), "cluster_current_epoch:")?.parse().ok()
}

async fn round(shared: &Arc<Shared>) {
    let mut asked = FuturesUnordered::new();
    for (connection, peer) in well(shared) {
        asked.push(Either::Left(ask_within(WELL, connection, peer)));
    }
    if asked.len() < 2 {
        for endpoint in known(shared) {
            asked.push(Either::Right(ask_anew(endpoint)));
        }
    }
    let (mut views, mut last) = (Vec::new(), None);
    let mut until = None;
    while !asked.is_empty() {
        let answer = match until {
            Some(until) => time::timeout_at(until, asked.next()).await,
            None => Ok(asked.next().await),
        };
        match answer {
            Ok(Some(Ok(view))) => {
                views.push(view);
                until.get_or_insert_with(|| Instant::now() + OTHERS);
            }
            Ok(Some(Err(refusal))) => {
                // A refusal that says what to change is more useful than one of a node that is out
                // of reach.
                if last.is_none() || refusal.kind != ErrorKind::Unavailable {
                    last = Some(refusal);
                }
            }
            Ok(None) | Err(_) => break,
        }
    }
    if !views.is_empty() {
        shared.take(&views);
    }
    let refused = if views.is_empty() {
        let silent = || Refusal::new(ErrorKind::Unavailable, "there was no node to ask");
        Some(last.unwrap_or_else(silent))
    } else {
        shared.map().is_none().then(Refusal::without_slots)
    };
    shared.refused.send_replace(refused);
}

/// Some nodes with a link that answers, different ones each time.
fn well(shared: &Shared) -> Vec<(MultiplexedConnection, Peer)> {
    let Some(map) = shared.map() else { return Vec::new() };
    let shards = map.shards();
    let shards = shards.iter().cycle().skip(any(shards.len())).take(shards.len());
    let well = shards.filter(|shard| shard.server.node.is_well());
    well.filter_map(|shard| Some((shard.server.node.connection()?, shard.peer.clone())))
        .take(ASKED)
        .collect()
}

/// Some addresses that may be those of nodes, different ones each time.
fn known(shared: &Shared) -> Vec<Endpoint> {
    let mut known = shared.seeds.clone();
    if let (Some(map), Some(seed)) = (shared.map(), shared.seeds.first()) {
        known.extend(map.peers().filter_map(|peer| seed.at(&peer.host, peer.port).ok()));
    }
    let first = any(known.len());
    known.rotate_left(first);
    known.truncate(MOST_ASKED);
    known
}

async fn ask_anew(endpoint: Endpoint) -> Result<View, Refusal> {
    let place = Place::of(endpoint).map_err(Refusal::of)?;
    let (connection, _) = greet_at(&place, for_questions()).await?;
    let (host, port) = place.host_and_port().unwrap_or_default();
    let peer = Peer { host: host.to_owned(), port };
    ask_within(STEP, connection, peer).await
}

async fn ask_within(
    limit: Duration,
    mut connection: MultiplexedConnection,
    peer: Peer,
) -> Result<View, Refusal> {
    let mut questions = Pipeline::new();
    questions.cmd("CLUSTER").arg("SLOTS");
    // For the epochs; without them, the node that answers first is believed.
    questions.cmd("CLUSTER").arg("NODES");
    let answers = connection.send_packed_commands(&questions, 0, questions.len());
    let answers = match time::timeout(limit, answers).await {
        Ok(answers) => answers.map_err(Refusal::of)?,
        Err(_) => return Err(Refusal::silent("to CLUSTER SLOTS", limit)),
    };
    let mut answers = answers.into_iter();
    match (answers.next(), answers.next()) {
        (Some(Value::ServerError(error)), _) => Err(Refusal::no_slots(error.into())),
        (Some(slots), nodes) => View::read(slots, nodes, &peer).ok_or_else(Refusal::no_node),
        _ => Err(Refusal::no_node()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_epoch_has_the_map_asked_for_twice() {
        let mut epoch = Epoch::default();
        let asked = [3, 3, 3, 2, 5, 6, 6, 6].map(|told| epoch.told(told));
        assert_eq!(asked, [true, true, false, false, true, true, true, false]);
    }
}
