//! Problems with a store that do not yet fail a call.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::events::{Events, Room};

/// A problem with a store that makes locks less safe, or makes waiters wait longer.
///
/// It is reported as an event (`tracing`, target `lock`, level `WARN`), and to
/// [`LocksBuilder::on_warning`](crate::LocksBuilder::on_warning). A restart and a loss of data are
/// reported each time, but for one server at most every five seconds; every other warning is
/// reported once per [`Locks`](crate::Locks).
///
/// ```
/// # fn main() {
/// use lock::{Locks, Warning};
///
/// let builder = Locks::builder().url("redis://127.0.0.1/").on_warning(|warning| match warning {
///     Warning::Restarted | Warning::Wiped => eprintln!("locks may be granted twice: {warning}"),
///     other => eprintln!("{other}"),
/// });
/// # drop(builder);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Warning {
    /// The server evicts keys when its memory is full, including locks: a lock that is held can
    /// then be granted again. Set `maxmemory-policy noeviction`, or use a server for locks only.
    MayEvict {
        /// The server's `maxmemory-policy`.
        policy: String,
    },
    /// The server is a replica and refuses writes. The library does not use such a server: the
    /// first connect fails, and later connects are repeated until the server is a primary.
    Replica,
    /// The server process has changed: the server was restarted, or another one took over. Locks
    /// that are missing from its data may be granted again while their guards are valid.
    Restarted,
    /// The server has lost its data since the last connect: every lock may be granted again while
    /// its guard is valid. Not reported for nodes of a Redis Cluster, whose fencing counters are
    /// spread over the slots.
    Wiped,
    /// The server sends no notices: waiters poll four times a second instead.
    NoNotices,
    /// This user may not publish: its releases wake no waiter, so other clients wait longer.
    MayNotPublish,
    /// Sentinels watch this primary, and it accepts writes without a replica. If it is cut off from
    /// the other servers, it continues to grant locks, which the next primary does not know. Set,
    /// for example, `min-replicas-to-write 1` and `min-replicas-max-lag 2`, so that it refuses
    /// writes when it is cut off.
    MayServeAlone,
    /// Fewer replicas follow the server, or have acknowledged a lock or a renewal in time, than
    /// [`min_replicas`](crate::LocksBuilder::min_replicas) requires. No lock is granted until there
    /// are enough. Locks that are held stay held, and pass from task to task inside a process, but
    /// a failover may lose them.
    TooFewReplicas {
        /// The number that `min_replicas` requires.
        wanted: usize,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MayEvict { policy } => write!(
                f,
                "the server evicts keys when its memory is full (maxmemory-policy {policy}), and a \
                 lock that is evicted is granted again: set `maxmemory-policy noeviction`, or use a \
                 server for locks only"
            ),
            Self::Replica => {
                f.write_str("the server is a replica and refuses writes: connect to its primary")
            }
            Self::Restarted => f.write_str(
                "this is not the same server process as before: locks that it does not know may be \
                 granted again while their guards are valid; check fencing tokens where it matters",
            ),
            Self::Wiped => f.write_str(
                "the server has lost its data: every lock may be granted again while its guard is \
                 valid; check fencing tokens where it matters",
            ),
            Self::NoNotices => f.write_str(
                "this server sends no notices: waiters poll four times a second; allow \
                 `+subscribe` on the channels `&~wake:*`",
            ),
            Self::MayServeAlone => f.write_str(
                "the primary accepts writes without a replica, so if it is cut off, it continues \
                 to grant locks, which the next primary does not know: set `min-replicas-to-write \
                 1` and `min-replicas-max-lag 2`",
            ),
            Self::TooFewReplicas { wanted } => write!(
                f,
                "fewer than {wanted} replicas acknowledge the server's writes: no lock is granted \
                 until they do, and a failover may lose locks that are held; restore the replicas, \
                 or lower `min_replicas`"
            ),
            Self::MayNotPublish => f.write_str(
                "this user may not publish, so its releases wake no waiter and others wait longer: \
                 allow `+publish` on the channels `&~wake:*`",
            ),
        }
    }
}

/// For how long an event of a server is not reported again: several connections find the same
/// restart, and a server that restarts in a loop must not fill the queue of events.
const AGAIN: Duration = Duration::from_secs(5);

/// The listener of the user.
pub(crate) type OnWarning = Box<dyn Fn(&Warning) + Send + Sync>;

/// Who is told about warnings, and the warnings that were reported.
#[derive(Clone, Default)]
pub(crate) struct Warnings(Arc<Inner>);

#[derive(Default)]
struct Inner {
    listener: Option<OnWarning>,
    /// What was reported, when, and, of what may happen again, about which server.
    said: Mutex<HashMap<(Warning, Option<String>), Instant>>,
    events: Events,
}

impl Warnings {
    pub(crate) fn new(listener: Option<OnWarning>, events: Events) -> Self {
        Self(Arc::new(Inner { listener, said: Mutex::default(), events }))
    }

    /// Where all other events go.
    pub(crate) fn events(&self) -> &Events {
        &self.0.events
    }

    /// Reports a warning about a server: a condition that lasts once, an event each time.
    pub(crate) fn say(&self, warning: Warning, server: &impl fmt::Display) {
        if !self.is_news(&warning, server) {
            return;
        }
        let warnings = self.clone();
        let (event, server) = (warning.clone(), server.to_string());
        // Two events, so that a subscriber that panics does not keep the warning from the listener.
        self.0.events.say(Room::Any, move || {
            tracing::warn!(target: "lock", warning = ?event, %server, "{event}");
        });
        self.0.events.say(Room::Any, move || {
            if let Some(listener) = &warnings.0.listener {
                listener(&warning);
            }
        });
    }
}

impl Warnings {
    fn is_news(&self, warning: &Warning, server: &impl fmt::Display) -> bool {
        let is_event = matches!(warning, Warning::Restarted | Warning::Wiped);
        let about = (warning.clone(), is_event.then(|| server.to_string()));
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        let last = said.get(&about).copied();
        let is_news = last.is_none_or(|last| is_event && last.elapsed() >= AGAIN);
        if is_news {
            said.insert(about, Instant::now());
        }
        is_news
    }
}

impl fmt::Debug for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warnings").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn conditions_are_news_once_and_events_each_time_at_each_server() {
        let warnings = Warnings::default();
        let evicts = Warning::MayEvict { policy: "allkeys-lru".to_owned() };
        for (after, warning, server, is_news) in [
            (0, &evicts, "a:1", true),
            (60, &evicts, "b:1", false),
            (0, &Warning::Restarted, "a:1", true),
            (0, &Warning::Wiped, "a:1", true),
            (1, &Warning::Restarted, "a:1", false),
            (0, &Warning::Restarted, "b:1", true),
            (4, &Warning::Restarted, "a:1", true),
            (4, &Warning::Restarted, "a:1", false),
        ] {
            tokio::time::advance(Duration::from_secs(after)).await;
            assert_eq!(warnings.is_news(warning, &server), is_news, "{warning:?} {server} {after}");
        }
    }
}
