//! The patience of one caller that asks for itself: when to try again, and when to give up.
//!
//! Those that wait in line are in [`queued`](super::queued).

use std::time::Duration;

use super::outage::Outage;
use crate::core::{Jitter, Moment};

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

#[derive(Debug)]
pub(crate) struct Wait {
    patience: Patience,
    outage: Outage,
    answers: u32,
    jitter: Jitter,
}

impl Wait {
    pub(crate) fn new(patience: Patience, jitter: Jitter) -> Self {
        Self { patience, outage: Outage::default(), answers: 0, jitter }
    }

    /// Since when the store has been silent, if it is.
    pub(crate) fn silent_since(&self) -> Option<Moment> {
        self.outage.since()
    }

    /// How often the store has said that the lock is held.
    pub(crate) fn answers(&self) -> u32 {
        self.answers
    }

    pub(crate) fn step(&mut self, outcome: Outcome, now: Moment) -> Next {
        match outcome {
            Outcome::Unknown { asked_at } => {
                let at = self.outage.retry_at(asked_at, self.jitter, now);
                if self.outage.is_borne(now) { Next::Unavailable } else { Next::TryAt(at) }
            }
            Outcome::Held => {
                self.outage.end();
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    fn wait(patience: Patience) -> Wait {
        Wait::new(patience, Jitter::new(300))
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
