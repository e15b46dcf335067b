//! Durable calls in memory: they are as durable as the store.

use std::sync::Arc;

use super::{
    Now, Subscriber, Table,
    book::{Book, Call, Claim, Ended, Retry},
};
use crate::{
    contract::{
        ClaimRequest, DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish,
        FinishRequest, KeepRequest, Kept, SetAside, TakeBackRequest, WaitingCalls,
    },
    limits::whole_millis,
};

/// The operations on durable calls.
impl<L: Subscriber> Table<L> {
    /// One step in a book. A function without calls has no book.
    fn step<T>(&mut self, book: &DurableBook, step: impl FnOnce(&mut Self, &mut Book) -> T) -> T {
        let mut known = self.books.remove(&book.due).unwrap_or_default();
        let answer = step(self, &mut known);
        if !known.is_empty() {
            self.books.insert(Arc::clone(&book.due), known);
        }
        answer
    }

    /// Keeps a call.
    pub fn keep(&mut self, request: &KeepRequest, at: Now) -> Kept {
        let KeepRequest { id, arguments, wait, max_wait, attempts, pause, .. } = request;
        let retry = Retry { attempts: *attempts, pause: *pause };
        let call = Call { arguments, wait: *wait, max_wait: *max_wait, retry };
        self.step(&request.book, |_, book| {
            let (call, due_in) = book.call(id, &call, at.micros);
            Kept::new(call, due_in)
        })
    }

    /// Returns the calls that are due.
    pub fn due(&mut self, request: &DueRequest, at: Now) -> DueCalls {
        self.step(&request.book, |_, book| {
            let (ids, next) = book.due(request.limit, at.micros / 1000);
            DueCalls::new(ids, next).of(book.kept())
        })
    }

    /// Returns the calls that wait.
    pub fn waiting(&mut self, request: &DueRequest, at: Now) -> WaitingCalls {
        self.step(&request.book, |_, book| {
            let (count, calls) = book.waiting(request.limit, at.micros / 1000);
            WaitingCalls::new(count, calls)
        })
    }

    /// Lets a call run, if it is due and no other run of its id is in progress.
    pub fn claim(&mut self, request: &ClaimRequest, at: Now) -> DurableClaim {
        let ClaimRequest { id, run, token, lease, .. } = request;
        let Now { moment: now, micros } = at;
        self.step(&request.book, |table, book| {
            let running = table.held(run, now);
            let running = running.map(|lock| (lock.token == *token, lock.expiry.after(now)));
            let running = running.map(|(ours, left)| (ours, whole_millis(left)));
            match book.claim(id, running, *lease, micros / 1000) {
                Claim::Gone => DurableClaim::Gone,
                Claim::NotYet(left) => DurableClaim::NotYet(left),
                Claim::Running(left) => DurableClaim::Running(left),
                Claim::Granted { call, attempt, arguments } => {
                    let fence = table.take(run, token, *lease, at);
                    DurableClaim::granted(fence, call, attempt, arguments)
                }
            }
        })
    }

    /// Ends a run, and frees its lock.
    pub fn finish(&mut self, request: &FinishRequest, at: Now) -> DurableFinish {
        let FinishRequest { id, run, token, call, generation, error, .. } = request;
        self.step(&request.book, |table, book| {
            let ours = table.held(run, at.moment).is_some_and(|lock| lock.token == *token);
            let ended = Ended { call: *call, generation: *generation, error: error.as_deref() };
            let finish = book.finish(id, ours, &ended, at.micros / 1000);
            if ours {
                table.locks.remove(run);
            }
            finish
        })
    }

    /// Returns the calls that have failed for good.
    pub fn set_aside(&mut self, book: &DurableBook, _: Now) -> Vec<SetAside> {
        self.step(book, |_, book| book.aside().cloned().collect())
    }

    /// Takes back one of the calls that have failed for good.
    pub fn take_back(&mut self, request: &TakeBackRequest, at: Now) -> bool {
        let TakeBackRequest { id, again, .. } = request;
        self.step(&request.book, |_, book| book.take_back(id, *again, at.micros))
    }
}
