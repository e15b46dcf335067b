//! The lease of one held lock: until when it may be relied on, and when to renew it.
//!
//! The store grants a lock for a *lease*. The holder may rely on it for less: until the
//! **deadline**, which is counted from before the request was sent and keeps a margin for clocks
//! that run at different rates. Redis documents the same arithmetic for Redlock ("validity time");
//! counting from before the request makes it hold for replies that come late.

use std::time::Duration;

use super::io::Loss;
use crate::{
    mutant::Mutant,
    time::{Jitter, Moment},
};

/// What the owner of the state machine learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Time has passed; nothing else happened.
    Timer,
    /// The store keeps the lock for us for at least `remaining` from when it received the request,
    /// which was not before `sent_at`.
    Renewed { sent_at: Moment, remaining: Duration },
    /// The same, as the answer to a request other than a renewal: a renewal that is in flight stays
    /// in flight.
    Extended { sent_at: Moment, remaining: Duration },
    /// The store says that the lock is not ours.
    NotOurs,
    /// No answer, or an answer that says nothing about the lock: it may or may not be renewed.
    Unknown,
    /// Another server now answers for the store, and may not have the lock.
    Doubted,
    /// The store can be reached again.
    Reachable,
}

/// What the owner has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing before [`Lease::next_timer`].
    Wait,
    /// Ask the store to keep the lock for this long. One request at a time: the next one comes
    /// after an answer or [`Event::Unknown`] was reported.
    Renew { remaining: Duration },
    /// The lock can no longer be relied on. Final: every later event has the same result.
    Lose,
}

/// The state of one held lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    lease: Duration,
    /// The end that `hold_at_most` sets; the lock is never renewed beyond it.
    end: Moment,
    /// The store keeps the lock at least until then.
    expiry: Moment,
    deadline: Moment,
    renew_at: Moment,
    renewing: bool,
    failures: u32,
    jitter: Jitter,
    is_lost: bool,
}

impl Lease {
    /// The lease that the store `granted` to a request sent at `sent_at`. From then on it is
    /// renewed for `lease`, and for no longer than `hold_at_most` in all.
    pub(crate) fn granted(
        sent_at: Moment,
        granted: Duration,
        (lease, hold_at_most): (Duration, Option<Duration>),
        jitter: Jitter,
    ) -> Self {
        let mut this = Self {
            lease,
            end: hold_at_most.map_or(Moment::NEVER, |limit| sent_at + limit),
            expiry: sent_at,
            deadline: sent_at,
            renew_at: sent_at,
            renewing: false,
            failures: 0,
            jitter,
            is_lost: false,
        };
        this.extend_to(sent_at, granted);
        this
    }

    /// The same lock in the hands of the next holder in this process, renewed for its own lease
    /// from now on. A renewal that is in flight stays in flight.
    pub(crate) fn pass_on(
        &mut self,
        now: Moment,
        (lease, hold_at_most): (Duration, Option<Duration>),
        jitter: Jitter,
    ) {
        let left = self.expiry.after(now);
        let next = Self::granted(now, left, (lease, hold_at_most), jitter);
        // The margin covers all that was granted, even if the next lease is the shorter one.
        let deadline = self.deadline.min(next.deadline);
        *self = Self { deadline, renewing: self.renewing, failures: self.failures, ..next };
    }

    /// From this moment on, the holder must not believe that it holds the lock.
    pub(crate) fn deadline(&self) -> Moment {
        self.deadline
    }

    /// The lease with which it is renewed.
    pub(crate) fn length(&self) -> Duration {
        self.lease
    }

    /// The end that `hold_at_most` sets.
    pub(crate) fn end(&self) -> Moment {
        self.end
    }

    /// When to report [`Event::Timer`], if nothing else happens before.
    pub(crate) fn next_timer(&self) -> Moment {
        if self.is_lost {
            Moment::NEVER
        } else if self.renewing {
            self.deadline
        } else {
            self.renew_at.min(self.deadline)
        }
    }

    /// Why the lock is lost, once [`step`](Self::step) has said that it is.
    pub(crate) fn loss(&self, now: Moment) -> Loss {
        if now >= self.deadline { self.expiry() } else { Loss::NotOurs }
    }

    /// Why the lock is lost when its deadline has passed.
    pub(crate) fn expiry(&self) -> Loss {
        if self.expiry >= self.end { Loss::HeldAtMost } else { Loss::Expired }
    }

    pub(crate) fn step(&mut self, event: Event, now: Moment) -> Action {
        // Before anything else: a deadline that has passed is final. A renewal that is answered
        // after it changes nothing, because the holder may already have been told.
        self.is_lost |= now >= self.deadline || event == Event::NotOurs;
        if self.is_lost {
            return Action::Lose;
        }
        match event {
            Event::Timer | Event::NotOurs => {}
            Event::Renewed { sent_at, remaining } => {
                self.renewing = false;
                self.failures = 0;
                self.extend_to(sent_at, remaining);
            }
            Event::Extended { sent_at, remaining } => self.extend_to(sent_at, remaining),
            // A renewal finds out; one that is in flight is answered first.
            Event::Doubted => self.renew_at = now,
            // The rest of a back-off would be lost: the outage may have taken most of the lease.
            Event::Reachable if self.failures > 0 => self.renew_at = now,
            Event::Reachable => {}
            Event::Unknown => {
                self.renewing = false;
                self.renew_at = now + self.back_off();
                self.failures += 1;
            }
        }
        if self.renewing || now < self.renew_at {
            return Action::Wait;
        }
        self.renewing = true;
        Action::Renew { remaining: self.lease.min(self.end.after(now)) }
    }

    /// The store keeps the lock until `remaining` after `sent_at`, or longer.
    fn extend_to(&mut self, sent_at: Moment, remaining: Duration) {
        // Answers may overtake each other (a renewal and an `extend`): what the store has
        // promised once stays promised, so nothing here ever goes back.
        let expiry = (sent_at + remaining).min(self.end);
        if expiry <= self.expiry {
            return;
        }
        self.expiry = expiry;
        self.deadline = expiry - margin(self.lease.max(remaining));
        // A third of the lease after the request, give or take a tenth, so that holds that began
        // together do not renew together for ever; then rounded up to a common grid, so that
        // renewals that are due close together cost one wake-up and travel in one batch.
        let third = self.lease / 3;
        let wait = self.jitter.between(third * 9 / 10, third * 11 / 10);
        self.renew_at = if expiry >= self.end {
            Moment::NEVER
        } else {
            (expiry - self.lease.saturating_sub(wait)).round_up(self.lease / 64)
        };
    }

    /// How long to wait after a renewal without an answer: doubling from a 24th of the lease to a
    /// sixth, each jittered by half. So a short fault costs little, and a store that answers with
    /// errors is not asked about all locks at once. A reconnect ends the wait
    /// ([`Event::Reachable`]).
    fn back_off(&self) -> Duration {
        let delay = (self.lease / 24 * 2_u32.pow(self.failures.min(2))).min(self.lease / 6);
        self.jitter.nth(self.failures).between(delay / 2, delay)
    }
}

/// The part of a lease that is not used, because clocks do not run at the same rate: a hundredth of
/// it, and at least two milliseconds, because stores round to one.
pub(crate) fn margin(lease: Duration) -> Duration {
    if Mutant::NoMargin.is_on() {
        return Duration::ZERO;
    }
    (lease / 100).max(Duration::from_millis(2))
}

/// Would a grant of this lease be over before anybody could rely on it?
pub(crate) fn comes_too_late(sent_at: Moment, lease: Duration, now: Moment) -> bool {
    now >= sent_at + lease.saturating_sub(margin(lease)) && !Mutant::LateGrantCounts.is_on()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(9);

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    fn lease() -> Lease {
        Lease::granted(at(1000), LEASE, (LEASE, None), Jitter::new(512))
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_deadline_counts_from_before_the_request_and_keeps_a_margin() {
        assert_eq!(lease().deadline(), at(1000) + LEASE - ms(90));
        let short = Lease::granted(at(0), ms(50), (ms(50), None), Jitter::new(0));
        assert_eq!(short.deadline(), at(48), "never less than two milliseconds");
    }

    #[test]
    fn it_renews_after_a_third_and_only_once_at_a_time() {
        let mut lease = lease();
        let due = lease.next_timer();
        assert!(due >= at(3700) && due <= at(4300 + 141), "{due:?}");
        assert_eq!(lease.step(Event::Timer, at(3600)), Action::Wait);
        assert_eq!(lease.step(Event::Timer, due), Action::Renew { remaining: LEASE });
        assert_eq!(lease.step(Event::Timer, due), Action::Wait);
        assert_eq!(lease.next_timer(), lease.deadline(), "the deadline is watched meanwhile");
        let renewed = Event::Renewed { sent_at: due, remaining: LEASE };
        assert_eq!(lease.step(renewed, due + ms(5)), Action::Wait);
        assert_eq!(lease.deadline(), due + LEASE - ms(90));
    }

    #[test]
    fn a_renewal_that_has_failed_is_repeated_when_the_store_can_be_reached_again() {
        let mut lease = lease();
        assert_eq!(lease.step(Event::Reachable, at(3600)), Action::Wait, "it is not due");
        let due = lease.next_timer();
        assert_eq!(lease.step(Event::Timer, due), Action::Renew { remaining: LEASE });
        assert_eq!(lease.step(Event::Reachable, due), Action::Wait, "it is in flight");
        assert_eq!(lease.step(Event::Unknown, due + ms(1)), Action::Wait);
        assert_eq!(lease.step(Event::Reachable, due + ms(2)), Action::Renew { remaining: LEASE });
        assert_eq!(lease.step(Event::Reachable, due + ms(2)), Action::Wait, "once");
    }

    #[test]
    fn not_ours_is_lost_at_once_and_for_good() {
        let mut lease = lease();
        assert_eq!(lease.step(Event::NotOurs, at(4000)), Action::Lose);
        assert_eq!(lease.loss(at(4000)), Loss::NotOurs);
        let renewed = Event::Renewed { sent_at: at(4000), remaining: LEASE };
        assert_eq!(lease.step(renewed, at(4001)), Action::Lose);
        assert_eq!(lease.next_timer(), Moment::NEVER);
    }

    #[test]
    fn a_doubt_is_settled_by_a_renewal_at_once() {
        let mut lease = lease();
        assert_eq!(lease.step(Event::Doubted, at(1200)), Action::Renew { remaining: LEASE });
        assert_eq!(lease.step(Event::Doubted, at(1300)), Action::Wait, "one at a time");
        assert_eq!(lease.step(Event::NotOurs, at(1400)), Action::Lose);
    }

    #[test]
    fn unknown_is_retried_with_a_growing_delay_while_the_lease_is_valid() {
        let mut lease = lease();
        let mut now = lease.next_timer();
        let mut delays = Vec::new();
        loop {
            match lease.step(Event::Timer, now) {
                Action::Renew { .. } => {
                    assert_eq!(lease.step(Event::Unknown, now), Action::Wait);
                    delays.push(lease.next_timer().after(now));
                    now = lease.next_timer();
                }
                Action::Lose => {
                    assert_eq!((now, lease.loss(now)), (lease.deadline(), Loss::Expired));
                    break;
                }
                Action::Wait => panic!("nothing to wait for at {now:?}"),
            }
        }
        assert!(delays.len() >= 5, "{delays:?}");
        assert!(delays[0] <= LEASE / 24 && delays[0] >= LEASE / 48, "{delays:?}");
        assert!(delays.iter().all(|delay| *delay <= LEASE / 6), "{delays:?}");
    }

    #[test]
    fn a_stall_past_the_deadline_is_noticed_before_the_answer_that_came_meanwhile() {
        let mut lease = lease();
        let due = lease.next_timer();
        lease.step(Event::Timer, due);
        let renewed = Event::Renewed { sent_at: due, remaining: LEASE };
        let late = at(1000) + LEASE;
        assert_eq!(lease.step(renewed, late), Action::Lose);
    }

    #[test]
    fn a_late_answer_never_shortens_what_was_promised() {
        let mut lease = lease();
        lease.step(Event::Renewed { sent_at: at(4000), remaining: LEASE }, at(4100));
        let deadline = lease.deadline();
        lease.step(Event::Renewed { sent_at: at(2000), remaining: LEASE }, at(4200));
        assert_eq!(lease.deadline(), deadline);
    }

    #[test]
    fn an_extended_lease_is_renewed_when_it_has_shrunk_to_its_usual_size() {
        let mut lease = lease();
        lease.step(Event::Renewed { sent_at: at(1000), remaining: LEASE * 4 }, at(1001));
        assert_eq!(lease.deadline(), at(1000) + LEASE * 4 - ms(360));
        let due = lease.next_timer();
        assert!(due >= at(1000) + LEASE * 3 + ms(2700), "{due:?}");
    }

    #[test]
    fn a_renewal_on_its_way_stays_so_when_the_lease_is_extended() {
        let mut lease = lease();
        let due = lease.next_timer();
        assert_eq!(lease.step(Event::Timer, due), Action::Renew { remaining: LEASE });
        let extended = Event::Extended { sent_at: due, remaining: LEASE * 2 };
        assert_eq!(lease.step(extended, due + ms(5)), Action::Wait);
        assert_eq!(lease.deadline(), due + LEASE * 2 - ms(180));
        assert_eq!(lease.step(Event::Timer, due + LEASE + ms(4500)), Action::Wait, "one at a time");
    }

    #[test]
    fn hold_at_most_ends_the_renewals_and_the_lock() {
        let limit = LEASE * 2;
        let mut lease = Lease::granted(at(0), LEASE, (LEASE, Some(limit)), Jitter::new(0));
        let mut now = at(0);
        let mut asked = Vec::new();
        while let action @ (Action::Wait | Action::Renew { .. }) = lease.step(Event::Timer, now) {
            if let Action::Renew { remaining } = action {
                asked.push(remaining);
                lease.step(Event::Renewed { sent_at: now, remaining }, now);
            }
            now = lease.next_timer();
        }
        assert!(asked.last().is_some_and(|last| *last < LEASE), "{asked:?}");
        assert_eq!((now, lease.loss(now)), (lease.deadline(), Loss::HeldAtMost));
        assert!(now < at(0) + limit && now >= at(0) + limit - ms(100), "{now:?}");
    }

    #[test]
    fn the_next_holder_goes_on_from_what_is_left_and_from_the_renewal_on_its_way() {
        let mut held = lease();
        let due = held.next_timer();
        held.step(Event::Timer, due);
        held.step(Event::Unknown, due + ms(10));
        held.step(Event::Timer, held.next_timer());
        let (deadline, failures) = (held.deadline(), held.failures);
        assert_eq!(failures, 1);
        // A shorter lease has a smaller margin, but the deadline that was granted with the longer
        // one stays.
        held.pass_on(at(9000), (LEASE / 9, None), Jitter::new(0));
        assert_eq!(held.deadline(), deadline);
        assert!(held.renewing, "one at a time");
        assert_eq!(held.failures, failures);
    }
}
