//! The contract between the library and the stores that keep its locks: requests, answers and
//! notices, and the times that both sides rely on. Pure: no I/O, and nothing that belongs to either
//! side.

mod debounce;
mod durable;
mod error;
mod lock;
mod notice;
mod operator;

use std::time::Duration;

pub use self::{
    debounce::{DebounceReply, DebounceRequest, EndWindowRequest, WindowEnd},
    durable::{
        ClaimRequest, DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish,
        FinishRequest, KeepRequest, Kept, SetAside, TakeBackRequest, WaitingCalls,
    },
    error::{Failure, StoreError, answer_each},
    lock::{
        AcquireRequest, Acquisition, ExtendRequest, IfHeld, Release, ReleaseRequest, RenewRequest,
        Renewal,
    },
    notice::{Delivery, Notice},
    operator::{
        ClientRecord, ForceReleaseRequest, Holder, IntroduceRequest, ScanFor, ScanPage, ScanRequest,
    },
};

/// How long a lock that was handed over is reserved for its next holder.
pub const RESERVATION: Duration = Duration::from_secs(1);

/// A waiter reports that it is alive at least this often, jitter included. It also bounds how long
/// a lock may be free without anybody noticing, if its key has disappeared other than by a release
/// of ours.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// A waiter that has been silent for this long is dead, if its client subscribes. Two heartbeats in
/// a row may be lost, or be late because the process has stalled.
pub const ALIVE: Duration = HEARTBEAT.saturating_mul(3);

/// The same for a waiter whose client polls: it asks several times a second, or, on a slow link, as
/// often as answers arrive.
pub const ALIVE_POLLING: Duration = Duration::from_secs(2);

/// How late the newest caller of a debounce may be before another process that took part claims the
/// window in its place: the newest caller may have died.
pub const GRACE: Duration = Duration::from_secs(1);
