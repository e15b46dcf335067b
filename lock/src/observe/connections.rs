//! What happens to the connections to servers.

use tracing::Level;

#[cfg(feature = "metrics")]
use super::metrics;
use super::tell;
use crate::events::{Events, Room};

/// A link to a server is up: the first one, or one that replaces another.
pub(crate) fn connected(events: &Events, server: String, again: bool) {
    events.say(Room::Any, move || {
        tell(Level::INFO, || match again {
            false => tracing::info!(target: "lock", %server, "connected to the Redis server"),
            true => tracing::info!(target: "lock", %server, "reconnected to the Redis server"),
        });
        measure!(metrics::connected(again));
    });
}

/// A link to a server is given up.
pub(crate) fn disconnected(events: &Events, server: String, cause: &'static str) {
    events.say(Room::Any, move || {
        tell(Level::WARN, || {
            tracing::warn!(target: "lock", %server, cause, "the connection to the Redis server is lost");
        });
    });
}

/// An attempt to reach a server has failed.
pub(crate) fn not_connected(events: &Events, server: String, what: &'static str, cause: String) {
    events.say(Room::Any, move || {
        tell(Level::WARN, || {
            tracing::warn!(target: "lock", %server, "{what}: {cause}");
        });
    });
}

/// This server is the primary from now on, as the first one or in place of another. `primary` is
/// the name that the Sentinels use.
pub(crate) fn primary_is_at(events: &Events, server: String, primary: String, is_first: bool) {
    events.say(Room::Any, move || {
        tell(Level::INFO, || match is_first {
            true => tracing::debug!(target: "lock", %server, %primary, "this server is the primary"),
            false => tracing::info!(target: "lock", %server, %primary, "failover: another server is the primary"),
        });
    });
}

/// A node of a Cluster has taken over slots of another one.
pub(crate) fn node_took_over(events: &Events, server: String) {
    events.say(Room::Any, move || {
        tell(Level::INFO, || {
            tracing::info!(target: "lock", %server, "failover: a node of the cluster has taken over");
        });
    });
}
