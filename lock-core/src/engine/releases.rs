//! Locks that are being released: each release is repeated until the store has answered.

use std::{sync::Arc, time::Duration};

use super::{
    calls::{BATCH, Batch, Said, Sent},
    io::{Aftermath, Outcome, Refusal},
    outage::Outage,
    shards::Shards,
    shared::Shared,
    timers::{Scheduled, Timer},
};
use crate::{
    Token,
    contract::{RESERVATION, Release, ReleaseRequest, StoreError},
    maps::ByNumber,
    mutant::Mutant,
    time::Moment,
};

/// How long a release is repeated. Most leases have run out by then, and a store that has not
/// answered for half a minute will not answer soon.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// The answer to a guard that has nothing to release.
pub(super) const NOT_HELD: &str =
    "this guard no longer holds the lock (its lease ran out, or it was taken away)";

#[derive(Clone, Default, Hash)]
pub(super) struct Releases<C> {
    by_number: ByNumber<Releasable<C>>,
    /// What the next calls release, by part of the store.
    due: Shards<Vec<u64>>,
}

/// A lock that no longer has a guard.
#[derive(Clone, Hash)]
struct Releasable<C> {
    key: Arc<str>,
    token: Token,
    /// `hold_at_least` keeps the key until then.
    keep_until: Moment,
    /// When the lock may be free without anybody knowing.
    look_at: Option<Moment>,
    give_up_at: Moment,
    outage: Outage,
    timer: Scheduled,
    to: Option<C>,
}

impl<C> Releases<C> {
    /// Releases what nobody here wants any longer.
    pub(super) fn undo(
        &mut self,
        number: u64,
        lock: (Arc<str>, Token),
        look_at: Option<Moment>,
        shared: &Shared<C>,
    ) {
        self.begin(number, lock, Moment::default(), None, shared);
        if let Some(release) = self.by_number.get_mut(&number) {
            release.look_at = look_at;
        }
    }

    pub(super) fn begin(
        &mut self,
        number: u64,
        (key, token): (Arc<str>, Token),
        keep_until: Moment,
        to: Option<C>,
        shared: &Shared<C>,
    ) {
        self.due.at(shared.shard(&key)).push(number);
        let release = Releasable {
            key,
            token,
            keep_until,
            look_at: None,
            give_up_at: shared.now + GIVE_UP_AFTER,
            outage: Outage::default(),
            timer: Scheduled::default(),
            to,
        };
        self.by_number.insert(number, release);
    }

    /// The numbers of the releases that are not done.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.by_number.keys().into_iter()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.by_number.contains_key(&number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub(super) fn are_due(&self) -> bool {
        self.due.find(|due| !due.is_empty()).is_some()
    }

    /// The next batch to send.
    pub(super) fn next(&mut self, shared: &Shared<C>) -> Option<Batch<ReleaseRequest, u64>> {
        let shard = self.due.find(|due| !due.is_empty())?;
        let due = self.due.at(shard);
        let batch = due.len().min(BATCH);
        let locks = due.drain(..batch).filter_map(|number| {
            let release = self.by_number.get(&number)?;
            let request = ReleaseRequest::new(Arc::clone(&release.key), release.token.clone());
            // Rounded up: at least means at least.
            let keep = release.keep_until.after(shared.now).as_nanos().div_ceil(1_000_000);
            Some((number, request.keeping(Duration::from_millis(keep as u64))))
        });
        let (asked, requests): (Vec<_>, Vec<_>) = locks.unzip();
        let sent = Sent { asked, shard, sent_at: shared.now };
        (!sent.asked.is_empty()).then_some(Batch { requests, sent })
    }

    /// Handles the store's answer to one release of a batch. If the lock is released now, returns
    /// its key and token, and the time by which somebody has to have taken it up, if it was handed
    /// over or is kept.
    pub(super) fn answered(
        &mut self,
        number: u64,
        sent_at: Moment,
        answer: Said<Release>,
        shared: &mut Shared<C>,
    ) -> Option<(Arc<str>, Token, Option<Moment>)> {
        let release = self.by_number.get_mut(&number)?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) if Mutant::ReleaseIsNotRepeated.is_on() => {
                self.by_number.remove(&number);
                return None;
            }
            Err(failure) => {
                release.failed(number, sent_at, failure, shared);
                if release.timer == Scheduled::default() {
                    self.due.at(shared.shard(&release.key)).push(number);
                }
                return None;
            }
        };
        let Releasable { key, token, keep_until, look_at, outage, to, .. } =
            self.by_number.remove(&number)?;
        // After a try without an answer, a lock that is not ours was freed by that try: sending the
        // same request twice has to look like sending it once.
        let repeated = outage.since().is_some();
        let was_ours = answer.ours || repeated;
        let told = if was_ours { Ok(Outcome::Done) } else { Err(Refusal::Lost(NOT_HELD)) };
        shared.answer(to, told);
        let taken_up_by = if keep_until > sent_at {
            // Nobody else looks at that moment: the next in line knows only of the lease.
            Some(keep_until.max(shared.now))
        } else {
            let handed_over = answer.handed_over || (repeated && !answer.ours);
            let reserved_until = handed_over.then_some(shared.now + RESERVATION);
            reserved_until.or(look_at.map(|at| at.max(shared.now)))
        };
        Some((key, token, taken_up_by))
    }

    /// It is time to try again, or to give up.
    pub(super) fn timer(&mut self, number: u64, shared: &Shared<C>) {
        let Some(release) = self.by_number.get_mut(&number) else { return };
        release.timer.fired();
        if shared.now >= release.give_up_at {
            // The lease frees the lock; there is nothing more to do here.
            self.by_number.remove(&number);
        } else {
            self.due.at(shared.shard(&release.key)).push(number);
        }
    }
}

impl<C> Releasable<C> {
    /// After a connection has broken, the release is tried again at once, ahead of the next
    /// requests: a caller that drops a guard and then acquires the same lock must find it free, if
    /// the new connection is made in time. Further tries wait for a timer.
    fn failed(
        &mut self,
        number: u64,
        sent_at: Moment,
        failure: StoreError,
        shared: &mut Shared<C>,
    ) {
        self.outage.failed(sent_at);
        // A caller that waits for the answer is told in time that there is none. The release itself
        // is still repeated, because a lock that nobody holds must not stay taken.
        if failure.is_refusal() || self.outage.is_over_limit(shared.now) {
            shared.refuse(self.to.take(), Refusal::Failed(failure, Aftermath::Repeated));
        }
        if self.outage.failures() > 1 {
            let at = shared.now + self.outage.pause();
            shared.timers.reset(Timer::Release(number), &mut self.timer, at);
        }
    }
}
