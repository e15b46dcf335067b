//! The commands that a page can send.

use serde::Deserialize;

use crate::network::Condition;

/// A command from a page.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Command {
    Own(Step),
    Foreign(Interference),
}

/// A command that the instance's own code carries out, once its runtime gets to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Step {
    Acquire { id: String, lease_ms: u64 },
    TryAcquire { id: String, lease_ms: u64 },
    StopWaiting,
    Extend { by_ms: u64 },
    Release,
    Drop,
    Call,
    BlockRuntime { for_ms: u64 },
}

/// A command that takes effect from outside, whatever the instance is doing.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Interference {
    Network {
        condition: Condition,
    },
    Force {
        id: String,
    },
    Kill,
    Restart,
    /// A write to the ledger, which needs only a token and does not use the store of the locks.
    Write,
}
