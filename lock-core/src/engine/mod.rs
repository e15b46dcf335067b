//! One client's decisions as a state machine without I/O.
//!
//! [`Engine`] is told what happens and returns what has to be done; its owner carries that out.
//!
//! - `coordinator`: the input and the output; what a grant, a hand-over, a release or a loss in one
//!   part means for the others; the order of the calls in a turn; what a flush and a shutdown wait
//!   for.
//!
//! Each part keeps its state private, and says what has to be undone of what it has begun:
//!
//! - `queued`: callers that wait in line: how long each waits, and for how long the store may be
//!   silent; `lock_state`: one lock in this process: its next caller, its owner, and its entry in
//!   the store's queue. It decides what has to be withdrawn when callers cancel or are refused, and
//!   asks again for a grant that was revoked before it arrived;
//! - `polled`: callers that ask on their own behalf, and when they try again;
//! - `requests`: requests for locks in batches, and how many may be in flight;
//! - `holds`: all held locks, and their renewals in batches; `lease`: until when a lock may be
//!   relied on, and whether a grant comes too late;
//! - `releases`: locks that are being released, and when a release is tried again; `hand_offs`:
//!   whether a lock that was handed over is taken up;
//! - `bursts`: debounced calls, and which caller gets a run; `burst`: the calls of one id;
//! - `claims`: claims of the runs of durable calls;
//! - `bulk`: requests that may wait until there is room for them;
//! - `presence`: the record that tells operators who this client is;
//! - `shutdown`: the callers that wait for the end, or for a flush.
//!
//! What they have in common:
//!
//! - `io`, `calls`: input and output, on the callers' side and on the store's;
//! - `shared`: the time, the timers, the output; `outage`: how long the store has been silent, and
//!   when to try again;
//! - `shards`, `timers`, `maps`: data structures.

#![expect(
    missing_docs,
    missing_debug_implementations,
    reason = "only the keeper of `lock` uses this; a comment says what a name does not"
)]

mod bulk;
mod burst;
mod bursts;
pub mod calls;
mod claims;
mod coordinator;
mod hand_offs;
mod holds;
pub mod io;
mod lease;
mod lock_state;
pub mod outage;
mod polled;
mod presence;
mod queued;
mod releases;
mod requests;
mod shards;
mod shared;
mod shutdown;
mod timers;

pub use self::{coordinator::Engine, shared::ShardOf};
