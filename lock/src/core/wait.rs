//! The patience of one caller that asks for itself: when to try again, and when to give up.
//!
//! Those that wait in line are in [`queue`](super::queue).

use std::time::Duration;

use super::{Jitter, Moment, doubling};

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
    /// Somebody holds the lock.
    Held,
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

/// The shortest and the longest pause between two tries to reach a store.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

#[derive(Debug)]
pub(crate) struct Wait {
    patience: Patience,
    /// How long the store may stay silent before that is reported.
    silence_limit: Duration,
    silent_since: Option<Moment>,
    answers: u32,
    failures: u32,
    jitter: Jitter,
}

impl Wait {
    pub(crate) fn new(patience: Patience, silence_limit: Duration, jitter: Jitter) -> Self {
        Self { patience, silence_limit, silent_since: None, answers: 0, failures: 0, jitter }
    }

    /// Since when the store has been silent, if it is.
    pub(crate) fn silent_since(&self) -> Option<Moment> {
        self.silent_since
    }

    /// How often the store has said that the lock is held.
    pub(crate) fn answers(&self) -> u32 {
        self.answers
    }

    pub(crate) fn step(&mut self, outcome: Outcome, now: Moment) -> Next {
        match outcome {
            Outcome::Unknown { asked_at } => self.after_silence(asked_at, now),
            Outcome::Held => {
                self.silent_since = None;
                self.failures = 0;
                self.answers = self.answers.saturating_add(1);
                match self.patience {
                    Patience::Attempts { attempts, delay } if self.answers < attempts => {
                        Next::TryAt(now + delay)
                    }
                    // No pause after the last attempt: nobody would use what it waits for.
                    Patience::Attempts { .. } | Patience::For(_) => Next::Busy,
                }
            }
        }
    }

    fn after_silence(&mut self, asked_at: Moment, now: Moment) -> Next {
        let since = *self.silent_since.get_or_insert(asked_at);
        if now >= since + self.silence_limit {
            return Next::Unavailable;
        }
        let delay = doubling(RECONNECT, self.failures);
        self.failures = self.failures.saturating_add(1);
        let delay = self.jitter.nth(self.failures).between(delay / 2, delay);
        Next::TryAt((now + delay).min(since + self.silence_limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);
    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    fn wait(patience: Patience) -> Wait {
        Wait::new(patience, LIMIT, Jitter::new(300))
    }

    #[test]
    fn zero_is_one_attempt() {
        assert_eq!(wait(Patience::For(Duration::ZERO)).step(Outcome::Held, at(1)), Next::Busy);
    }

    #[test]
    fn attempts_are_so_many_and_there_is_no_pause_after_the_last() {
        let delay = Duration::from_millis(500);
        let mut wait = wait(Patience::Attempts { attempts: 3, delay });
        assert_eq!(wait.step(Outcome::Held, at(0)), Next::TryAt(at(500)));
        assert_eq!(
            wait.step(Outcome::Unknown { asked_at: at(500) }, at(500)).unwrap_try(),
            "tries again"
        );
        assert_eq!(wait.step(Outcome::Held, at(600)), Next::TryAt(at(1100)));
        assert_eq!(wait.step(Outcome::Held, at(1100)), Next::Busy);
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
        assert_eq!(wait.step(Outcome::Held, at(2000)), Next::Busy);
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
