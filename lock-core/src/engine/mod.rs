//! One client's decisions as a state machine without I/O.
//!
//! [`Engine`] is told what happens and says what is to be done; who carries it
//! out is somebody else.
//!
//! - `coordinator`: what goes in and comes out; what follows between the parts when a lock is granted,
//!   passed on, released or lost; the order of the calls in a turn; what a flush and a shutdown wait for.
//!
//! The parts keep their state to themselves. Each says what has to be undone of what it has begun:
//!
//! - `queued`: callers that wait in line: their patience, and silence of the store;
//!   `lock_state`: one lock in this process: who is next, who owns it, and its entry in the store's
//!   queue: what is left to withdraw when callers cancel or are refused, and that a grant which was
//!   revoked before it was heard of is asked for again;
//! - `polled`: callers that ask for themselves, and when they try again;
//! - `requests`: requests for locks in batches, and how many may be on their way;
//! - `holds`: all held locks, and their renewals in batches; `lease`: until when one may be believed,
//!   and that a grant comes too late;
//! - `releases`: locks on their way to being free, and when a release is tried again;
//!   `hand_offs`: that somebody takes up what was handed over;
//! - `bursts`: debounced calls, and who gets a run; `burst`: those of one id;
//! - `claims`: claims of the runs of durable calls;
//! - `bulk`: what may wait until there is room for it;
//! - `presence`: the record that says to operators who this client is;
//! - `shutdown`: who is told of the end, and of flushes.
//!
//! What they have in common:
//!
//! - `io`, `calls`: what goes in and out, on the callers' side and on the store's;
//! - `shared`: the time, the timers, what comes out; `outage`: silence of the store, and when to try
//!   again;
//! - `shards`, `timers`, `maps`: what things are kept in.

#![expect(
    missing_docs,
    missing_debug_implementations,
    reason = "between this and the keeper of `lock`: what a name does not say, its comment says"
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
