//! The patience of one acquire: when to try again, and when to give up.

use std::time::Duration;

use super::{Jitter, Moment};

/// How long a caller is willing to wait for a held lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// In line, for this long; zero is one attempt.
    For(Duration),
    /// So many attempts, so far apart, without standing in line: what @upstash/lock does.
    Attempts { attempts: u32, delay: Duration },
}

/// What an attempt has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Somebody holds the lock, for `remaining` as far as the store knows.
    Held { remaining: Option<Duration> },
    /// No answer to what was asked at that time, or one that came too late to be used.
    Unknown { asked_at: Moment },
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    TryAt(Moment),
    /// Every attempt that was answered found the lock held, and patience is over.
    Busy,
    /// The store has not answered for as long as one may be asked to wait for that.
    Unavailable,
}

/// The shortest and the longest pause between two looks at a held lock.
const POLL: (Duration, Duration) = (Duration::from_millis(8), Duration::from_millis(250));

/// The shortest and the longest pause between two tries to reach a store.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

#[derive(Debug)]
pub(crate) struct Wait {
    started: Moment,
    patience: Patience,
    /// How long the store may stay silent before that is reported.
    silence_limit: Duration,
    silent_since: Option<Moment>,
    answers: u32,
    failures: u32,
    jitter: Jitter,
}

impl Wait {
    pub(crate) fn new(
        started: Moment,
        patience: Patience,
        silence_limit: Duration,
        jitter: Jitter,
    ) -> Self {
        Self {
            started,
            patience,
            silence_limit,
            silent_since: None,
            answers: 0,
            failures: 0,
            jitter,
        }
    }

    /// When patience ends, for those that have an end.
    pub(crate) fn give_up_at(&self) -> Moment {
        match self.patience {
            Patience::For(wait) => self.started + wait,
            Patience::Attempts { .. } => Moment::NEVER,
        }
    }

    /// Since when the store has been silent, if it is.
    pub(crate) fn silent_since(&self) -> Option<Moment> {
        self.silent_since
    }

    /// Somebody else found the store silent since then.
    pub(crate) fn learn_silence(&mut self, since: Moment) {
        let since = since.max(self.started);
        self.silent_since = Some(self.silent_since.map_or(since, |known| known.min(since)));
    }

    /// Has the store been silent for as long as one may be asked to bear?
    pub(crate) fn has_borne_silence(&self, now: Moment) -> bool {
        self.silent_since.is_some_and(|since| now >= since + self.silence_limit)
    }

    /// How often the store has said that the lock is held.
    pub(crate) fn answers(&self) -> u32 {
        self.answers
    }

    pub(crate) fn step(&mut self, outcome: Outcome, now: Moment) -> Next {
        match outcome {
            Outcome::Unknown { asked_at } => self.after_silence(asked_at, now),
            Outcome::Held { remaining } => {
                self.silent_since = None;
                self.failures = 0;
                self.answers = self.answers.saturating_add(1);
                self.after_held(remaining, now)
            }
        }
    }

    fn after_silence(&mut self, asked_at: Moment, now: Moment) -> Next {
        let since = *self.silent_since.get_or_insert(asked_at);
        if self.has_borne_silence(now) {
            return Next::Unavailable;
        }
        let delay = doubling(RECONNECT, self.failures);
        self.failures = self.failures.saturating_add(1);
        let delay = self.jitter.nth(self.failures).between(delay / 2, delay);
        Next::TryAt((now + delay).min(since + self.silence_limit))
    }

    fn after_held(&mut self, remaining: Option<Duration>, now: Moment) -> Next {
        match self.patience {
            // No pause after the last attempt: nobody would use what it waits for.
            Patience::Attempts { attempts, .. } if self.answers >= attempts => Next::Busy,
            Patience::Attempts { delay, .. } => Next::TryAt(now + delay),
            Patience::For(_) if now >= self.give_up_at() => Next::Busy,
            Patience::For(_) => {
                let delay = doubling(POLL, self.answers.saturating_sub(1));
                let delay = self.jitter.nth(self.answers).between(delay / 2, delay);
                // A lease that runs out earlier ends the wait earlier; a millisecond more,
                // because the store rounds down.
                let expiry =
                    remaining.map_or(Duration::MAX, |left| left + Duration::from_millis(1));
                Next::TryAt((now + delay.min(expiry)).min(self.give_up_at()))
            }
        }
    }
}

fn doubling((first, last): (Duration, Duration), step: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(step)).min(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);
    const HELD: Outcome = Outcome::Held { remaining: None };

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    fn wait(patience: Patience) -> Wait {
        Wait::new(at(0), patience, LIMIT, Jitter::new(300))
    }

    #[test]
    fn zero_is_one_attempt() {
        assert_eq!(wait(Patience::For(Duration::ZERO)).step(HELD, at(1)), Next::Busy);
    }

    #[test]
    fn looks_get_rarer_and_the_last_one_is_at_the_end() {
        let mut wait = wait(Patience::For(Duration::from_secs(3)));
        let (mut now, mut looks) = (at(0), 0);
        while let Next::TryAt(next) = wait.step(HELD, now) {
            assert!(next > now && next <= at(3000));
            assert!(next.after(now) <= POLL.1);
            (now, looks) = (next, looks + 1);
        }
        assert_eq!(now, at(3000), "one look exactly at the end");
        assert!((15..40).contains(&looks), "{looks}");
    }

    #[test]
    fn a_short_remaining_lease_brings_the_next_look_forward() {
        let mut wait = wait(Patience::For(Duration::from_secs(30)));
        for _ in 0..8 {
            wait.step(HELD, at(0));
        }
        let held = Outcome::Held { remaining: Some(Duration::from_millis(20)) };
        assert_eq!(wait.step(held, at(100)), Next::TryAt(at(121)));
    }

    #[test]
    fn attempts_are_so_many_and_there_is_no_pause_after_the_last() {
        let delay = Duration::from_millis(500);
        let mut wait = wait(Patience::Attempts { attempts: 3, delay });
        assert_eq!(wait.step(HELD, at(0)), Next::TryAt(at(500)));
        assert_eq!(
            wait.step(Outcome::Unknown { asked_at: at(500) }, at(500)).unwrap_try(),
            "tries again"
        );
        assert_eq!(wait.step(HELD, at(600)), Next::TryAt(at(1100)));
        assert_eq!(wait.step(HELD, at(1100)), Next::Busy);
    }

    #[test]
    fn silence_is_borne_for_its_limit_and_forgotten_at_an_answer() {
        let mut wait = wait(Patience::For(Duration::ZERO));
        let mut now = at(0);
        while let Next::TryAt(next) = wait.step(Outcome::Unknown { asked_at: now }, now) {
            assert!(next > now);
            now = next;
        }
        assert_eq!(now, at(2000));
        assert_eq!(wait.step(HELD, at(2000)), Next::Busy);
        assert_eq!(wait.silent_since(), None);
    }

    impl Next {
        fn unwrap_try(self) -> &'static str {
            match self {
                Self::TryAt(_) => "tries again",
                Self::Busy | Self::Unavailable => "gives up",
            }
        }
    }
}
