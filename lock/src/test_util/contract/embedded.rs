//! What an embedded store does at once.

use std::sync::Arc;

use lock_core::contract::{
    AcquireRequest, IfHeld, ReleaseRequest, RenewRequest, Renewal, StoreError,
};

use super::{LONG, Suite, broken, demand, granted};

/// The answer that was appended, if the item was done; if not, nothing may have been appended.
fn at_once<T: Clone>(
    clause: &str,
    call: impl FnOnce(&mut Vec<Result<T, StoreError>>) -> bool,
) -> Option<T> {
    let mut answers = vec![Err(StoreError::unsupported("what was there before"))];
    let done = call(&mut answers);
    let (appended, expected) = (answers.len().saturating_sub(1), usize::from(done));
    let untouched = matches!(answers.first(), Some(Err(StoreError::Unsupported(_))));
    let what = format!("one item, done: {done}, and {appended} answers were appended");
    demand(appended == expected && untouched, clause, what);
    let answer = answers.pop().filter(|_| done)?;
    Some(answer.unwrap_or_else(|error| broken(clause, error)))
}

pub(super) async fn check(suite: &Suite<'_>) {
    let clause = "embedded: done at once, or not at all";
    let Some(store) = suite.store.embedded() else { broken(clause, "the store does not offer it") };
    let key = suite.key("embedded");
    let take = [AcquireRequest::new(Arc::clone(&key), suite.token(1), LONG)];
    match at_once(clause, |answers| store.acquire_now(&take, answers)) {
        Some(answer) => {
            granted(clause, answer);
            suite.is_held(clause, &key, 2).await;
        }
        None => {
            suite.take(clause, &key, 2, LONG).await;
            suite.release(clause, &key, 2).await;
            suite.take(clause, &key, 1, LONG).await;
        }
    }
    let renew = [RenewRequest::new(Arc::clone(&key), suite.token(1), LONG * 2)];
    let answer = at_once(clause, |answers| store.renew_now(&renew, answers));
    let renewed = answer.is_none_or(|answer| matches!(answer, Renewal::Renewed { .. }));
    demand(renewed, clause, format_args!("`renew_now` by the holder: {answer:?}"));
    let done = answer.is_some();
    let remaining = suite.is_held(clause, &key, 2).await;
    demand((remaining > LONG) == done, clause, format_args!("`renew_now`: {remaining:?} remain"));

    let release = [ReleaseRequest::new(Arc::clone(&key), suite.token(1))];
    let answer = at_once(clause, |answers| store.release_now(&release, answers));
    let released = answer.is_none_or(|answer| answer.ours);
    demand(released, clause, format_args!("`release_now` by the holder: {answer:?}"));
    let next = suite.acquire(clause, &key, 2, LONG, IfHeld::GiveUp).await;
    let free = matches!(next, crate::store::Acquisition::Granted { .. });
    demand(free == answer.is_some(), clause, format_args!("`release_now`: then {next:?}"));
}
