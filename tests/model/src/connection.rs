//! A client's connection: calls and their answers, in order in both directions.

use std::{collections::VecDeque, time::Duration};

use lock_core::{
    Moment,
    engine::calls::{Answer, Call},
};

use crate::{Who, server::no_answer};

/// How long a call may take, as in the Redis store.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// How long this call may take: for a renewal, the shortest lease that it asks for.
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
    /// When the wait for its answer ends.
    ends_at: Moment,
    answer: Option<Answer<Who>>,
    /// Its time is over: the engine has been told so, and its answer will be discarded.
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

    /// Adds the answer to the call that the store has just executed.
    pub fn answer(&mut self, answer: Answer<Who>) {
        if let Some(pending) = self.0.iter_mut().find(|pending| pending.answer.is_none()) {
            pending.answer = Some(answer);
        }
    }

    /// Has the oldest call been answered?
    pub fn has_answer(&self) -> bool {
        self.0.front().is_some_and(|pending| pending.answer.is_some())
    }

    /// Has the oldest call been answered after its time was over?
    pub fn has_late_answer(&self) -> bool {
        self.0.front().is_some_and(|pending| pending.abandoned && pending.answer.is_some())
    }

    /// Is the oldest call the one that the store executes next, and is its time already over?
    pub fn is_next_late(&self) -> bool {
        self.0.front().is_some_and(|pending| pending.abandoned && pending.answer.is_none())
    }

    /// Removes the answer to the oldest call. Returns it unless the call's time was over.
    pub fn take_answer(&mut self) -> Option<Answer<Who>> {
        let pending = self.has_answer().then(|| self.0.pop_front())??;
        pending.answer.filter(|_| !pending.abandoned)
    }

    /// When the first wait for an answer ends.
    pub fn next_end(&self) -> Moment {
        let awaited = self.0.iter().filter(|pending| !pending.abandoned);
        awaited.map(|pending| pending.ends_at).min().unwrap_or(Moment::NEVER)
    }

    /// The answer that stands in for a call whose time is over.
    pub fn take_overdue(&mut self, now: Moment) -> Option<Answer<Who>> {
        let overdue = |pending: &&mut Pending| !pending.abandoned && pending.ends_at <= now;
        let pending = self.0.iter_mut().find(overdue)?;
        pending.abandoned = true;
        Some(no_answer(&pending.call))
    }

    /// Breaks the connection. Returns the calls that the store has not executed, and the answers
    /// that stand in for those still awaited.
    pub fn cut(&mut self) -> (Vec<Call<Who>>, Vec<Answer<Who>>) {
        let calls = std::mem::take(&mut self.0);
        let awaited = calls.iter().filter(|pending| !pending.abandoned);
        let answers = awaited.map(|pending| no_answer(&pending.call)).collect();
        let left = calls.into_iter().filter(|pending| pending.answer.is_none());
        (left.map(|pending| pending.call).collect(), answers)
    }
}
