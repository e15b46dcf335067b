//! The queue of a lock.

use std::{sync::Arc, time::Duration};

use lock_core::contract::{ALIVE_POLLING, Acquisition, IfHeld, RESERVATION, ReleaseRequest};
use tokio::time::{Instant, sleep};

use super::{LATE, LONG, SHORT, Suite, demand, granted, one};
use crate::store::Store;

pub(super) async fn is_offered(store: &dyn Store) -> bool {
    let (clause, suite) = ("is there a queue", Suite::new(store));
    let key = suite.key("is there a queue");
    suite.take(clause, &key, 1, SHORT).await;
    let answer = suite.acquire(clause, &key, 2, SHORT, IfHeld::Wait).await;
    suite.release(clause, &key, 2).await;
    matches!(answer, Acquisition::Held { ticket: Some(_), .. })
}

pub(super) async fn check(suite: &Suite<'_>) {
    tickets(suite).await;
    hand_over(suite).await;
    reservation(suite).await;
    after_expiry(suite).await;
    kept(suite).await;
    dead(suite).await;
}

/// Token 1 holds the lock, and the tokens from 2 on wait; returns their tickets.
async fn line(suite: &Suite<'_>, clause: &str, key: &Arc<str>, waiters: u64) -> Vec<u64> {
    suite.take(clause, key, 1, LONG).await;
    let mut tickets = Vec::new();
    for number in 2..2 + waiters {
        tickets.push(wait(suite, clause, key, number, IfHeld::Wait).await);
    }
    tickets
}

async fn wait(suite: &Suite<'_>, clause: &str, key: &Arc<str>, number: u64, how: IfHeld) -> u64 {
    let answer = suite.acquire(clause, key, number, LONG, how).await;
    let Acquisition::Held { ticket, .. } = answer else {
        super::broken(clause, format_args!("a waiter was served out of turn: {answer:?}"))
    };
    let no_queue = format!("a waiter without a ticket: {answer:?}");
    ticket.unwrap_or_else(|| super::broken(clause, no_queue))
}

async fn is_next(suite: &Suite<'_>, clause: &str, key: &Arc<str>, number: u64, ticket: u64) {
    let how = IfHeld::KeepWaiting(Some(ticket));
    granted(clause, suite.acquire(clause, key, number, LONG, how).await);
}

async fn tickets(suite: &Suite<'_>) {
    let (clause, key) = ("queue: tickets grow", suite.key("tickets"));
    let tickets = line(suite, clause, &key, 3).await;
    let grow = tickets.is_sorted_by(|before, after| before < after);
    demand(grow, clause, format_args!("{tickets:?}"));

    let clause = "queue: a waiter keeps its ticket";
    let first = Some(tickets[0]);
    for how in [IfHeld::Wait, IfHeld::KeepWaiting(first), IfHeld::KeepWaiting(None)] {
        let what = format!("{how:?}");
        let ticket = wait(suite, clause, &key, 2, how).await;
        demand(Some(ticket) == first, clause, format_args!("{ticket} for {what}, not {first:?}"));
    }
}

async fn hand_over(suite: &Suite<'_>) {
    let (clause, key) = ("queue: handed over to the first", suite.key("hand over"));
    let tickets = line(suite, clause, &key, 3).await;
    let released = suite.release(clause, &key, 1).await;
    let given = released.ours && released.handed_over;
    demand(given, clause, format_args!("three wait; the release returned {released:?}"));
    let reserved = suite.is_held(clause, &key, 9).await;
    let window = format!("reserved for {reserved:?}, not for {RESERVATION:?}");
    demand(reserved <= RESERVATION, clause, window);
    let again = suite.release(clause, &key, 1).await;
    demand(!again.ours, clause, format_args!("the same release again: {again:?}"));
    wait(suite, clause, &key, 3, IfHeld::KeepWaiting(Some(tickets[1]))).await;
    is_next(suite, clause, &key, 2, tickets[0]).await;

    let clause = "queue: a release leaves it";
    let left = suite.release(clause, &key, 3).await;
    demand(!left.ours, clause, format_args!("a waiter that leaves: {left:?}"));
    suite.release(clause, &key, 2).await;
    is_next(suite, clause, &key, 4, tickets[2]).await;
    let last = suite.release(clause, &key, 4).await;
    demand(last.ours && !last.handed_over, clause, format_args!("nobody waits: {last:?}"));
    suite.take(clause, &key, 5, LONG).await;
}

async fn reservation(suite: &Suite<'_>) {
    let clause = "queue: a reservation passes on";
    // By the next waiter that asks, and by a release, which anybody may send again.
    for by_release in [false, true] {
        let key = suite.key(&format!("reservation {by_release}"));
        let tickets = line(suite, clause, &key, 2).await;
        suite.release(clause, &key, 1).await;
        // It is still alive when the other waiter's turn is over.
        sleep(RESERVATION / 2).await;
        let second = IfHeld::KeepWaiting(Some(tickets[1]));
        let early = suite.acquire(clause, &key, 3, LONG, second).await;
        let reserved = matches!(early, Acquisition::Held { .. });
        demand(reserved, clause, format_args!("before its time: {early:?}"));
        sleep(RESERVATION / 2 + SHORT).await;
        if by_release {
            let passed = suite.release(clause, &key, 1).await;
            let given = !passed.ours && passed.handed_over;
            demand(given, clause, format_args!("the same release again: {passed:?}"));
            suite.is_held(clause, &key, 9).await;
        }
        is_next(suite, clause, &key, 3, tickets[1]).await;
    }
}

async fn after_expiry(suite: &Suite<'_>) {
    let clause = "queue: after an expiry, the first in line is next";
    let key = suite.key("expiry");
    suite.take(clause, &key, 1, SHORT).await;
    let mut tickets = Vec::new();
    for number in [2, 3] {
        match suite.acquire(clause, &key, number, LONG, IfHeld::Wait).await {
            Acquisition::Held { ticket: Some(ticket), .. } => tickets.push(ticket),
            // The machine stalled for longer than the lease.
            _ => return,
        }
    }
    sleep(SHORT + LATE / 4).await;
    wait(suite, clause, &key, 3, IfHeld::KeepWaiting(Some(tickets[1]))).await;
    is_next(suite, clause, &key, 2, tickets[0]).await;
}

async fn kept(suite: &Suite<'_>) {
    let (clause, key) = ("queue: a lock that is kept is not handed over", suite.key("kept"));
    let tickets = line(suite, clause, &key, 1).await;
    let sent = Instant::now();
    let request = ReleaseRequest::new(Arc::clone(&key), suite.token(1)).keeping(SHORT);
    let released = one(clause, suite.store.release(&[request])).await;
    let kept = released.ours && !released.handed_over;
    demand(kept, clause, format_args!("{released:?}"));
    let how = || IfHeld::KeepWaiting(Some(tickets[0]));
    let early = suite.acquire(clause, &key, 2, LONG, how()).await;
    let waits = matches!(early, Acquisition::Held { .. }) || sent.elapsed() >= SHORT;
    demand(waits, clause, format_args!("before its time: {early:?}"));
    sleep(SHORT + LATE / 4).await;
    granted(clause, suite.acquire(clause, &key, 2, LONG, how()).await);
}

async fn dead(suite: &Suite<'_>) {
    let (clause, key) = ("queue: a dead waiter is passed over", suite.key("dead"));
    let tickets = line(suite, clause, &key, 2).await;
    let began = Instant::now();
    while began.elapsed() < ALIVE_POLLING + Duration::from_millis(200) {
        sleep(SHORT).await;
        wait(suite, clause, &key, 3, IfHeld::KeepWaiting(Some(tickets[1]))).await;
    }
    let released = suite.release(clause, &key, 1).await;
    demand(released.handed_over, clause, format_args!("one is alive: {released:?}"));
    is_next(suite, clause, &key, 3, tickets[1]).await;
}
