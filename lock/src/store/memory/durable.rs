//! Durable calls in memory: they are as durable as the store.

use std::sync::Arc;

use super::State;
use crate::{
    core::{
        Moment,
        durable::{Call, Claim, Ended, Finish, Retry},
    },
    limits::whole_millis,
    store::{DurableClaim, DurableFinish, DurableReply, DurableRequest, DurableStep, SetAside},
};

impl State {
    pub(super) fn durable(
        &mut self,
        request: &DurableRequest,
        micros: u64,
        now: Moment,
    ) -> DurableReply {
        let key = &request.book.due;
        let mut book = self.books.remove(key).unwrap_or_default();
        let millis = micros / 1000;
        let reply = match &request.step {
            DurableStep::Call { id, arguments, wait, max_wait, attempts, pause } => {
                let retry = Retry { attempts: *attempts, pause: *pause };
                let call = Call { arguments, wait: *wait, max_wait: *max_wait, retry };
                let (call, due_in) = book.call(id, &call, micros);
                DurableReply::Called { call, due_in }
            }
            DurableStep::Due { limit } => {
                let (ids, next) = book.due(*limit, millis);
                DurableReply::Due { ids, next }
            }
            DurableStep::Claim { id, run, token, lease } => {
                let running = self.held(run, now);
                let running = running.map(|lock| (lock.token == *token, lock.expiry.after(now)));
                let running = running.map(|(ours, left)| (ours, whole_millis(left)));
                DurableReply::Claimed(match book.claim(id, running, *lease, millis) {
                    Claim::Gone => DurableClaim::Gone,
                    Claim::NotYet(left) => DurableClaim::NotYet(left),
                    Claim::Running(left) => DurableClaim::Running(left),
                    Claim::Granted { call, attempt, arguments } => {
                        let fence = self.take(run, token, *lease, micros, now);
                        DurableClaim::Granted { fence, call, attempt, arguments }
                    }
                })
            }
            DurableStep::Finish { id, run, token, call, generation, error } => {
                let ours = self.held(run, now).is_some_and(|lock| lock.token == *token);
                let ended = Ended { call: *call, generation: *generation, error: error.as_deref() };
                let finish = book.finish(id, ours, &ended, millis);
                if ours {
                    self.locks.remove(run);
                }
                DurableReply::Finished(match finish {
                    Finish::Lost => DurableFinish::Lost,
                    Finish::Done => DurableFinish::Done,
                    Finish::Again => DurableFinish::Again,
                    Finish::Retry(pause) => DurableFinish::Retry(pause),
                    Finish::SetAside => DurableFinish::SetAside,
                })
            }
            DurableStep::Aside => {
                let aside = book.aside().map(|(id, aside)| SetAside {
                    id: id.clone(),
                    attempts: aside.attempts,
                    generation: aside.generation,
                    error: aside.error.clone(),
                    arguments: aside.arguments.clone(),
                });
                DurableReply::Aside(aside.collect())
            }
            DurableStep::TakeBack { id, again } => {
                DurableReply::Taken(book.take_back(id, *again, micros))
            }
        };
        if !book.is_empty() {
            self.books.insert(Arc::clone(key), book);
        }
        reply
    }
}
