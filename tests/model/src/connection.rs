//! A client's connection: calls and their answers, which keep their order in both directions.

use std::{collections::VecDeque, time::Duration};

use lock_core::{
    Moment,
    engine::calls::{Answer, Call},
};

use crate::{Who, server::no_answer};

/// How long a call may take, as in the Redis store.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// How long this call may take: a renewal as long as the shortest lease that it asks for.
pub fn limit_of<C>(call: &Call<C>) -> Duration {
    let shortest = match call {
        Call::Renew(batch) => batch.requests.iter().map(|request| request.lease).min(),
        _ => None,
    };
    shortest.unwrap_or(CALL_LIMIT)
}

/// Calls on their way, and their answers on the way back.
#[derive(Clone, Default, Hash)]
#[expect(missing_debug_implementations, reason = "calls have none")]
pub struct Connection(VecDeque<Pending>);

/// A call, and its answer once the store has executed it.
#[derive(Clone, Hash)]
struct Pending {
    call: Call<Who>,
    /// Until when it is waited for.
    ends_at: Moment,
    answer: Option<Answer<Who>>,
    /// Its time is over, and nobody waits for the answer.
    abandoned: bool,
}

impl Connection {
    /// Sends a call.
    pub fn send(&mut self, call: Call<Who>, now: Moment) {
        let ends_at = now + limit_of(&call);
        self.0.push_back(Pending { call, ends_at, answer: None, abandoned: false });
    }

    /// Is nothing on its way?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many calls and answers are on their way.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What the store executes next.
    pub fn next_call(&self) -> Option<&Call<Who>> {
        self.0.iter().find(|pending| pending.answer.is_none()).map(|pending| &pending.call)
    }

    /// The store has executed it.
    pub fn answer(&mut self, answer: Answer<Who>) {
        if let Some(pending) = self.0.iter_mut().find(|pending| pending.answer.is_none()) {
            pending.answer = Some(answer);
        }
    }

    /// Is the answer to the oldest call there?
    pub fn has_answer(&self) -> bool {
        self.0.front().is_some_and(|pending| pending.answer.is_some())
    }

    /// Is it one that nobody waits for any more?
    pub fn has_late_answer(&self) -> bool {
        self.0.front().is_some_and(|pending| pending.abandoned && pending.answer.is_some())
    }

    /// Will nobody wait for the answer to the call that the store executes next, and that is the oldest?
    pub fn is_next_late(&self) -> bool {
        self.0.front().is_some_and(|pending| pending.abandoned && pending.answer.is_none())
    }

    /// The answer to the oldest call, if somebody waits for it; it is gone in any case.
    pub fn take_answer(&mut self) -> Option<Answer<Who>> {
        let pending = self.has_answer().then(|| self.0.pop_front())??;
        pending.answer.filter(|_| !pending.abandoned)
    }

    /// Until when the first call is waited for.
    pub fn next_end(&self) -> Moment {
        let awaited = self.0.iter().filter(|pending| !pending.abandoned);
        awaited.map(|pending| pending.ends_at).min().unwrap_or(Moment::NEVER)
    }

    /// What is said of a call whose time is over.
    pub fn take_overdue(&mut self, now: Moment) -> Option<Answer<Who>> {
        let overdue = |pending: &&mut Pending| !pending.abandoned && pending.ends_at <= now;
        let pending = self.0.iter_mut().find(overdue)?;
        pending.abandoned = true;
        Some(no_answer(&pending.call))
    }

    /// It breaks: what the store has not executed, and what is said of the calls that were waited for.
    pub fn cut(&mut self) -> (Vec<Call<Who>>, Vec<Answer<Who>>) {
        let calls = std::mem::take(&mut self.0);
        let awaited = calls.iter().filter(|pending| !pending.abandoned);
        let answers = awaited.map(|pending| no_answer(&pending.call)).collect();
        let left = calls.into_iter().filter(|pending| pending.answer.is_none());
        (left.map(|pending| pending.call).collect(), answers)
    }
}
