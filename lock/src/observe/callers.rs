//! What callers cause: reported on their own thread, in their own span.

use std::time::Duration;

use lock_core::{Moment, engine::io::is_handed_over};
use tracing::Level;

#[cfg(feature = "metrics")]
use super::metrics;
use super::{Mode, Observed, is_heard, tell};
use crate::{Error, ErrorKind, clock::Clock};

/// Does anybody listen to what callers cause? Usually not, so the code behind this check is kept
/// out of their way.
#[inline(always)]
fn is_observed() -> bool {
    cfg!(feature = "metrics") || is_heard(Level::DEBUG)
}

/// A caller that asks for a lock, until it is answered.
#[derive(Clone, Copy)]
pub(crate) struct Asking {
    mode: Mode,
    /// When it asked, if anybody listens.
    since: Option<Moment>,
}

impl Asking {
    #[inline(always)]
    pub(crate) fn begin(id: &str, mode: Mode, clock: &dyn Clock) -> Self {
        let since = if is_observed() { Some(began(id, mode, clock)) } else { None };
        Self { mode, since }
    }

    /// Did anybody listen when it asked?
    pub(crate) fn is_observed(&self) -> bool {
        self.since.is_some()
    }

    /// Does anybody want to be told that it waits?
    #[inline(always)]
    pub(crate) fn wants_to_hear(&self) -> bool {
        self.since.is_some() && is_enabled()
    }

    /// Reports how the call has ended.
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
            Told::Superseded => {
                let what = "another call of the burst runs in place of this one";
                self.ended_without("superseded", what, id, waited);
                measure!(metrics::superseded());
            }
            Told::NotDue => {
                self.ended_without("not_due", "there is nothing to run now", id, waited);
            }
            Told::Refused(error) => self.refused(id, waited, error),
            Told::Cancelled => {
                let what = "the caller has stopped waiting for the lock";
                self.ended_without("cancelled", what, id, waited);
            }
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
                    "the lock is handed over within this process"
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

    /// The call has ended without a lock, and without an error.
    fn ended_without(&self, outcome: &'static str, what: &str, id: &str, waited: Option<Duration>) {
        tell(Level::DEBUG, || {
            tracing::debug!(
                target: "lock",
                id,
                mode = self.mode.as_str(),
                waited = waited.map(tracing::field::debug),
                outcome,
                "{what}"
            );
        });
        measure!(metrics::told(self.mode, outcome, waited.unwrap_or_default()));
    }

    #[cold]
    fn refused(&self, id: &str, waited: Option<Duration>, error: &Error) {
        refused(id, self.mode, error, waited);
        measure!(metrics::told(self.mode, error.kind().as_str(), waited.unwrap_or_default()));
    }
}

/// The outcome of a call that asks for a lock.
pub(crate) enum Told<'a, H> {
    Granted(&'a H),
    /// Another call of the burst runs.
    Superseded,
    /// There is nothing to run now.
    NotDue,
    Refused(&'a Error),
    /// The caller has gone away.
    Cancelled,
}

#[cold]
fn began(id: &str, mode: Mode, clock: &dyn Clock) -> Moment {
    tell(Level::DEBUG, || {
        let mode = mode.as_str();
        tracing::debug!(target: "lock", id, mode, "a lock is requested");
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

/// A lock was refused before the keeper was asked for it.
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

/// How a guard has given up its lock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LetGo<'a> {
    /// Its release was awaited.
    Released(&'a Result<(), Error>),
    /// It is released in the background.
    Dropped,
    /// It is left to the process that adopts it.
    Leaked,
}

/// When a guard gave up its lock, if anybody listens.
#[inline(always)]
pub(crate) fn letting_go(hold: &impl Observed) -> Option<Moment> {
    is_observed().then(|| hold.now())
}

/// A guard has given up its lock. Drops call this as well.
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
                    "the lock is given up"
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
        tracing::debug!(target: "lock", id, outcome, "a release by force was requested");
    });
}
