//! Acknowledgement by replicas: one WAIT for everything that was sent since the previous one.
//!
//! WAIT counts what its own connection has written, and blocks that connection until it is
//! answered. So it is sent after the calls that it covers, on their connection. While it is
//! pending, nothing is sent there: new calls gather behind the gate, leave it in their order, and
//! share the next WAIT. So a server that has lost its replicas delays a call by at most one time
//! limit, no matter how many other calls wait for an acknowledgement. Renewals have a connection of
//! their own.

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

/// The least and the most time that replicas may take. They are asked at once, so a healthy one
/// needs a round trip.
const LIMITS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// How late an idle server may notice that the time limit has passed: it looks ten times a second.
const NOTICES: Duration = Duration::from_millis(100);

/// Renewals of a shorter lease are not followed by a WAIT: the next renewal would be stuck behind
/// it for most of the remaining lease, and a failover takes longer than that anyway.
const WORTH_IT: Duration = Duration::from_millis(600);

/// Whether a renewal of this lease is worth a WAIT, which only finds out whether to warn.
pub(super) fn is_worth_it(lease: Duration) -> bool {
    lease >= WORTH_IT
}

/// How many replicas have to acknowledge a grant.
pub(super) struct Replicas {
    wanted: usize,
    /// The shortest recent lease, and until when it counts.
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

/// The pending outcome of the WAIT after a call.
#[derive(Clone)]
pub(in crate::store::redis) struct Acknowledgement(Vec<watch::Receiver<Option<Outcome>>>);

impl Acknowledgement {
    /// No acknowledgement is wanted.
    pub(super) const NOT_WANTED: Self = Self(Vec::new());

    /// Requires both.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Waits until enough replicas have what the call has written. Fails if they do not have it in
    /// time, or if that remains unknown.
    pub(in crate::store::redis) async fn arrived(self) -> Outcome {
        for mut outcome in self.0 {
            match outcome.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(outcome)) => outcome.clone()?,
                // The node is gone, and with it the task that was to ask.
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

    /// Records that a lock with this lease is granted or renewed. If it is held for longer, it is
    /// renewed again before that time has passed.
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

/// How long replicas may take if this is the shortest lease.
fn limit(shortest_lease: Duration) -> Duration {
    (shortest_lease / 6).clamp(LIMITS.0, LIMITS.1)
}

impl Node {
    /// Has a WAIT sent after the last call on this link, which grants or renews locks with this
    /// lease. The caller must hold the gate.
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

/// Sends the WAIT of a group after its calls, and keeps the gate shut until it is answered.
async fn ask(node: Weak<Node>, group: Arc<Group>) {
    let Some(node) = node.upgrade() else { return };
    // Behind all calls that were at the gate when the first of the group passed it.
    let gate = node.gate.lock().await;
    node.replicas.open().take_if(|open| Arc::ptr_eq(open, &group));
    let Group { live, outcome } = &*group;
    let (wanted, limit) = (node.replicas.wanted, node.replicas.limit());
    // Nothing else is sent meanwhile that could find out that the link is silent, so this does.
    let silent_after = node.round_trip.silent_after(node.replicas.shortest_lease());
    let bound = limit + NOTICES + silent_after;
    let until = Instant::now() + bound;
    let mut changes = node.state.subscribe();
    let replaced =
        changes.wait_for(|state| !state.live().is_some_and(|now| Arc::ptr_eq(now, live)));
    let acknowledged = tokio::select! {
        biased;
        reply = live.link.wait_for_replicas(wanted, limit) => match reply {
            // The answer of a server that is no longer in charge does not count.
            _ if live.places.has_moved() => {
                node.replace(live, "another server has to be asked");
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
