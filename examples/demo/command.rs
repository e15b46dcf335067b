//! What a page can ask for.

use serde::Deserialize;

use crate::network::Condition;

/// A command of a page.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Command {
    Own(Step),
    Foreign(Interference),
}

/// What the instance's own code does, when it gets to it.
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

/// What is done to the instance, whatever it is at.
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
    /// It does not go through the store of the locks, and asks for nothing but a token.
    Write,
}
