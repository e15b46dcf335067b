//! A message published at one node of a Cluster reaches all of them, and a client receives it once
//! from each.
//!
//! The first copy counts. A later copy could be taken for another message: "your lock was taken
//! away", repeated after the same token has acquired it again, would end a lock that is held.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lock_core::contract::Notice;
use tokio::time::Instant;

/// How much later than the first node the last one may deliver a message: at times, nodes pass
/// messages on some tens of milliseconds late.
const LATE: Duration = Duration::from_millis(500);

/// How many messages are kept before those older than that are removed.
const MANY: usize = 1024;

/// The recent messages, each with the number of the node that delivered it first.
#[derive(Default)]
pub(super) struct Words(Mutex<HashMap<Notice, (usize, Instant)>>);

impl Words {
    /// Whether another node has already delivered this. A message that one node delivers twice was
    /// published twice.
    pub(super) fn is_repeated(&self, notice: Notice, node: usize) -> bool {
        let now = Instant::now();
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((first, at)) = heard.get(&notice)
            && *first != node
            && now < *at + LATE
        {
            return true;
        }
        if heard.len() >= MANY {
            heard.retain(|_, (_, at)| now < *at + LATE);
        }
        heard.insert(notice, (node, now));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_word_counts_once_and_each_time_that_it_is_said_again() {
        let words = Words::default();
        let taken = Notice::Revoked { number: 7 };
        let heard = |node| !words.is_repeated(taken, node);
        assert_eq!([1, 2, 3].map(heard), [true, false, false]);
        assert_eq!([1, 2, 3].map(heard), [true, false, false], "the first has said it again");
        assert!(!words.is_repeated(Notice::Revoked { number: 8 }, 2));
        assert!(!words.is_repeated(Notice::Granted { number: 7 }, 2));
        tokio::time::advance(LATE).await;
        assert_eq!([2, 1, 3].map(heard), [true, false, false], "now another node may be the first");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_is_forgotten() {
        let words = Words::default();
        for number in 0..10_000 {
            words.is_repeated(Notice::Granted { number }, 1);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(words.0.lock().unwrap().len() <= MANY);
    }
}
