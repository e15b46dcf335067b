//! The numbers of acquisitions, which say when they were made.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use lock_core::Moment;

use crate::clock::Clock;

/// The times at which numbers may begin: from the first one that is
/// [read](lock_core::Token::made_at) from a token, up to half of what scripts can compare. A clock
/// that is wrong by centuries is ignored.
const TIMES: Range<u64> = 1 << 50..1 << 52;

/// Draws even numbers, each larger than all before: the engine draws the odd ones.
///
/// A number is the time at which it was drawn, in microseconds since the Unix epoch, or two above
/// the last number if that is larger. So a token tells operators when it was made, at no cost in
/// the store. After this was made, the time follows the clock of the keeper: a wall clock that is
/// set later changes nothing, and nothing but what operators read depends on it.
pub(super) struct Numbers {
    clock: Arc<dyn Clock>,
    /// Microseconds since the Unix epoch at the clock's origin.
    epoch: u64,
    last: AtomicU64,
}

impl Numbers {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or_default();
        Self::beginning_at(now, clock)
    }

    /// Starts at this time of the wall clock, in microseconds.
    fn beginning_at(now: u64, clock: Arc<dyn Clock>) -> Self {
        let now = if TIMES.contains(&now) { now } else { 0 };
        let epoch = now.saturating_sub(micros(clock.now()));
        Self { clock, epoch, last: AtomicU64::new(0) }
    }

    pub(super) fn draw(&self) -> u64 {
        let now = (self.epoch + micros(self.clock.now())) & !1;
        let next = |last: u64| now.max(last + 2);
        // Relaxed: the numbers only have to be different.
        let drawn =
            self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        next(drawn.unwrap_or_default())
    }
}

fn micros(moment: Moment) -> u64 {
    moment.as_nanos() / 1000
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::clock::TokioClock;

    #[tokio::test(start_paused = true)]
    async fn numbers_are_even_times_that_grow() {
        let numbers = Numbers::new(Arc::new(TokioClock::new()));
        let first = numbers.draw();
        assert_eq!(numbers.draw(), first + 2);
        tokio::time::advance(Duration::from_secs(1)).await;
        let later = numbers.draw();
        assert!(
            later.is_multiple_of(2) && later - first > 999_000 && later - first < 1_001_000,
            "{later}"
        );
        let made_at = lock_core::token::made_by("client", later).made_at();
        assert_eq!(made_at, Some(Duration::from_micros(later)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_wrong_by_centuries_is_not_counted_with() {
        for now in [0, 1 << 49, 1 << 52, u64::MAX] {
            let numbers = Numbers::beginning_at(now, Arc::new(TokioClock::new()));
            let (first, second) = (numbers.draw(), numbers.draw());
            assert!(first >= 2 && second == first + 2 && second < 1 << 50, "{now}: {first}");
        }
    }

    #[test]
    fn numbers_that_are_drawn_at_once_are_different() {
        let numbers = Numbers::new(Arc::new(crate::clock::BootClock::new()));
        let mut drawn: Vec<u64> = thread::scope(|scope| {
            let draw = || (0..2000).map(|_| numbers.draw()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 8000);
    }
}
