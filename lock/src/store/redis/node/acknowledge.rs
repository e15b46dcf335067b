//! Replicas that acknowledge: one WAIT for all that was sent since the one before.
//!
//! WAIT counts what its own connection has written, and blocks that connection until it is answered.
//! So it goes behind the calls that it is for, on their connection; and while it is out, nothing is
//! sent there: what comes meanwhile gathers behind the gate, leaves it in its order, and shares the
//! next WAIT. Thus a server that has lost its replicas delays a call by one time limit at most,
//! however many others want to be acknowledged. Renewals have a connection of their own.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use lock_core::contract::StoreError;
use redis::Value;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{Live, Node};
use crate::warning::{Warning, Warnings};

/// How long replicas may take at least and at most. They are asked at once, so a healthy one needs
/// a round trip.
const LIMITS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// How much later than that an idle server notices that the time is over: it looks ten times a second.
const NOTICES: Duration = Duration::from_millis(100);

/// Renewals of a shorter lease are not followed by a WAIT: the next one would stand behind it for the
/// better part of what the lease leaves, and a failover takes longer than that anyway.
const WORTH_IT: Duration = Duration::from_millis(600);

/// Is a renewal of this lease worth a WAIT, which only finds out whether there is something to warn of?
pub(super) fn is_worth_it(lease: Duration) -> bool {
    lease >= WORTH_IT
}

/// How many replicas have to acknowledge a grant.
pub(super) struct Replicas {
    wanted: usize,
    /// The shortest lease of late, and until when it counts.
    shortest: Mutex<Option<(Duration, Instant)>>,
    /// The calls that were sent since the last WAIT.
    open: Mutex<Option<Arc<Group>>>,
    warnings: Warnings,
}

/// Calls that share a WAIT.
struct Group {
    /// The link that all of them were sent on.
    live: Arc<Live>,
    outcome: watch::Sender<Option<Outcome>>,
}

type Outcome = Result<(), StoreError>;

/// What is to become of the WAIT behind a call.
#[derive(Clone)]
pub(in crate::store::redis) struct Acknowledgement(Vec<watch::Receiver<Option<Outcome>>>);

impl Acknowledgement {
    /// Nobody wants one.
    pub(super) const NOT_WANTED: Self = Self(Vec::new());

    /// Both.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Waits until enough replicas have what the call has written; fails if they do not in time, or
    /// if that remains unknown.
    pub(in crate::store::redis) async fn arrived(self) -> Outcome {
        for mut outcome in self.0 {
            match outcome.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(outcome)) => outcome.clone()?,
                // The node is gone, and with it those who were to ask.
                _ => return Err(StoreError::unavailable("the replicas were not asked")),
            }
        }
        Ok(())
    }
}

impl Replicas {
    pub(super) fn new(wanted: usize, warnings: Warnings) -> Self {
        Self { wanted, shortest: Mutex::default(), open: Mutex::default(), warnings }
    }

    /// A lock of this lease is granted or renewed, and renewed again before so much time is over if
    /// it is held for longer.
    fn saw(&self, lease: Duration) {
        let now = Instant::now();
        let mut shortest = self.shortest.lock().unwrap_or_else(PoisonError::into_inner);
        if !shortest.is_some_and(|(known, until)| known < lease && now < until) {
            *shortest = now.checked_add(lease).map(|until| (lease, until));
        }
    }

    fn shortest_lease(&self) -> Duration {
        let shortest = self.shortest.lock().unwrap_or_else(PoisonError::into_inner);
        shortest.map_or(Duration::MAX, |(lease, _)| lease)
    }

    fn limit(&self) -> Duration {
        limit(self.shortest_lease())
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Option<Arc<Group>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long replicas may take where the shortest lease is this one.
fn limit(shortest_lease: Duration) -> Duration {
    (shortest_lease / 6).clamp(LIMITS.0, LIMITS.1)
}

impl Node {
    /// Has a WAIT sent behind the call that was sent last on this link, which grants or renews locks
    /// of this lease. To be called with the gate in hand.
    pub(super) fn acknowledge(&self, live: &Arc<Live>, lease: Duration) -> Acknowledgement {
        if self.replicas.wanted == 0 {
            return Acknowledgement::NOT_WANTED;
        }
        self.replicas.saw(lease);
        let mut open = self.replicas.open();
        let group = match &*open {
            Some(group) if Arc::ptr_eq(&group.live, live) => Arc::clone(group),
            _ => {
                let (live, outcome) = (Arc::clone(live), watch::Sender::default());
                let group = Arc::new(Group { live, outcome });
                *open = Some(Arc::clone(&group));
                tokio::spawn(ask(Weak::clone(&self.weak), Arc::clone(&group)));
                group
            }
        };
        Acknowledgement(vec![group.outcome.subscribe()])
    }
}

/// Sends the WAIT of a group behind its calls, and keeps the gate shut until it is answered.
async fn ask(node: Weak<Node>, group: Arc<Group>) {
    let Some(node) = node.upgrade() else { return };
    // Behind all that were at the gate when the first of the group has passed it.
    let gate = node.gate.lock().await;
    node.replicas.open().take_if(|open| Arc::ptr_eq(open, &group));
    let Group { live, outcome } = &*group;
    let (wanted, limit) = (node.replicas.wanted, node.replicas.limit());
    // Nothing is sent meanwhile that could find out that the link is silent: so this does.
    let silent_after = node.round_trip.silent_after(node.replicas.shortest_lease());
    let bound = limit + NOTICES + silent_after;
    let until = Instant::now() + bound;
    let mut changes = node.state.subscribe();
    let replaced =
        changes.wait_for(|state| !state.live().is_some_and(|now| Arc::ptr_eq(now, live)));
    let acknowledged = tokio::select! {
        biased;
        reply = live.link.wait_for_replicas(wanted, limit) => match reply {
            // Whatever a server has said that is no longer the one to ask, it has said to nobody.
            _ if live.places.has_moved() => {
                node.replace(live, "another server is to be asked");
                Err(live.replaced())
            }
            Ok(Value::Int(acknowledged)) => {
                live.answered();
                if usize::try_from(acknowledged).is_ok_and(|acknowledged| acknowledged >= wanted) {
                    Ok(())
                } else {
                    let warning = Warning::TooFewReplicas { wanted };
                    node.replicas.warnings.say(warning, &live.address);
                    Err(live.address.too_few_replicas(wanted, acknowledged, limit))
                }
            }
            Ok(Value::ServerError(error)) => Err(live.address.answered_with(error)),
            Ok(_) => Err(live.address.makes_no_sense()),
            Err(error) => {
                node.replace(live, "the connection broke");
                Err(live.address.broken(error))
            }
        },
        _ = replaced => Err(live.replaced()),
        () = time::sleep_until(until) => {
            node.suspect(live, silent_after);
            Err(live.address.no_answer(bound))
        }
    };
    drop(gate);
    outcome.send_replace(Some(acknowledged));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_has_time_for_several_tries_behind_a_wait() {
        let ms = Duration::from_millis;
        for (lease, expected) in [(50, 8), (600, 100), (10_000, 500), (u64::MAX, 500)] {
            assert_eq!(limit(ms(lease)).as_millis(), expected, "{lease}");
        }
    }
}
