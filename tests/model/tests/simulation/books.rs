//! What was kept in the store for durable calls, and what has to happen to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lock_core::contract::SetAside;

use crate::judge::Judge;

/// The arguments of a durable call, which say how it goes: of at most `attempts` tries, the first
/// `fails` fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arguments {
    pub(crate) call: u64,
    pub(crate) fails: u32,
    pub(crate) attempts: u32,
}

impl Arguments {
    pub(crate) fn text(self) -> String {
        format!("{} {} {}", self.call, self.fails, self.attempts)
    }

    pub(crate) fn read(text: &str) -> Self {
        let mut numbers = text.split(' ').map(|number| number.parse().expect("a number"));
        let mut next = || -> u64 { numbers.next().expect("three numbers") };
        Self { call: next(), fails: next() as u32, attempts: next() as u32 }
    }
}

#[derive(Default)]
pub(crate) struct Books {
    calls: BTreeMap<Arc<str>, Calls>,
    /// Calls whose runs ended while their locks were held.
    ended: BTreeSet<u64>,
}

/// The calls of one id.
#[derive(Default)]
struct Calls {
    /// The last call that was kept, unless the store has lost data since, or a call was taken back.
    last: Option<String>,
}

impl Books {
    pub(crate) fn kept(&mut self, id: &Arc<str>, arguments: &str) {
        self.calls.entry(Arc::clone(id)).or_default().last = Some(arguments.to_owned());
    }

    pub(crate) fn taken_back(&mut self, id: &Arc<str>) {
        self.calls.entry(Arc::clone(id)).or_default().last = None;
    }

    pub(crate) fn forgotten(&mut self) {
        self.calls.clear();
    }

    /// A run was claimed, which must be that of the last call.
    pub(crate) fn claimed(&mut self, id: &Arc<str>, arguments: &str, judge: &mut Judge) {
        let last = self.calls.get(id).and_then(|calls| calls.last.as_deref());
        if last.is_some_and(|last| last != arguments) {
            judge.violation(format!("{id}: a run of {arguments}, and the last is {last:?}"));
        }
    }

    /// A run ended while its lock was held.
    pub(crate) fn ended(&mut self, arguments: Arguments) {
        self.ended.insert(arguments.call);
    }

    /// Judges at the end: the last call was run, and set aside if all its tries failed.
    pub(crate) fn judge(&self, aside: &[SetAside], judge: &mut Judge) {
        for SetAside { attempts, arguments, .. } in aside {
            let Arguments { fails, attempts: most, .. } = Arguments::read(arguments);
            if fails < most || *attempts != most {
                judge.violation(format!("{arguments} was set aside after {attempts} tries"));
            }
        }
        for (id, calls) in &self.calls {
            let Some(last) = &calls.last else { continue };
            let Arguments { call, fails, attempts } = Arguments::read(last);
            if !self.ended.contains(&call) {
                judge.violation(format!("{id}: {last} was kept and never run"));
            }
            if fails >= attempts && !aside.iter().any(|aside| aside.arguments == *last) {
                judge.violation(format!("{id}: {last} has failed and is not set aside"));
            }
        }
    }
}
