//! Results, with their goals.

use crate::measure::Spread;

/// One line of the table.
pub(crate) struct Finding {
    /// The quantity that was measured.
    pub(crate) what: String,
    /// The peer that it is compared with, or a dash for a figure without a peer.
    pub(crate) against: String,
    pub(crate) ours: String,
    pub(crate) theirs: String,
    /// The value that is compared with the goal: a ratio, or a count.
    pub(crate) result: f64,
    /// The result as it is shown.
    pub(crate) shown: String,
    /// `None` for a row that is only shown for comparison.
    pub(crate) goal: Option<Goal>,
}

/// A bound that the design sets.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// Returns the result as a multiple of the goal: from 1.0 on, the goal is met.
    pub(crate) fn reached_by(self, result: f64) -> f64 {
        match self {
            Self::AtLeast(goal) => result / goal,
            // A result of zero must not count as infinitely good.
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
    /// A lead over a peer: a ratio, as the spread of the rounds.
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

/// Formats a number with about three significant digits, and with commas between thousands.
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

/// Formats a time in the largest fitting unit.
pub(crate) fn seconds(value: f64) -> String {
    if value < 1e-3 {
        format!("{} µs", figure(value * 1e6))
    } else if value < 1.0 {
        format!("{} ms", figure(value * 1e3))
    } else {
        format!("{} s", figure(value))
    }
}
