//! The methods that every store has.

use std::{future::poll_fn, sync::Arc, task::Poll};

use futures_util::future::{join_all, join3};
use lock_core::contract::{
    AcquireRequest, Acquisition, IfHeld, ReleaseRequest, RenewRequest, Renewal,
};
use tokio::time::{Instant, sleep};

use super::{BREAK, LATE, LONG, SHORT, Suite, demand, each, granted, one};

pub(super) async fn check(suite: &Suite<'_>) {
    exclusion(suite).await;
    idempotence(suite).await;
    release(suite).await;
    fences(suite).await;
    leases(suite).await;
    renewal(suite).await;
    keep(suite).await;
    adoption(suite).await;
    batches(suite).await;
    order(suite).await;
}

async fn exclusion(suite: &Suite<'_>) {
    let (clause, key) = ("mutual exclusion", suite.key("exclusion"));
    suite.take(clause, &key, 1, LONG).await;
    let remaining = suite.is_held(clause, &key, 2).await;
    let wrong = format!("{remaining:?} remain of a lease of {LONG:?}");
    demand(remaining <= LONG && remaining + LATE * 10 > LONG, clause, wrong);
    let released = suite.release(clause, &key, 1).await;
    demand(released.ours, clause, format_args!("its holder was told {released:?}"));
    suite.take(clause, &key, 2, LONG).await;

    // All at once, on one key.
    let key = suite.key("crowd");
    let crowd = (1..=20).map(|number| suite.acquire(clause, &key, number, LONG, IfHeld::GiveUp));
    let answers = join_all(crowd).await;
    let winners = answers.iter().filter(|answer| matches!(answer, Acquisition::Granted { .. }));
    let winners = winners.count();
    demand(winners == 1, clause, format_args!("{winners} of 20 were granted a lock that was free"));
}

async fn idempotence(suite: &Suite<'_>) {
    let clause = "idempotent for one token";
    let key = suite.key("idempotence");
    suite.take(clause, &key, 1, LONG).await;
    suite.take(clause, &key, 1, LONG).await;
    suite.is_held(clause, &key, 2).await;
    for _ in 0..2 {
        let renewed = suite.renew(clause, &key, 1, LONG).await;
        demand(renewed, clause, "renewed twice, and told: not ours");
    }
    // Taken twice, it is held once.
    suite.release(clause, &key, 1).await;
    suite.take(clause, &key, 2, LONG).await;
    for _ in 0..2 {
        suite.release(clause, &key, 2).await;
    }
    suite.take(clause, &key, 3, LONG).await;
}

async fn fences(suite: &Suite<'_>) {
    let (clause, key) = ("fences grow", suite.key("fences"));
    let mut drawn = vec![("a first grant", suite.take(clause, &key, 1, LONG).await)];
    drawn.push(("the same again", suite.take(clause, &key, 1, LONG).await));
    suite.release(clause, &key, 1).await;
    let sent = Instant::now();
    drawn.push(("after a release", suite.take(clause, &key, 2, SHORT).await));
    let expired = suite.is_free_after("a lease runs out", &key, 3, (sent, SHORT)).await;
    drawn.push(("after the lease ran out", expired));
    let adopt = IfHeld::Adopt(suite.token(3));
    let adopted = granted(clause, suite.acquire(clause, &key, 4, LONG, adopt).await);
    drawn.push(("adopted", adopted));
    for pair in drawn.windows(2) {
        let [(_, before), (what, after)] = pair else { continue };
        demand(before < after, clause, format_args!("{what}: {after}, which follows {before}"));
    }
}

async fn leases(suite: &Suite<'_>) {
    let (clause, key) = ("a lease runs out", suite.key("leases"));
    let sent = Instant::now();
    suite.take(clause, &key, 1, SHORT).await;
    suite.is_free_after(clause, &key, 2, (sent, SHORT)).await;
    let late = suite.renew(clause, &key, 1, LONG).await;
    demand(!late, clause, "renewed by its previous holder");
    let late = suite.release(clause, &key, 1).await;
    demand(!late.ours, clause, format_args!("released by its previous holder: {late:?}"));
    suite.is_held(clause, &key, 3).await;
}

async fn renewal(suite: &Suite<'_>) {
    let (clause, key) = ("renew makes a lease longer", suite.key("renewed"));
    suite.take(clause, &key, 1, SHORT * 4).await;
    let renewed = suite.renew(clause, &key, 1, LONG).await;
    demand(renewed, clause, "its holder is told: not ours");
    sleep(SHORT * 5).await;
    suite.is_held(clause, &key, 2).await;

    let clause = "renew never shortens";
    let renewed = suite.renew(clause, &key, 1, SHORT).await;
    demand(renewed, clause, "its holder is told: not ours");
    sleep(SHORT * 2).await;
    suite.is_held(clause, &key, 2).await;

    let (clause, key) = ("renew never creates", suite.key("created"));
    let renewed = suite.renew(clause, &key, 1, LONG).await;
    demand(!renewed, clause, "a lock that nobody holds was renewed");
    suite.take(clause, &key, 2, LONG).await;

    let (clause, key) = ("renew by another token changes nothing", suite.key("foreign"));
    let sent = Instant::now();
    suite.take(clause, &key, 1, SHORT).await;
    let renewed = suite.renew(clause, &key, 2, LONG).await;
    demand(!renewed, clause, "that token was told that it holds the lock");
    suite.is_free_after(clause, &key, 3, (sent, SHORT)).await;
}

async fn release(suite: &Suite<'_>) {
    let clause = "release by another token changes nothing";
    let key = suite.key("release");
    suite.take(clause, &key, 1, LONG).await;
    let foreign = suite.release(clause, &key, 2).await;
    let wrong = format!("that token was told {foreign:?}");
    demand(!foreign.ours && !foreign.handed_over, clause, wrong);
    suite.is_held(clause, &key, 3).await;
    let kept = suite.renew(clause, &key, 1, LONG).await;
    demand(kept, clause, "the holder has lost its lock");
    suite.release(clause, &key, 1).await;
    let unheld = suite.release(clause, &key, 2).await;
    demand(!unheld.ours, clause, format_args!("a release of a free lock returned {unheld:?}"));
    // The same release again, as after a lost answer, while the next holder has the lock.
    suite.take(clause, &key, 3, LONG).await;
    let again = suite.release(clause, &key, 1).await;
    demand(!again.ours, clause, format_args!("a stale release returned {again:?}"));
    suite.is_held(clause, &key, 4).await;
}

async fn keep(suite: &Suite<'_>) {
    // Whatever the lease: only the time given with the release counts.
    for (name, lease) in [("kept longer", SHORT / 2), ("kept shorter", LONG)] {
        let (clause, key) = ("release with `keep`", suite.key(name));
        suite.take(clause, &key, 1, lease).await;
        let sent = Instant::now();
        let request = ReleaseRequest::new(Arc::clone(&key), suite.token(1)).keeping(SHORT);
        let released = one(clause, suite.store.release(&[request])).await;
        if lease < SHORT && !released.ours {
            // The machine stalled for longer than the lease.
            continue;
        }
        let wrong = format!("{name}: its holder was told {released:?}");
        demand(released.ours && !released.handed_over, clause, wrong);
        suite.is_free_after(clause, &key, 2, (sent, SHORT)).await;
    }
}

async fn adoption(suite: &Suite<'_>) {
    let (clause, key) = ("a lock is adopted once", suite.key("adoption"));
    let adopt = |number| IfHeld::Adopt(suite.token(number));
    suite.take(clause, &key, 1, LONG).await;
    granted(clause, suite.acquire(clause, &key, 2, LONG, adopt(1)).await);
    let before = suite.renew(clause, &key, 1, LONG).await;
    demand(!before, clause, "the token that it was adopted from still holds it");
    for number in [3, 1] {
        let second = suite.acquire(clause, &key, number, LONG, adopt(1)).await;
        let held = matches!(second, Acquisition::Held { ticket: None, .. });
        demand(held, clause, format_args!("adopted twice, from the same token: {second:?}"));
    }
    // As if the answer to the first request was lost.
    granted(clause, suite.acquire(clause, &key, 2, LONG, adopt(1)).await);

    let (clause, key) = ("a lock that is free is not adopted", suite.key("nothing to adopt"));
    let free = suite.acquire(clause, &key, 2, LONG, adopt(1)).await;
    demand(matches!(free, Acquisition::Held { .. }), clause, format_args!("{free:?}"));
    suite.take(clause, &key, 3, LONG).await;
}

async fn batches(suite: &Suite<'_>) {
    let clause = "answers in the order of the items";
    let keys: Vec<_> = (0..7).map(|number| suite.key(&format!("batch {number}"))).collect();
    // Of seven locks, another token holds the third and the fourth: no other order looks the same.
    let foreign = [2, 3];
    for index in foreign {
        suite.take(clause, &keys[index], 2, LONG).await;
    }
    let ours: Vec<_> = (0..7).map(|index| !foreign.contains(&index)).collect();
    let take = |key: &Arc<str>| AcquireRequest::new(Arc::clone(key), suite.token(1), LONG);
    let batch: Vec<_> = keys.iter().map(take).collect();
    let answers = each(clause, 7, suite.store.acquire(&batch)).await;
    let got: Vec<_> =
        answers.iter().map(|answer| matches!(answer, Acquisition::Granted { .. })).collect();
    demand(got == ours, clause, format_args!("acquire: {answers:?}"));
    let renew = |key: &Arc<str>| RenewRequest::new(Arc::clone(key), suite.token(1), LONG);
    let batch: Vec<_> = keys.iter().map(renew).collect();
    let answers = each(clause, 7, suite.store.renew(&batch)).await;
    let got: Vec<_> =
        answers.iter().map(|answer| matches!(answer, Renewal::Renewed { .. })).collect();
    demand(got == ours, clause, format_args!("renew: {answers:?}"));
    let release = |key: &Arc<str>| ReleaseRequest::new(Arc::clone(key), suite.token(1));
    let batch: Vec<_> = keys.iter().map(release).collect();
    let answers = each(clause, 7, suite.store.release(&batch)).await;
    let got: Vec<_> = answers.iter().map(|answer| answer.ours).collect();
    demand(got == ours, clause, format_args!("release: {answers:?}"));
    for index in foreign {
        suite.is_held(clause, &keys[index], 3).await;
    }

    let (clause, key) = ("each item of a batch is atomic", suite.key("twice"));
    let take = |number| AcquireRequest::new(Arc::clone(&key), suite.token(number), LONG);
    let answers = each(clause, 2, suite.store.acquire(&[take(1), take(2)])).await;
    let winners = answers.iter().filter(|answer| matches!(answer, Acquisition::Granted { .. }));
    let once = winners.count() == 1;
    demand(once, clause, format_args!("one lock for two tokens of a batch: {answers:?}"));
}

async fn order(suite: &Suite<'_>) {
    let clause = "in order for one key";
    for attempt in 0..10 {
        let key = suite.key(&format!("abandoned {attempt}"));
        let request = [AcquireRequest::new(Arc::clone(&key), suite.token(1), LONG)];
        let mut abandoned = suite.store.acquire(&request);
        poll_fn(|context| {
            let _ = abandoned.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
        drop(abandoned);
        suite.release(clause, &key, 1).await;
        sleep(BREAK).await;
        let next = suite.acquire(clause, &key, 2, LONG, IfHeld::GiveUp).await;
        let undone = matches!(next, Acquisition::Granted { .. });
        demand(undone, clause, "a release did not undo an abandoned acquire");

        let key = suite.key(&format!("joined {attempt}"));
        let (first, released, second) = join3(
            suite.acquire(clause, &key, 1, LONG, IfHeld::GiveUp),
            suite.release(clause, &key, 1),
            suite.acquire(clause, &key, 2, LONG, IfHeld::GiveUp),
        )
        .await;
        let [first, second] =
            [first, second].map(|answer| matches!(answer, Acquisition::Granted { .. }));
        let what = format!("taken: {first}, {released:?}, taken by the next: {second}");
        demand(first && released.ours && second, clause, what);
    }
}
