//! Compares the two stores: the same random operations have to give the same answers.
//!
//! The memory store is the reference of the contract; the Lua scripts must not differ from it.
//! Times are compared in classes, because the two clocks differ.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use lock::{
    __private::redis_store,
    Token,
    store::{
        AcquireRequest, Acquisition, AdminStore, ClaimRequest, DebounceReply, DebounceRequest,
        DebounceStore, DueRequest, DurableBook, DurableClaim, DurableStore, EndWindowRequest,
        ExtendRequest, FinishRequest, ForceReleaseRequest, IfHeld, KeepRequest, MemoryStore,
        ReleaseRequest, RenewRequest, ScanFor, ScanRequest, Store, StoreError, TakeBackRequest,
        WindowEnd,
    },
};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use lock_tests::RedisServer;

use crate::common::{Engine, ms};

/// Leases that last for the whole run.
const LONG: Duration = Duration::from_secs(60);

/// How long a caller that is not the newest waits beyond the window's time. A lock that was handed
/// over has to be claimed within the same time, and a silent waiter is dead after twice that.
const GRACE: Duration = Duration::from_secs(1);
const DEAD: Duration = Duration::from_millis(2_100);

/// A sequence that takes longer ends here: after that, long leases would not count as long any
/// more.
const ENOUGH: Duration = Duration::from_secs(9);

/// The number of sequences that run at the same time, each with a server of its own: they mostly
/// pause.
const LANES: usize = 6;

/// How slowly a sequence runs: the factor by which short times, and the pauses that end them, are
/// longer.
///
/// Times decide about answers, but the two stores have separate clocks and are asked one after the
/// other. So operations follow each other within half of a short time, and a pause is longer than
/// every short time; a machine that does not keep up is given more time.
#[derive(Clone, Copy)]
struct Pace(u32);

impl Pace {
    /// A lease that ends with the next pause, and the wait of debounced calls.
    fn short(self) -> Duration {
        ms(60) * self.0
    }

    fn pause(self) -> Duration {
        self.short() * 2
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Acquire { key: u8, token: u8, long: bool, if_held: Held },
    Renew { items: Vec<(u8, u8)> },
    Release { items: Vec<(u8, u8, bool)> },
    Extend { key: u8, token: u8 },
    Holder { key: u8 },
    ForceRelease { key: u8, only_from: Option<u8> },
    ScanLocks,
    Call { key: u8, token: u8, new: bool, late: bool, limited: bool, leading: bool },
    EndWindow { key: u8, flush: bool },
    DueIn { key: u8 },
    DurableCall { id: u8, limited: bool, once: bool },
    DurableDue,
    DurableWaiting,
    DurableClaim { id: u8, token: u8 },
    DurableFinish { id: u8, token: u8, fails: bool },
    DurableTakeBack { id: u8, again: bool },
    Pause { long: bool },
}

#[derive(Clone, Copy, Debug)]
enum Held {
    GiveUp,
    Wait,
    KeepWaiting,
    KeepUnknownTicket,
    Adopt,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;

    let key = 0..3_u8;
    let token = 0..3_u8;
    let if_held = prop_oneof![
        3 => Just(Held::GiveUp),
        3 => Just(Held::Wait),
        2 => Just(Held::KeepWaiting),
        1 => Just(Held::KeepUnknownTicket),
        2 => Just(Held::Adopt),
    ];
    prop_oneof![
        8 => (key.clone(), token.clone(), any::<bool>(), if_held)
            .prop_map(|(key, token, long, if_held)| Acquire { key, token, long, if_held }),
        2 => vec((key.clone(), token.clone()), 1..4)
            .prop_map(|items| Renew { items: each_once(items, |(key, token)| (*key, *token)) }),
        3 => vec((key.clone(), token.clone(), proptest::bool::weighted(0.2)), 1..4)
            .prop_map(|items| Release { items: each_once(items, |(key, token, _)| (*key, *token)) }),
        2 => (key.clone(), token.clone()).prop_map(|(key, token)| Extend { key, token }),
        2 => key.clone().prop_map(|key| Holder { key }),
        2 => (key.clone(), proptest::option::of(token.clone()))
            .prop_map(|(key, only_from)| ForceRelease { key, only_from }),
        1 => Just(ScanLocks),
        8 => (key.clone(), token, any::<[bool; 4]>()).prop_map(
            |(key, token, [new, late, limited, leading])| {
                Call { key, token, new, late, limited, leading }
            }
        ),
        2 => (key.clone(), any::<bool>()).prop_map(|(key, flush)| EndWindow { key, flush }),
        1 => key.prop_map(|key| DueIn { key }),
        3 => (0..2_u8, any::<[bool; 2]>())
            .prop_map(|(id, [limited, once])| DurableCall { id, limited, once }),
        2 => Just(DurableDue),
        1 => Just(DurableWaiting),
        4 => (0..2_u8, 0..2_u8).prop_map(|(id, token)| DurableClaim { id, token }),
        3 => (0..2_u8, 0..2_u8, any::<bool>())
            .prop_map(|(id, token, fails)| DurableFinish { id, token, fails }),
        1 => (0..2_u8, any::<bool>()).prop_map(|(id, again)| DurableTakeBack { id, again }),
        2 => proptest::bool::weighted(0.1).prop_map(|long| Pause { long }),
    ]
}

/// Removes duplicates of a lock and its token: the order within a batch is not part of the
/// contract.
fn each_once<T, K: PartialEq>(items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for item in items {
        if kept.iter().all(|other| key(other) != key(&item)) {
            kept.push(item);
        }
    }
    kept
}

/// A store, and its answers so far that later operations refer to.
struct Side<S> {
    store: S,
    pace: Pace,
    last_fence: u64,
    /// The number of the last durable call of each id.
    durable: [u64; 2],
    /// The number of the last debounced call of each client.
    calls: [u64; 9],
    /// The last ticket that each token was given, and the last ticket of each queue.
    tickets: [Option<u64>; 9],
    last_ticket: [u64; 3],
}

fn key(number: u8) -> String {
    format!("k{number}")
}

fn token(number: u8) -> Token {
    Token::from(format!("{:032x}:{number}", 7))
}

/// The expected range that contains a duration.
fn class(left: Option<Duration>) -> String {
    const CLASSES: [(&str, RangeInclusive<u64>); 4] = [
        ("none", 0..=0),
        ("short", 1..=1000),
        ("long", 50_000..=60_000),
        ("longer", 60_001..=900_000),
    ];
    let Some(left) = left else { return "for ever".to_owned() };
    let left = left.as_millis() as u64;
    let found = CLASSES.iter().find(|(_, range)| range.contains(&left));
    found.map_or_else(|| format!("odd: {left} ms"), |(name, _)| (*name).to_owned())
}

impl<S: Store + AdminStore + DebounceStore + DurableStore> Side<S> {
    fn new(store: S, pace: Pace) -> Self {
        Self {
            store,
            pace,
            last_fence: 0,
            durable: [0; 2],
            calls: [0; 9],
            tickets: [None; 9],
            last_ticket: [0; 3],
        }
    }

    /// A fence is compared with earlier ones, not with the other store's.
    fn fence(&mut self, fence: u64) -> String {
        let grows = fence > self.last_fence;
        self.last_fence = fence;
        format!("granted, fence grows: {grows}")
    }

    async fn apply(&mut self, operation: &Operation) -> Result<String, StoreError> {
        let short = self.pace.short();
        let answer = match operation {
            Operation::Acquire { key: k, token: t, long, if_held } => {
                let number = usize::from(k * 3 + t);
                let if_held = match if_held {
                    Held::GiveUp => IfHeld::GiveUp,
                    Held::Wait => IfHeld::Wait,
                    Held::KeepWaiting => IfHeld::KeepWaiting(self.tickets[number]),
                    Held::KeepUnknownTicket => IfHeld::KeepWaiting(None),
                    // Adopted from the previous token, as if that were the holder.
                    Held::Adopt => IfHeld::Adopt(token((*t + 1) % 3)),
                };
                let lease = if *long { LONG } else { short };
                let request = AcquireRequest::new(key(*k), token(*t), lease).if_held(if_held);
                match self.store.acquire(&[request]).await.remove(0)? {
                    Acquisition::Granted { fence, contended, .. } => {
                        self.tickets[number] = None;
                        format!("{}, contended: {contended}", self.fence(fence))
                    }
                    Acquisition::Held { remaining, ticket, notifies, .. } => {
                        let last = &mut self.last_ticket[usize::from(*k)];
                        let what = match ticket {
                            None => "nowhere",
                            Some(ticket) if self.tickets[number] == Some(ticket) => "where it was",
                            Some(ticket) if ticket > *last => "at the end",
                            Some(_) => "elsewhere",
                        };
                        *last = ticket.unwrap_or(0).max(*last);
                        self.tickets[number] = ticket.or(self.tickets[number]);
                        format!("held {}, waits {what}, is told: {notifies}", class(remaining))
                    }
                    other => format!("{other:?}"),
                }
            }
            Operation::Renew { items } => {
                let batch: Vec<_> = items
                    .iter()
                    .map(|(k, t)| RenewRequest::new(key(*k), token(*t), LONG))
                    .collect();
                format!("{:?}", all(self.store.renew(&batch).await)?)
            }
            Operation::Release { items } => {
                let batch = items.iter().map(|(k, t, keep)| {
                    let request = ReleaseRequest::new(key(*k), token(*t));
                    if *keep { request.keeping(short) } else { request }
                });
                format!("{:?}", all(self.store.release(&batch.collect::<Vec<_>>()).await)?)
            }
            Operation::Extend { key: k, token: t } => {
                let request = ExtendRequest::new(key(*k), token(*t), LONG * 2);
                let left = self.store.extend(&[request]).await.remove(0)?;
                left.map_or_else(|| "not ours".to_owned(), |left| class(Some(left)))
            }
            Operation::Holder { key: k } => {
                match self.store.holder(&[key(*k).into()]).await.remove(0)? {
                    Some(holder) => format!(
                        "{} {}, {} wait",
                        holder.token.as_str(),
                        class(holder.remaining),
                        holder.waiters
                    ),
                    None => "free".to_owned(),
                }
            }
            Operation::ForceRelease { key: k, only_from } => {
                let request = ForceReleaseRequest::new(key(*k)).only_from(only_from.map(token));
                format!("{:?}", self.store.force_release(&[request]).await.remove(0)?)
            }
            Operation::ScanLocks => {
                let request = ScanRequest::new(ScanFor::HeldLocks, "", 1000).ids("k");
                let page = self.store.scan(&[request]).await.remove(0)?;
                format!("{:?}", page.ids.iter().collect::<BTreeSet<_>>())
            }
            Operation::Call { key: k, token: t, new, late, limited, leading } => {
                let number = &mut self.calls[usize::from(k * 3 + t)];
                *number += u64::from(*new);
                // Different clients: a window tells them apart by their names.
                let token = Token::from(format!("{t:032x}:{number}"));
                let request =
                    DebounceRequest::new(own("debounce", k), own("run", k), token, short, LONG)
                        .made_ago(if *late { short / 2 } else { Duration::ZERO })
                        .max_wait(limited.then_some(short))
                        .leading(*leading);
                match self.store.register(&[request]).await.remove(0)? {
                    DebounceReply::Granted { fence, .. } => self.fence(fence),
                    DebounceReply::NotYet { left, newest, .. } => {
                        // Within the wait and, unless it is the newest call, the grace given to the
                        // newest caller.
                        let most = short + ms(1) + if newest { Duration::ZERO } else { GRACE };
                        format!("not yet, in time: {}, newest: {newest}", left <= most)
                    }
                    DebounceReply::Running(left) => format!("running, {}", class(Some(left))),
                    other => format!("{other:?}"),
                }
            }
            Operation::DueIn { key: k } => {
                let windows = [own("debounce", k).into()];
                class(self.store.due_in(&windows).await.remove(0)?)
            }
            Operation::EndWindow { key: k, flush } => {
                let end = if *flush { WindowEnd::Flush } else { WindowEnd::Cancel };
                let request = EndWindowRequest::new(own("debounce", k), end);
                format!("{:?}", self.store.end_window(&[request]).await.remove(0)?)
            }
            Operation::DurableCall { id, limited, once } => {
                let arguments = format!("{{\"id\": \"{id}\\n\"}}");
                let request = KeepRequest::new(book(), key(*id), arguments, short)
                    .max_wait(limited.then_some(short))
                    .retry(if *once { 1 } else { 2 }, short);
                let kept = self.store.keep(&[request]).await.remove(0)?;
                let last = std::mem::replace(&mut self.durable[usize::from(*id)], kept.call);
                format!("called, grows: {}, due {}", kept.call > last, class(Some(kept.due_in)))
            }
            Operation::DurableWaiting => {
                let request = DueRequest::new(book(), 10);
                let mut waiting = self.store.waiting(&[request]).await.remove(0)?;
                // Two calls that are due in the same millisecond in one store may not be in the
                // other.
                waiting.calls.sort_unstable();
                let calls = waiting.calls.iter().map(|(id, left)| (id, class(Some(*left))));
                format!("{} wait: {:?}", waiting.count, calls.collect::<Vec<_>>())
            }
            Operation::DurableDue => {
                let mut due = self.store.due(&[DueRequest::new(book(), 10)]).await.remove(0)?;
                due.ids.sort_unstable();
                format!("{:?}, next {}", due.ids, class(due.next))
            }
            Operation::DurableClaim { id, token: t } => {
                let run = run_of(*id);
                let request = ClaimRequest::new(book(), key(*id), run, token(*t), LONG);
                match self.store.claim(&[request]).await.remove(0)? {
                    DurableClaim::Granted { fence, call, attempt, arguments, .. } => {
                        let known = self.durable.contains(&call);
                        format!("{}, {known}, {attempt}, {arguments}", self.fence(fence))
                    }
                    DurableClaim::NotYet(left) => format!("not yet, {}", class(Some(left))),
                    DurableClaim::Running(left) => format!("running, {}", class(Some(left))),
                    other => format!("{other:?}"),
                }
            }
            Operation::DurableFinish { id, token: t, fails } => {
                let numbers = (self.durable[usize::from(*id)], 7);
                let run = run_of(*id);
                let request = FinishRequest::new(book(), key(*id), run, token(*t), numbers)
                    .failed(fails.then(|| "no: é".into()));
                let finished = self.store.finish(&[request]).await.remove(0)?;
                // Its guard releases the lock.
                let release = ReleaseRequest::new(run_of(*id), token(*t));
                format!("{finished:?}, {:?}", all(self.store.release(&[release]).await)?)
            }
            Operation::DurableTakeBack { id, again } => {
                let mut aside = self.store.set_aside(&[book()]).await.remove(0)?;
                aside.sort_unstable_by(|a, b| a.id.cmp(&b.id));
                let request = match again {
                    true => TakeBackRequest::run_again(book(), key(*id)),
                    false => TakeBackRequest::forget(book(), key(*id)),
                };
                format!("{aside:?}, {:?}", self.store.take_back(&[request]).await.remove(0)?)
            }
            Operation::Pause { .. } => unreachable!("both sides pause together"),
        };
        Ok(answer)
    }
}

/// Names of keys as in the library.
fn own(kind: &str, name: impl std::fmt::Display) -> String {
    format!("~{kind}:{name}")
}

fn book() -> DurableBook {
    DurableBook::new(own("due", "f"), own("calls", "f"), own("aside", "f"))
}

fn run_of(id: u8) -> String {
    format!("~durable:1:f:{id}")
}

fn all<T>(answers: Vec<Result<T, StoreError>>) -> Result<Vec<T>, StoreError> {
    answers.into_iter().collect()
}

/// The result of a sequence.
enum Outcome {
    /// All answers were alike; how many were compared.
    Alike(usize),
    /// The machine was too slow for a comparison: times that should differ did not.
    Late,
    Different(String),
}

/// Applies the same operations to both stores.
async fn compare(server: &RedisServer, operations: &[Operation], pace: Pace) -> Outcome {
    let mut connection = server.connection().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    let Ok(store) = redis_store(&server.locks_url()).await else { return Outcome::Late };
    let mut redis = Side::new(store, pace);
    let mut memory = Side::new(MemoryStore::new(), pace);
    let mut compared = 0;
    let start = Instant::now();
    let (mut since_pause, mut since_long_pause) = (start, start);
    for (place, operation) in operations.iter().enumerate() {
        if let Operation::Pause { long } = operation {
            // As many short pauses as fit, and then a long one.
            let long = *long || since_long_pause.elapsed() + pace.pause() > GRACE * 7 / 10;
            tokio::time::sleep(pace.pause() + if long { DEAD } else { Duration::ZERO }).await;
            since_pause = Instant::now();
            since_long_pause = if long { since_pause } else { since_long_pause };
            continue;
        }
        if start.elapsed() > ENOUGH {
            break;
        }
        let (of_redis, of_memory) = (redis.apply(operation).await, memory.apply(operation).await);
        let (of_redis, of_memory) = (format!("{of_redis:?}"), format!("{of_memory:?}"));
        // Otherwise something from after the pause may have expired already.
        if since_pause.elapsed() > pace.short() / 2 || since_long_pause.elapsed() > GRACE * 9 / 10 {
            return Outcome::Late;
        }
        compared += 1;
        if of_redis != of_memory {
            return Outcome::Different(format!(
                "redis: {of_redis}; memory: {of_memory}; at {place}, {operation:?}, after {:?}",
                &operations[..place]
            ));
        }
    }
    Outcome::Alike(compared)
}

/// Compares a sequence at the first pace at which the machine keeps up.
///
/// A difference counts if it is found three times. If it is due to a delay of the machine, it
/// disappears when the sequence is repeated; if it is due to the stores, it stays, because they are
/// asked one after the other. The repetition is at the same pace, because at another one other
/// times decide.
async fn compare_at_a_pace(server: &RedisServer, operations: &[Operation]) -> usize {
    let mut differences = Vec::new();
    for pace in [1, 2, 4, 8, 16].map(Pace) {
        let seen = differences.len();
        for _ in 0..6 {
            match compare(server, operations, pace).await {
                Outcome::Alike(compared) => return compared,
                // As no difference was found at this pace, try the next one.
                Outcome::Late if differences.len() == seen => break,
                Outcome::Late => {}
                Outcome::Different(difference) => {
                    differences.push(format!("at pace {}: {difference}", pace.0));
                    assert!(differences.len() < 3, "the stores differ: {differences:#?}");
                }
            }
        }
    }
    panic!("the machine is too slow at every pace; differences so far: {differences:#?}");
}

#[tokio::test]
async fn both_stores_answer_alike() {
    let sequences: usize =
        std::env::var("LOCK_SEQUENCES").map_or(90, |number| number.parse().unwrap());
    let lane = async || {
        let Engine::Redis(server) = Engine::redis() else { unreachable!() };
        let mut runner = TestRunner::new(Config::default());
        let mut compared = 0;
        for _ in 0..sequences.div_ceil(LANES) {
            let operations = vec(operation(), 40).new_tree(&mut runner).unwrap().current();
            compared += compare_at_a_pace(&server, &operations).await;
        }
        compared
    };
    let lanes = [(); LANES].map(|()| lane());
    let compared = futures_util::future::join_all(lanes).await.iter().sum::<usize>();
    println!("{compared} answers compared");
    assert!(compared >= sequences * 30, "too few answers compared: {compared}");
}
