//! The keeper: what callers ask goes through it to the engine, and what the engine wants is carried
//! out by it. It decides nothing.
//!
//! Callers talk to it through [`Client`], one message a request, and never touch the store. So a
//! guard can be dropped anywhere, a future can be abandoned anywhere, and renewing cannot race
//! with releasing: one engine decides both.
//!
//! - [`client`]: what callers ask; [`operators`]: what they ask about locks of others; [`numbers`]: what
//!   each is known by; [`caller`], [`reply`]: how each is told;
//! - [`turns`]: what happens in a turn, and in which order;
//! - [`executor`]: how a call of the store begins, and where its answer goes;
//! - [`held`], [`signal`]: one held lock, as its guard and the keeper share it;
//! - [`refusal`]: the words for what is refused;
//! - [`runner`]: who lets it take its turns: [`thread`], or [`inline`], its callers;
//! - [`combiner`]: who is at it, and works for all who come meanwhile; [`unpark`]: what wakes a runner.

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
