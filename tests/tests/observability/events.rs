//! The events of a lock.

use std::{sync::Arc, time::Duration};

use futures_util::poll;
use lock::{
    ErrorKind, Locks,
    test_util::{Fault, FaultyStore, Operation},
};
use lock_tests::{RedisServer, Sentinels, eventually, ms};
use tracing::{Instrument, Level, info_span};

use crate::subscriber::{Said, listen, told, told_of, told_soon, told_where};

/// The events of an id from the threads of its callers, without the names of fields that have no
/// value here.
fn outcomes(id: &str) -> Vec<(Level, String, String)> {
    let story = told_of(id).into_iter().filter(|said| !said.message().contains("in line"));
    let outcome =
        |said: Said| (said.level, said.message().to_owned(), said.field("outcome").to_owned());
    story.map(outcome).collect()
}

fn says(level: Level, message: &str, outcome: &str) -> (Level, String, String) {
    (level, message.to_owned(), outcome.to_owned())
}

#[tokio::test]
async fn a_lock_is_asked_for_granted_and_let_go_of() {
    listen();
    let locks = Locks::in_memory();
    let guard = async { locks.lock("story").acquire().await.unwrap() };
    let guard = guard.instrument(info_span!("request", id = "7")).await;
    let fencing_token = guard.fencing_token().to_string();
    drop(guard);
    let asked = says(Level::DEBUG, "a lock is requested", "");
    let granted = says(Level::DEBUG, "the lock is granted", "granted");
    let end = |outcome| says(Level::DEBUG, "the lock is given up", outcome);
    assert_eq!(outcomes("story"), [asked.clone(), granted.clone(), end("dropped")]);
    let story = told_of("story");
    assert!(story.iter().all(|said| said.field("mode") == "exclusive"), "{story:?}");
    let request = [("request".to_owned(), "7".to_owned())];
    assert!(story[0].spans == request && story[1].spans == request, "in the span of the caller");
    assert!(!story[1].field("waited").is_empty() && !story[2].field("held").is_empty());
    assert_eq!(story[1].field("fencing_token"), fencing_token);
    assert_eq!(story[2].field("fencing_token"), fencing_token);

    locks.lock("released").acquire().await.unwrap().release().await.unwrap();
    assert_eq!(outcomes("released"), [asked.clone(), granted.clone(), end("released")]);
    let token = locks.lock("leaked").acquire().await.unwrap().leak();
    assert_eq!(outcomes("leaked"), [asked, granted, end("leaked")]);
    let everything = format!("{:?}", told(|_| true));
    assert!(!everything.contains(token.as_str()), "no event contains a token");
}

#[tokio::test(start_paused = true)]
async fn times_are_those_that_have_passed() {
    listen();
    let locks = Locks::in_memory();
    let guard = locks.lock("times").acquire().await.unwrap();
    let waiter = tokio::spawn(locks.lock("times").acquire());
    tokio::time::sleep(ms(2000)).await;
    drop(guard);
    drop(waiter.await.unwrap().unwrap());
    let story = told_of("times");
    let held = story.iter().find(|said| said.message().contains("given up")).unwrap();
    assert_eq!(held.field("held"), "2s");
    let waited: Vec<_> = story.iter().map(|said| said.field("waited")).collect();
    assert!(waited.contains(&"0ns") && waited.iter().any(|it| it.starts_with('2')), "{waited:?}");
}

#[tokio::test]
async fn a_waiter_is_told_of_and_so_is_the_hand_over() {
    listen();
    let locks = Locks::in_memory();
    let guard = locks.lock("line").acquire().await.unwrap();
    let mut waiter = Box::pin(locks.lock("line").acquire());
    assert!(poll!(waiter.as_mut()).is_pending());
    let waits = told_soon("line", "in line").await;
    assert_eq!((waits.level, waits.field("mode")), (Level::DEBUG, "exclusive"));
    drop(guard);
    let guard = waiter.await.unwrap();
    let handed_over = told_soon("line", "handed over").await;
    assert_eq!(handed_over.field("fencing_token"), guard.fencing_token().to_string());
    let grants = told_of("line").into_iter().filter(|said| said.field("outcome") == "granted");
    assert_eq!(grants.count(), 2);
}

/// A lock of another client, which the store reports.
#[tokio::test]
async fn a_waiter_behind_another_client_is_told_of_once() {
    listen();
    let server = RedisServer::start();
    let holder = Locks::connect(&server.locks_url()).await.unwrap();
    let locks = Locks::connect(&server.locks_url()).await.unwrap();
    let guard = holder.lock("elsewhere").acquire().await.unwrap();
    let waiter = tokio::spawn(locks.lock("elsewhere").acquire());
    told_soon("elsewhere", "in line").await;
    drop(guard);
    drop(waiter.await.unwrap().unwrap());
    let waits = told_of("elsewhere").into_iter().filter(|said| said.message().contains("in line"));
    assert_eq!(waits.count(), 1);
}

#[tokio::test]
async fn a_call_without_a_lock_is_told_why() {
    listen();
    let locks = Locks::in_memory();
    let guard = locks.lock("busy").acquire().await.unwrap();
    assert!(locks.lock("busy").try_acquire().await.unwrap().is_none());
    assert_eq!(told_soon("busy", "not granted").await.field("outcome"), "busy");
    {
        let mut waiter = Box::pin(locks.lock("busy").acquire());
        assert!(poll!(waiter.as_mut()).is_pending());
    }
    assert_eq!(told_soon("busy", "stopped waiting").await.field("outcome"), "cancelled");
    drop(guard);

    let lock = locks.lock("deadlock");
    let nested = lock.with(|_| async { lock.acquire().await.unwrap_err().kind() });
    assert_eq!(nested.await.unwrap(), ErrorKind::Deadlock);
    let refused = told_soon("deadlock", "not granted").await;
    assert_eq!((refused.level, refused.field("outcome")), (Level::DEBUG, "deadlock"));

    let refused = locks.lock("invalid").lease(ms(1)).acquire().await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(told_soon("invalid", "not granted").await.field("outcome"), "invalid");

    locks.shutdown().await;
    assert_eq!(locks.lock("closed").acquire().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(told_soon("closed", "not granted").await.field("outcome"), "closed");
}

#[tokio::test]
async fn a_lost_lock_is_a_warning_with_the_reason() {
    listen();
    let store = FaultyStore::new(lock::store::MemoryStore::new());
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();

    let guard = locks.lock("forced").acquire().await.unwrap();
    assert!(locks.lock("forced").force_release().await.unwrap());
    let lost = told_soon("forced", "the lock is lost").await;
    let fields = ["outcome", "reason", "mode"].map(|name| lost.field(name));
    assert_eq!((lost.level, fields), (Level::WARN, ["lost", "forced", "exclusive"]));
    assert_eq!(lost.field("fencing_token"), guard.fencing_token().to_string());
    assert!(!lost.field("held").is_empty());
    assert_eq!(told_soon("forced", "by force").await.field("outcome"), "forced");
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    let end = told_soon("forced", "given up").await;
    assert_eq!((end.level, end.field("outcome")), (Level::WARN, "lost"));

    let stolen = locks.lock("stolen").lease(ms(300));
    let guard = stolen.acquire().await.unwrap();
    assert!(store.steal(&stolen.key()).await);
    assert_eq!(told_soon("stolen", "the lock is lost").await.field("reason"), "not_ours");
    drop(guard);

    let bounded = locks.lock("bounded").lease(ms(100)).hold_at_most(ms(200));
    let guard = bounded.acquire().await.unwrap();
    assert_eq!(told_soon("bounded", "the lock is lost").await.field("reason"), "hold_at_most");
    drop(guard);

    let guard = locks.lock("expired").lease(ms(600)).acquire().await.unwrap();
    store.go_down();
    let renewal = told_soon("expired", "a renewal has failed").await;
    assert_eq!((renewal.level, renewal.field("outcome")), (Level::WARN, "unavailable"));
    assert_eq!(renewal.field("locks"), "1");
    assert_eq!(told_soon("expired", "the lock is lost").await.field("reason"), "expired");
    store.come_back();
    drop(guard);

    let guard = locks.lock("closing").acquire().await.unwrap();
    locks.shutdown().await;
    assert_eq!(told_soon("closing", "the lock is lost").await.field("reason"), "closed");
    drop(guard);
}

/// A holder that finds its deadline passed tells the keeper with the release.
#[tokio::test(start_paused = true)]
async fn a_loss_that_the_holder_finds_first_is_told_once() {
    listen();
    let store = FaultyStore::new(lock::store::MemoryStore::new());
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    let guard = locks.lock("first").lease(ms(200)).acquire().await.unwrap();
    store.go_down();
    // The keeper takes no turn meanwhile: this runtime drives it.
    tokio::time::advance(ms(300)).await;
    assert!(!guard.is_held());
    drop(guard);
    told_soon("first", "the lock is lost").await;
    tokio::time::sleep(ms(1000)).await;
    let losses = told_of("first").into_iter().filter(|it| it.message() == "the lock is lost");
    assert_eq!(losses.count(), 1);
}

#[tokio::test]
async fn a_store_that_is_out_of_reach_is_a_warning() {
    listen();
    let store = FaultyStore::new(lock::store::MemoryStore::new());
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    store.fail_next(Operation::Acquire, Fault::Rejected, 1);
    assert_eq!(locks.lock("rejected").acquire().await.unwrap_err().kind(), ErrorKind::Rejected);
    let refused = told_soon("rejected", "not granted").await;
    assert_eq!((refused.level, refused.field("outcome")), (Level::DEBUG, "rejected"));
    store.go_down();
    let failure = locks.lock("unreachable").acquire().await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Unavailable);
    let refused = told_soon("unreachable", "not granted").await;
    assert_eq!((refused.level, refused.field("outcome")), (Level::WARN, "unavailable"));
}

#[tokio::test(start_paused = true)]
async fn a_burst_tells_which_call_runs() {
    listen();
    let locks = Locks::in_memory();
    let burst = locks.debounce("burst").wait(ms(100));
    let (first, second) = tokio::join!(burst.call(async || 1), burst.call(async || 2));
    assert_eq!((first.unwrap(), second.unwrap()), (None, Some(2)));
    let mut outcomes: Vec<_> = told_of("burst")
        .iter()
        .filter(|said| !said.field("outcome").is_empty())
        .map(|said| (said.field("mode").to_owned(), said.field("outcome").to_owned()))
        .collect();
    outcomes.sort();
    let wanted = ["dropped", "granted", "released", "superseded"]
        .map(|outcome| ("run".to_owned(), outcome.to_owned()));
    assert!(outcomes.iter().all(|it| wanted.contains(it)), "{outcomes:?}");
    assert_eq!(outcomes.len(), 3, "one is superseded, one is granted and ends");
}

#[tokio::test(start_paused = true)]
async fn a_durable_call_tells_of_its_tries() {
    listen();
    let locks = Locks::in_memory();
    let run = async |_: u64, run: lock::DurableRun| match run.attempt() {
        1 | 2 => Err("not yet"),
        _ => Ok(()),
    };
    let durable = locks.debounce("any").wait(ms(10)).durable("fails twice", run).unwrap();
    let of = |id: &str, outcome: &str| {
        let (id, outcome) = (id.to_owned(), outcome.to_owned());
        move |said: &Said| said.field("id") == id && said.field("outcome") == outcome
    };
    durable.id("three").retry(3, ms(10)).call(&1).await.unwrap();
    durable.id("two").retry(2, ms(10)).call(&1).await.unwrap();
    until(|| told(of("three", "done")).len() == 1 && told(of("two", "set_aside")).len() == 1).await;
    let tried_again = told(of("three", "retry"));
    assert_eq!(tried_again.len(), 2, "{tried_again:?}");
    assert_eq!(tried_again[0].level, Level::WARN);
    assert_eq!(
        (tried_again[0].field("function"), tried_again[0].field("error")),
        ("fails twice", "not yet")
    );
    assert_eq!(told(of("three", "done"))[0].level, Level::DEBUG);
    assert_eq!(told(of("two", "set_aside"))[0].level, Level::WARN);
    // The store frees the lock of a run when it answers the end of the run, which is not a loss.
    let ends =
        |said: &Said| said.field("mode") == "durable" && !said.field("fencing_token").is_empty();
    let ends = told(move |said| ends(said) && ["three", "two"].contains(&said.field("id")));
    let worse: Vec<_> = ends.iter().filter(|said| said.level == Level::WARN).collect();
    assert!(worse.is_empty() && !ends.is_empty(), "{worse:?}");
}

/// Waits for something in tokio's time, which a paused clock skips; the events come on another
/// thread.
async fn until(happened: impl Fn() -> bool) {
    eventually(Duration::from_secs(20), async || {
        tokio::time::sleep(ms(5)).await;
        happened()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_and_goes_is_named() {
    listen();
    let server = RedisServer::builder().cluster_of_one(false).start();
    let name = format!("127.0.0.1:{}", server.port());
    let at = |said: &Said| said.field("server") == name;
    let locks = Locks::connect(&server.url()).await.unwrap();
    assert_eq!(told_where("connected to", at).await.level, Level::INFO);
    let server = Arc::new(server);
    let restarts = Arc::clone(&server);
    tokio::task::spawn_blocking(move || restarts.restart()).await.unwrap();
    eventually(ms(20_000), async || locks.lock("again").acquire().await.is_ok()).await;
    let lost = told_where("is lost", at).await;
    assert_eq!(lost.level, Level::WARN);
    assert!(!lost.field("cause").is_empty());
    assert_eq!(told_where("reconnected", at).await.level, Level::INFO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_told_with_the_next_primary() {
    listen();
    let sentinels = Sentinels::start().await;
    let locks = Locks::connect(&sentinels.url()).await.unwrap();
    let before = told_where("this server is the primary", |_| true).await;
    drop(locks.lock("moves").acquire().await.unwrap());
    sentinels.fail_over().await;
    let after = told_where("failover", |said| said.fields.contains_key("primary")).await;
    assert_eq!(after.level, Level::INFO);
    assert_ne!(after.field("server"), before.field("server"));
}
