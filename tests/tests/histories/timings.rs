//! How long a failover takes.

use std::{collections::BTreeMap, fmt, time::Duration};

/// One failover.
pub(super) struct Timing {
    /// From the promotion of a replica to the next lock that it grants.
    pub(super) next_lock: Duration,
    /// From the first Sentinel's word of it to the last script that the old primary has run. None if
    /// there was none.
    pub(super) last_script: Option<Duration>,
}

/// All of them, by what led to it.
#[derive(Default)]
pub(super) struct Timings(BTreeMap<&'static str, Vec<Timing>>);

impl Timings {
    pub(super) fn add(&mut self, kind: &'static str, timing: Timing) {
        self.0.entry(kind).or_default().push(timing);
    }

    /// The middle one of all times from a promotion to the next lock.
    pub(super) fn next_lock(&self) -> Duration {
        middle(self.0.values().flatten())
    }
}

fn middle<'a>(timings: impl Iterator<Item = &'a Timing>) -> Duration {
    let mut times: Vec<_> = timings.map(|timing| timing.next_lock).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from the promotion to the next lock (p50, max)")?;
        for (kind, timings) in &self.0 {
            let middle = middle(timings.iter()).as_millis();
            let most = timings.iter().map(|timing| timing.next_lock).max().unwrap_or_default();
            write!(f, ", {kind} {middle} {} ms", most.as_millis())?;
        }
        let last = self.0.values().flatten().filter_map(|timing| timing.last_script).max();
        let last = last.unwrap_or_default().as_millis();
        write!(f, "; the last script on an old primary {last} ms after the first Sentinel's word")
    }
}
