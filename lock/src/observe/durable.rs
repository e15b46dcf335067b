//! What happens to durable calls: reported on another thread, because a subscriber that panics
//! would otherwise end their worker.

use std::sync::Arc;

use tracing::Level;

#[cfg(feature = "metrics")]
use super::metrics;
use super::tell;
use crate::{
    Error,
    events::{Events, Room},
};

/// This many calls of a function are kept in the store.
pub(crate) fn durable_backlog(events: &Events, function: &Arc<str>, kept: Option<u64>) {
    #[cfg(feature = "metrics")]
    if let Some(kept) = kept {
        let function = Arc::clone(function);
        events.say(Room::Half, move || {
            measure!(metrics::durable_backlog(&function, kept));
        });
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (events, function, kept);
}

/// A call could not be run now.
pub(crate) fn durable_not_run(events: &Events, function: &Arc<str>, error: Error) {
    let function = Arc::clone(function);
    events.say(Room::Any, move || {
        tell(Level::WARN, || {
            tracing::warn!(
                target: "lock",
                function = &*function,
                id = error.id(),
                outcome = error.kind().as_str(),
                %error,
                "a durable call could not be run now"
            );
        });
    });
}

/// A run of a durable call has ended; `outcome` is what becomes of the call.
pub(crate) fn durable_ended(
    events: &Events,
    function: &Arc<str>,
    (id, fencing_token): (&Arc<str>, u64),
    outcome: &'static str,
    error: Option<String>,
) {
    let (function, id) = (Arc::clone(function), Arc::clone(id));
    events.say(Room::Any, move || {
        let what = match outcome {
            "done" => "a durable call is done",
            "again" => {
                "a run of a durable call has ended, and the call was made again in the meantime"
            }
            "retry" => "a durable call has failed, and is tried again",
            "set_aside" => "a durable call has failed for good, and is set aside",
            "lost" => "a run of a durable call has lost its lock: the call is run again",
            _ => "a durable call has run, but the store did not report the outcome",
        };
        macro_rules! ended {
            ($level:ident) => {
                tell(Level::$level, || {
                    tracing::event!(
                        target: "lock",
                        Level::$level,
                        function = &*function,
                        id = &*id,
                        fencing_token,
                        outcome,
                        error = error.as_deref(),
                        "{what}"
                    );
                })
            };
        }
        match outcome {
            "done" | "again" => ended!(DEBUG),
            _ => ended!(WARN),
        }
        measure!(metrics::durable_ended(outcome));
    });
}
