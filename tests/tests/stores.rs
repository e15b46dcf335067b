//! Stores by capability: what a store with three methods can do, and its errors for the rest.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use lock::{
    ErrorKind, Locks,
    store::{
        AcquireRequest, Acquisition, Answers, EmbeddedStore, MemoryStore, Release, ReleaseRequest,
        RenewRequest, Renewal, Store,
    },
    test_util::FaultyStore,
};
use tokio::task::JoinSet;

use crate::common::ms;

/// Only the three required methods.
struct Three(Arc<MemoryStore>);

impl Store for Three {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        Box::pin(async move {
            let answers = self.0.acquire(batch).await.into_iter();
            // Without a queue, waiters are in none.
            let without_queue = |answer| match answer {
                Acquisition::Granted { fence, .. } => Acquisition::granted(fence),
                Acquisition::Held { remaining, .. } => Acquisition::held(remaining),
                other => other,
            };
            answers.map(|answer| answer.map(without_queue)).collect()
        })
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        self.0.renew(batch)
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        self.0.release(batch)
    }
}

#[tokio::test]
async fn three_methods_are_a_store() {
    let store = Arc::new(MemoryStore::new());
    let one = Locks::builder().store(Three(Arc::clone(&store))).build().await.unwrap();
    let other = Locks::builder().store(Three(store)).build().await.unwrap();
    let lock = one.lock("a").lease(ms(300));
    let guard = lock.acquire().await.unwrap();
    assert!(other.lock("a").try_acquire().await.unwrap().is_none());
    // Renewed beyond its lease, and waited for by polling.
    tokio::time::sleep(ms(600)).await;
    assert!(guard.is_held());
    let token = guard.fencing_token();
    let waiter = tokio::spawn(other.lock("a").acquire());
    tokio::time::sleep(ms(50)).await;
    guard.release().await.unwrap();
    let next = waiter.await.unwrap().unwrap();
    assert!(next.fencing_token() > token);
    drop(next);
    other.flush().await;
    assert!(lock.try_acquire().await.unwrap().is_some());
}

#[tokio::test]
async fn what_a_store_lacks_is_unsupported_and_named() {
    let three = Three(Arc::new(MemoryStore::new()));
    let locks = Locks::builder().store(three).build().await.unwrap();
    let guard = locks.lock("a").acquire().await.unwrap();
    let debounce = locks.debounce("a").wait(ms(10));
    let durable = debounce.durable("f", |(): (), _| async {});
    for (error, names, id) in [
        (locks.lock("a").status().await.map(drop).unwrap_err(), "who holds a lock", true),
        (locks.lock("a").force_release().await.map(drop).unwrap_err(), "by force", true),
        (guard.extend(ms(100)).await.unwrap_err(), "extending a lease", true),
        (debounce.call(async || {}).await.map(drop).unwrap_err(), "debounced calls", true),
        (debounce.flush().await.map(drop).unwrap_err(), "debounced calls", true),
        (debounce.cancel().await.map(drop).unwrap_err(), "debounced calls", true),
        (durable.map(drop).unwrap_err(), "durable calls", true),
    ] {
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(text.contains(names) && text.contains("does not support"), "{text}");
        assert_eq!(error.id().is_some(), id, "{text}");
    }
    // None of that has cost the lock.
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

#[tokio::test]
async fn the_key_is_prefix_and_id() {
    let locks = Locks::builder().url("memory:").prefix("app:").build().await.unwrap();
    assert_eq!(locks.lock("a").key(), "app:a");
    let raw = Locks::builder().url("memory:").prefix("").build().await.unwrap();
    assert_eq!(raw.lock("a").key(), "a");
}

/// An embedded store that, on command, panics when it is asked about its capabilities.
#[derive(Clone, Default)]
struct PanicsAbout {
    inner: MemoryStore,
    panics: Arc<AtomicBool>,
}

impl Store for PanicsAbout {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        self.inner.acquire(batch)
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        self.inner.renew(batch)
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        self.inner.release(batch)
    }

    fn embedded(&self) -> Option<&dyn EmbeddedStore> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "a bug in a store");
        self.inner.embedded()
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_about_itself_costs_the_call() {
    let store = PanicsAbout::default();
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    let held = locks.lock("a").acquire().await.unwrap();
    store.panics.store(true, Ordering::SeqCst);
    // The store is asked again, as after any call without an answer.
    let other = locks.lock("b").acquire().await.unwrap();
    assert!(!store.panics.load(Ordering::SeqCst), "it was asked");
    assert!(held.is_held() && other.is_held());
    held.release().await.unwrap();
}

/// A flood of one kind of request fills all the room, but still leaves other kinds their turn.
#[tokio::test(start_paused = true)]
async fn a_flood_of_one_kind_does_not_keep_another_waiting() {
    let store = FaultyStore::new(MemoryStore::new());
    let locks = Locks::builder().store(store.clone()).build().await.unwrap();
    store.delay(ms(100));
    let asked = Arc::new(AtomicU32::new(0));
    let flood: JoinSet<()> = (0..3000)
        .map(|number| {
            let (lock, asked) = (locks.lock(format!("{number}")), Arc::clone(&asked));
            async move {
                // Answers come a few at a time, and so room becomes free in small steps.
                tokio::time::sleep(ms(number % 100)).await;
                loop {
                    lock.status().await.unwrap();
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .collect();
    let flooded = async {
        while asked.load(Ordering::Relaxed) < 3000 {
            tokio::time::sleep(ms(10)).await;
        }
    };
    tokio::time::timeout(ms(60_000), flooded).await.expect("they are answered");
    let before = asked.load(Ordering::Relaxed);
    let other = locks.lock("other");
    let forced = tokio::time::timeout(ms(60_000), other.force_release()).await;
    assert!(!forced.expect("it has its turn").unwrap());
    let passed = asked.load(Ordering::Relaxed) - before;
    println!("{passed} went past");
    drop(flood);
    // Twice what was on its way, but not the whole flood before it.
    assert!(passed <= 2_500, "{passed} went past");
}
