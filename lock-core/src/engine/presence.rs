//! The record of this client in the store, which tells operators who holds its locks.

use std::{sync::Arc, time::Duration};

use super::{
    calls::{Batch, Sent},
    shared::Shared,
};
use crate::{
    contract::{ClientRecord, IntroduceRequest},
    time::Moment,
};

/// The record is written again with the first renewal this long after it was last written.
const REFRESH: Duration = Duration::from_secs(60);

/// How long after it was written the record is not written again for a connect. A connection on
/// which something was answered is replaced at once when it breaks; without this pause, writing the
/// record would be such an answer, even on connections that break each time.
const PAUSE: Duration = Duration::from_secs(10);

/// The shortest time for which the record is kept.
const KEEP: Duration = Duration::from_secs(10 * 60);

/// The record is written at each connect, then with renewals, and with a grant if it would expire
/// soon: one request in five minutes, and none for most acquires. So it exists for as long as its
/// client holds anything.
#[derive(Clone, Default, Hash)]
pub(super) struct Presence(Option<Box<Record>>);

#[derive(Clone, Hash)]
struct Record {
    key: Arc<str>,
    says: ClientRecord,
    is_due: bool,
    /// The store may not have it.
    is_doubted: bool,
    /// When it was last sent; a request that fails is repeated no sooner than one that succeeds.
    sent_at: Option<Moment>,
    /// The longest lease that was granted or renewed: the next renewal may be a third of it away.
    longest: Duration,
}

impl Presence {
    pub(super) fn new(key: Arc<str>, says: ClientRecord) -> Self {
        let longest = Duration::ZERO;
        let (is_due, is_doubted) = (false, true);
        Self(Some(Box::new(Record { key, says, is_due, is_doubted, sent_at: None, longest })))
    }

    /// There is a new connection: the store may not have the record.
    pub(super) fn connected(&mut self, now: Moment) {
        if let Some(record) = &mut self.0 {
            record.is_doubted = true;
            record.look(now);
        }
    }

    /// A lock was renewed, for this lease.
    pub(super) fn renewed(&mut self, lease: Duration, now: Moment) {
        if let Some(record) = &mut self.0 {
            record.longest = record.longest.max(lease);
            record.look(now);
        }
    }

    /// A lock was granted, for this lease: the next renewal is a third of it away.
    pub(super) fn granted(&mut self, lease: Duration, now: Moment) {
        if let Some(record) = &mut self.0 {
            let is_longer = lease > record.longest.max(KEEP / 2);
            record.longest = record.longest.max(lease);
            record.is_due |= is_longer || record.sent_at.is_none_or(|at| now >= at + KEEP / 2);
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.0.as_ref().is_some_and(|record| record.is_due)
    }

    pub(super) fn next<C>(&mut self, shared: &Shared<C>) -> Option<Batch<IntroduceRequest, ()>> {
        let record = self.0.as_mut().filter(|record| record.is_due)?;
        (record.is_due, record.is_doubted) = (false, false);
        record.sent_at = Some(shared.now);
        let keep = KEEP.max(2 * record.longest);
        let request = IntroduceRequest::new(Arc::clone(&record.key), record.says.clone(), keep);
        let shard = shared.shard(&record.key);
        let sent = Sent { asked: vec![()], shard, sent_at: shared.now };
        Some(Batch { requests: vec![request], sent })
    }
}

impl Record {
    fn look(&mut self, now: Moment) {
        let pause = if self.is_doubted { PAUSE } else { REFRESH };
        self.is_due |= self.sent_at.is_none_or(|at| now >= at + pause);
    }
}
