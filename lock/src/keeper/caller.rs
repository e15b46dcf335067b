//! Who asks the keeper, and how each is told.

use std::sync::Arc;

use super::{Client, held::Held, reply::Reply};
use crate::{
    core::engine::io::{self, Outcome, Refusal, Work},
    id::Named,
};

/// What a caller is told.
pub(super) enum Told {
    /// It has the lock.
    Granted(Held, Work),
    Else(Outcome),
}

/// One that waits for an answer.
#[derive(Default)]
pub(super) struct Caller {
    pub(super) reply: Reply<Result<Told, Refusal>>,
    /// The lock that it asks for, and the client that lets go of it.
    pub(super) lock: Option<(Named, Arc<Client>)>,
}

impl io::Caller for Caller {
    fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }
}
