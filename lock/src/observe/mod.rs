//! What the library tells of itself: events and a span for `tracing`, and measurements for `metrics`.
//!
//! One function for each thing that can happen says both. What a caller's own code brings about is
//! told right there, in the span of the caller: a subscriber or a recorder that blocks costs that call
//! its time, and one that panics costs what it was told. What the keeper finds is told through
//! [`Events`], on a thread that nothing depends on.
//!
//! Where nobody listens, an event costs a look at the level that `tracing` keeps for all of the
//! process, and no clock is read.

/// Measures, in builds with the feature `metrics`. A recorder that panics costs the measurement.
macro_rules! measure {
    ($what:expr) => {
        #[cfg(feature = "metrics")]
        let _ = crate::contained::contained(|| $what);
    };
}

mod callers;
#[cfg(feature = "redis")]
mod connections;
#[cfg(feature = "durable")]
mod durable;
mod keeper;
#[cfg(feature = "metrics")]
mod metrics;
mod span;

use std::time::Duration;

use lock_core::Moment;
use tracing::{
    Level,
    level_filters::{LevelFilter, STATIC_MAX_LEVEL},
};

#[cfg(feature = "redis")]
pub(crate) use self::connections::{
    connected, disconnected, node_took_over, not_connected, primary_is_at,
};
#[cfg(feature = "durable")]
pub(crate) use self::durable::{durable_backlog, durable_ended, durable_not_run};
#[cfg(feature = "metrics")]
pub(crate) use self::metrics::{Counted, answered, late, renewed};
pub(crate) use self::{
    callers::{Asking, LetGo, Told, forced, let_go, letting_go, refused_at_once},
    keeper::{PANICKED, delivery, left_out, lost, not_renewed, reason, waits},
    span::Spans,
};
use crate::contained::contained;

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
    /// Whether it is counted among the locks that are held.
    #[cfg(feature = "metrics")]
    fn counted(&self) -> &Counted;
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

/// Tells a recorder what the library measures.
pub(crate) fn describe() {
    measure!(metrics::describe());
}
