//! What happened, and what is wrong with it.

use std::ops::AddAssign;

use lock_judge::History;

#[derive(Default)]
pub(crate) struct Judge {
    pub(crate) history: History,
    pub(crate) totals: Totals,
}

impl Judge {
    pub(crate) fn violation(&mut self, violation: impl std::fmt::Display) {
        self.history.violation(violation);
    }
}

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) acquisitions: u64,
    pub(crate) lost: u64,
    pub(crate) handed_over: u64,
    pub(crate) busy: u64,
    pub(crate) adopted: u64,
    pub(crate) runs: u64,
    pub(crate) superseded: u64,
    pub(crate) durable_runs: u64,
    pub(crate) set_aside: u64,
    pub(crate) ended_processes: u64,
    pub(crate) faults: u64,
}

impl Totals {
    /// A hold is over.
    pub(crate) fn held(&mut self, key: &str, was_held: bool) {
        match key.as_bytes()[0] {
            b'd' => self.runs += 1,
            b'x' => self.durable_runs += 1,
            _ => {
                self.acquisitions += 1;
                self.lost += u64::from(!was_held);
            }
        }
    }

    /// Each total, with the minimum for a thousand worlds.
    pub(crate) fn each(&self) -> [(&'static str, u64, u64); 11] {
        [
            ("acquisitions", self.acquisitions, 5000),
            ("lost", self.lost, 200),
            ("handed over", self.handed_over, 500),
            ("busy", self.busy, 500),
            ("adopted", self.adopted, 50),
            ("runs", self.runs, 1000),
            ("superseded", self.superseded, 1000),
            ("durable runs", self.durable_runs, 1000),
            ("set aside", self.set_aside, 50),
            ("ended processes", self.ended_processes, 100),
            ("faults", self.faults, 5000),
        ]
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.acquisitions += other.acquisitions;
        self.lost += other.lost;
        self.handed_over += other.handed_over;
        self.busy += other.busy;
        self.adopted += other.adopted;
        self.runs += other.runs;
        self.superseded += other.superseded;
        self.durable_runs += other.durable_runs;
        self.set_aside += other.set_aside;
        self.ended_processes += other.ended_processes;
        self.faults += other.faults;
    }
}
