//! Points in time and random numbers, both passed in from outside.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A point in time of one clock, counted from that clock's own origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// Later than every event.
    pub const NEVER: Self = Self(Duration::from_nanos(u64::MAX));

    /// Returns the moment this long after the origin.
    #[must_use]
    #[inline]
    pub fn since_origin(elapsed: Duration) -> Self {
        Self(elapsed.min(Self::NEVER.0))
    }

    /// Returns the moment this many nanoseconds after the origin.
    #[must_use]
    #[inline]
    pub fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }

    /// Returns the number of nanoseconds since the origin.
    #[must_use]
    #[inline]
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns the time from `now` until this moment; zero once it has passed.
    #[must_use]
    #[inline]
    pub fn after(self, now: Self) -> Duration {
        self.0.saturating_sub(now.0)
    }

    /// Returns the first multiple of `step` at or after this moment.
    ///
    /// Moments rounded with the same step coincide, which turns many timers into one wake-up.
    #[must_use]
    pub fn round_up(self, step: Duration) -> Self {
        let step = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self::from_nanos(self.as_nanos().div_ceil(step).saturating_mul(step))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self::since_origin(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    #[inline]
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

/// Jitter in 1,024ths: a number in `0..1024` that the caller draws once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Jitter(u16);

impl Jitter {
    /// Reduces a random number to a jitter.
    #[must_use]
    #[inline]
    pub fn new(random: u64) -> Self {
        Self((random % 1024) as u16)
    }

    /// Another number of the same sequence, well spread over the range for any run of `step`s.
    ///
    /// Multiples of the golden ratio leave the largest gaps between few points. So the repeated
    /// tries of one task do not coincide, and neither do the same tries of many tasks.
    #[inline]
    pub(crate) fn nth(self, step: u32) -> Self {
        Self(((u32::from(self.0)).wrapping_add(step.wrapping_mul(633)) % 1024) as u16)
    }

    /// A duration between `low` and `high`.
    #[inline]
    pub(crate) fn between(self, low: Duration, high: Duration) -> Duration {
        low + high.saturating_sub(low) / 1024 * u32::from(self.0)
    }
}

/// A pause that doubles with each step, from the first to the last.
pub(crate) fn doubling((first, last): (Duration, Duration), step: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(step)).min(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_saturate_at_both_ends() {
        assert_eq!(Moment::NEVER + Duration::MAX, Moment::NEVER);
        assert_eq!(Moment::default() - Duration::from_secs(1), Moment::default());
        assert_eq!(Moment::default().after(Moment::NEVER), Duration::ZERO);
    }

    #[test]
    fn rounding_up_never_goes_back() {
        let step = Duration::from_millis(47);
        for nanos in [0, 1, 46_999_999, 47_000_000, 47_000_001] {
            let moment = Moment::from_nanos(nanos);
            let rounded = moment.round_up(step);
            assert!(rounded >= moment && rounded.after(moment) < step, "{nanos}");
            assert_eq!(rounded.round_up(step), rounded);
        }
    }

    #[test]
    fn jitter_stays_between_its_bounds() {
        let (low, high) = (Duration::from_millis(90), Duration::from_millis(110));
        for random in 0..5000 {
            for step in 0..5 {
                let drawn = Jitter::new(random).nth(step).between(low, high);
                assert!((low..=high).contains(&drawn), "{drawn:?}");
            }
        }
    }

    #[test]
    fn pauses_double_up_to_the_last() {
        let (first, last) = (Duration::from_millis(20), Duration::from_millis(500));
        let pauses: Vec<_> = (0..7).map(|step| doubling((first, last), step).as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 500, 500]);
    }
}
