//! Who asks the keeper, and how each is told.

use std::sync::Arc;

use lock_core::engine::io::{self, Outcome, Refusal, Work};

use super::{
    held::{Held, Owner},
    reply::Reply,
};
use crate::id::Named;

/// What a caller is told.
pub(super) enum Told<O: Owner> {
    /// It has the lock.
    Granted(Held<O>, Work),
    Else(Outcome),
}

/// One that waits for an answer.
pub(super) struct Caller<O: Owner> {
    pub(super) reply: Reply<Result<Told<O>, Refusal>>,
    /// The lock that it asks for, and who lets go of it.
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
