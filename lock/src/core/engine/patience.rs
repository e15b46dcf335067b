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

    /// Somebody holds the lock: when to try again, unless patience is over.
    pub(crate) fn held(&mut self, now: Moment) -> Option<Moment> {
        self.outage.end();
        self.answers = self.answers.saturating_add(1);
        match self.patience {
            // No pause after the last attempt: nobody would use what it waits for.
            Patience::Attempts { attempts, delay } => {
                (self.answers < attempts).then_some(now + delay)
            }
            Patience::For(_) => None,
        }
    }

    /// There was no answer to what was asked at that time, or one that came too late to be used: when
    /// to try again, unless the store has been silent for as long as one may be asked to bear.
    pub(crate) fn unanswered(&mut self, asked_at: Moment, now: Moment) -> Option<Moment> {
        let at = self.outage.retry_at(asked_at, self.jitter, now);
        (!self.outage.is_borne(now)).then_some(at)
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
        assert_eq!(wait(Patience::For(Duration::ZERO)).held(at(1)), None);
    }

    #[test]
    fn attempts_are_so_many_and_there_is_no_pause_after_the_last() {
        let delay = Duration::from_millis(500);
        let mut wait = wait(Patience::Attempts { attempts: 3, delay });
        assert_eq!(wait.held(at(0)), Some(at(500)));
        assert!(wait.unanswered(at(500), at(500)).is_some(), "it counts for nothing");
        assert_eq!(wait.held(at(600)), Some(at(1100)));
        assert_eq!((wait.held(at(1100)), wait.answers()), (None, 3));
    }

    #[test]
    fn silence_is_borne_for_its_limit_and_forgotten_at_an_answer() {
        let mut wait = wait(Patience::For(Duration::ZERO));
        let mut now = at(0);
        while let Some(next) = wait.unanswered(now, now) {
            assert!(next > now);
            now = next;
        }
        assert_eq!(now, at(2000));
        assert_eq!(wait.held(at(2000)), None);
        assert_eq!(wait.silent_since(), None);
    }
}
