//! The outcomes of debounced calls, and whether they were allowed.

use std::collections::BTreeMap;

use crate::history::{Forgetting, Section, Verdict, is_forgotten, one_at_a_time, tokens_grow};

/// How long a request and its answer may take when all is well.
const PROMPT: u64 = 500_000_000;

/// One debounced call. Times are as in a [`Section`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The id that was debounced.
    pub id: String,
    /// The client that made it; each client has a number of its own.
    pub client: u64,
    /// A client makes its calls in the order of their numbers.
    pub number: u64,
    /// Before it was made.
    pub made: u64,
    /// How long it may take while all is well.
    pub bound: u64,
    /// Its outcome.
    pub outcome: Outcome,
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing so far.
    Waits,
    /// It ran.
    Ran {
        /// The fencing token of the run.
        token: u64,
        /// After it was granted.
        begun: u64,
        /// Until when its lock was believed to be valid. Before `begun` if it never was.
        valid_until: u64,
    },
    /// Another call ran in its place. The time is after this one was told so.
    Superseded(u64),
    /// Its caller went away, whether or not its run was granted. The time is after that, and after
    /// the answer to its last request: a request that was on its way may be granted the run when it
    /// arrives.
    Withdrawn(u64),
    /// It got an error, or its process was killed, whether or not its run was granted. The time is
    /// after that, as for a withdrawn call; and the reason.
    Failed(u64, String),
}

impl Call {
    /// When its client knew the outcome.
    fn answered(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Waits => None,
            Outcome::Ran { begun, .. } => Some(begun),
            Outcome::Superseded(at) | Outcome::Withdrawn(at) | Outcome::Failed(at, _) => Some(at),
        }
    }

    /// By how much a store may be mistaken about when this call was made: a repeated request states
    /// the call's age by a clock of another rate, in whole milliseconds.
    fn mistaken(&self) -> u64 {
        let age = self.answered().unwrap_or(self.made).saturating_sub(self.made);
        age / 50 + 2_000_000
    }

    fn run(&self) -> Option<Section> {
        let Outcome::Ran { token, begun, valid_until } = self.outcome else { return None };
        Some(Section {
            id: self.id.clone(),
            client: self.client,
            token,
            asked: self.made,
            standing_since: self.made,
            granted: begun,
            valid_until,
        })
    }
}

/// Judges all calls. From `well_since` on, if it is given, all was well.
///
/// - **Runs of one id do not overlap while valid**, and their **fencing tokens grow**: as for locks.
/// - **No call is told that another one runs when none does**: the other began after this one was
///   made, or whether it did is unknowable.
/// - **No older call of a client runs after a newer one.**
/// - **While all is well**, every call is answered within its bound, no call fails, and no call
///   runs that an earlier run has covered.
pub(crate) fn judge(
    calls: Vec<Call>,
    (forgettings, set_backs): (&[Forgetting], &[u64]),
    well_since: Option<u64>,
    verdict: &mut Verdict,
) {
    let mut of_ids: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    for call in calls {
        of_ids.entry(call.id.clone()).or_default().push(call);
    }
    let is_well = |call: &Call| well_since.is_some_and(|since| call.made >= since);
    for mut calls in of_ids.into_values() {
        verdict.calls += calls.len();
        let mut runs: Vec<Section> = calls.iter().filter_map(Call::run).collect();
        verdict.runs += runs.len();
        tokens_grow(&mut runs, forgettings, verdict);
        one_at_a_time(&mut runs, forgettings, verdict);
        // `one_at_a_time` has sorted the runs by when they began.
        tokens_follow(&runs, forgettings, verdict);
        superseded_by_runs(&calls, &runs, (forgettings, set_backs), is_well, verdict);
        calls.sort_unstable_by_key(|call| (call.client, call.number));
        in_order(&calls, verdict);
        calls.retain(is_well);
        verdict.calls_while_well += calls.len();
        answered_in_time(&calls, verdict);
        covered_once(&calls, &runs, verdict);
    }
}

/// Compares each run with the one that began before it.
fn tokens_follow(runs: &[Section], forgettings: &[Forgetting], verdict: &mut Verdict) {
    for pair in runs.windows(2).filter(|pair| pair[1].token < pair[0].token) {
        // The later run may have been granted before the other if the lock was forgotten; or it was
        // over before it began.
        let was_valid = pair[1].granted <= pair[1].valid_until;
        if was_valid && !is_forgotten(forgettings, &pair[1].id, [pair[1].asked, pair[1].granted]) {
            verdict.violations.push(format!("a later run, a smaller token: {pair:?}"));
        }
    }
}

/// Looks for the run of another call that superseded each superseded call.
fn superseded_by_runs(
    calls: &[Call],
    runs: &[Section],
    (forgettings, set_backs): (&[Forgetting], &[u64]),
    is_well: impl Fn(&Call) -> bool,
    verdict: &mut Verdict,
) {
    let ran = |since, until| {
        let later = runs.partition_point(|run| run.granted < since);
        runs[later..].iter().any(|run| run.asked <= until)
    };
    // Only calls of other clients count: a client tells its own calls exactly what it knows.
    let may_have_run = |but: &[u64], since, until| {
        calls.iter().any(|other| {
            let (Outcome::Withdrawn(known) | Outcome::Failed(known, _)) = other.outcome else {
                return false;
            };
            !but.contains(&other.client) && other.made <= until && known >= since
        })
    };
    for call in calls {
        let Outcome::Superseded(at) = call.outcome else { continue };
        verdict.superseded += 1;
        let since = call.made.saturating_sub(call.mistaken());
        if ran(since, at) {
            continue;
        }
        // Another process may have been granted the run without hearing of it, because its
        // connection broke: not while all is well. Its call waits on, and is superseded by a later
        // run. A newer call is judged by itself. An older call can be granted the run in place of a
        // newer one if the store counts it as newer because its request was late, or if the server's
        // clock jumped ahead. In that case the later run must also have begun after this call was
        // made, and soon: otherwise any call that is open for long would excuse this one.
        let is_waited_for = calls.iter().any(|other| {
            let Outcome::Superseded(until) = other.outcome else { return false };
            other.client != call.client
                && other.made <= at
                && until >= at
                && (other.made >= since
                    || until - at <= call.bound
                        && (ran(since, until)
                            || may_have_run(&[call.client, other.client], since, until)))
        });
        if may_have_run(&[call.client], since, at)
            || is_waited_for && !is_well(call)
            || is_forgotten(forgettings, &call.id, [call.made, at])
        {
            verdict.superseded_by_unknown += 1;
        } else if set_backs
            .iter()
            .any(|set_back| (last_before(runs, since)..=at).contains(set_back))
        {
            // A store cannot tell how much time has passed while its clock was set back.
            verdict.superseded_by_set_back += 1;
        } else {
            let around = around(calls, since, at);
            verdict.violations.push(format!("no call ran in place of {call:?}: {around:#?}"));
        }
    }
}

/// When the last run that began before this time was asked for.
fn last_before(runs: &[Section], at: u64) -> u64 {
    let before = runs.partition_point(|run| run.granted < at);
    runs[..before].last().map_or(at, |run| run.asked)
}

/// The calls that were made or open in that time, or shortly before or after it.
fn around(calls: &[Call], since: u64, at: u64) -> Vec<&Call> {
    const SHORTLY: u64 = 1_000_000_000;
    let there = |call: &&Call| {
        call.made <= at + SHORTLY
            && call.answered().is_none_or(|answered| answered + SHORTLY >= since)
    };
    calls.iter().filter(there).collect()
}

/// Looks at each client's runs in the order in which it made their calls.
fn in_order(calls: &[Call], verdict: &mut Verdict) {
    for of_one in calls.chunk_by(|one, other| one.client == other.client) {
        let mut last = 0;
        for call in of_one {
            let Outcome::Ran { begun, .. } = call.outcome else { continue };
            if begun < last {
                verdict.violations.push(format!("ran after a newer call of its client: {call:?}"));
            }
            last = last.max(begun);
        }
    }
}

/// Checks calls that were made while all was well.
fn answered_in_time(calls: &[Call], verdict: &mut Verdict) {
    for call in calls {
        match (&call.outcome, call.answered()) {
            (Outcome::Withdrawn(_), _) => {}
            (Outcome::Failed(..), _) => {
                verdict.violations.push(format!("failed while all was well: {call:?}"));
            }
            (_, Some(at)) if at.saturating_sub(call.made) <= call.bound => {}
            _ => verdict.violations.push(format!("no answer in time: {call:?}")),
        }
    }
}

/// Checks calls that were made while all was well: a call that the store had long known when a run
/// began does not run after it.
fn covered_once(calls: &[Call], runs: &[Section], verdict: &mut Verdict) {
    for call in calls {
        let Outcome::Ran { token, begun, .. } = call.outcome else { continue };
        let from = runs.partition_point(|run| run.granted <= call.made + PROMPT);
        let cover = runs[from..].iter().find(|run| run.token != token && run.granted < begun);
        if let Some(run) = cover {
            verdict.violations.push(format!("ran although {run:?} had covered it: {call:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::History;

    const MS: u64 = 1_000_000;

    /// A call of this client, with its number; times in milliseconds.
    fn call(client: u64, number: u64, made: u64, outcome: Outcome) -> Call {
        Call { id: "a".into(), client, number, made: made * MS, bound: 3000 * MS, outcome }
    }

    fn ran(token: u64, [begun, valid_until]: [u64; 2]) -> Outcome {
        Outcome::Ran { token, begun: begun * MS, valid_until: valid_until * MS }
    }

    fn superseded(at: u64) -> Outcome {
        Outcome::Superseded(at * MS)
    }

    fn failed(at: u64) -> Outcome {
        Outcome::Failed(at * MS, "Lost".into())
    }

    fn judged(calls: &[Call], well_since: Option<u64>, forgotten: Option<[u64; 2]>) -> Verdict {
        let mut history = History::default();
        calls.iter().for_each(|call| history.call(call.clone()));
        if let Some([from, to]) = forgotten {
            history.forgetting(Forgetting { id: None, from: from * MS, to: to * MS });
        }
        if let Some(since) = well_since {
            history.well_since(since * MS);
        }
        history.judge()
    }

    /// Asserts that exactly this is wrong with these calls, without any excuse.
    fn assert_found(calls: &[Call], well_since: Option<u64>, found: &str) {
        let verdict = judged(calls, well_since, None);
        assert_eq!(verdict.violations.len(), 1, "{verdict:?}");
        assert!(verdict.violations[0].starts_with(found), "{verdict:?}");
    }

    #[test]
    fn bursts_in_order_are_no_violation() {
        let calls = [
            call(0, 0, 0, superseded(101)),
            call(1, 0, 50, ran(1, [100, 140])),
            call(0, 1, 120, ran(2, [220, 230])),
            call(1, 1, 210, Outcome::Withdrawn(215 * MS)),
        ];
        let verdict = judged(&calls, Some(0), None);
        assert!(verdict.violations.is_empty(), "{verdict:?}");
        let counts = (verdict.calls, verdict.runs, verdict.superseded, verdict.calls_while_well);
        assert_eq!((counts, verdict.acquisitions), ((4, 2, 1, 4), 0));
    }

    #[test]
    fn runs_that_overlap_are_found_unless_the_store_forgot() {
        let calls = [call(0, 0, 0, ran(1, [100, 200])), call(1, 0, 110, ran(2, [190, 210]))];
        assert_found(&calls, None, "two valid at once");
        let verdict = judged(&calls, None, Some([120, 130]));
        assert_eq!((verdict.violations.len(), verdict.overlaps_after_forgetting), (0, 1));
        // A run whose process was killed counts as over.
        let calls = [call(0, 0, 0, ran(1, [100, 100])), call(1, 0, 110, ran(2, [190, 210]))];
        assert!(judged(&calls, None, None).violations.is_empty());
    }

    #[test]
    fn tokens_that_do_not_grow_are_found() {
        let calls = [call(0, 0, 0, ran(2, [100, 110])), call(1, 0, 50, ran(1, [150, 160]))];
        assert_found(&calls, None, "a later run, a smaller token");
        assert!(judged(&calls, None, Some([60, 70])).violations.is_empty());
        let calls = [call(0, 0, 0, ran(2, [100, 110])), call(1, 0, 50, ran(2, [150, 160]))];
        assert_found(&calls, None, "one token for two grants");
    }

    #[test]
    fn a_call_for_which_none_ran_is_found() {
        // A run that began before the call was made, and one that was called after its answer.
        let calls = [
            call(1, 0, 0, ran(1, [50, 60])),
            call(0, 0, 100, superseded(200)),
            call(1, 1, 201, ran(2, [300, 310])),
        ];
        assert_found(&calls, None, "no call ran in place");
        let verdict = judged(&calls, None, Some([120, 130]));
        assert_eq!((verdict.violations.len(), verdict.superseded_by_unknown), (0, 1));
    }

    #[test]
    fn a_run_that_nobody_has_seen_excuses_the_calls_that_it_may_cover() {
        for (client, made, until, excused) in [
            (1, 50, 150, true),
            (1, 50, 250, true),
            (1, 199, 210, true),
            // It was over before, or came after.
            (1, 50, 90, false),
            (1, 201, 250, false),
            // The same client knows.
            (0, 50, 150, false),
        ] {
            for outcome in [failed(until), Outcome::Withdrawn(until * MS)] {
                let other = call(client, 1, made, outcome);
                let verdict = judged(&[call(0, 0, 100, superseded(200)), other], None, None);
                assert_eq!(verdict.violations.is_empty(), excused, "{made} {until} {verdict:?}");
                assert_eq!(verdict.superseded_by_unknown == 1, excused, "{verdict:?}");
            }
        }
    }

    #[test]
    fn a_call_that_did_not_hear_of_its_grant_excuses_those_that_it_covered_and_not_itself() {
        let other = |made, at| call(1, 1, made, superseded(at));
        let last = call(0, 1, 210, ran(1, [300, 310]));
        for (made, at, excused) in [
            (150, 301, true),
            // It is older, and what ran in its place did so after both.
            (50, 301, true),
            // It came later, or was answered before.
            (201, 301, false),
            (150, 190, false),
            (50, 190, false),
        ] {
            let calls = [call(0, 0, 100, superseded(200)), other(made, at), last.clone()];
            let verdict = judged(&calls, None, None);
            let about = format!("{:?}", calls[0]);
            let found = verdict.violations.iter().any(|found| found.contains(&about));
            assert_eq!(found, !excused, "{made} {at} {verdict:?}");
        }
        // No run supersedes the other one either.
        let calls = [call(0, 0, 100, superseded(200)), other(150, 301)];
        assert_found(&calls, None, "no call ran in place");
        // Nor does any, while all is well, without a run of its own time.
        let calls = [call(0, 0, 100, superseded(200)), other(50, 301), last.clone()];
        assert_found(&calls, Some(0), "no call ran in place");
        // The run comes too late, or it may be one of the judged client's own.
        let late = call(2, 1, 3_100, ran(1, [3_250, 3_260]));
        assert_found(
            &[call(0, 0, 100, superseded(200)), other(50, 3_300), late],
            None,
            "no call ran",
        );
        let own = call(0, 2, 250, Outcome::Withdrawn(290 * MS));
        let verdict = judged(&[call(0, 0, 100, superseded(200)), other(50, 301), own], None, None);
        let about = "client: 0, number: 0, made: 100000000";
        assert!(verdict.violations.iter().any(|found| found.contains(about)), "{verdict:?}");
        // The run that superseded an older one began before this one was made.
        let before = call(2, 1, 20, ran(1, [60, 70]));
        let calls = [call(0, 0, 100, superseded(200)), other(50, 301), before];
        assert_found(&calls, None, "no call ran in place");
    }

    #[test]
    fn a_clock_that_is_set_back_excuses_what_a_run_before_it_may_be_taken_for() {
        for (at, excused) in [(20, false), (55, true), (200, true), (201, false)] {
            let mut history = History::default();
            history.call(call(1, 0, 30, ran(1, [50, 60])));
            history.call(call(0, 0, 100, superseded(200)));
            history.set_back(at * MS);
            let verdict = history.judge();
            assert_eq!(verdict.violations.is_empty(), excused, "{at} {verdict:?}");
            assert_eq!(verdict.superseded_by_set_back == 1, excused, "{at} {verdict:?}");
        }
    }

    #[test]
    fn an_older_call_of_a_client_that_runs_later_is_found() {
        let calls = [call(0, 1, 10, ran(1, [100, 110])), call(0, 0, 5, ran(2, [200, 210]))];
        assert_found(&calls, None, "ran after a newer call");
        let calls = [call(0, 1, 10, ran(1, [100, 110])), call(1, 0, 5, ran(2, [200, 210]))];
        assert!(judged(&calls, None, None).violations.is_empty());
    }

    #[test]
    fn a_call_that_runs_although_it_was_covered_is_found_while_all_is_well() {
        let calls = [call(0, 0, 0, ran(1, [700, 710])), call(1, 0, 100, ran(2, [1700, 1710]))];
        assert_found(&calls, Some(0), "ran although");
        assert!(judged(&calls, None, None).violations.is_empty());
        // The store may not have known the call yet.
        let calls = [call(0, 0, 0, ran(1, [500, 510])), call(1, 0, 100, ran(2, [1500, 1510]))];
        assert!(judged(&calls, Some(0), None).violations.is_empty());
    }

    #[test]
    fn while_all_is_well_each_call_is_answered_in_time() {
        for (outcome, found) in [
            (Outcome::Waits, "no answer in time"),
            (ran(1, [3101, 3200]), "no answer in time"),
            (failed(150), "failed while all was well"),
        ] {
            assert_found(&[call(0, 0, 100, outcome.clone())], Some(100), found);
            let earlier = judged(&[call(0, 0, 99, outcome)], Some(100), None);
            assert!(earlier.violations.is_empty(), "{earlier:?}");
        }
    }
}
