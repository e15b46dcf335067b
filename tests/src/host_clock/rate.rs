//! Measures how fast the clocks of this process run.

use std::{
    sync::LazyLock,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::time::ClockId;

use crate::wait::{ms, now, read};

/// How long a rate is measured.
const TIME: Duration = ms(50);

/// How far apart, in nanoseconds, the two readings of the machine's clock may be that enclose a
/// reading of another clock.
const CLOSE: u64 = 1000;

/// How many pairs are tried for a close one, on a machine that is also doing other work.
const LOOKS: u32 = 1000;

/// The `Instant` that others are measured from.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A clock of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// The clock that leases are measured by: it goes on while the machine sleeps, and is never
    /// set.
    Boot,
    /// The clock of Rust's `Instant`, and so of Tokio's timers.
    Monotonic,
    /// The wall clock, which can be set.
    Wall,
}

impl Clock {
    /// The machine's time, and the reading of this clock at that time, in nanoseconds.
    #[must_use]
    pub fn beside_the_machines(self) -> [u64; 2] {
        let (mut closest, mut least) = ([0, 0], u64::MAX);
        for _ in 0..LOOKS {
            let before = now();
            let shown = self.shown();
            let apart = now() - before;
            if apart < least {
                (closest, least) = ([before + apart / 2, shown], apart);
            }
            if apart <= CLOSE {
                break;
            }
        }
        closest
    }

    fn shown(self) -> u64 {
        let nanos = match self {
            Self::Boot => return read(ClockId::Boottime),
            Self::Monotonic => ORIGIN.elapsed(),
            Self::Wall => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("the wall clock shows a time of this century"),
        };
        u64::try_from(nanos.as_nanos()).expect("some centuries at most")
    }
}

/// By how many millionths this clock runs faster than the machine's, as measured just now. Blocks
/// the thread for a while.
#[must_use]
pub fn rate_of(clock: Clock) -> i64 {
    let before = clock.beside_the_machines();
    thread::sleep(TIME);
    rate_between(before, clock.beside_the_machines())
}

/// The same, from two pairs of readings of [`Clock::beside_the_machines`].
#[must_use]
pub fn rate_between(before: [u64; 2], after: [u64; 2]) -> i64 {
    let [machines, shown] =
        [0, 1].map(|place| after[place].wrapping_sub(before[place]).cast_signed());
    (shown - machines) * 1_000_000 / machines
}
