//! The library's answers, as an instance shows them.

use serde::Serialize;

use crate::instance::Instance;

/// How many answers are kept for the page.
const ANSWERS: usize = 30;

/// A call, the library's answer in its own words, and what the answer means.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Answer {
    pub(crate) about: About,
    pub(crate) number: u64,
    pub(crate) call: String,
    pub(crate) answer: String,
    pub(crate) meaning: String,
    pub(crate) good: bool,
}

/// Where on the page an answer belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum About {
    Lock,
    Ledger,
    Debounce,
}

impl Instance {
    /// Shows an answer about a lock.
    pub(crate) fn answer(&self, call: &str, answer: &str, meaning: &str, good: bool) {
        self.answer_about(About::Lock, call, answer, meaning, good);
    }

    /// Shows an answer in the place that `about` names.
    pub(crate) fn answer_about(
        &self,
        about: About,
        call: &str,
        answer: &str,
        meaning: &str,
        good: bool,
    ) {
        let mut state = self.state();
        state.numbered += 1;
        let answer = Answer {
            about,
            number: state.numbered,
            call: call.to_owned(),
            answer: state.unmask(answer),
            meaning: meaning.to_owned(),
            good,
        };
        state.answers.push_back(answer);
        if state.answers.len() > ANSWERS {
            state.answers.pop_front();
        }
        drop(state);
        if let Some(process) = self.process.upgrade() {
            process.journal.touch();
        }
    }
}
