//! What the keeper finds: reported on another thread, because user code must not stop the keeper.

use std::sync::Arc;

use lock_core::{
    Moment,
    contract::{Delivery, StoreError},
    engine::io::Loss,
};
use tracing::Level;

#[cfg(feature = "metrics")]
use super::metrics;
use super::{Mode, Observed, tell};
use crate::{
    ErrorKind,
    events::{Events, Room},
};

/// A caller waits in line: the store has answered that the lock is held, or other callers of this
/// process are ahead.
pub(crate) fn waits(events: &Events, id: Arc<str>) {
    events.say(Room::Half, move || {
        tell(Level::DEBUG, || {
            let mode = Mode::Exclusive.as_str();
            tracing::debug!(target: "lock", id = &*id, mode, "the lock is held; the call waits in line");
        });
    });
}

pub(crate) fn lost<H: Observed>(events: &Events, hold: &Arc<H>, reason: &'static str, now: Moment) {
    let hold = Arc::clone(hold);
    // An outage may cost very many locks at once.
    events.say(Room::Half, move || {
        tell(Level::WARN, || {
            tracing::warn!(
                target: "lock",
                id = hold.id(),
                mode = hold.mode().as_str(),
                held = ?hold.held_until(now),
                fencing_token = hold.fencing_token(),
                outcome = "lost",
                reason,
                "the lock is lost"
            );
        });
        measure!(metrics::lost(&*hold, reason, now));
    });
}

/// The keeper has panicked, so nobody renews the lock any longer.
pub(crate) const PANICKED: &str = "panicked";

/// All reasons of a loss.
#[cfg(feature = "metrics")]
pub(super) const REASONS: [&str; 6] =
    ["expired", "hold_at_most", "not_ours", "forced", "closed", PANICKED];

pub(crate) const fn reason(loss: Loss) -> &'static str {
    match loss {
        Loss::Expired => "expired",
        Loss::HeldAtMost => "hold_at_most",
        Loss::NotOurs => "not_ours",
        Loss::Forced => "forced",
        Loss::Closed => "closed",
    }
}

/// The renewals of this many locks had no answer, or were refused. `hold` is one of them.
pub(crate) fn not_renewed<H: Observed>(
    events: &Events,
    (hold, locks): (&Arc<H>, usize),
    error: &StoreError,
) {
    let (hold, error) = (Arc::clone(hold), error.clone());
    events.say(Room::Half, move || {
        tell(Level::WARN, || {
            tracing::warn!(
                target: "lock",
                id = hold.id(),
                mode = hold.mode().as_str(),
                fencing_token = hold.fencing_token(),
                outcome = kind(&error),
                locks,
                %error,
                "a renewal has failed and is tried again while the lock is valid"
            );
        });
    });
}

pub(super) const fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Rejected(_) => ErrorKind::Rejected.as_str(),
        StoreError::Unsupported(_) => ErrorKind::Unsupported.as_str(),
        _ => ErrorKind::Unavailable.as_str(),
    }
}

/// This many events and measurements were left out, because there was no room for them.
pub(crate) fn left_out(number: u64) {
    tell(Level::WARN, || {
        tracing::warn!(
            target: "lock",
            left_out = number,
            "events were left out: a subscriber, a recorder or a listener of warnings is too slow"
        );
    });
    measure!(metrics::left_out(number));
}

/// How notices travel, at each connect.
pub(crate) fn delivery(events: &Events, delivery: Delivery) {
    events.say(Room::Any, move || {
        tell(Level::INFO, || match delivery {
            Delivery::Polling => tracing::info!(
                target: "lock",
                %delivery,
                "the store sends no notices: waiters poll four times a second"
            ),
            _ => tracing::debug!(target: "lock", %delivery, "the store wakes waiters"),
        });
    });
}
