//! Held locks: renewing them in batches, and finding out in time that they are lost.

use std::{sync::Arc, time::Duration};

use super::{
    calls::{BATCH, Batch, Granted, Said, Sent},
    io::{HoldName, Loss, Output, Refusal, Terms},
    lease::{Action, Event, Lease},
    lock_state::fence_of,
    releases::NOT_HELD,
    shards::Shards,
    shared::Shared,
    timers::{Scheduled, Timer},
};
use crate::{
    Token,
    contract::{ExtendRequest, RenewRequest, Renewal},
    limits::LONGEST_LEASE,
    maps::ByNumber,
    mutant::Mutant,
    time::Moment,
};

/// The held locks, by the numbers of their tokens.
#[derive(Clone, Default, Hash)]
pub(super) struct Holds {
    by_ownership: ByNumber<Hold>,
    due: Shards<Vec<Due>>,
    /// When the due renewals are sent at the latest, whether they fill a batch or not.
    due_by: Option<Moment>,
}

/// A renewal that is due.
#[derive(Clone, Copy, Hash)]
struct Due {
    ownership: u64,
    /// Tells this hold from others with the same token.
    asked_at: Moment,
    lease: Duration,
}

#[derive(Clone, Hash)]
struct Hold {
    caller: u64,
    /// When its token asked for the lock.
    asked_at: Moment,
    key: Arc<str>,
    token: Token,
    fencing_token: u64,
    lease: Lease,
    /// `hold_at_least` keeps the key until then, even if the lock is released before.
    keep_until: Moment,
    timer: Scheduled,
}

/// A hold that has ended.
#[derive(Clone, Hash)]
pub(super) struct Ended {
    pub(super) key: Arc<str>,
    pub(super) token: Token,
    pub(super) keep_until: Moment,
}

impl Holds {
    /// A lock is held from now on, until the deadline that is returned. Its previous holder must
    /// have lost it.
    pub(super) fn begin<C>(
        &mut self,
        (caller, key, terms): (u64, Arc<str>, Terms),
        granted: &Granted,
        fencing_token: u64,
        shared: &mut Shared<C>,
    ) -> Moment {
        let Granted { ownership, sent_at, lease, .. } = *granted;
        let asked_at = sent_at;
        let token = granted.token.clone();
        let sent_at = if Mutant::DeadlineFromReply.is_on() { shared.now } else { sent_at };
        let own = (terms.lease, terms.hold_at_most);
        let lease = Lease::granted(sent_at, lease, own, shared.jitter(ownership));
        let keep_until = shared.now + terms.hold_at_least;
        let timer = Scheduled::default();
        let mut hold =
            Hold { caller, asked_at, key, token, fencing_token, lease, keep_until, timer };
        let deadline = hold.watch(ownership, shared);
        self.by_ownership.insert(ownership, hold);
        deadline
    }

    /// Passes the same ownership on to the next caller; returns the token and the deadline.
    pub(super) fn pass_on<C>(
        &mut self,
        ownership: u64,
        (caller, terms): (u64, Terms),
        fencing_token: u64,
        shared: &mut Shared<C>,
    ) -> Option<(Token, Moment)> {
        let jitter = shared.jitter(ownership);
        let hold = self.by_ownership.get_mut(&ownership)?;
        hold.lease.pass_on(shared.now, (terms.lease, terms.hold_at_most), jitter);
        (hold.caller, hold.fencing_token) = (caller, fencing_token);
        hold.keep_until = shared.now + terms.hold_at_least;
        let deadline = hold.watch(ownership, shared);
        Some((hold.token.clone(), deadline))
    }

    /// The hold with this name, unless it was lost, or has passed to another caller.
    fn named(&self, name: HoldName) -> Option<&Hold> {
        self.by_ownership.get(&name.ownership).filter(|hold| hold.caller == name.caller)
    }

    pub(super) fn contains(&self, name: HoldName) -> bool {
        self.named(name).is_some()
    }

    pub(super) fn fencing_token(&self, name: HoldName) -> Option<u64> {
        Some(self.named(name)?.fencing_token)
    }

    /// The fence with which the store granted what this token holds.
    pub(super) fn fence(&self, ownership: u64) -> Option<u64> {
        Some(fence_of(self.by_ownership.get(&ownership)?.fencing_token))
    }

    /// May the hold with this name still be relied on?
    pub(super) fn is_believed(&self, name: HoldName, now: Moment) -> bool {
        self.named(name).is_some_and(|hold| now < hold.lease.deadline())
    }

    /// The key of a lock, and for how long it may be passed on to another caller as it is: zero if
    /// it may not.
    pub(super) fn passable(
        &self,
        name: HoldName,
        undelivered: bool,
        now: Moment,
    ) -> Option<(Arc<str>, Duration)> {
        let hold = self.named(name)?;
        let kept = !undelivered && hold.keep_until > now;
        let remaining = if kept { Duration::ZERO } else { hold.lease.deadline().after(now) };
        Some((Arc::clone(&hold.key), remaining))
    }

    /// Forgets a hold; `None` if it was lost before.
    pub(super) fn end<C>(&mut self, ownership: u64, shared: &mut Shared<C>) -> Option<Ended> {
        let Hold { key, token, keep_until, mut timer, .. } =
            self.by_ownership.remove(&ownership)?;
        shared.timers.cancel(Timer::Hold(ownership), &mut timer);
        Some(Ended { key, token, keep_until })
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.by_ownership.keys()
    }

    /// The key of what is held with the token of this number.
    pub(super) fn key(&self, ownership: u64) -> Option<&Arc<str>> {
        Some(&self.by_ownership.get(&ownership)?.key)
    }

    /// Why a lock is lost that nobody has renewed by its deadline.
    pub(super) fn expiry(&self, ownership: u64) -> Loss {
        self.by_ownership.get(&ownership).map_or(Loss::Expired, |hold| hold.lease.expiry())
    }

    /// Handles one event of one held lock; returns why the lock is lost, if it is.
    pub(super) fn step<C>(
        &mut self,
        ownership: u64,
        event: Event,
        shared: &mut Shared<C>,
    ) -> Option<Loss> {
        let hold = self.by_ownership.get_mut(&ownership)?;
        if event == Event::Timer {
            hold.timer.fired();
        }
        match hold.lease.step(event, shared.now) {
            Action::Lose => return Some(hold.lease.loss(shared.now)),
            Action::Wait => {}
            Action::Renew { remaining } => {
                // Waiting a thirtieth of the lease for other renewals fills the batches, and takes
                // a tenth of the time that there is for a second and third try.
                let by = match event {
                    // Most of the lease may have passed.
                    Event::Reachable => shared.now,
                    _ => shared.now + hold.lease.length() / 30,
                };
                self.due_by = Some(self.due_by.map_or(by, |due_by| due_by.min(by)));
                let due = Due { ownership, asked_at: hold.asked_at, lease: remaining };
                self.due.at(shared.shard(&hold.key)).push(due);
            }
        }
        if event == Event::Doubted {
            // Even if its renewal already waits for others.
            self.due_by = self.due_by.map(|due_by| due_by.min(shared.now));
        }
        let deadline = hold.watch(ownership, shared);
        if matches!(event, Event::Renewed { .. } | Event::Extended { .. }) {
            shared.tell(Output::Deadline(ownership, deadline));
        }
        None
    }

    /// Did its token ask for the lock after that? Then a request that was sent at that time is not
    /// about this hold: answers may overtake each other.
    pub(super) fn is_asked_after(&self, ownership: u64, sent_at: Moment) -> bool {
        self.by_ownership.get(&ownership).is_some_and(|hold| sent_at < hold.asked_at)
    }

    fn are_due(&self) -> bool {
        self.due.find(|due| !due.is_empty()).is_some()
    }

    pub(super) fn due_by(&self) -> Option<Moment> {
        self.due_by
    }

    /// The next batch of renewals, if one is full, or if the first renewal must not wait longer.
    pub(super) fn next<C>(
        &mut self,
        shared: &Shared<C>,
    ) -> Option<Batch<RenewRequest, (u64, Duration)>> {
        let overdue = self.due_by? <= shared.now;
        loop {
            let due =
                self.due.find(|due| if overdue { !due.is_empty() } else { due.len() >= BATCH });
            let Some(shard) = due else { break };
            let due = self.due.at(shard);
            let size = due.len().min(BATCH);
            // A store answers a batch within the time that its shortest lease leaves: a lease that
            // is too short for the way to the store must not take longer ones with it.
            due[..size].sort_by_key(|due| due.lease);
            let least = magnitude(due[0].lease);
            let alike = due[..size].iter().take_while(|due| magnitude(due.lease) == least);
            let alike = alike.count();
            let locks = due.drain(..alike).filter_map(|Due { ownership, asked_at, lease }| {
                // It may have been released while it waited, and granted again since.
                let hold = self.by_ownership.get(&ownership);
                let hold = hold.filter(|hold| hold.asked_at == asked_at)?;
                let (key, token) = (Arc::clone(&hold.key), hold.token.clone());
                let asked = lease.max(Duration::from_millis(1));
                Some(((ownership, lease), RenewRequest { key, token, lease: asked }))
            });
            let (asked, requests): (Vec<_>, Vec<_>) = locks.unzip();
            if !requests.is_empty() {
                return Some(Batch { requests, sent: Sent { asked, shard, sent_at: shared.now } });
            }
        }
        if !self.are_due() {
            self.due_by = None;
        }
        None
    }

    /// Handles the store's answer to one renewal of a batch; returns why the lock is lost, if it
    /// is.
    pub(super) fn renewed<C>(
        &mut self,
        (ownership, lease): (u64, Duration),
        sent_at: Moment,
        answer: Said<Renewal>,
        shared: &mut Shared<C>,
    ) -> Option<Loss> {
        if self.is_asked_after(ownership, sent_at) {
            return None;
        }
        let sent_at = if Mutant::DeadlineFromReply.is_on() { shared.now } else { sent_at };
        let event = match answer {
            Ok(Renewal::Renewed { .. }) => Event::Renewed { sent_at, remaining: lease },
            Ok(Renewal::NotOurs) if Mutant::NotOursIsIgnored.is_on() => Event::Unknown,
            Ok(Renewal::NotOurs) => Event::NotOurs,
            Err(_) if Mutant::ErrorCountedAsNotOurs.is_on() => Event::NotOurs,
            // A refusal is not a loss either: a replica that is read-only, or a server that is
            // loading its data, says nothing about who holds the lock.
            Err(_) => Event::Unknown,
        };
        self.step(ownership, event, shared)
    }

    /// The request that extends a lease by this much, if that is allowed.
    pub(super) fn extension(
        &self,
        name: HoldName,
        by: Duration,
        now: Moment,
    ) -> Result<ExtendRequest, Refusal> {
        let hold = self.named(name).ok_or(Refusal::Lost(NOT_HELD))?;
        let until = hold.lease.deadline() + by;
        if until > hold.lease.end() {
            let message = "the extended lease would end after `hold_at_most`: extend by less, or \
                           raise `hold_at_most`";
            return Err(Refusal::Invalid(message.to_owned()));
        }
        if until.after(now) > LONGEST_LEASE {
            return Err(Refusal::Invalid(format!(
                "a lease may last at most {LONGEST_LEASE:?}: extend by less"
            )));
        }
        let (key, token) = (Arc::clone(&hold.key), hold.token.clone());
        Ok(ExtendRequest { key, token, by })
    }
}

impl Hold {
    /// Sets the timer to what the lease wants next, and returns the deadline.
    fn watch<C>(&mut self, ownership: u64, shared: &mut Shared<C>) -> Moment {
        shared.timers.reset(Timer::Hold(ownership), &mut self.timer, self.lease.next_timer());
        self.lease.deadline()
    }
}

/// Leases of one magnitude can be renewed together: none is more than twice as long as another.
fn magnitude(lease: Duration) -> u32 {
    lease.as_millis().max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubted_lock_whose_renewal_waits_for_company_is_looked_at_now() {
        let mut shared: Shared<()> = Shared::new("c".into(), Arc::new(|_| 0));
        shared.now = Moment::from_nanos(1_000_000_000);
        let mut holds = Holds::default();
        let lease = Duration::from_secs(3600);
        let terms = Terms::of_run(lease, None);
        let granted = Granted {
            ownership: 1,
            token: shared.token(1),
            sent_at: shared.now,
            lease,
            fence: 1,
            contended: false,
        };
        holds.begin((1, "k".into(), terms), &granted, 1, &mut shared);
        let due = shared.timers.next().unwrap();
        shared.now = due;
        shared.timers.pop_due(due);
        assert_eq!(holds.step(1, Event::Timer, &mut shared), None);
        assert!(holds.next(&shared).is_none(), "it waits for other renewals");
        shared.now = due + Duration::from_millis(1);
        assert_eq!(holds.step(1, Event::Doubted, &mut shared), None);
        assert!(holds.next(&shared).is_some(), "a lock that may be gone is renewed now");
    }

    #[test]
    fn an_answer_from_before_a_hold_says_nothing_of_it() {
        let mut shared: Shared<()> = Shared::new("c".into(), Arc::new(|_| 0));
        let at = Moment::from_nanos;
        shared.now = at(1_000_000_000);
        let mut holds = Holds::default();
        let lease = Duration::from_secs(9);
        let token = shared.token(1);
        let sent_at = shared.now;
        let granted = Granted { ownership: 1, token, sent_at, lease, fence: 1, contended: false };
        holds.begin((1, "k".into(), Terms::of_run(lease, None)), &granted, 1, &mut shared);
        // The same token held the lock before, and was renewed too late.
        for (asked_at, loss) in [(at(999_999_999), None), (sent_at, Some(Loss::NotOurs))] {
            let answer = Ok(Renewal::NotOurs);
            assert_eq!(holds.renewed((1, lease), asked_at, answer, &mut shared), loss);
        }
    }
}
