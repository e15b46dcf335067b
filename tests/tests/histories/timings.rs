//! Measured times, for each kind of event.

use std::{collections::BTreeMap, fmt, time::Duration};

/// How soon a lock is granted again after a replica has become a primary.
pub(super) const NEXT_LOCK: &str = "from the promotion to the next lock";

/// All times, by what was measured and by its cause.
#[derive(Default)]
pub(super) struct Timings(BTreeMap<&'static str, BTreeMap<&'static str, Vec<Duration>>>);

impl Timings {
    pub(super) fn add(&mut self, what: &'static str, kind: &'static str, time: Duration) {
        self.0.entry(what).or_default().entry(kind).or_default().push(time);
    }

    /// The median of all times of this measurement.
    pub(super) fn middle(&self, what: &str) -> Duration {
        middle(self.of(what))
    }

    /// The longest time.
    pub(super) fn most(&self, what: &str) -> Duration {
        self.of(what).max().unwrap_or_default()
    }

    fn of(&self, what: &str) -> impl Iterator<Item = Duration> {
        self.0.get(what).into_iter().flat_map(BTreeMap::values).flatten().copied()
    }
}

fn middle(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (what, kinds)) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{what} (p50, max)")?;
            for (kind, times) in kinds {
                let middle = middle(times.iter().copied()).as_millis();
                let most = times.iter().max().copied().unwrap_or_default().as_millis();
                write!(f, ", {kind} {middle} {most} ms")?;
            }
        }
        Ok(())
    }
}
