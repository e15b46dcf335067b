//! What the library and the engines that keep its locks tell each other: requests, answers and
//! notices, and the times that both sides count on. Pure: no I/O, and nothing of either side.

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

/// A waiter says that it is alive this often, jitter included. It also bounds how long a lock may be
/// free without anybody knowing, if its key has gone in another way than by a release of ours.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// A waiter that has not been heard of for this long is dead, if its client subscribes: two
/// heartbeats in a row may be late by as much as a stall of the process, or be lost.
pub const ALIVE: Duration = HEARTBEAT.saturating_mul(3);

/// The same for a waiter whose client polls: it asks several times a second, on a slow link as often
/// as that answers.
pub const ALIVE_POLLING: Duration = Duration::from_secs(2);

/// How long the newest caller of a debounce may be late before another process that took part
/// claims the window in its place: the newest one may have died.
pub const GRACE: Duration = Duration::from_secs(1);
