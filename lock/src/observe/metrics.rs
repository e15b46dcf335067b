//! What the library measures, for the recorder that the application has installed.
//!
//! No label contains an id, or anything else that can take any number of values: a series for each
//! invoice would overwhelm the recorder.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use lock_core::{Moment, contract::StoreError};
use metrics::{Unit, counter, gauge, histogram};

use super::{
    Mode, Observed,
    keeper::{REASONS, kind},
};
use crate::events::{Events, Room};

const ACQUISITIONS: &str = "lock_acquisitions_total";
const WAIT: &str = "lock_wait_seconds";
const HOLD: &str = "lock_hold_seconds";
const HELD: &str = "lock_held";
const WAITERS: &str = "lock_waiters";
const LOST: &str = "lock_lost_total";
const HAND_OVERS: &str = "lock_hand_overs_total";
const RENEWAL: &str = "lock_renewal_seconds";
const KEEPER_LAG: &str = "lock_keeper_lag_seconds";
const STORE_ERRORS: &str = "lock_store_errors_total";
#[cfg(feature = "redis")]
const CONNECTS: &str = "lock_connects_total";
#[cfg(feature = "redis")]
const RECONNECTS: &str = "lock_reconnects_total";
const DEBOUNCE_RUNS: &str = "lock_debounce_runs_total";
const DEBOUNCE_SUPERSEDED: &str = "lock_debounce_superseded_total";
#[cfg(feature = "durable")]
const DURABLE_RUNS: &str = "lock_durable_runs_total";
#[cfg(feature = "durable")]
const DURABLE_BACKLOG: &str = "lock_durable_backlog";
const LEFT_OUT: &str = "lock_events_left_out_total";

pub(super) fn describe() {
    macro_rules! describe {
        ($($kind:ident $name:ident $unit:ident $text:literal;)*) => {
            $(metrics::$kind!($name, Unit::$unit, $text);)*
        };
    }

    describe! {
        describe_counter ACQUISITIONS Count "Calls that asked for a lock, by outcome.";
        describe_histogram WAIT Seconds "From the request for a lock to its answer.";
        describe_histogram HOLD Seconds "From the grant of a lock to its end.";
        describe_gauge HELD Count "Locks that this process holds.";
        describe_gauge WAITERS Count "Calls that wait for an answer to their request for a lock.";
        describe_counter LOST Count "Locks that were lost while they were held, by reason.";
        describe_counter HAND_OVERS Count "Locks that passed from one caller to the next in this process.";
        describe_histogram RENEWAL Seconds "From sending a batch of renewals to its answer.";
        describe_histogram KEEPER_LAG Seconds "How late the keeper handled what was due.";
        describe_counter STORE_ERRORS Count "Calls of the store that failed, by kind.";
        describe_counter DEBOUNCE_RUNS Count "Debounced calls that ran.";
        describe_counter DEBOUNCE_SUPERSEDED Count "Debounced calls that were superseded.";
        describe_counter LEFT_OUT Count "Events and measurements for which there was no room.";
    }
    #[cfg(feature = "redis")]
    describe! {
        describe_counter CONNECTS Count "First connections to a server.";
        describe_counter RECONNECTS Count "Connections that replaced a lost one.";
    }
    #[cfg(feature = "durable")]
    describe! {
        describe_counter DURABLE_RUNS Count "Runs of durable calls, by what became of the call.";
        describe_gauge DURABLE_BACKLOG Count "Durable calls that are kept in the store and not done.";
    }
    begin_at_zero();
}

/// Counters that alerts are about exist from the start: one that appears with its first increment
/// has not increased, as far as a monitoring system can see.
fn begin_at_zero() {
    counter!(LEFT_OUT).increment(0);
    for mode in [Mode::Exclusive, Mode::Run, Mode::Durable] {
        for reason in REASONS {
            counter!(LOST, "mode" => mode.as_str(), "reason" => reason).increment(0);
        }
    }
    #[cfg(feature = "redis")]
    counter!(RECONNECTS).increment(0);
    #[cfg(feature = "durable")]
    for outcome in ["done", "again", "retry", "set_aside", "lost", "unknown"] {
        counter!(DURABLE_RUNS, "outcome" => outcome).increment(0);
    }
}

/// Whether a lock is counted among the held ones: it begins to be once, and ends once.
#[derive(Debug, Default)]
pub(crate) struct Counted(AtomicU8);

impl Counted {
    const NEW: u8 = 0;
    const COUNTED: u8 = 1;
    const ENDED: u8 = 2;

    /// False if it had ended before.
    fn begin(&self) -> bool {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        self.0.compare_exchange(Self::NEW, Self::COUNTED, order.0, order.1).is_ok()
    }

    /// True if it was counted until now.
    fn end(&self) -> bool {
        self.0.swap(Self::ENDED, Ordering::AcqRel) == Self::COUNTED
    }
}

pub(super) fn waiters(mode: Mode, by: f64) {
    gauge!(WAITERS, "mode" => mode.as_str()).increment(by);
}

/// A call has its answer.
pub(super) fn told(mode: Mode, outcome: &'static str, waited: Duration) {
    waiters(mode, -1.0);
    counter!(ACQUISITIONS, "mode" => mode.as_str(), "outcome" => outcome).increment(1);
    histogram!(WAIT, "mode" => mode.as_str(), "outcome" => outcome).record(waited);
}

pub(super) fn granted(hold: &impl Observed, waited: Duration, is_handed_over: bool) {
    let mode = hold.mode();
    told(mode, "granted", waited);
    // It may have been lost before its caller was told of the grant.
    if hold.counted().begin() {
        gauge!(HELD, "mode" => mode.as_str()).increment(1.0);
    }
    if is_handed_over {
        counter!(HAND_OVERS).increment(1);
    }
    if mode == Mode::Run {
        counter!(DEBOUNCE_RUNS).increment(1);
    }
}

pub(super) fn superseded() {
    counter!(DEBOUNCE_SUPERSEDED).increment(1);
}

pub(super) fn refused_at_once(mode: Mode, outcome: &'static str) {
    counter!(ACQUISITIONS, "mode" => mode.as_str(), "outcome" => outcome).increment(1);
}

/// A lock is no longer held: its guard has ended, or it was lost, whichever comes first.
pub(super) fn ended(hold: &impl Observed, at: Moment) {
    if hold.counted().end() {
        let mode = hold.mode().as_str();
        gauge!(HELD, "mode" => mode).decrement(1.0);
        histogram!(HOLD, "mode" => mode).record(hold.held_until(at));
    }
}

pub(super) fn lost(hold: &impl Observed, reason: &'static str, at: Moment) {
    counter!(LOST, "mode" => hold.mode().as_str(), "reason" => reason).increment(1);
    ended(hold, at);
}

// What the keeper measures.

/// The store has answered a call with this failure.
pub(crate) fn answered(events: &Events, failure: Option<&StoreError>) {
    if let Some(kind) = failure.map(kind) {
        events.say(Room::Half, move || counter!(STORE_ERRORS, "kind" => kind).increment(1));
    }
}

/// A batch of renewals was answered after this time.
pub(crate) fn renewed(events: &Events, took: Duration) {
    events.say(Room::Half, move || histogram!(RENEWAL).record(took));
}

/// The keeper does something that was due this long ago.
pub(crate) fn late(events: &Events, by: Duration) {
    events.say(Room::Half, move || histogram!(KEEPER_LAG).record(by));
}

pub(super) fn left_out(number: u64) {
    counter!(LEFT_OUT).increment(number);
}

#[cfg(feature = "redis")]
pub(super) fn connected(again: bool) {
    counter!(if again { RECONNECTS } else { CONNECTS }).increment(1);
}

#[cfg(feature = "durable")]
pub(super) fn durable_backlog(function: &str, kept: u64) {
    gauge!(DURABLE_BACKLOG, "function" => function.to_owned()).set(kept as f64);
}

#[cfg(feature = "durable")]
pub(super) fn durable_ended(outcome: &'static str) {
    counter!(DURABLE_RUNS, "outcome" => outcome).increment(1);
}
