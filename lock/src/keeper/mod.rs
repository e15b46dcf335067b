//! The keeper: what callers ask goes through it to the engine, and what the engine wants is carried
//! out by it. It decides nothing.
//!
//! Callers talk to it through [`Client`], one message a request, and never touch the store. So a
//! guard can be dropped anywhere, a future can be abandoned anywhere, and renewing cannot race
//! with releasing: one engine decides both.
//!
//! - [`client`]: what callers ask; [`caller`], [`reply`]: how each is told;
//! - [`turns`]: what happens in a turn, and in which order;
//! - [`executor`]: how a call of the store begins, and where its answer goes;
//! - [`held`], [`signal`]: one held lock, as its guard and the keeper share it;
//! - [`refusal`]: the words for what is refused;
//! - [`berth`]: where it lives: on a thread of its own, or wherever its callers are.

mod berth;
mod caller;
mod client;
mod executor;
mod held;
#[cfg(feature = "__mutants")]
mod host;
mod refusal;
mod reply;
mod signal;
mod turns;

#[cfg(feature = "durable")]
pub(crate) use self::client::Claimed;
#[cfg(feature = "__mutants")]
pub use self::host::Host;
pub(crate) use self::{
    berth::Started,
    client::{Client, ClientId},
    held::{Held, Hold},
};
