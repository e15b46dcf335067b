//! The callers of the keeper, and their answers.

use std::sync::Arc;

use lock_core::engine::io::{self, Outcome, Refusal, Work};

use super::{
    held::{Held, Owner},
    reply::Reply,
};
use crate::id::Named;

/// The answer to a caller.
pub(super) enum Told<O: Owner> {
    /// It has the lock.
    Granted(Held<O>, Work),
    Else(Outcome),
}

/// A caller that waits for an answer.
pub(super) struct Caller<O: Owner> {
    pub(super) reply: Reply<Result<Told<O>, Refusal>>,
    /// The lock that it asks for, and the owner that will release it.
    pub(super) lock: Option<(Named, Arc<O>)>,
}

impl<O: Owner> io::Caller for Caller<O> {
    fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }

    fn told_as(&self) -> Option<Arc<str>> {
        let (lock, _) = self.lock.as_ref().filter(|(_, owner)| owner.is_heard())?;
        Some(Arc::clone(&lock.id))
    }
}

impl<O: Owner> Default for Caller<O> {
    fn default() -> Self {
        Self { reply: Reply::default(), lock: None }
    }
}
