//! What the library reports about itself: events and a span for `tracing`, and measurements for
//! `metrics`.
//!
//! Each thing that can happen has one function, which reports both. What a caller's own code causes
//! is reported right there, in the span of the caller: a subscriber or a recorder that blocks
//! delays that call, and one that panics loses what it was given. What the keeper finds is reported
//! through [`Events`], on a thread that nothing depends on.
//!
//! If nobody listens, an event costs one check of the level that `tracing` keeps for the whole
//! process, and no clock is read.

/// Measures, in builds with the feature `metrics`. If a recorder panics, the measurement is lost.
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
use crate::{contained::contained, error::Subject};

/// What a lock is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A lock that a caller has acquired.
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

    /// What an error of a call in this mode is about.
    pub(crate) const fn subject(self) -> Subject {
        match self {
            Self::Exclusive => Subject::Lock,
            Self::Run => Subject::Debounce,
            Self::Durable => Subject::DurableCall,
        }
    }
}

/// What is reported about a held lock.
pub(crate) trait Observed: Send + Sync + 'static {
    fn id(&self) -> &str;
    fn mode(&self) -> Mode;
    fn fencing_token(&self) -> u64;
    /// How long it has been held at this time.
    fn held_until(&self, now: Moment) -> Duration;
    fn now(&self) -> Moment;
    /// Whether it is counted among the held locks.
    #[cfg(feature = "metrics")]
    fn counted(&self) -> &Counted;
}

/// May anybody be listening at this level? Calls no subscriber.
#[inline]
fn is_heard(level: Level) -> bool {
    level <= STATIC_MAX_LEVEL && level <= LevelFilter::current()
}

/// Emits the event here, if anybody may be listening.
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

/// Gives the recorder the descriptions of what the library measures.
pub(crate) fn describe() {
    measure!(metrics::describe());
}
