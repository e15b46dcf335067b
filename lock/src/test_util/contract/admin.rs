//! What an operator asks for.

use std::{sync::Arc, time::Duration};

use lock_core::contract::{ExtendRequest, Holder, IfHeld, StoreError};

use super::{LONG, Report, Suite, broken, demand, queue, try_each};
use crate::store::{AdminStore, Answers};

pub(super) async fn check(suite: &Suite<'_>) -> Report {
    let Some(store) = suite.store.admin() else { broken("admin", "the store does not offer it") };
    let mut report = Report::default();
    report.note("admin: holder", holder(suite, store).await);
    report.note("admin: extend", extend(suite, store).await);
    report.note("admin: force_release", force_release(suite, store).await);
    report
}

/// `None` if the store does not support the method.
async fn supported<T>(clause: &str, items: usize, answers: Answers<'_, T>) -> Option<Vec<T>> {
    let answers = try_each(clause, items, answers).await.into_iter();
    let supported = |answer| match answer {
        Err(StoreError::Unsupported(_)) => None,
        Err(error) => broken(clause, error),
        Ok(answer) => Some(answer),
    };
    answers.map(supported).collect()
}

async fn holder(suite: &Suite<'_>, store: &dyn AdminStore) -> bool {
    let clause = "holder says who holds a lock";
    let (held, free) = (suite.key("held"), suite.key("free"));
    suite.take(clause, &held, 1, LONG).await;
    let keys = [Arc::clone(&free), Arc::clone(&held)];
    let answers = supported(clause, 2, store.holder(&keys)).await;
    let Some(answers) = answers else { return false };
    let [None, Some(Holder { token, remaining, waiters, .. })] = &answers[..] else {
        broken(clause, format_args!("one lock is free and one is held: {answers:?}"))
    };
    let limited = remaining.is_some_and(|left| left <= LONG && left > LONG / 2);
    let right = *token == suite.token(1) && limited && *waiters == 0;
    demand(right, clause, format_args!("{answers:?}"));

    let clause = "holder says how many wait";
    if queue::is_offered(suite.store).await {
        suite.acquire(clause, &held, 2, LONG, IfHeld::Wait).await;
        let answers = supported(clause, 2, store.holder(&keys)).await.unwrap_or_default();
        let waiters = answers.iter().flatten().map(|holder| holder.waiters).sum::<usize>();
        demand(waiters == 1, clause, format_args!("one waits: {answers:?}"));
    }
    true
}

async fn extend(suite: &Suite<'_>, store: &dyn AdminStore) -> bool {
    let (clause, key) = ("extend adds to what remains", suite.key("extend"));
    suite.take(clause, &key, 1, LONG).await;
    let by =
        |key: &Arc<str>, number| ExtendRequest::new(Arc::clone(key), suite.token(number), LONG);
    let free = suite.key("extended, free");
    let batch = [by(&key, 2), by(&key, 1), by(&free, 1)];
    let answers = supported(clause, 3, store.extend(&batch)).await;
    let Some(answers) = answers else { return false };
    let added = |left: Duration| left <= LONG * 2 && left > LONG * 3 / 2;
    let right = matches!(answers[..], [None, Some(left), None] if added(left));
    let what = format!("{LONG:?} by {LONG:?}, for another token, its own, nobody: {answers:?}");
    demand(right, clause, what);
    let remaining = suite.is_held(clause, &key, 3).await;
    demand(added(remaining), clause, format_args!("{remaining:?} remain afterwards"));
    suite.take("extend never creates", &free, 2, LONG).await;
    true
}

async fn force_release(suite: &Suite<'_>, store: &dyn AdminStore) -> bool {
    let (clause, key) = ("force_release takes the lock away", suite.key("force"));
    suite.take(clause, &key, 1, LONG).await;
    let keys = [suite.key("force, free"), Arc::clone(&key)];
    let answers = supported(clause, 2, store.force_release(&keys)).await;
    let Some(answers) = answers else { return false };
    let ours: Vec<_> = answers.iter().map(|answer| answer.ours).collect();
    demand(ours == [false, true], clause, format_args!("one was free, one held: {answers:?}"));
    let kept = suite.renew(clause, &key, 1, LONG).await;
    demand(!kept, clause, "its holder has it still");
    suite.take(clause, &key, 2, LONG).await;

    let clause = "force_release hands over";
    if queue::is_offered(suite.store).await {
        suite.acquire(clause, &key, 3, LONG, IfHeld::Wait).await;
        let answers = supported(clause, 1, store.force_release(&keys[1..])).await;
        let given = answers.is_some_and(|answers| answers[0].ours && answers[0].handed_over);
        demand(given, clause, "one waits, and was not given the lock");
        suite.take(clause, &key, 3, LONG).await;
    }
    true
}
