//! What the holders of locks saw, and whether it was allowed.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use crate::calls::{self, Call};

/// One hold of one lock, as its holder saw it. Times are nanoseconds of a clock that all holders
/// share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The lock.
    pub id: String,
    /// The client that held it; each client has a number of its own.
    pub client: u64,
    /// Its fencing token.
    pub token: u64,
    /// Before it was asked for.
    pub asked: u64,
    /// Since when the store may have granted it to its holder's process. The same as `asked`,
    /// except for a hand-over inside a process, which does not ask the store: such a process learns
    /// only at its next renewal, within a lease, that the store has forgotten the lock.
    pub standing_since: u64,
    /// After it was granted.
    pub granted: u64,
    /// Until when its holder believed it to be valid: until it released the lock, was told of the
    /// loss, or reached the deadline that it knew. Before `granted` if that deadline had passed
    /// when the grant arrived: the holder has never believed it to be valid.
    pub valid_until: u64,
}

/// A time in which a store lost data or was told to forget a lock, for one id or for all: grants
/// from before it promise nothing after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgetting {
    /// The lock that was forgotten; all of them if none is named.
    pub id: Option<String>,
    /// Before it began.
    pub from: u64,
    /// After it was over.
    pub to: u64,
}

/// A write that a resource refused although its holder still believed the lock to be valid
/// afterwards: another holder had already written with a larger token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The lock.
    pub id: String,
    /// The fencing token that was refused.
    pub token: u64,
    /// As in a [`Section`].
    pub standing_since: u64,
    /// After the refusal.
    pub at: u64,
}

/// A hold that ended before its release and before its deadline: the store had said that the lock
/// is not this holder's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The lock.
    pub id: String,
    /// Its fencing token.
    pub token: u64,
    /// As in a [`Section`].
    pub standing_since: u64,
    /// After the holder was told.
    pub at: u64,
}

/// Everything that is to be judged at the end of a run.
#[derive(Debug, Default)]
pub struct History {
    sections: HashMap<String, Vec<Section>>,
    forgettings: Vec<Forgetting>,
    refusals: Vec<Refusal>,
    losses: Vec<Loss>,
    calls: Vec<Call>,
    set_backs: Vec<u64>,
    well_since: Option<u64>,
    violations: Vec<String>,
}

/// The result of judging a history.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How many sections there were.
    pub acquisitions: usize,
    /// Pairs of holders that believed one lock to be valid at the same time, where a store had
    /// forgotten the first one. Only a quorum prevents that, so it is merely counted.
    pub overlaps_after_forgetting: usize,
    /// Hand-overs inside a process that did not yet know that the store had forgotten its lock and
    /// granted it to another process. The token grows in that process, but is below the other's, so
    /// that a resource refuses it.
    pub stale_hand_overs: usize,
    /// Holds that a store had forgotten before their holders released them.
    pub lost_after_forgetting: usize,
    /// How many debounced calls there were.
    pub calls: usize,
    /// How many of them ran.
    pub runs: usize,
    /// How many were told that another call runs in their place.
    pub superseded: usize,
    /// How many of these may refer to a run that was not observed: of a call that failed or was
    /// withdrawn, or one that a store forgot.
    pub superseded_by_unknown: usize,
    /// How many refer to an earlier run that a clock set back has made look like a later one.
    pub superseded_by_set_back: usize,
    /// How many calls were made while all was well.
    pub calls_while_well: usize,
    /// What was not allowed.
    pub violations: Vec<String>,
}

impl History {
    /// Adds a section, in any order.
    pub fn section(&mut self, section: Section) {
        self.sections.entry(section.id.clone()).or_default().push(section);
    }

    /// Adds a time in which a store forgot.
    pub fn forgetting(&mut self, forgetting: Forgetting) {
        self.forgettings.push(forgetting);
    }

    /// Adds a write that was refused to a holder that took the lock for valid.
    pub fn refusal(&mut self, refusal: Refusal) {
        self.refusals.push(refusal);
    }

    /// Adds a lock that was lost before its time.
    pub fn loss(&mut self, loss: Loss) {
        self.losses.push(loss);
    }

    /// Adds a debounced call, with all that came of it, in any order.
    pub fn call(&mut self, call: Call) {
        self.calls.push(call);
    }

    /// Adds a time at which the store's clock was set back.
    pub fn set_back(&mut self, at: u64) {
        self.set_backs.push(at);
    }

    /// Sets the time from which nothing breaks, and earlier faults have no effect any more.
    pub fn well_since(&mut self, at: u64) {
        self.well_since = Some(at);
    }

    /// Adds a violation that was found elsewhere.
    pub fn violation(&mut self, violation: impl fmt::Display) {
        self.violations.push(violation.to_string());
    }

    /// How many sections there are so far.
    pub fn len(&self) -> usize {
        self.sections.values().map(Vec::len).sum()
    }

    /// Is there no section yet?
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// Judges the history.
    ///
    /// - **Fencing tokens grow**: of two grants of one lock, the one that was asked for after the
    ///   other was granted has the larger token, whatever was lost or forgotten in between; and no
    ///   token is granted twice. Hand-overs inside a process are held to this only while nothing is
    ///   forgotten.
    /// - **Exclusion while valid**: no client was granted a lock, or wrote under it, before the
    ///   time until which another client believed it to be valid, unless a store forgot it in
    ///   between.
    /// - **Nothing is lost before its time**, unless a store forgot it.
    ///
    /// Debounced calls, whose runs are locks as well, are judged in `calls.rs`.
    pub fn judge(self) -> Verdict {
        let mut verdict = Verdict { violations: self.violations, ..Verdict::default() };
        for refusal in &self.refusals {
            let Refusal { id, token, standing_since, at } = refusal;
            verdict.overlap(&self.forgettings, id, [*standing_since, *at], || {
                let others = self.sections.get(id).into_iter().flatten();
                let others: Vec<_> = others.filter(|other| other.token > *token).take(3).collect();
                format!("a client wrote while the lock was valid: {refusal:?}, one of {others:?}")
            });
        }
        for loss in &self.losses {
            let Loss { id, standing_since, at, .. } = loss;
            if is_forgotten(&self.forgettings, id, [*standing_since, *at]) {
                verdict.lost_after_forgetting += 1;
            } else {
                verdict.violations.push(format!("lost before its time: {loss:?}"));
            }
        }
        let sorted: BTreeMap<_, _> = self.sections.into_iter().collect();
        for mut sections in sorted.into_values() {
            verdict.acquisitions += sections.len();
            tokens_grow(&mut sections, &self.forgettings, &mut verdict);
            one_at_a_time(&mut sections, &self.forgettings, &mut verdict);
        }
        let excuses = (&self.forgettings[..], &self.set_backs[..]);
        calls::judge(self.calls, excuses, self.well_since, &mut verdict);
        verdict
    }
}

impl Verdict {
    /// Counts two holders of one lock at the same time if a store forgot the lock in that time, and
    /// otherwise reports the violation.
    fn overlap(
        &mut self,
        forgettings: &[Forgetting],
        id: &str,
        [from, to]: [u64; 2],
        violation: impl FnOnce() -> String,
    ) {
        if is_forgotten(forgettings, id, [from, to]) {
            self.overlaps_after_forgetting += 1;
        } else {
            self.violations.push(violation());
        }
    }
}

/// Has a store forgotten that lock in that time?
pub(crate) fn is_forgotten(forgettings: &[Forgetting], id: &str, [from, to]: [u64; 2]) -> bool {
    forgettings.iter().any(|forgetting| {
        forgetting.id.as_ref().is_none_or(|of| of == id)
            && forgetting.to >= from
            && forgetting.from <= to
    })
}

/// Compares each grant with all those made before it was asked for.
pub(crate) fn tokens_grow(
    sections: &mut [Section],
    forgettings: &[Forgetting],
    verdict: &mut Verdict,
) {
    let mut granted: Vec<(u64, u64)> =
        sections.iter().map(|section| (section.granted, section.token)).collect();
    granted.sort_unstable();
    sections.sort_unstable_by_key(|section| section.asked);
    let (mut made, mut largest) = (granted.iter().peekable(), 0);
    for section in &*sections {
        while let Some((_, token)) = made.next_if(|(at, _)| *at < section.asked) {
            largest = largest.max(*token);
        }
        let Section { id, asked, standing_since, granted, .. } = section;
        if section.token > largest {
            continue;
        }
        let is_handed_over = standing_since < asked;
        if is_handed_over && is_forgotten(forgettings, id, [*standing_since, *granted]) {
            verdict.stale_hand_overs += 1;
        } else {
            verdict
                .violations
                .push(format!("a later grant, a token not above {largest}: {section:?}"));
        }
    }
    sections.sort_unstable_by_key(|section| section.token);
    for pair in sections.windows(2) {
        if pair[0].token == pair[1].token {
            verdict.violations.push(format!("one token for two grants: {pair:?}"));
        }
    }
}

/// Compares each grant with all before it that were still valid. Comparing only with the one that
/// lasts longest would not do: if a store forgot it, it would hide an inexcusable overlap with
/// another.
pub(crate) fn one_at_a_time(
    sections: &mut [Section],
    forgettings: &[Forgetting],
    verdict: &mut Verdict,
) {
    sections.sort_unstable_by_key(|section| section.granted);
    let mut valid: Vec<&Section> = Vec::new();
    for section in sections.iter().filter(|section| section.granted <= section.valid_until) {
        valid.retain(|before| section.granted < before.valid_until);
        for before in &valid {
            // Either of the two may be the one that was forgotten.
            let since = before.standing_since.min(section.standing_since);
            verdict.overlap(forgettings, &section.id, [since, section.granted], || {
                format!("two valid at once: {before:?} and {section:?}")
            });
        }
        valid.push(section);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(token: u64, [asked, granted, valid_until]: [u64; 3]) -> Section {
        let standing_since = asked;
        let id = "a".into();
        Section { id, client: token % 3, token, asked, standing_since, granted, valid_until }
    }

    fn judged(sections: &[Section], forgettings: &[Forgetting]) -> Verdict {
        let mut history = History::default();
        sections.iter().for_each(|section| history.section(section.clone()));
        forgettings.iter().for_each(|forgetting| history.forgetting(forgetting.clone()));
        assert_eq!(history.len(), sections.len());
        history.judge()
    }

    #[test]
    fn what_may_be_is_no_violation() {
        let one_after_the_other =
            [section(1, [0, 10, 20]), section(2, [5, 20, 30]), section(9, [31, 32, 40])];
        let verdict = judged(&one_after_the_other, &[]);
        assert_eq!((verdict.acquisitions, verdict.violations.len()), (3, 0), "{verdict:?}");
        // Lost before its holder could know of it.
        let verdict = judged(&[section(1, [0, 10, 20]), section(2, [5, 15, 14])], &[]);
        assert!(verdict.violations.is_empty(), "{verdict:?}");
        // Asked for at the same time, answered in another order than granted.
        let verdict = judged(&[section(2, [0, 10, 10]), section(1, [0, 12, 12])], &[]);
        assert!(verdict.violations.is_empty(), "{verdict:?}");
    }

    #[test]
    fn two_at_once_are_found_however_many_come_between() {
        let sections =
            [section(1, [0, 10, 100]), section(2, [11, 12, 12]), section(3, [13, 50, 60])];
        let verdict = judged(&sections, &[]);
        assert_eq!(verdict.violations.len(), 2, "{verdict:?}");
        assert!(verdict.violations.iter().all(|text| text.starts_with("two valid at once")));
    }

    #[test]
    fn what_was_forgotten_in_between_is_counted_and_nothing_else_is() {
        let sections = [section(1, [0, 10, 100]), section(2, [11, 50, 60])];
        let at = |from, to, id: Option<&str>| Forgetting { from, to, id: id.map(str::to_owned) };
        for (forgetting, excused) in [
            (at(20, 30, None), true),
            (at(0, 1000, Some("a")), true),
            (at(50, 51, None), true),
            (at(51, 52, None), false),
            (at(20, 30, Some("b")), false),
        ] {
            let verdict = judged(&sections, std::slice::from_ref(&forgetting));
            assert_eq!(verdict.overlaps_after_forgetting == 1, excused, "{forgetting:?}");
            assert_eq!(verdict.violations.is_empty(), excused, "{forgetting:?}");
        }
        let before = [section(1, [40, 41, 100]), section(2, [45, 50, 60])];
        assert_eq!(judged(&before, &[at(20, 30, None)]).violations.len(), 1);
    }

    #[test]
    fn what_was_forgotten_hides_nobody_else() {
        // The first was forgotten, and believes in its lock for a long time; the other two have no
        // excuse.
        let sections =
            [section(1, [0, 10, 100]), section(2, [21, 30, 60]), section(3, [31, 50, 55])];
        let verdict = judged(&sections, &[Forgetting { id: None, from: 20, to: 20 }]);
        assert_eq!(verdict.overlaps_after_forgetting, 2, "{verdict:?}");
        assert_eq!(verdict.violations.len(), 1, "{verdict:?}");
    }

    #[test]
    fn tokens_that_do_not_grow_are_found_whatever_was_forgotten() {
        let everything = Forgetting { id: None, from: 0, to: 1000 };
        for (sections, found) in [
            ([section(5, [0, 10, 20]), section(4, [11, 30, 40])], "a later grant"),
            ([section(5, [0, 10, 20]), section(5, [9, 30, 40])], "one token"),
        ] {
            let verdict = judged(&sections, std::slice::from_ref(&everything));
            assert_eq!(verdict.violations.len(), 1, "{verdict:?}");
            assert!(verdict.violations[0].starts_with(found), "{verdict:?}");
        }
    }

    #[test]
    fn a_hand_over_in_a_process_that_was_forgotten_is_counted_and_nothing_else_is() {
        let stale = Section { standing_since: 0, ..section(4, [30, 31, 40]) };
        let sections = [section(9, [11, 12, 20]), stale];
        for (at, counted) in [((5, 6), true), ((31, 31), true), ((32, 33), false)] {
            let forgetting = Forgetting { id: None, from: at.0, to: at.1 };
            let verdict = judged(&sections, &[forgetting]);
            assert_eq!(verdict.stale_hand_overs == 1, counted, "{verdict:?}");
            assert_eq!(verdict.violations.is_empty(), counted, "{verdict:?}");
        }
        assert_eq!(judged(&sections, &[]).violations.len(), 1);
    }

    #[test]
    fn a_refusal_to_a_valid_holder_is_an_overlap() {
        for (forgetting, violations) in [((20, 30), 0), ((41, 50), 1)] {
            let mut history = History::default();
            history.refusal(Refusal { id: "a".into(), token: 7, standing_since: 10, at: 40 });
            history.forgetting(Forgetting { id: None, from: forgetting.0, to: forgetting.1 });
            let verdict = history.judge();
            assert_eq!(verdict.violations.len(), violations, "{verdict:?}");
            assert_eq!(verdict.overlaps_after_forgetting, 1 - violations, "{verdict:?}");
        }
    }

    #[test]
    fn a_loss_before_its_time_is_one_of_a_lock_that_was_forgotten() {
        for (forgetting, id, violations) in
            [((20, 30), "a", 0), ((41, 50), "a", 1), ((0, 9), "a", 1), ((20, 30), "b", 1)]
        {
            let mut history = History::default();
            history.loss(Loss { id: "a".into(), token: 7, standing_since: 10, at: 40 });
            let (from, to) = forgetting;
            history.forgetting(Forgetting { id: Some(id.into()), from, to });
            let verdict = history.judge();
            assert_eq!(verdict.violations.len(), violations, "{verdict:?}");
            assert_eq!(verdict.lost_after_forgetting, 1 - violations, "{verdict:?}");
        }
    }

    #[test]
    fn what_others_have_seen_counts() {
        let mut history = History::default();
        history.violation("a stale write");
        assert!(history.is_empty());
        assert_eq!(history.judge().violations, ["a stale write"]);
    }
}
