//! Silence of the store about one request: since when, when to ask again, and when to give up.

use std::time::Duration;

use crate::time::{Jitter, Moment, doubling};

/// How long a store may stay silent before that is reported, and how long the last releases of a
/// client that is being shut down may take.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(2);

/// The shortest and the longest pause between two tries to reach a store.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The tries of one request that had no answer, since the last answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outage {
    since: Option<Moment>,
    failures: u32,
}

impl Outage {
    /// When the first try without an answer was sent; `None` if the last try was answered.
    pub fn since(&self) -> Option<Moment> {
        self.since
    }

    /// How many tries had no answer.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Has the store been silent for as long as a caller may be asked to wait for it?
    pub fn is_over_limit(&self, now: Moment) -> bool {
        self.since.is_some_and(|since| now >= since + SILENCE_LIMIT)
    }

    /// A try that was sent at `asked_at` had no answer.
    pub fn failed(&mut self, asked_at: Moment) {
        self.since.get_or_insert(asked_at);
        self.failures = self.failures.saturating_add(1);
    }

    /// Notes the same, and returns when to try again: after ever longer pauses, but once exactly
    /// when the silence reaches its limit.
    pub fn retry_at(&mut self, asked_at: Moment, jitter: Jitter, now: Moment) -> Moment {
        let pause = self.pause();
        self.failed(asked_at);
        let at = now + jitter.nth(self.failures).between(pause / 2, pause);
        match self.since.map(|since| since + SILENCE_LIMIT) {
            Some(limit) if limit > now => at.min(limit),
            _ => at,
        }
    }

    /// How long to wait before the next try, at most.
    pub fn pause(&self) -> Duration {
        doubling(RETRY, self.failures)
    }

    /// The store has answered.
    pub fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    #[test]
    fn tries_come_ever_more_rarely_and_once_more_at_the_limit() {
        let mut outage = Outage::default();
        let (mut now, mut pauses) = (at(100), Vec::new());
        while !outage.is_over_limit(now) {
            let next = outage.retry_at(now, Jitter::new(300), now);
            pauses.push(next.after(now));
            now = next;
        }
        assert_eq!(now, at(2100), "once more at the limit");
        assert!((5..20).contains(&pauses.len()), "{pauses:?}");
        assert!(pauses[0] >= RETRY.0 / 2 && pauses.iter().all(|pause| *pause <= RETRY.1));
        assert!(outage.retry_at(now, Jitter::new(300), now) > now, "and once more after it");
        outage.end();
        assert_eq!((outage.since(), outage.failures()), (None, 0));
    }

    #[test]
    fn silence_counts_from_the_first_try_without_an_answer() {
        let mut outage = Outage::default();
        outage.failed(at(0));
        outage.failed(at(1500));
        assert_eq!(outage.since(), Some(at(0)));
        assert!(!outage.is_over_limit(at(1999)) && outage.is_over_limit(at(2000)));
    }
}
