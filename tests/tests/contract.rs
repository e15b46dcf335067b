//! The contract suite for authors of stores: it is run on the existing stores, and on stores with a
//! mistake, each of which it has to name.

use std::{
    future::ready,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use lock::{
    __private::redis_store,
    store::{
        AcquireRequest, Acquisition, AdminStore, Answers, ClaimRequest, ClientRecord,
        DebounceReply, DebounceRequest, DebounceStore, Delivery, DueCalls, DueRequest, DurableBook,
        DurableClaim, DurableFinish, DurableStore, EmbeddedStore, EndWindowRequest, ExtendRequest,
        FinishRequest, ForceReleaseRequest, Holder, IfHeld, IntroduceRequest, KeepRequest, Kept,
        Listener, MemoryStore, Release, ReleaseRequest, RenewRequest, Renewal, ScanPage,
        ScanRequest, SetAside, Store, StoreError, StoreFuture, TakeBackRequest, WaitingCalls,
    },
    test_util::contract,
};
use lock_tests::RedisServer;

use crate::common::{WatchedServer, ms};

#[path = "../../examples/own_store/store.rs"]
mod own_store;

const ALL: [&str; 13] = [
    "locks",
    "queue",
    "admin: holder",
    "admin: extend",
    "admin: force_release",
    "admin: introduce, client",
    "admin: scan",
    "debounce: due_in",
    "debounce",
    "durable: waiting",
    "durable",
    "embedded",
    "notices",
];

#[tokio::test(start_paused = true)]
async fn memory_keeps_the_contract() {
    let report = contract::all(&MemoryStore::new()).await;
    assert_eq!(report.checked, ALL, "{report}");
}

/// On a server that is watched for keys that never expire.
#[tokio::test]
async fn redis_keeps_the_contract() {
    let server = WatchedServer::start(RedisServer::builder());
    let store = redis_store(&server.locks_url()).await.unwrap();
    let report = contract::all(&store).await;
    assert_eq!(report.skipped, ["embedded"], "{report}");
    assert_eq!(report.checked.len(), ALL.len() - 1, "{report}");
}

#[tokio::test]
async fn the_store_of_the_example_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let store = own_store::FileStore::open(directory.path()).unwrap();
    let report = contract::all(&store).await;
    assert_eq!(report.checked, ["locks"], "{report}");
    let skipped = ["queue", "admin", "debounce", "durable", "embedded", "notices"];
    assert_eq!(report.skipped, skipped, "{report}");
    // An expired record does not stay, and one that is held does.
    let [expired, held] =
        [("expired", 1), ("held", u64::MAX)].map(|(name, expiry): (&str, u64)| {
            let path = directory.path().join(name).with_extension("lock");
            std::fs::write(&path, format!("{expiry} somebody")).unwrap();
            path
        });
    own_store::FileStore::open(directory.path()).unwrap();
    assert!(!expired.exists() && held.exists());
}

/// Two stores on one directory that contend for it, like two processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_directory_exclude_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let stores = [0, 1].map(|_| Arc::new(own_store::FileStore::open(directory.path()).unwrap()));
    let tasks = stores.into_iter().enumerate().map(|(number, store)| {
        tokio::spawn(async move {
            let mut fences = Vec::new();
            for _ in 0..200 {
                let token: lock::Token = format!("{number}:1").into();
                let take = [AcquireRequest::new("key", token.clone(), ms(60_000))];
                if let Acquisition::Granted { fence, .. } =
                    store.acquire(&take).await.remove(0).unwrap()
                {
                    fences.push(fence);
                    let released = store.release(&[ReleaseRequest::new("key", token)]).await;
                    assert!(released[0].as_ref().unwrap().ours, "taken by the other one");
                }
            }
            fences
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        let fences = task.await.unwrap();
        assert!(fences.is_sorted_by(|before, after| before < after));
        all.extend(fences);
    }
    let drawn = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), drawn, "a fence was drawn twice");
}

/// A mistake that an author could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    Nothing,
    GrantsToEverybody,
    CountsHolders,
    RepeatsAFence,
    NeverExpires,
    RenewDoesNothing,
    RenewShortens,
    RenewCreates,
    ReleaseByAnybody,
    ForgetsToKeep,
    AdoptsTwice,
    AnswersBackwards,
    AnswersTooFew,
    TakesItLater,
    LastComesFirst,
    ReservesForEver,
    TicketsRepeat,
    HolderSaysNobody,
    ExtendSets,
    ForceFreesNothing,
    ForcesAnyHolder,
    RecordsStay,
    ScansItsOwnKeys,
    NothingIsDue,
    NothingWaits,
    RunsTheOldest,
    CancelDoesNothing,
    FinishKeepsTheLock,
    NeverSetAside,
    DoesItAndSaysNo,
    SaysNothing,
}

use Mistake::*;

/// Larger than any ticket.
const LARGE: u64 = 1 << 53;

/// The memory store with one mistake.
struct Mistaken {
    store: MemoryStore,
    mistake: Mistake,
    counter: Mutex<u64>,
}

impl Mistaken {
    fn new(mistake: Mistake) -> Self {
        Self { store: MemoryStore::new(), mistake, counter: Mutex::new(1) }
    }

    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    fn count(&self) -> u64 {
        let mut counter = self.counter.lock().unwrap();
        *counter += 1;
        *counter
    }

    /// Applies the mistakes that concern the answers of any method.
    fn answered<T>(&self, mut answers: Vec<Result<T, StoreError>>) -> Vec<Result<T, StoreError>> {
        match self.mistake {
            AnswersBackwards => answers.reverse(),
            AnswersTooFew if answers.len() > 1 => drop(answers.pop()),
            _ => {}
        }
        answers
    }

    async fn take(&self, request: &AcquireRequest) -> Result<Acquisition, StoreError> {
        let mut request = request.clone();
        match (self.mistake, &request.if_held) {
            (NeverExpires, _) => request.lease = request.lease.max(ms(60_000)),
            (AdoptsTwice, IfHeld::Adopt(_)) => {
                self.store
                    .force_release(&[ForceReleaseRequest::new(Arc::clone(&request.key))])
                    .await;
                request.if_held = IfHeld::GiveUp;
            }
            // The last ticket is the smallest, but callers see growing ones.
            (LastComesFirst, IfHeld::Wait) => {
                request.if_held = IfHeld::KeepWaiting(Some(LARGE - self.count()));
            }
            (LastComesFirst, IfHeld::KeepWaiting(_)) => request.if_held = IfHeld::KeepWaiting(None),
            (CountsHolders, _) => {
                let holder = self.store.holder(&[Arc::clone(&request.key)]).await.remove(0)?;
                if holder.is_some_and(|holder| holder.token == request.token) {
                    self.count();
                }
            }
            _ => {}
        }
        let answer = self.store.acquire(&[request]).await.remove(0)?;
        Ok(match (self.mistake, answer) {
            (GrantsToEverybody, Acquisition::Held { .. }) => Acquisition::granted(self.count()),
            (RepeatsAFence, Acquisition::Granted { .. }) => Acquisition::granted(7),
            (TicketsRepeat, Acquisition::Held { remaining, ticket: Some(_), .. }) => {
                Acquisition::held(remaining).waiting(7, false)
            }
            (LastComesFirst, Acquisition::Held { remaining, ticket: Some(ticket), .. }) => {
                Acquisition::held(remaining).waiting(LARGE - ticket, false)
            }
            (_, answer) => answer,
        })
    }

    async fn let_go(&self, request: &ReleaseRequest) -> Result<Release, StoreError> {
        let mut request = request.clone();
        let holder = self.store.holder(&[Arc::clone(&request.key)]).await.remove(0)?;
        match (self.mistake, holder) {
            (ForgetsToKeep, _) => request.keep = Duration::ZERO,
            (ReleaseByAnybody, Some(holder)) => request.token = holder.token,
            // A lock that two requests have taken needs two releases.
            (CountsHolders, Some(holder)) if holder.token == request.token => {
                let mut depth = self.counter.lock().unwrap();
                *depth -= 1;
                if *depth > 0 {
                    return Ok(Release::freed());
                }
                *depth = 1;
            }
            _ => {}
        }
        let key = Arc::clone(&request.key);
        let answer = self.store.release(&[request]).await.remove(0);
        if self.is(ReservesForEver) && matches!(answer, Ok(Release { handed_over: true, .. })) {
            let holder = self.store.holder(&[Arc::clone(&key)]).await.remove(0)?;
            if let Some(holder) = holder.filter(|holder| holder.remaining <= Some(ms(1000))) {
                self.store.renew(&[RenewRequest::new(key, holder.token, ms(60_000))]).await;
            }
        }
        answer
    }
}

impl Store for Mistaken {
    fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
        if self.is(TakesItLater) {
            let (store, batch) = (self.store.clone(), batch.to_vec());
            return Box::pin(async move {
                let late = async move { store.acquire(&batch).await };
                tokio::spawn(late).await.unwrap()
            });
        }
        Box::pin(async move {
            let mut answers = Vec::new();
            for request in batch {
                answers.push(self.take(request).await);
            }
            self.answered(answers)
        })
    }

    fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
        Box::pin(async move {
            let mut answers = Vec::new();
            for RenewRequest { key, token, lease, .. } in batch.iter().cloned() {
                // A renewal that adds nothing, and so only asks.
                let ask = [RenewRequest::new(Arc::clone(&key), token.clone(), Duration::ZERO)];
                let ours = self.store.renew(&ask).await.remove(0).unwrap() != Renewal::not_ours();
                answers.push(match self.mistake {
                    RenewDoesNothing if ours => Ok(Renewal::renewed()),
                    RenewShortens if ours => {
                        let release = ReleaseRequest::new(key, token).keeping(lease);
                        self.store.release(&[release]).await;
                        Ok(Renewal::renewed())
                    }
                    RenewCreates if !ours => {
                        let take = [AcquireRequest::new(key, token, lease)];
                        match self.store.acquire(&take).await.remove(0).unwrap() {
                            Acquisition::Granted { .. } => Ok(Renewal::renewed()),
                            _ => Ok(Renewal::not_ours()),
                        }
                    }
                    _ => self.store.renew(&[RenewRequest::new(key, token, lease)]).await.remove(0),
                });
            }
            self.answered(answers)
        })
    }

    fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
        Box::pin(async move {
            let mut answers = Vec::new();
            for request in batch {
                answers.push(self.let_go(request).await);
            }
            self.answered(answers)
        })
    }

    fn subscribe<'a>(&'a self, client: &'a str, listener: Listener) -> StoreFuture<'a, Delivery> {
        if self.is(SaysNothing) {
            return Box::pin(ready(Delivery::Push));
        }
        self.store.subscribe(client, listener)
    }

    fn admin(&self) -> Option<&dyn AdminStore> {
        Some(self)
    }

    fn debounce(&self) -> Option<&dyn DebounceStore> {
        Some(self)
    }

    fn durable(&self) -> Option<&dyn DurableStore> {
        Some(self)
    }

    fn embedded(&self) -> Option<&dyn EmbeddedStore> {
        Some(self)
    }
}

impl EmbeddedStore for Mistaken {
    fn acquire_now(
        &self,
        batch: &[AcquireRequest],
        answers: &mut Vec<Result<Acquisition, StoreError>>,
    ) -> bool {
        self.store.acquire_now(batch, answers);
        if self.is(DoesItAndSaysNo) {
            answers.truncate(answers.len() - batch.len());
        }
        !self.is(DoesItAndSaysNo)
    }
}

impl AdminStore for Mistaken {
    fn extend<'a>(&'a self, batch: &'a [ExtendRequest]) -> Answers<'a, Option<Duration>> {
        if !self.is(ExtendSets) {
            return self.store.extend(batch);
        }
        Box::pin(async move {
            let mut answers = Vec::new();
            for ExtendRequest { key, token, by, .. } in batch.iter().cloned() {
                let renewed =
                    self.store.renew(&[RenewRequest::new(key, token, by)]).await.remove(0);
                answers.push(renewed.map(|renewal| (renewal != Renewal::not_ours()).then_some(by)));
            }
            answers
        })
    }

    fn holder<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<Holder>> {
        if self.is(HolderSaysNobody) {
            return Box::pin(async { keys.iter().map(|_| Ok(None)).collect() });
        }
        self.store.holder(keys)
    }

    fn force_release<'a>(&'a self, batch: &'a [ForceReleaseRequest]) -> Answers<'a, Release> {
        if self.is(ForceFreesNothing) {
            return Box::pin(async move {
                let keys: Vec<_> = batch.iter().map(|request| Arc::clone(&request.key)).collect();
                let holders = self.store.holder(&keys).await.into_iter();
                let freed = |held: bool| if held { Release::freed() } else { Release::not_ours() };
                holders.map(|holder| holder.map(|holder| freed(holder.is_some()))).collect()
            });
        }
        if self.is(ForcesAnyHolder) {
            let any = |request: &ForceReleaseRequest| request.clone().only_from(None);
            let batch: Vec<_> = batch.iter().map(any).collect();
            return Box::pin(async move { self.store.force_release(&batch).await });
        }
        self.store.force_release(batch)
    }

    fn introduce<'a>(&'a self, batch: &'a [IntroduceRequest]) -> Answers<'a, ()> {
        Box::pin(async move {
            let mut batch = batch.to_vec();
            if self.is(RecordsStay) {
                batch.iter_mut().for_each(|request| request.keep = ms(600_000));
            }
            self.store.introduce(&batch).await
        })
    }

    fn client<'a>(&'a self, keys: &'a [Arc<str>]) -> Answers<'a, Option<ClientRecord>> {
        self.store.client(keys)
    }

    fn scan<'a>(&'a self, batch: &'a [ScanRequest]) -> Answers<'a, ScanPage> {
        Box::pin(async move {
            let mut answers = self.store.scan(batch).await;
            if self.is(ScansItsOwnKeys) {
                answers.iter_mut().flatten().for_each(|page| page.ids.push("~run:a".into()));
            }
            answers
        })
    }
}

impl DebounceStore for Mistaken {
    fn register<'a>(&'a self, batch: &'a [DebounceRequest]) -> Answers<'a, DebounceReply> {
        let answers = self.store.register(batch);
        if !self.is(RunsTheOldest) {
            return answers;
        }
        Box::pin(async {
            let oldest = |reply| match reply {
                DebounceReply::NotYet { left, newest, .. } => DebounceReply::not_yet(left, !newest),
                other => other,
            };
            answers.await.into_iter().map(|reply| reply.map(oldest)).collect()
        })
    }

    fn end_window<'a>(&'a self, batch: &'a [EndWindowRequest]) -> Answers<'a, bool> {
        if self.is(CancelDoesNothing) {
            return Box::pin(async { batch.iter().map(|_| Ok(true)).collect() });
        }
        self.store.end_window(batch)
    }

    fn due_in<'a>(&'a self, windows: &'a [Arc<str>]) -> Answers<'a, Option<Duration>> {
        if self.is(NothingIsDue) {
            return Box::pin(async { windows.iter().map(|_| Ok(None)).collect() });
        }
        self.store.due_in(windows)
    }
}

impl DurableStore for Mistaken {
    fn keep<'a>(&'a self, batch: &'a [KeepRequest]) -> Answers<'a, Kept> {
        self.store.keep(batch)
    }

    fn due<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, DueCalls> {
        self.store.due(batch)
    }

    fn waiting<'a>(&'a self, batch: &'a [DueRequest]) -> Answers<'a, WaitingCalls> {
        if self.is(NothingWaits) {
            return Box::pin(async { batch.iter().map(|_| Ok(WaitingCalls::default())).collect() });
        }
        self.store.waiting(batch)
    }

    fn claim<'a>(&'a self, batch: &'a [ClaimRequest]) -> Answers<'a, DurableClaim> {
        self.store.claim(batch)
    }

    fn finish<'a>(&'a self, batch: &'a [FinishRequest]) -> Answers<'a, DurableFinish> {
        Box::pin(async move {
            let answers = self.store.finish(batch).await;
            if self.is(FinishKeepsTheLock) {
                let keep = |request: &FinishRequest| {
                    let (run, token) = (Arc::clone(&request.run), request.token.clone());
                    AcquireRequest::new(run, token, ms(60_000))
                };
                self.store.acquire(&batch.iter().map(keep).collect::<Vec<_>>()).await;
            }
            answers
        })
    }

    fn set_aside<'a>(&'a self, books: &'a [DurableBook]) -> Answers<'a, Vec<SetAside>> {
        if self.is(NeverSetAside) {
            return Box::pin(async { books.iter().map(|_| Ok(Vec::new())).collect() });
        }
        self.store.set_aside(books)
    }

    fn take_back<'a>(&'a self, batch: &'a [TakeBackRequest]) -> Answers<'a, bool> {
        self.store.take_back(batch)
    }
}

#[tokio::test(start_paused = true)]
async fn each_mistake_breaks_the_clause_that_it_is_against() {
    // The wrapper itself keeps the contract.
    let report = contract::all(&Mistaken::new(Nothing)).await;
    assert_eq!(report.checked, ALL, "{report}");

    let mut others = Vec::new();
    for (mistake, clause) in [
        (GrantsToEverybody, "mutual exclusion"),
        (CountsHolders, "idempotent for one token"),
        (RepeatsAFence, "fences grow"),
        (NeverExpires, "a lease runs out"),
        (RenewDoesNothing, "renew makes a lease longer"),
        (RenewShortens, "renew never shortens"),
        (RenewCreates, "renew never creates"),
        (ReleaseByAnybody, "release by another token changes nothing"),
        (ForgetsToKeep, "release with `keep`"),
        (AdoptsTwice, "a lock is adopted once"),
        (AnswersBackwards, "answers in the order of the items"),
        (AnswersTooFew, "an answer for each item"),
        (TakesItLater, "in order for one key"),
        (LastComesFirst, "queue: handed over to the first"),
        (ReservesForEver, "queue: handed over to the first"),
        (TicketsRepeat, "queue: tickets grow"),
        (HolderSaysNobody, "holder says who holds a lock"),
        (ExtendSets, "extend adds to what remains"),
        (ForceFreesNothing, "force_release takes the lock away"),
        (ForcesAnyHolder, "force_release leaves the lock of another holder alone"),
        (RecordsStay, "a record expires"),
        (ScansItsOwnKeys, "scan has each lock that is held, and nothing else"),
        (NothingIsDue, "due_in says when the waiting call is due"),
        (NothingWaits, "waiting counts the calls that wait"),
        (RunsTheOldest, "debounce: not before its time"),
        (CancelDoesNothing, "debounce: flush"),
        (FinishKeepsTheLock, "durable: finish frees the run's lock"),
        (NeverSetAside, "durable: set aside after the last try"),
        (DoesItAndSaysNo, "embedded: done at once, or not at all"),
        (SaysNothing, "notices"),
    ] {
        let store = Mistaken::new(mistake);
        let outcome = AssertUnwindSafe(contract::all(&store)).catch_unwind().await;
        let text = match outcome {
            Ok(report) => format!("kept the contract: {report}"),
            Err(panic) => *panic.downcast::<String>().unwrap(),
        };
        if !text.starts_with(&format!("{clause}: ")) {
            others.push(format!("{mistake:?} is not against {clause}: {text}"));
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}
