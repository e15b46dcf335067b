//! What operators ask for.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use lock_core::contract::{
    ClientRecord, ExtendRequest, ForceReleaseRequest, Holder, IfHeld, IntroduceRequest, ScanFor,
    ScanRequest, StoreError,
};
use tokio::time::sleep;

use super::{LATE, LONG, Report, SHORT, Suite, broken, demand, queue, try_each};
use crate::store::{AdminStore, Answers};

pub(super) async fn check(suite: &Suite<'_>) -> Report {
    let Some(store) = suite.store.admin() else { broken("admin", "the store does not offer it") };
    let mut report = Report::default();
    report.note("admin: holder", holder(suite, store).await);
    report.note("admin: extend", extend(suite, store).await);
    report.note("admin: force_release", force_release(suite, store).await);
    report.note("admin: introduce, client", records(suite, store).await);
    report.note("admin: scan", scan(suite, store).await);
    report
}

/// `None` if the store does not support the method.
pub(super) async fn supported<T>(
    clause: &str,
    items: usize,
    answers: Answers<'_, T>,
) -> Option<Vec<T>> {
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
    let what = format!("{LONG:?} by {LONG:?}, for another token, the holder, nobody: {answers:?}");
    demand(right, clause, what);
    let remaining = suite.is_held(clause, &key, 3).await;
    demand(added(remaining), clause, format_args!("{remaining:?} remain afterwards"));
    suite.take("extend never creates", &free, 2, LONG).await;
    true
}

async fn force_release(suite: &Suite<'_>, store: &dyn AdminStore) -> bool {
    let (clause, key) = ("force_release takes the lock away", suite.key("force"));
    suite.take(clause, &key, 1, LONG).await;
    let by_force = |key: &Arc<str>| ForceReleaseRequest::new(Arc::clone(key));
    let forced = [by_force(&suite.key("force, free")), by_force(&key)];
    let answers = supported(clause, 2, store.force_release(&forced)).await;
    let Some(answers) = answers else { return false };
    let ours: Vec<_> = answers.iter().map(|answer| answer.ours).collect();
    demand(ours == [false, true], clause, format_args!("one was free, one held: {answers:?}"));
    let kept = suite.renew(clause, &key, 1, LONG).await;
    demand(!kept, clause, "its holder still has it");
    suite.take(clause, &key, 2, LONG).await;

    let clause = "force_release leaves the lock of another holder alone";
    let only_from = |number| [by_force(&key).only_from(Some(suite.token(number)))];
    let answers = supported(clause, 1, store.force_release(&only_from(1))).await;
    let ours = answers.is_some_and(|answers| answers[0].ours);
    demand(!ours, clause, "the answer says that the previous token held it");
    suite.is_held(clause, &key, 3).await;
    let answers = supported(clause, 1, store.force_release(&only_from(2))).await;
    demand(answers.is_some_and(|answers| answers[0].ours), clause, "the named holder kept it");
    suite.take(clause, &key, 2, LONG).await;

    let clause = "force_release hands over";
    if queue::is_offered(suite.store).await {
        suite.acquire(clause, &key, 3, LONG, IfHeld::Wait).await;
        let answers = supported(clause, 1, store.force_release(&forced[1..])).await;
        let given = answers.is_some_and(|answers| answers[0].ours && answers[0].handed_over);
        demand(given, clause, "one waits, and was not given the lock");
        suite.take(clause, &key, 3, LONG).await;
    }
    true
}

async fn records(suite: &Suite<'_>, store: &dyn AdminStore) -> bool {
    let clause = "a record is kept, and replaced by the next one";
    let key = suite.own_key("client", "a client");
    let record = ClientRecord::unknown().name(Some("one".into())).version(Some("1.2".into()));
    let first = IntroduceRequest::new(Arc::clone(&key), record, LONG);
    if supported(clause, 1, store.introduce(&[first])).await.is_none() {
        return false;
    }
    let host = Some("a host".to_owned());
    let record = ClientRecord::unknown().name(Some("other \n {}".into())).process(host, Some(7));
    let second = IntroduceRequest::new(Arc::clone(&key), record.clone(), LONG);
    supported(clause, 1, store.introduce(&[second])).await;
    let keys = [suite.own_key("client", "nobody"), Arc::clone(&key)];
    let kept = supported(clause, 2, store.client(&keys)).await.unwrap_or_default();
    demand(kept == [None, Some(record.clone())], clause, format_args!("{kept:?}"));

    let clause = "a record expires";
    let short = IntroduceRequest::new(Arc::clone(&key), record, SHORT);
    supported(clause, 1, store.introduce(&[short])).await;
    sleep(SHORT + LATE).await;
    let kept = supported(clause, 1, store.client(&keys[1..])).await.unwrap_or_default();
    demand(kept == [None], clause, format_args!("{kept:?} after {:?}", SHORT + LATE));
    true
}

async fn scan(suite: &Suite<'_>, store: &dyn AdminStore) -> bool {
    let clause = "scan has each lock that is held, and nothing else";
    // Characters of patterns, and of the library's own keys.
    let ids = ["scan*1", "scan[2]", "scan?3", "scan\\4", "scan~run:5"].map(|name| suite.key(name));
    for id in &ids {
        suite.take(clause, id, 1, LONG).await;
    }
    suite.take(clause, &suite.own_key("run", "scan"), 1, LONG).await;
    suite.take(clause, &suite.key("another"), 1, LONG).await;
    let Some(found) = all_pages(clause, store, &suite.key("scan")).await else { return false };
    demand(found == ids.iter().cloned().collect(), clause, format_args!("{found:?}"));
    let one = all_pages(clause, store, &suite.key("scan*")).await.unwrap_or_default();
    demand(one == [Arc::clone(&ids[0])].into(), clause, format_args!("one matches: {one:?}"));
    for id in &ids {
        suite.release(clause, id, 1).await;
    }
    let none = all_pages(clause, store, &suite.key("scan")).await.unwrap_or_default();
    demand(none.is_empty(), clause, format_args!("all were released: {none:?}"));
    true
}

/// The locks whose keys begin with this.
async fn all_pages(
    clause: &str,
    store: &dyn AdminStore,
    beginning: &Arc<str>,
) -> Option<BTreeSet<Arc<str>>> {
    let first = ScanRequest::new(ScanFor::HeldLocks, "", 10).ids(Arc::clone(beginning));
    let (mut found, mut next) = (BTreeSet::new(), Some(first.clone()));
    while let Some(request) = next {
        let page = supported(clause, 1, store.scan(&[request])).await?.remove(0);
        found.extend(page.ids);
        next = page.next.map(|cursor| first.clone().after(Some(cursor)));
    }
    Some(found)
}
