//! Each operation on locks on its own. The contract suite of `lock`, the model checker and the
//! simulation cover what many of them together do.

use super::*;
use crate::contract::{DebounceRequest, ExtendRequest, ForceReleaseRequest};

const LEASE: Duration = Duration::from_secs(10);

/// A client, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Client(&'static str, bool);

impl Subscriber for Client {
    fn is_there(&self) -> bool {
        self.1
    }
}

fn at(millis: u64) -> Now {
    let moment = Moment::from_nanos(millis * 1_000_000);
    Now { moment, micros: 1_000_000 + millis * 1000 }
}

fn token(client: &str, number: u64) -> Token {
    token::made_by(client, number)
}

/// A table with two clients that listen, `a` and `b`.
fn table() -> Table<Client> {
    let mut table = Table::default();
    table.subscribe("a", Client("a", true));
    table.subscribe("b", Client("b", true));
    table
}

fn request(token: &Token, if_held: IfHeld) -> AcquireRequest {
    AcquireRequest::new("k", token.clone(), LEASE).if_held(if_held)
}

fn fence(acquisition: Acquisition) -> u64 {
    let Acquisition::Granted { fence, .. } = acquisition else { panic!("{acquisition:?}") };
    fence
}

fn ticket(acquisition: Acquisition) -> u64 {
    let Acquisition::Held { ticket: Some(ticket), .. } = acquisition else {
        panic!("{acquisition:?}")
    };
    ticket
}

fn notice(client: &'static str, notice: Notice) -> (Client, Notice) {
    (Client(client, true), notice)
}

#[test]
fn a_free_lock_is_granted_and_the_same_request_twice_is_granted_again() {
    let mut table = table();
    let mine = request(&token("a", 2), IfHeld::GiveUp);
    let first = fence(table.acquire(&mine, at(0)));
    assert_eq!(first, 1_000_000, "the clock, while it is ahead of the counter");
    let second = fence(table.acquire(&mine, at(0)));
    assert_eq!(second, first + 1, "each grant draws a fence");
    assert_eq!(table.last_holder("k"), Some((&token("a", 2), at(10_000).moment)));
    let other = table.acquire(&request(&token("b", 2), IfHeld::GiveUp), at(4_000));
    assert_eq!(
        other,
        Acquisition::held(Some(Duration::from_secs(6))),
        "a request that gives up has no ticket"
    );
    assert!(table.notices().is_empty(), "and nobody is notified");
    assert_eq!(table.locks(), 1);
}

#[test]
fn a_lock_is_held_until_after_its_time() {
    let mut table = table();
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    let other = request(&token("b", 2), IfHeld::GiveUp);
    assert!(matches!(table.acquire(&other, at(10_000)), Acquisition::Held { .. }));
    assert!(fence(table.acquire(&other, at(10_001))) > 0);
}

#[test]
fn a_renewal_is_for_the_holder_and_never_shortens_or_creates() {
    let mut table = table();
    let renew = |token: Token, lease| RenewRequest::new("k", token, lease);
    assert_eq!(table.renew(&renew(token("a", 2), LEASE), at(0)), Renewal::not_ours());
    assert_eq!(table.locks(), 0);
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    assert_eq!(table.renew(&renew(token("b", 2), LEASE), at(1_000)), Renewal::not_ours());
    assert_eq!(table.renew(&renew(token("a", 2), LEASE), at(4_000)), Renewal::renewed());
    assert_eq!(table.last_holder("k").unwrap().1, at(14_000).moment);
    let shorter = renew(token("a", 2), Duration::from_secs(1));
    assert_eq!(table.renew(&shorter, at(5_000)), Renewal::renewed());
    assert_eq!(table.last_holder("k").unwrap().1, at(14_000).moment);
    ticket(table.acquire(&request(&token("b", 4), IfHeld::Wait), at(6_000)));
    assert_eq!(table.renew(&shorter, at(6_000)), Renewal::renewed().contended(true));
    assert_eq!(table.renew(&shorter, at(14_001)), Renewal::not_ours());
}

#[test]
fn a_release_frees_what_is_its_tokens_and_nothing_else() {
    let mut table = table();
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    let other = ReleaseRequest::new("k", token("b", 2));
    assert_eq!(table.release(&other, at(0)), Release::not_ours());
    assert_eq!(table.locks(), 1);
    let mine = ReleaseRequest::new("k", token("a", 2));
    assert_eq!(table.release(&mine, at(0)), Release::freed());
    assert_eq!((table.locks(), table.release(&mine, at(0))), (0, Release::not_ours()));
    // Kept for a while, it is held until then, and not longer.
    table.acquire(&request(&token("a", 4), IfHeld::GiveUp), at(0));
    let keeping = ReleaseRequest::new("k", token("a", 4)).keeping(Duration::from_secs(2));
    assert_eq!(table.release(&keeping, at(1_000)), Release::freed());
    assert_eq!(table.last_holder("k").unwrap().1, at(3_000).moment);
}

#[test]
fn waiters_are_served_in_order_and_each_is_told() {
    let mut table = table();
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    let waits = table.acquire(&request(&token("b", 2), IfHeld::Wait), at(100));
    let first = ticket(waits);
    let held = Acquisition::held(Some(Duration::from_millis(9_900))).waiting(first, true);
    assert_eq!(waits, held, "the holder's client notifies");
    assert_eq!(table.notices(), [notice("a", Notice::Contended { number: 2 })]);
    let second = ticket(table.acquire(&request(&token("a", 4), IfHeld::Wait), at(100)));
    assert!(second > first);
    assert!(table.notices().is_empty(), "the holder knows");
    let keeps = request(&token("b", 2), IfHeld::KeepWaiting(None));
    assert_eq!(ticket(table.acquire(&keeps, at(200))), first, "it keeps its ticket");
    assert_eq!(table.notices(), [notice("a", Notice::Contended { number: 2 })]);
    assert_eq!(table.holder(&"k".into(), at(200)).unwrap().waiters, 2);
    assert_eq!(table.waiters("k").count(), 2);

    let handed_over = Release::freed().handed_over(true);
    let mine = ReleaseRequest::new("k", token("a", 2));
    assert_eq!(table.release(&mine, at(300)), handed_over);
    assert_eq!(table.notices(), [notice("b", Notice::Granted { number: 2 })]);
    assert_eq!(table.last_holder("k"), Some((&token("b", 2), at(1_300).moment)), "for a second");
    let claim = table.acquire(&keeps, at(400));
    assert!(matches!(claim, Acquisition::Granted { contended: true, .. }), "{claim:?}");
    // The token that releases also leaves the queue.
    assert_eq!(
        table.release(&ReleaseRequest::new("k", token("a", 4)), at(400)),
        Release::not_ours()
    );
    assert_eq!(table.release(&ReleaseRequest::new("k", token("b", 2)), at(500)), Release::freed());
}

#[test]
fn a_lock_that_ran_out_goes_to_the_first_living_waiter() {
    let mut table = table();
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    let first = ticket(table.acquire(&request(&token("b", 2), IfHeld::Wait), at(0)));
    let second = ticket(table.acquire(&request(&token("a", 4), IfHeld::Wait), at(0)));
    table.notices();
    // The second asks first: the lock goes to the first, and the second goes on waiting.
    let asks = request(&token("a", 4), IfHeld::KeepWaiting(Some(second)));
    let held = Acquisition::held(Some(RESERVATION)).waiting(second, true);
    assert_eq!(table.acquire(&asks, at(10_001)), held);
    assert_eq!(table.notices(), [notice("b", Notice::Granted { number: 2 })]);
    // It is not taken up. The first is out of the queue, so the second is next.
    assert!(fence(table.acquire(&asks, at(11_002))) > 0);
    let late = request(&token("b", 2), IfHeld::KeepWaiting(Some(first)));
    assert_eq!(ticket(table.acquire(&late, at(11_003))), first, "it has its ticket back");
}

#[test]
fn the_dead_are_passed_over() {
    let mut table = table();
    table.subscribe("c", Client("c", true));
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    ticket(table.acquire(&request(&token("b", 2), IfHeld::Wait), at(0)));
    ticket(table.acquire(&request(&token("c", 2), IfHeld::Wait), at(0)));
    table.notices();
    table.unsubscribe("b");
    table.release(&ReleaseRequest::new("k", token("a", 2)), at(100));
    assert_eq!(table.notices(), [notice("c", Notice::Granted { number: 2 })]);
    // Requests of a client that is gone may still arrive: it waits, and is given nothing.
    let late = table.acquire(&request(&token("b", 4), IfHeld::Wait), at(200));
    assert!(matches!(late, Acquisition::Held { ticket: Some(_), notifies: true, .. }), "{late:?}");
    assert_eq!(table.release(&ReleaseRequest::new("k", token("c", 2)), at(300)), Release::freed());
    // A holder that is gone will notify nobody.
    table.acquire(&request(&token("b", 6), IfHeld::GiveUp), at(400));
    let waits = table.acquire(&request(&token("c", 4), IfHeld::Wait), at(400));
    assert!(matches!(waits, Acquisition::Held { notifies: false, .. }), "{waits:?}");
}

#[test]
fn an_adopted_lock_passes_to_the_new_token_once() {
    let mut table = table();
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    let adopts = |by: &Token| request(by, IfHeld::Adopt(token("a", 2)));
    assert!(fence(table.acquire(&adopts(&token("b", 2)), at(0))) > 0);
    assert!(matches!(table.acquire(&adopts(&token("b", 4)), at(0)), Acquisition::Held { .. }));
    assert_eq!(table.last_holder("k").unwrap().0, &token("b", 2));
}

#[test]
fn an_extension_adds_to_what_remains() {
    let mut table = table();
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    let extend = |of| ExtendRequest { key: "k".into(), token: of, by: Duration::from_secs(5) };
    assert_eq!(table.extend(&extend(token("b", 2)), at(1_000)), None);
    let remaining = table.extend(&extend(token("a", 2)), at(1_000));
    assert_eq!(remaining, Some(Duration::from_secs(14)));
    assert_eq!(
        table.holder(&"k".into(), at(2_000)).unwrap().remaining,
        Some(Duration::from_secs(13))
    );
    assert_eq!(table.holder(&"k".into(), at(15_001)), None);
}

#[test]
fn a_release_by_force_tells_the_holder_and_hands_over() {
    let mut table = table();
    assert_eq!(table.force_release(&ForceReleaseRequest::new("k"), at(0)), Release::not_ours());
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    ticket(table.acquire(&request(&token("b", 2), IfHeld::Wait), at(0)));
    table.notices();
    let handed_over = Release::freed().handed_over(true);
    assert_eq!(table.force_release(&ForceReleaseRequest::new("k"), at(0)), handed_over);
    let told =
        [notice("b", Notice::Granted { number: 2 }), notice("a", Notice::Revoked { number: 2 })];
    assert_eq!(table.notices(), told);
}

#[test]
fn what_has_expired_is_forgotten_as_the_table_grows() {
    let (mut table, mut most) = (table(), 0);
    for number in 0..200 {
        let key = format!("{number}");
        let short = AcquireRequest::new(key, token("a", 2), Duration::from_millis(1));
        table.sweep(at(number * 10).moment);
        table.acquire(&short, at(number * 10));
        assert!(table.locks() <= 65, "{} locks at {number}", table.locks());
        most = most.max(table.locks());
    }
    assert_eq!(most, 65, "and not with each operation");
    // Locks and queues alike; what has not expired stays.
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(3_000));
    ticket(table.acquire(&request(&token("b", 2), IfHeld::Wait), at(3_000)));
    table.forget_expired(at(13_000).moment);
    assert_eq!((table.locks(), table.waiters("k").count()), (1, 1));
    table.forget_expired(at(18_001).moment);
    assert_eq!((table.locks(), table.waiters("k").count()), (0, 0));
}

#[test]
fn a_loss_of_data_leaves_the_clients_and_a_failover_what_the_replica_knew() {
    let mut table = table();
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    let replica = table.clone();
    ticket(table.acquire(&request(&token("b", 2), IfHeld::Wait), at(0)));
    table.fail_over(replica);
    assert_eq!((table.locks(), table.waiters("k").count()), (1, 0));
    assert!(table.notices().is_empty());
    table.lose_all();
    assert_eq!(table.locks(), 0);
    table.acquire(&request(&token("a", 4), IfHeld::GiveUp), at(1));
    table.acquire(&request(&token("b", 4), IfHeld::Wait), at(1));
    assert_eq!(table.notices(), [notice("a", Notice::Contended { number: 4 })], "it still listens");
}

#[test]
fn clients_that_are_gone_are_forgotten_when_another_comes() {
    let mut table = table();
    table.subscribe("c", Client("c", false));
    table.unsubscribe("b");
    table.subscribe("d", Client("d", true));
    assert_eq!(table.subscribers.keys(), ["a".into(), "d".into()]);
}

#[test]
fn windows_and_queues_count_for_that_as_locks_do() {
    let mut table = table();
    let keep = Duration::from_millis(1);
    for number in 0..200 {
        let token = token("a", 2 * number + 1);
        let (window, run) = (format!("window {number}"), format!("run {number}"));
        let mut call = DebounceRequest::new(window, run, token, keep, LEASE);
        call.keep = keep;
        table.sweep(at(number * 10).moment);
        table.register(&call, at(number * 10));
        assert!(table.windows.len() <= 65, "{} windows", table.windows.len());
    }
}

#[test]
fn a_queue_that_everybody_has_left_is_none() {
    let mut table = table();
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    ticket(table.acquire(&request(&token("b", 2), IfHeld::Wait), at(0)));
    table.release(&ReleaseRequest::new("k", token("b", 2)), at(1));
    let renewal = table.renew(&RenewRequest::new("k", token("a", 2), LEASE), at(1));
    assert_eq!(renewal, Renewal::renewed().contended(false));
}

#[test]
fn a_ticket_that_another_has_is_not_given_twice() {
    let mut table = table();
    table.acquire(&request(&token("a", 2), IfHeld::GiveUp), at(0));
    let first = ticket(table.acquire(&request(&token("b", 2), IfHeld::Wait), at(0)));
    let made_up = request(&token("b", 4), IfHeld::KeepWaiting(Some(first)));
    assert_eq!(ticket(table.acquire(&made_up, at(0))), first + 1);
}
