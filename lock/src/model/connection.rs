//! What is on a client's connection: requests and their replies.

use std::time::Duration;

use super::{CALL_LIMIT, RENEW_LIMIT};
use crate::{
    core::Moment,
    store::{Acquisition, IfHeld, Release, Renewal},
};

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

/// A request on the connection, and its reply once the store has executed it. They keep their
/// order, in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) sent_at: Moment,
    pub(super) reply: Option<Reply>,
    /// Its time is over, and nobody waits for the reply.
    pub(super) abandoned: bool,
}

impl Call {
    /// Until when it is waited for.
    pub(super) fn ends_at(&self) -> Moment {
        let limit =
            if matches!(self.request.what, What::Renew(_)) { RENEW_LIMIT } else { CALL_LIMIT };
        self.sent_at + limit
    }
}
