//! Claims of the runs of durable calls that are in flight.

use super::{
    calls::{Granted, Said},
    io::{Acquirer, Aftermath, Outcome, Refusal, Work},
    lease::comes_too_late,
    shared::Shared,
};
use crate::{
    contract::{DurableClaim, StoreError},
    time::Moment,
};

/// How many claims have not been answered.
#[derive(Clone, Default, Hash)]
pub(super) struct Claims(usize);

impl Claims {
    pub(super) fn sent(&mut self, count: usize) {
        self.0 += count;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Handles the store's answer to a claim, and returns a run that may be relied on. A run is
    /// undone if it is granted too late, or to a client that is shutting down, or if it is not
    /// known whether it was granted.
    pub(super) fn answered<C>(
        &mut self,
        (acquirer, to): (Acquirer<()>, C),
        sent_at: Moment,
        answer: Said<DurableClaim>,
        is_closed: bool,
        shared: &mut Shared<C>,
    ) -> Option<(Acquirer<C>, Granted, Work)> {
        let Acquirer { number, key, terms, .. } = acquirer;
        let (token, lease) = (shared.token(number), terms.lease);
        self.0 -= 1;
        let (is_undone, refusal) = match answer {
            Ok(DurableClaim::Granted { .. }) if is_closed => (true, Refusal::Closed),
            Ok(DurableClaim::Granted { .. }) if comes_too_late(sent_at, lease, shared.now) => {
                let late = StoreError::unavailable("the answer came too late");
                (true, Refusal::Failed(late, Aftermath::Undone))
            }
            Ok(DurableClaim::Granted { fence, call, attempt, arguments }) => {
                let work = Work::Durable { call, attempt, arguments };
                let ownership = number;
                let granted = Granted { ownership, token, sent_at, lease, fence, contended: false };
                return Some((Acquirer { number, key, terms, to }, granted, work));
            }
            Ok(_) => {
                shared.answer(to, Ok(Outcome::NothingDue));
                return None;
            }
            Err(error) => (!error.is_refusal(), Refusal::Failed(error, Aftermath::Undone)),
        };
        if is_undone {
            shared.undo(number, &key, &token);
        }
        shared.refuse(to, refusal);
        None
    }
}
