//! The durable calls of one function, as the store keeps them.
//!
//! Each id has one record: the arguments of its last call, when that call is due, and how often it
//! was tried. A call is claimed together with the run's lock, which its runner renews; a record
//! whose runner has died is due again when that lock would have run out. What a run has covered is
//! removed when the run has ended, and not before, so a call that was made is run at least once.
//!
//! This is the reference: the memory store runs it, the Redis scripts follow it, and a differential
//! test compares the two. Times are milliseconds of the store's clock, except for the number of a
//! call, which is the time at which it was made, in microseconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    contract::{DurableFinish, SetAside},
    mutant::Mutant,
};

/// The longest pause before another try.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What is known about the calls of one function.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Book {
    records: BTreeMap<String, Record>,
    /// When to look at each record.
    due: BTreeSet<(u64, String)>,
    /// The calls that have failed for good, and how each is tried if it is taken back.
    aside: BTreeMap<String, (SetAside, Retry)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Record {
    /// The number of the last call.
    call: u64,
    /// When the first call that no run has covered was made.
    first: u64,
    /// When the last call is due.
    due: u64,
    /// When to look at the record: its place in the order of all.
    look_at: u64,
    attempts: u32,
    /// The number of the call that was last claimed.
    claimed: u64,
    retry: Retry,
    arguments: String,
}

/// How a call is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Retry {
    /// The number of tries in all.
    pub(crate) attempts: u32,
    /// The pause before the second try, doubled before each one after it.
    pub(crate) pause: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    Gone,
    NotYet(Duration),
    Running(Duration),
    Granted { call: u64, attempt: u32, arguments: String },
}

/// How a run has ended.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Ended<'a> {
    pub(crate) call: u64,
    pub(crate) generation: u64,
    pub(crate) error: Option<&'a str>,
}

/// A call to be kept.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Call<'a> {
    pub(crate) arguments: &'a str,
    pub(crate) wait: Duration,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) retry: Retry,
}

impl Book {
    /// Registers a call; returns its number, and how long until it is due.
    pub(crate) fn call(&mut self, id: &str, call: &Call<'_>, micros: u64) -> (u64, Duration) {
        let &Call { arguments, wait, max_wait, retry } = call;
        let now = micros / 1000;
        let known = self.records.get(id);
        // A call that is being run is covered: this one starts afresh.
        let pending = known.filter(|record| record.claimed != record.call);
        let first = pending.map_or(now, |record| record.first);
        let latest = max_wait.map_or(u64::MAX, |limit| first.saturating_add(millis(limit)));
        let due = (now + millis(wait)).min(latest);
        let record = Record {
            call: micros.max(known.map_or(0, |record| record.call) + 1),
            first,
            due,
            look_at: due,
            attempts: 0,
            claimed: known.map_or(0, |record| record.claimed),
            retry,
            arguments: arguments.to_owned(),
        };
        let call = record.call;
        self.put(id, Some(record));
        (call, Duration::from_millis(due.saturating_sub(now)))
    }

    /// How many calls are kept and not done.
    pub(crate) fn kept(&self) -> u64 {
        self.due.len() as u64
    }

    /// The ids that are due, at most `limit`, and how long until the next one is due.
    pub(crate) fn due(&self, limit: usize, now: u64) -> (Vec<String>, Option<Duration>) {
        let due = self.due.iter().take_while(|(at, _)| *at <= now).take(limit);
        let due: Vec<_> = due.map(|(_, id)| id.clone()).collect();
        let next = self.due.iter().nth(due.len());
        (due, next.map(|(at, _)| Duration::from_millis(at.saturating_sub(now))))
    }

    /// May this call run? `running`: whether the same token holds its run's lock, and for how long,
    /// if it is held.
    pub(crate) fn claim(
        &mut self,
        id: &str,
        running: Option<(bool, Duration)>,
        lease: Duration,
        now: u64,
    ) -> Claim {
        let Some(mut record) = self.records.get(id).cloned() else { return Claim::Gone };
        match running {
            // The answer to an earlier claim was lost.
            Some((true, _)) => {}
            _ if record.look_at > now => {
                return Claim::NotYet(Duration::from_millis(record.look_at - now));
            }
            Some((false, left)) => {
                record.look_at = now + millis(left).max(1);
                self.put(id, Some(record));
                return Claim::Running(left);
            }
            None => {}
        }
        // If its runner dies, it is due again when the run's lock has run out.
        record.look_at = now + millis(lease);
        record.claimed = record.call;
        let granted = Claim::Granted {
            call: record.call,
            attempt: record.attempts + 1,
            arguments: record.arguments.clone(),
        };
        self.put(id, Some(record).filter(|_| !Mutant::DurableCallIsForgotten.is_on()));
        granted
    }

    /// Ends a run; `ours` says whether its runner still holds the run's lock. The lock is freed in
    /// the same operation, so that nobody finds it held for no reason in between.
    pub(crate) fn finish(
        &mut self,
        id: &str,
        ours: bool,
        ended: &Ended<'_>,
        now: u64,
    ) -> DurableFinish {
        let known = self.records.get(id).cloned();
        let Some(mut record) = known.filter(|_| ours) else { return DurableFinish::Lost };
        if record.call != ended.call && !Mutant::FinishRemovesNewerCall.is_on() {
            record.look_at = record.due;
            self.put(id, Some(record));
            return DurableFinish::Again;
        }
        let Some(error) = ended.error else {
            self.put(id, None);
            return DurableFinish::Done;
        };
        record.attempts += 1;
        let retry = record.retry;
        if record.attempts >= retry.attempts {
            let (attempts, generation) = (record.attempts, ended.generation);
            let (error, arguments) = (error.to_owned(), record.arguments);
            let aside = SetAside::new(id.to_owned(), attempts, generation, error, arguments);
            self.aside.insert(id.to_owned(), (aside, retry));
            self.put(id, None);
            return DurableFinish::SetAside;
        }
        let doubled = 1_u64 << (record.attempts - 1).min(20);
        let pause = millis(retry.pause).saturating_mul(doubled).min(millis(LONGEST_PAUSE));
        record.due = now + pause;
        record.look_at = record.due;
        self.put(id, Some(record));
        DurableFinish::Retry(Duration::from_millis(pause))
    }

    /// The calls that have failed for good.
    pub(crate) fn aside(&self) -> impl Iterator<Item = &SetAside> {
        self.aside.values().map(|(aside, _)| aside)
    }

    /// Takes back one of them; `again` makes it due now, unless its id was called again since.
    pub(crate) fn take_back(&mut self, id: &str, again: bool, micros: u64) -> bool {
        let Some((SetAside { arguments, .. }, retry)) = self.aside.remove(id) else { return false };
        if again && !self.records.contains_key(id) {
            let call = Call { arguments: &arguments, wait: Duration::ZERO, max_wait: None, retry };
            self.call(id, &call, micros);
        }
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.has_waiting() && !self.has_set_aside()
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.records.is_empty()
    }

    pub(crate) fn has_set_aside(&self) -> bool {
        !self.aside.is_empty()
    }

    /// How many calls wait, and how long until each of the first ones is due, at most `limit`.
    pub(crate) fn waiting(&self, limit: usize, now: u64) -> (usize, Vec<(String, Duration)>) {
        let first = self.due.iter().take(limit);
        let until = |at: u64| Duration::from_millis(at.saturating_sub(now));
        (self.due.len(), first.map(|(at, id)| (id.clone(), until(*at))).collect())
    }

    fn put(&mut self, id: &str, record: Option<Record>) {
        if let Some(before) = self.records.remove(id) {
            self.due.remove(&(before.look_at, id.to_owned()));
        }
        if let Some(record) = record {
            self.due.insert((record.look_at, id.to_owned()));
            self.records.insert(id.to_owned(), record);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn call(book: &mut Book, arguments: &str, at: u64) -> (u64, Duration) {
        call_with(book, arguments, 3, at)
    }

    fn call_with(book: &mut Book, arguments: &str, attempts: u32, at: u64) -> (u64, Duration) {
        let retry = Retry { attempts, pause: ms(50) };
        let call = Call { arguments, wait: ms(100), max_wait: Some(ms(250)), retry };
        book.call("a", &call, at * 1000)
    }

    fn claim(book: &mut Book, at: u64) -> Claim {
        book.claim("a", None, LEASE, at)
    }

    fn ended(call: u64, error: Option<&str>) -> Ended<'_> {
        Ended { call, generation: 7, error }
    }

    fn granted(claim: Claim) -> (u64, u32, String) {
        match claim {
            Claim::Granted { call, attempt, arguments } => (call, attempt, arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_arguments_run_once_the_wait_after_them_is_over() {
        let mut book = Book::default();
        assert_eq!(call(&mut book, "1", 1000).1, ms(100));
        assert_eq!(call(&mut book, "2", 1080).1, ms(100));
        assert_eq!(book.due(10, 1179), (vec![], Some(ms(1))));
        assert_eq!(claim(&mut book, 1179), Claim::NotYet(ms(1)));
        assert_eq!(book.due(10, 1180), (vec!["a".to_owned()], None));
        let (number, attempt, arguments) = granted(claim(&mut book, 1180));
        assert_eq!((attempt, &*arguments), (1, "2"));
        assert_eq!(book.finish("a", true, &ended(number, None), 1200), DurableFinish::Done);
        assert!(book.is_empty());
        assert_eq!(claim(&mut book, 1300), Claim::Gone);
    }

    #[test]
    fn max_wait_counts_from_the_first_call_that_was_not_covered() {
        let mut book = Book::default();
        call(&mut book, "1", 1000);
        assert_eq!(call(&mut book, "2", 1200).1, ms(50));
        granted(claim(&mut book, 1250));
        assert_eq!(call(&mut book, "3", 1260).1, ms(100), "a burst of its own");
        assert_eq!(call(&mut book, "4", 1450).1, ms(60));
    }

    #[test]
    fn a_call_during_a_run_is_run_after_it() {
        let mut book = Book::default();
        let (first, _) = call(&mut book, "1", 1000);
        granted(claim(&mut book, 1100));
        let (second, _) = call(&mut book, "2", 1110);
        let running = Some((false, ms(9000)));
        assert_eq!(book.claim("a", running, LEASE, 1210), Claim::Running(ms(9000)));
        assert_eq!(book.finish("a", true, &ended(first, None), 1300), DurableFinish::Again);
        assert_eq!(granted(claim(&mut book, 1300)), (second, 1, "2".to_owned()));
    }

    #[test]
    fn a_runner_that_dies_is_followed_by_another() {
        let mut book = Book::default();
        let (number, _) = call(&mut book, "1", 1000);
        granted(claim(&mut book, 1100));
        assert_eq!(book.due(10, 1100 + 9999).0, Vec::<String>::new());
        assert_eq!(granted(claim(&mut book, 1100 + 10_000)).0, number);
        assert_eq!(book.finish("a", false, &ended(number, None), 12_000), DurableFinish::Lost);
        assert_eq!(book.finish("a", true, &ended(number, None), 12_000), DurableFinish::Done);
    }

    #[test]
    fn the_answer_to_a_claim_that_was_lost_is_given_again() {
        let mut book = Book::default();
        call(&mut book, "1", 1000);
        let first = claim(&mut book, 1100);
        assert_eq!(book.claim("a", Some((true, ms(9000))), LEASE, 1200), first);
    }

    #[test]
    fn a_failure_is_tried_again_and_set_aside_at_last() {
        let mut book = Book::default();
        let (number, _) = call(&mut book, "1", 1000);
        let mut now = 1100;
        for pause in [50, 100] {
            granted(claim(&mut book, now));
            let finish = book.finish("a", true, &ended(number, Some("no")), now);
            assert_eq!(finish, DurableFinish::Retry(ms(pause)));
            assert_eq!(claim(&mut book, now + pause - 1), Claim::NotYet(ms(1)));
            now += pause;
        }
        assert_eq!(granted(claim(&mut book, now)).1, 3);
        assert_eq!(
            book.finish("a", true, &ended(number, Some("no")), now),
            DurableFinish::SetAside
        );
        assert_eq!(claim(&mut book, now), Claim::Gone);
        let aside = book.aside().next().unwrap();
        assert_eq!((&*aside.id, aside.attempts, &*aside.error), ("a", 3, "no"));
        assert!(book.take_back("a", true, now * 1000));
        assert_eq!(granted(claim(&mut book, now)).1, 1);
        assert!(!book.take_back("a", true, now * 1000));
    }

    #[test]
    fn a_newer_call_counts_its_own_failures() {
        let mut book = Book::default();
        let (number, _) = call(&mut book, "1", 1000);
        granted(claim(&mut book, 1100));
        book.finish("a", true, &ended(number, Some("no")), 1100);
        call(&mut book, "2", 1120);
        assert_eq!(granted(claim(&mut book, 1220)), (1_120_000, 1, "2".to_owned()));
    }

    #[test]
    fn each_call_is_tried_as_often_as_its_caller_has_said() {
        let mut book = Book::default();
        for (attempts, again) in [(1, false), (2, true)] {
            let (number, _) = call_with(&mut book, "1", attempts, 1000);
            granted(claim(&mut book, 1100));
            let finish = book.finish("a", true, &ended(number, Some("no")), 1100);
            assert_eq!(matches!(finish, DurableFinish::Retry(_)), again, "{finish:?}");
            book.take_back("a", false, 0);
        }
        // What was set aside is tried as often again.
        let (number, _) = call_with(&mut book, "1", 1, 2000);
        granted(claim(&mut book, 2100));
        assert_eq!(
            book.finish("a", true, &ended(number, Some("no")), 2100),
            DurableFinish::SetAside
        );
        assert!(book.take_back("a", true, 2_200_000));
        let (number, ..) = granted(claim(&mut book, 2200));
        assert_eq!(
            book.finish("a", true, &ended(number, Some("no")), 2200),
            DurableFinish::SetAside
        );
    }
}
