//! One client's decisions as a state machine without I/O.
//!
//! [`Engine`](coordinator::Engine) is told what happens and says what is to be done; who carries it
//! out is somebody else. What happens to one lock is read in `coordinator`; each other file is a
//! part, which knows of no other:
//!
//! - [`io`], [`calls`]: what goes in and out, on the callers' side and on the store's;
//! - [`turn`]: what the parts have in common: time, timers, what comes out;
//! - [`lock_state`]: one lock in this process: who waits, its entry in the store's queue, who owns it;
//! - [`queued`]: callers that wait in line, and when they are refused;
//! - [`polled`]: callers that ask for themselves; [`patience`]: when they try again;
//! - [`requests`]: requests for locks, in batches;
//! - [`lease`]: until when one held lock may be believed, and when it is renewed;
//! - [`holds`]: all held locks, and their renewals in batches;
//! - [`releases`]: locks on their way to being free; [`hand_offs`]: that somebody takes them up;
//! - [`burst`]: the debounced calls of one id; [`bursts`]: all of them, and who gets a run;
//! - [`bulk`]: what may wait until there is room for it;
//! - [`shutdown`]: the end, and flushes;
//! - [`outage`]: silence of the store, and when to try again;
//! - [`shards`], [`timers`], [`maps`]: what things are kept in.

mod bulk;
pub(crate) mod burst;
mod bursts;
pub(crate) mod calls;
mod coordinator;
pub(crate) mod hand_offs;
mod holds;
pub(crate) mod io;
pub(crate) mod lease;
pub(crate) mod lock_state;
pub(crate) mod maps;
pub(crate) mod outage;
pub(crate) mod patience;
mod polled;
mod queued;
mod releases;
mod requests;
mod shards;
mod shutdown;
mod timers;
mod turn;

pub(crate) use self::{
    coordinator::Engine,
    turn::{ShardOf, Turn},
};
