//! The keeper: passes the requests of callers to the engine, and carries out what the engine
//! decides. It decides nothing itself.
//!
//! Callers talk to it through [`Client`], with one message for each request, and never touch the
//! store. So a guard can be dropped anywhere, a future can be abandoned anywhere, and renewing
//! cannot race with releasing: one engine decides both.
//!
//! - [`client`]: the requests of callers; [`operators`]: their requests about locks of any client;
//!   [`numbers`]: how each acquisition is identified; [`caller`], [`reply`]: how each caller is
//!   answered;
//! - [`turns`]: what happens in a turn, and in which order;
//! - [`executor`]: how a call to the store begins, and where its answer goes;
//! - [`held`], [`signal`]: one held lock, as its guard and the keeper share it;
//! - [`refusal`]: the error texts for what is refused;
//! - [`runner`]: who lets the keeper take its turns: a thread of its own ([`thread`]), or its
//!   callers ([`inline`]);
//! - [`combiner`]: lets one thread at a time work, also for those that come meanwhile; [`unpark`]:
//!   wakes a runner.

mod caller;
mod client;
mod combiner;
mod executor;
mod held;
mod inline;
#[cfg(all(test, lock_loom))]
mod loom_tests;
mod numbers;
mod operators;
mod refusal;
mod reply;
mod runner;
mod signal;
#[cfg(all(test, not(lock_loom)))]
mod stalls;
mod sync;
mod thread;
mod turns;
mod unpark;

#[cfg(feature = "durable")]
pub(crate) use self::client::Claimed;
pub(crate) use self::{
    client::{Client, Held},
    held::Hold,
    thread::Started,
};
