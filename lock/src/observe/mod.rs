//! What the library tells of itself: events and a span for `tracing`, and measurements for `metrics`.
//!
//! One function for each thing that can happen says both. What a caller's own code brings about is
//! told right there, in the span of the caller: a subscriber or a recorder that blocks costs that call
//! its time, and one that panics costs what it was told. What the keeper finds is told through
//! [`Events`], on a thread that nothing depends on.
//!
//! Where nobody listens, an event costs a look at the level that `tracing` keeps for all of the
//! process, and no clock is read.

#[cfg(feature = "metrics")]
mod metrics;
mod span;

use std::{sync::Arc, time::Duration};

use lock_core::{
    Moment,
    contract::{Delivery, StoreError},
    engine::io::{Loss, is_handed_over},
};
use tracing::{
    Level,
    level_filters::{LevelFilter, STATIC_MAX_LEVEL},
};

pub(crate) use self::span::Spans;
use crate::{
    Error, ErrorKind,
    clock::Clock,
    contained::contained,
    events::{Events, Room},
};

/// Measures, in builds with the feature `metrics`. A recorder that panics costs the measurement.
macro_rules! measure {
    ($what:expr) => {
        #[cfg(feature = "metrics")]
        let _ = contained(|| $what);
    };
}

/// What a lock is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// By its caller alone.
    Exclusive,
    /// The run of a debounced call.
    Run,
    /// The run of a durable call.
    Durable,
}

impl Mode {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Run => "run",
            Self::Durable => "durable",
        }
    }
}

/// What is told of a lock that is held.
pub(crate) trait Observed: Send + Sync + 'static {
    fn id(&self) -> &str;
    fn mode(&self) -> Mode;
    fn fencing_token(&self) -> u64;
    /// How long it has been held until then.
    fn held_until(&self, now: Moment) -> Duration;
    fn now(&self) -> Moment;
    /// It is counted among the locks that are held.
    #[cfg(feature = "metrics")]
    fn counted(&self) -> &std::sync::atomic::AtomicBool;
}

/// Can anybody want to hear this? Asks no subscriber.
#[inline]
fn is_heard(level: Level) -> bool {
    level <= STATIC_MAX_LEVEL && level <= LevelFilter::current()
}

/// Tells it here, if anybody can want to hear it.
#[inline]
fn tell(level: Level, event: impl FnOnce()) {
    #[cold]
    #[inline(never)]
    fn told(event: impl FnOnce()) {
        let _ = contained(event);
    }

    if is_heard(level) {
        told(event);
    }
}

/// Does anybody listen to what callers bring about? Most do not: what follows then is kept out of their
/// way.
#[inline(always)]
fn is_observed() -> bool {
    cfg!(feature = "metrics") || is_heard(Level::DEBUG)
}

/// Somebody who asks for a lock, until it is told.
pub(crate) struct Asking {
    mode: Mode,
    /// When it has asked, if anybody listens.
    since: Option<Moment>,
}

impl Asking {
    #[inline(always)]
    pub(crate) fn begin(id: &str, mode: Mode, clock: &dyn Clock) -> Self {
        let since = if is_observed() { Some(began(id, mode, clock)) } else { None };
        Self { mode, since }
    }

    /// Does anybody want to hear that it waits?
    #[inline(always)]
    pub(crate) fn wants_to_hear(&self) -> bool {
        self.since.is_some() && is_enabled()
    }

    /// How it has ended.
    #[inline(always)]
    pub(crate) fn end<H: Observed>(&self, id: &str, clock: &dyn Clock, told: Told<'_, H>) {
        if is_observed() {
            self.ended(id, self.since.map(|since| clock.now().after(since)), told);
        } else if let Told::Refused(error) = told {
            self.refused(id, None, error);
        }
    }

    #[cold]
    fn ended<H: Observed>(&self, id: &str, waited: Option<Duration>, told: Told<'_, H>) {
        match told {
            Told::Granted(hold) => self.granted(hold, waited),
            Told::Superseded => self.superseded(id, waited),
            Told::NotDue => {
                measure!(metrics::waiters(self.mode, -1.0));
            }
            Told::Refused(error) => self.refused(id, waited, error),
            Told::Cancelled => self.cancelled(id, waited),
        }
    }

    fn granted(&self, hold: &impl Observed, waited: Option<Duration>) {
        let fencing_token = hold.fencing_token();
        let is_handed_over = is_handed_over(fencing_token);
        tell(Level::DEBUG, || {
            let (id, mode) = (hold.id(), hold.mode().as_str());
            if is_handed_over {
                tracing::debug!(
                    target: "lock",
                    id,
                    mode,
                    fencing_token,
                    "the lock is handed over inside of this process"
                );
            }
            tracing::debug!(
                target: "lock",
                id,
                mode,
                waited = waited.map(tracing::field::debug),
                fencing_token,
                outcome = "granted",
                "the lock is granted"
            );
        });
        measure!(metrics::granted(hold, waited.unwrap_or_default(), is_handed_over));
    }

    fn superseded(&self, id: &str, waited: Option<Duration>) {
        tell(Level::DEBUG, || {
            tracing::debug!(
                target: "lock",
                id,
                mode = self.mode.as_str(),
                waited = waited.map(tracing::field::debug),
                outcome = "superseded",
                "another call of the burst runs in the place of this one"
            );
        });
        measure!(metrics::superseded(self.mode, waited.unwrap_or_default()));
    }

    #[cold]
    fn refused(&self, id: &str, waited: Option<Duration>, error: &Error) {
        refused(id, self.mode, error, waited);
        measure!(metrics::told(self.mode, error.kind().as_str(), waited.unwrap_or_default()));
    }

    fn cancelled(&self, id: &str, waited: Option<Duration>) {
        tell(Level::DEBUG, || {
            tracing::debug!(
                target: "lock",
                id,
                mode = self.mode.as_str(),
                waited = waited.map(tracing::field::debug),
                outcome = "cancelled",
                "nobody waits for the lock any more"
            );
        });
        measure!(metrics::told(self.mode, "cancelled", waited.unwrap_or_default()));
    }
}

/// What becomes of somebody who asks for a lock.
pub(crate) enum Told<'a, H> {
    Granted(&'a H),
    /// Another call of the burst runs.
    Superseded,
    /// There is nothing to run.
    NotDue,
    Refused(&'a Error),
    /// It has gone away.
    Cancelled,
}

#[cold]
fn began(id: &str, mode: Mode, clock: &dyn Clock) -> Moment {
    tell(Level::DEBUG, || {
        let mode = mode.as_str();
        tracing::debug!(target: "lock", id, mode, "a lock is asked for");
    });
    measure!(metrics::waiters(mode, 1.0));
    clock.now()
}

#[cold]
fn is_enabled() -> bool {
    let mut is_enabled = false;
    tell(Level::DEBUG, || is_enabled = tracing::enabled!(target: "lock", Level::DEBUG));
    is_enabled
}

/// A lock that was refused before anybody was asked for it.
#[cold]
pub(crate) fn refused_at_once(id: &str, mode: Mode, error: &Error) {
    refused(id, mode, error, None);
    measure!(metrics::refused_at_once(mode, error.kind().as_str()));
}

fn refused(id: &str, mode: Mode, error: &Error, waited: Option<Duration>) {
    macro_rules! refused {
        ($level:ident) => {
            tell(Level::$level, || {
                tracing::event!(
                    target: "lock",
                    Level::$level,
                    id,
                    mode = mode.as_str(),
                    waited = waited.map(tracing::field::debug),
                    outcome = error.kind().as_str(),
                    %error,
                    "the lock is not granted"
                );
            })
        };
    }

    match error.kind() {
        ErrorKind::Lost | ErrorKind::Unavailable => refused!(WARN),
        _ => refused!(DEBUG),
    }
}

/// How a guard has let go of its lock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LetGo<'a> {
    /// Its release was waited for.
    Released(&'a Result<(), Error>),
    /// It is released in the background.
    Dropped,
    /// It is left to whoever adopts it.
    Leaked,
}

/// When a guard has let go of its lock, if anybody listens.
#[inline(always)]
pub(crate) fn letting_go(hold: &impl Observed) -> Option<Moment> {
    is_observed().then(|| hold.now())
}

/// A guard has let go of its lock. Called by drops, too.
#[inline(always)]
pub(crate) fn let_go(hold: &impl Observed, at: Option<Moment>, how: LetGo<'_>) {
    if is_observed() || matches!(how, LetGo::Released(Err(_))) {
        tell_of_end(hold, at, how);
    }
}

#[cold]
fn tell_of_end(hold: &impl Observed, at: Option<Moment>, how: LetGo<'_>) {
    macro_rules! let_go {
        ($level:ident, $outcome:expr) => {
            tell(Level::$level, || {
                tracing::event!(
                    target: "lock",
                    Level::$level,
                    id = hold.id(),
                    mode = hold.mode().as_str(),
                    held = at.map(|at| tracing::field::debug(hold.held_until(at))),
                    fencing_token = hold.fencing_token(),
                    outcome = $outcome,
                    "the lock is let go of"
                );
            })
        };
    }

    match how {
        LetGo::Released(Ok(())) => let_go!(DEBUG, "released"),
        LetGo::Released(Err(error)) => match error.kind() {
            kind @ (ErrorKind::Lost | ErrorKind::Unavailable) => let_go!(WARN, kind.as_str()),
            kind => let_go!(DEBUG, kind.as_str()),
        },
        LetGo::Dropped => let_go!(DEBUG, "dropped"),
        LetGo::Leaked => let_go!(DEBUG, "leaked"),
    }
    measure!(metrics::ended(hold, at.unwrap_or_else(|| hold.now())));
}

/// Somebody has asked to release a lock by force.
pub(crate) fn forced(id: &str, forced: &Result<bool, Error>) {
    tell(Level::DEBUG, || {
        let outcome = match forced {
            Ok(true) => "forced",
            Ok(false) => "free",
            Err(error) => error.kind().as_str(),
        };
        tracing::debug!(target: "lock", id, outcome, "the lock is to be released by force");
    });
}

// What the keeper finds.

/// A caller waits in line: the store has said that the lock is held, or others of this process are
/// ahead.
pub(crate) fn waits(events: &Events, id: Arc<str>) {
    events.say(Room::Half, move || {
        tell(Level::DEBUG, || {
            let mode = Mode::Exclusive.as_str();
            tracing::debug!(target: "lock", id = &*id, mode, "the lock is held, and waited for in line");
        });
    });
}

pub(crate) fn lost<H: Observed>(events: &Events, hold: &Arc<H>, loss: Loss, now: Moment) {
    let hold = Arc::clone(hold);
    // An outage may cost very many locks at once.
    events.say(Room::Half, move || {
        let reason = reason(loss);
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

const fn reason(loss: Loss) -> &'static str {
    match loss {
        Loss::Expired => "expired",
        Loss::HeldAtMost => "hold_at_most",
        Loss::NotOurs => "not_ours",
        Loss::Forced => "forced",
        Loss::Closed => "closed",
    }
}

/// Renewals of so many locks had no answer, or were refused. `hold` is one of them.
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

const fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Rejected(_) => ErrorKind::Rejected.as_str(),
        StoreError::Unsupported(_) => ErrorKind::Unsupported.as_str(),
        _ => ErrorKind::Unavailable.as_str(),
    }
}

#[cfg(feature = "metrics")]
pub(crate) use self::metrics::{answered, late, renewed};

/// Tells a recorder what the library measures.
pub(crate) fn describe() {
    measure!(metrics::describe());
}

/// So many things were not told: there was no room for more.
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

// What happens to connections.

/// A link to a server is there: the first, or another in the place of one.
#[cfg(feature = "redis")]
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
#[cfg(feature = "redis")]
pub(crate) fn disconnected(events: &Events, server: String, cause: &'static str) {
    events.say(Room::Any, move || {
        tell(Level::WARN, || {
            tracing::warn!(target: "lock", %server, cause, "the connection to the Redis server is lost");
        });
    });
}

/// What was tried at a server has failed.
#[cfg(feature = "redis")]
pub(crate) fn not_connected(events: &Events, server: String, what: &'static str, cause: String) {
    events.say(Room::Any, move || {
        tell(Level::WARN, || {
            tracing::warn!(target: "lock", %server, "{what}: {cause}");
        });
    });
}

/// Another server is asked from now on, or the first. `primary` is what the Sentinels call it.
#[cfg(feature = "redis")]
pub(crate) fn primary_is_at(events: &Events, server: String, primary: String, is_first: bool) {
    events.say(Room::Any, move || {
        tell(Level::INFO, || match is_first {
            true => tracing::debug!(target: "lock", %server, %primary, "the primary is here"),
            false => tracing::info!(target: "lock", %server, %primary, "failover: another server is the primary"),
        });
    });
}

/// A node of a Cluster has slots that another one had.
#[cfg(feature = "redis")]
pub(crate) fn node_took_over(events: &Events, server: String) {
    events.say(Room::Any, move || {
        tell(Level::INFO, || {
            tracing::info!(target: "lock", %server, "failover: a node of the cluster has taken over");
        });
    });
}

/// How notices travel, at each connect.
pub(crate) fn delivery(events: &Events, delivery: Delivery) {
    events.say(Room::Any, move || {
        tell(Level::INFO, || match delivery {
            Delivery::Polling => tracing::info!(
                target: "lock",
                %delivery,
                "the store does not push: waiters look four times a second"
            ),
            _ => tracing::debug!(target: "lock", %delivery, "the store wakes waiters"),
        });
    });
}

// What happens to durable calls.

/// So many calls of a function are kept in the store.
#[cfg(feature = "durable")]
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
#[cfg(feature = "durable")]
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

/// A run of a durable call has ended, and this is what becomes of the call.
#[cfg(feature = "durable")]
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
            "again" => "a durable call is done, and was made again meanwhile",
            "retry" => "a durable call has failed, and is tried again",
            "set_aside" => "a durable call has failed for good, and is set aside",
            "lost" => "a run of a durable call has lost its lock: the call is run again",
            _ => "a durable call has run, and the store did not say what becomes of it",
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
