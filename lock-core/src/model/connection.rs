//! A client's connection: requests and their replies, which keep their order in both directions.

use std::{collections::VecDeque, time::Duration};

use crate::Moment;

/// Requests on their way, and their replies on the way back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Connection<Q, R>(VecDeque<Call<Q, R>>);

/// A request, and its reply once the store has executed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Call<Q, R> {
    request: Q,
    sent_at: Moment,
    /// Until when it is waited for.
    ends_at: Moment,
    reply: Option<R>,
    /// Its time is over, and nobody waits for the reply.
    abandoned: bool,
}

/// A request, when it was sent, and its reply, if there is one.
pub(super) type Answered<Q, R> = (Q, Moment, Option<R>);

impl<Q: Clone, R: Clone> Connection<Q, R> {
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn send(&mut self, request: Q, now: Moment, limit: Duration) {
        let ends_at = now + limit;
        let call = Call { request, sent_at: now, ends_at, reply: None, abandoned: false };
        self.0.push_back(call);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the store executes next.
    pub(super) fn next_request(&self) -> Option<&Q> {
        self.0.iter().find(|call| call.reply.is_none()).map(|call| &call.request)
    }

    /// The store has executed it.
    pub(super) fn reply(&mut self, reply: R) {
        if let Some(call) = self.0.iter_mut().find(|call| call.reply.is_none()) {
            call.reply = Some(reply);
        }
    }

    pub(super) fn has_reply(&self) -> bool {
        self.0.front().is_some_and(|call| call.reply.is_some())
    }

    /// Is there a reply that nobody waits for any more?
    pub(super) fn has_late_reply(&self) -> bool {
        self.0.front().is_some_and(|call| call.abandoned && call.reply.is_some())
    }

    /// The oldest reply, if somebody waits for it; it is gone in any case.
    pub(super) fn take_reply(&mut self) -> Option<Answered<Q, R>> {
        let call = self.has_reply().then(|| self.0.pop_front())??;
        (!call.abandoned).then_some((call.request, call.sent_at, call.reply))
    }

    /// When the first call is waited for no more.
    pub(super) fn next_end(&self) -> Moment {
        let awaited = self.0.iter().filter(|call| !call.abandoned);
        awaited.map(|call| call.ends_at).min().unwrap_or(Moment::NEVER)
    }

    /// A call whose time is over.
    pub(super) fn take_overdue(&mut self, now: Moment) -> Option<Answered<Q, R>> {
        let overdue = |call: &&mut Call<Q, R>| !call.abandoned && call.ends_at <= now;
        let call = self.0.iter_mut().find(overdue)?;
        call.abandoned = true;
        Some((call.request.clone(), call.sent_at, None))
    }

    /// It breaks: what the store has not executed, and what has no answer now.
    pub(super) fn cut(&mut self) -> (Vec<Q>, Vec<Answered<Q, R>>) {
        let calls = std::mem::take(&mut self.0);
        let left = calls.iter().filter(|call| call.reply.is_none());
        let left = left.map(|call| call.request.clone()).collect();
        let unanswered = calls.into_iter().filter(|call| !call.abandoned);
        (left, unanswered.map(|call| (call.request, call.sent_at, None)).collect())
    }
}
