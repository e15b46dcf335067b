//! The result of a history, and what must hold for it.

use std::{collections::BTreeMap, fmt, time::Duration};

use lock_tests::Verdict;

use super::ledger::{Resource, Usage};

/// How much a process may grow once it is warm, in KiB: the noise of its allocator.
const GROWTH: u64 = 4096;

/// Everything that is judged.
pub(super) struct End {
    pub(super) verdict: Verdict,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) forgettings: u64,
    /// Holds whose deadline passed: the lock, and when its holder noticed.
    pub(super) ran_out: Vec<(String, u64)>,
    pub(super) took: Duration,
    pub(super) resource: Resource,
    pub(super) leaks: Vec<String>,
    pub(super) usage: Usage,
}

impl End {
    /// How many faults there were, of all kinds.
    pub(super) fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Panics if a guarantee did not hold.
    pub(super) fn assert_nothing_was_broken(&self) {
        let Self { verdict, resource, leaks, usage, .. } = self;
        println!("failures: {:?}", self.failures);
        let some = &verdict.violations[..verdict.violations.len().min(20)];
        assert!(some.is_empty(), "{some:#?}");
        assert_eq!(resource.count, resource.accepted, "a stale write was accepted");
        assert!(leaks.is_empty(), "left: {leaks:?}");
        assert!(usage.grew <= GROWTH, "memory grows: {usage}");
        let Usage { tasks, files, first_tasks, first_files, .. } = usage;
        assert!(tasks <= first_tasks && files <= first_files, "left behind: {usage}");
    }
}

/// One line of figures.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, resource, .. } = self;
        write!(
            f,
            "{} acquisitions, {} failed, {} debounced calls ({} while all was well), {} runs, {} superseded ({} by \
             a run nobody saw, {} as a clock was set back), {} faults of {} kinds, {} data losses, {} s: {} violations, {} overlaps, {} stale hand-overs and {} holds lost after a data loss, {} holds that \
             ran out; writes {} accepted, {} refused as stale, {} lost without the check; leaks {}; a process \
             takes {}",
            verdict.acquisitions,
            self.failures.values().sum::<u64>(),
            verdict.calls,
            verdict.calls_while_well,
            verdict.runs,
            verdict.superseded,
            verdict.superseded_by_unknown,
            verdict.superseded_by_set_back,
            self.faults(),
            self.faults.len(),
            self.forgettings,
            self.took.as_secs(),
            verdict.violations.len(),
            verdict.overlaps_after_forgetting,
            verdict.stale_hand_overs,
            verdict.lost_after_forgetting,
            self.ran_out.len(),
            resource.accepted,
            resource.refused,
            resource.lost_unchecked,
            self.leaks.len(),
            self.usage,
        )?;
        self.faults.iter().try_for_each(|(kind, count)| write!(f, "; {kind} {count}"))
    }
}
