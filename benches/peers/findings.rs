//! What was found, beside what was aimed at.

use crate::measure::Spread;

/// One line of the table.
pub(crate) struct Finding {
    /// What was measured.
    pub(crate) what: String,
    /// Whom it is compared with; a dash for what is counted only.
    pub(crate) against: String,
    pub(crate) ours: String,
    pub(crate) theirs: String,
    /// What the goal is about: a ratio, or a count.
    pub(crate) result: f64,
    /// The result as it is shown.
    pub(crate) shown: String,
    /// `None` where there is none: shown for comparison.
    pub(crate) goal: Option<Goal>,
}

/// What section of the design asks for.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// How many times the goal is reached: from one on it is.
    pub(crate) fn reached_by(self, result: f64) -> f64 {
        match self {
            Self::AtLeast(goal) => result / goal,
            // What is nothing at all is not infinitely good.
            Self::AtMost(goal) => goal / result.max(goal / 1000.0),
        }
    }

    pub(crate) fn shown(self, unit: &str) -> String {
        match self {
            Self::AtLeast(goal) => format!("≥ {}{unit}", figure(goal)),
            Self::AtMost(goal) => format!("≤ {}{unit}", figure(goal)),
        }
    }
}

impl Finding {
    /// A lead over a peer: how many times as much, as a spread of rounds.
    pub(crate) fn lead(
        what: impl Into<String>,
        against: impl Into<String>,
        (ours, theirs): (String, String),
        lead: Spread,
        goal: Option<f64>,
    ) -> Self {
        Self {
            what: what.into(),
            against: against.into(),
            ours,
            theirs,
            result: lead.median,
            shown: format!(
                "{} × ({}–{})",
                figure(lead.median),
                figure(lead.lowest),
                figure(lead.highest)
            ),
            goal: goal.map(Goal::AtLeast),
        }
    }

    /// A count with a bound.
    pub(crate) fn count(
        what: impl Into<String>,
        (against, theirs): (&str, String),
        result: f64,
        unit: &str,
        goal: Goal,
    ) -> Self {
        let shown = format!("{}{unit}", figure(result));
        Self {
            what: what.into(),
            against: against.to_owned(),
            ours: shown.clone(),
            theirs,
            result,
            shown,
            goal: Some(goal),
        }
    }

    pub(crate) fn is_met(&self) -> Option<bool> {
        self.goal.map(|goal| goal.reached_by(self.result) >= 1.0)
    }
}

/// Three digits that count, with a comma after each three.
pub(crate) fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}").trim_end_matches(".0").to_owned();
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A time, in the unit that suits it.
pub(crate) fn seconds(value: f64) -> String {
    if value < 1e-3 {
        format!("{} µs", figure(value * 1e6))
    } else if value < 1.0 {
        format!("{} ms", figure(value * 1e3))
    } else {
        format!("{} s", figure(value))
    }
}
