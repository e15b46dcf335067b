//! What a client of the lock model asks of the store.

use std::time::Duration;

use crate::contract::{Acquisition, IfHeld, Release, Renewal};

/// What is asked of the store, with the token of this number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    Acquire(IfHeld),
    Renew(Duration),
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Acquired(Acquisition),
    Renewed(Renewal),
    Released(Release),
}
