//! A server: the reference table, and its answers to the calls of an engine.

use lock_core::{
    contract::StoreError,
    engine::calls::{Answer, Batch, Call},
    table::{Now, Subscriber, Table},
};

/// Executes all of a call, and returns the answer.
pub fn answer<C: Clone, L: Subscriber>(table: &mut Table<L>, call: &Call<C>, at: Now) -> Answer<C> {
    /// The answers to one batch, in the order of its requests.
    fn each<Q, T: Clone, A, C, L: Subscriber>(
        (table, at): (&mut Table<L>, Now),
        batch: &Batch<Q, T>,
        operation: impl Fn(&mut Table<L>, &Q, Now) -> A,
        answer: impl Fn(lock_core::engine::calls::Sent<T>, Vec<Result<A, StoreError>>) -> Answer<C>,
    ) -> Answer<C> {
        let answers = batch.requests.iter().map(|request| Ok(operation(table, request, at)));
        let answers = answers.collect();
        answer(batch.sent.clone(), answers)
    }
    let on = (table, at);
    match call {
        Call::Acquire(batch) => each(on, batch, Table::acquire, Answer::Acquired),
        Call::Renew(batch) => each(on, batch, Table::renew, Answer::Renewed),
        Call::Release(batch) => each(on, batch, Table::release, Answer::Released),
        Call::Extend(batch) => each(on, batch, Table::extend, Answer::Extended),
        Call::Holder(batch) => each(on, batch, Table::holder, Answer::Holder),
        Call::Client(batch) => each(on, batch, Table::client, Answer::Client),
        Call::Scan(batch) => each(on, batch, Table::scan, Answer::Scanned),
        Call::ForceRelease(batch) => each(on, batch, Table::force_release, Answer::ForceReleased),
        Call::Introduce(batch) => each(on, batch, Table::introduce, Answer::Introduced),
        Call::DueIn(batch) => each(on, batch, Table::due_in, Answer::DueIn),
        Call::Register(batch) => each(on, batch, Table::register, Answer::Registered),
        Call::EndWindow(batch) => each(on, batch, Table::end_window, Answer::WindowEnded),
        Call::Claim(batch) => each(on, batch, Table::claim, Answer::Claimed),
        Call::Keep(batch) => each(on, batch, Table::keep, Answer::Kept),
        Call::Due(batch) => each(on, batch, Table::due, Answer::Due),
        Call::Waiting(batch) => each(on, batch, Table::waiting, Answer::Waiting),
        Call::Finish(batch) => each(on, batch, Table::finish, Answer::Finished),
        Call::SetAside(batch) => each(on, batch, Table::set_aside, Answer::SetAside),
        Call::TakeBack(batch) => each(on, batch, Table::take_back, Answer::TakenBack),
    }
}

/// What an engine is told about a call without an answer: it may have been executed, or not.
pub fn no_answer<C: Clone>(call: &Call<C>) -> Answer<C> {
    fn silence<Q, A>(requests: &[Q]) -> Vec<Result<A, StoreError>> {
        requests.iter().map(|_| Err(StoreError::unavailable("no answer"))).collect()
    }
    match call {
        Call::Acquire(batch) => Answer::Acquired(batch.sent.clone(), silence(&batch.requests)),
        Call::Renew(batch) => Answer::Renewed(batch.sent.clone(), silence(&batch.requests)),
        Call::Release(batch) => Answer::Released(batch.sent.clone(), silence(&batch.requests)),
        Call::Extend(batch) => Answer::Extended(batch.sent.clone(), silence(&batch.requests)),
        Call::Holder(batch) => Answer::Holder(batch.sent.clone(), silence(&batch.requests)),
        Call::Client(batch) => Answer::Client(batch.sent.clone(), silence(&batch.requests)),
        Call::Scan(batch) => Answer::Scanned(batch.sent.clone(), silence(&batch.requests)),
        Call::Introduce(batch) => Answer::Introduced(batch.sent.clone(), silence(&batch.requests)),
        Call::DueIn(batch) => Answer::DueIn(batch.sent.clone(), silence(&batch.requests)),
        Call::Waiting(batch) => Answer::Waiting(batch.sent.clone(), silence(&batch.requests)),
        Call::ForceRelease(batch) => {
            Answer::ForceReleased(batch.sent.clone(), silence(&batch.requests))
        }
        Call::Register(batch) => Answer::Registered(batch.sent.clone(), silence(&batch.requests)),
        Call::EndWindow(batch) => Answer::WindowEnded(batch.sent.clone(), silence(&batch.requests)),
        Call::Claim(batch) => Answer::Claimed(batch.sent.clone(), silence(&batch.requests)),
        Call::Keep(batch) => Answer::Kept(batch.sent.clone(), silence(&batch.requests)),
        Call::Due(batch) => Answer::Due(batch.sent.clone(), silence(&batch.requests)),
        Call::Finish(batch) => Answer::Finished(batch.sent.clone(), silence(&batch.requests)),
        Call::SetAside(batch) => Answer::SetAside(batch.sent.clone(), silence(&batch.requests)),
        Call::TakeBack(batch) => Answer::TakenBack(batch.sent.clone(), silence(&batch.requests)),
    }
}
