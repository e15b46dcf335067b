//! Tests of the contract of [`lock::store`](crate::store), for authors of a store.
//!
//! There is one function for each capability, and [`all`] checks everything that a store offers.
//! Each function panics at the first clause of the contract that is broken; the message begins with
//! the name of that clause. The functions use keys and tokens that no other run uses, and leases of
//! a fraction of a second, which they wait out with [`tokio::time::sleep`]. With a paused clock,
//! the tests of an [embedded](Store::embedded) store take no time; those of any other store take a
//! few seconds. After the tests, no lock stays held for longer than a minute.
//!
//! ```
//! use lock::{store::MemoryStore, test_util::contract};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() { keeps_the_contract().await }
//! # /*
//! #[tokio::test(start_paused = true)]
//! # */
//! async fn keeps_the_contract() {
//!     let store = MemoryStore::new();
//!     contract::locks(&store).await;
//!     // Or everything that it offers; the report lists what it does not offer.
//!     let report = contract::all(&store).await;
//!     assert!(report.skipped.is_empty(), "{report}");
//! }
//! ```
//!
//! While you write a store, check one capability at a time:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use lock::{store::MemoryStore, test_util::contract};
//!
//! let store = MemoryStore::new();
//! contract::queue(&store).await;
//! let methods = contract::admin(&store).await;
//! assert!(methods.skipped.is_empty(), "{methods}");
//! contract::debounce(&store).await;
//! contract::durable(&store).await;
//! contract::embedded(&store).await;
//! contract::notices(&store).await; // the last one, because it subscribes a client
//! # }
//! ```
//!
//! These tests cannot check that a store keeps the contract when its server loses data, that it
//! never compares a client's clock with its own, that it deletes what has expired, or that two
//! *processes* exclude each other. Test these yourself.

mod admin;
mod debounce;
mod durable;
mod embedded;
mod locks;
mod notices;
mod queue;

use std::{fmt, sync::Arc, time::Duration};

use lock_core::{
    Token,
    contract::{
        AcquireRequest, Acquisition, IfHeld, Release, ReleaseRequest, RenewRequest, Renewal,
        StoreError,
    },
};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::store::{Answers, Store};

/// A lease that lasts for as long as the test.
const LONG: Duration = Duration::from_secs(60);

/// A lease that the test waits out.
const SHORT: Duration = Duration::from_millis(300);

/// How late a store may be, and how precisely it measures.
const LATE: Duration = Duration::from_millis(1000);
const BREAK: Duration = Duration::from_millis(20);

/// "Within a few seconds", and some more for the machine that runs the tests.
const BOUND: Duration = Duration::from_secs(15);

/// The parts of the contract that were checked, and those that the store does not offer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use lock::{store::MemoryStore, test_util::contract::{self, Report}};
///
/// let report: Report = contract::admin(&MemoryStore::new()).await;
/// assert!(report.checked.contains(&"admin: extend"));
/// assert!(report.to_string().starts_with("checked: admin: holder, admin: extend"));
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The parts that were checked, all of which the store implements correctly.
    pub checked: Vec<&'static str>,
    /// The parts that the store does not offer.
    pub skipped: Vec<&'static str>,
}

impl Report {
    fn note(&mut self, part: &'static str, offered: bool) {
        if offered { self.checked.push(part) } else { self.skipped.push(part) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checked: {}", self.checked.join(", "))?;
        if self.skipped.is_empty() {
            return Ok(());
        }
        write!(f, "; not offered: {}", self.skipped.join(", "))
    }
}

/// Checks everything that the store offers; prints and returns the list of these parts.
///
/// The last check is [`notices`], which subscribes a client: use another store, or another
/// connection, for further tests.
///
/// # Panics
///
/// If a clause of the contract is broken.
pub async fn all(store: &dyn Store) -> Report {
    let mut report = Report::default();
    locks(store).await;
    report.note("locks", true);
    let queue_is_offered = queue::is_offered(store).await;
    if queue_is_offered {
        queue(store).await;
    }
    report.note("queue", queue_is_offered);
    if store.admin().is_some() {
        let Report { checked, skipped } = admin(store).await;
        report.checked.extend(checked);
        report.skipped.extend(skipped);
    } else {
        report.note("admin", false);
    }
    if store.debounce().is_some() {
        debounce(store).await;
        report.note("debounce: due_in", debounce::due_in(&Suite::new(store)).await);
    }
    report.note("debounce", store.debounce().is_some());
    if store.durable().is_some() {
        durable(store).await;
        report.note("durable: waiting", durable::waiting(&Suite::new(store)).await);
    }
    report.note("durable", store.durable().is_some());
    if store.embedded().is_some() {
        embedded(store).await;
    }
    report.note("embedded", store.embedded().is_some());
    report.note("notices", notices::check(store).await);
    println!("contract of lock::store: {report}");
    report
}

/// Checks the three methods that every store has: exclusion, idempotence, fences, leases, adoption,
/// batches and order.
///
/// # Panics
///
/// If a clause of the contract is broken.
pub async fn locks(store: &dyn Store) {
    locks::check(&Suite::new(store)).await;
}

/// Checks the queue: tickets, which waiter is handed the lock, reservations, and waiters that leave
/// or die. The clients of this test poll, so it does not call [`subscribe`](Store::subscribe).
///
/// # Panics
///
/// If a clause of the contract is broken, or if the store has no queue.
pub async fn queue(store: &dyn Store) {
    queue::check(&Suite::new(store)).await;
}

/// Checks that each kind of notice that the store offers reaches a client: contended, granted, and,
/// depending on the capabilities, revoked and flushed.
///
/// # Panics
///
/// If a clause of the contract is broken, or if the store has no notices.
pub async fn notices(store: &dyn Store) {
    let offered = notices::check(store).await;
    demand(offered, "notices", "`subscribe` answers that its clients poll");
}

/// Checks [`AdminStore`](crate::store::AdminStore), and returns which of its methods are supported.
///
/// # Panics
///
/// If a clause of the contract is broken, or if the store does not have this capability.
pub async fn admin(store: &dyn Store) -> Report {
    admin::check(&Suite::new(store)).await
}

/// Checks [`DebounceStore`](crate::store::DebounceStore).
///
/// # Panics
///
/// If a clause of the contract is broken, or if the store does not have this capability.
pub async fn debounce(store: &dyn Store) {
    debounce::check(&Suite::new(store)).await;
}

/// Checks [`DurableStore`](crate::store::DurableStore).
///
/// # Panics
///
/// If a clause of the contract is broken, or if the store does not have this capability.
pub async fn durable(store: &dyn Store) {
    durable::check(&Suite::new(store)).await;
}

/// Checks [`EmbeddedStore`](crate::store::EmbeddedStore): each of its methods immediately does what
/// the method of [`Store`] does, or does nothing.
///
/// # Panics
///
/// If a clause of the contract is broken, or if the store does not have this capability.
pub async fn embedded(store: &dyn Store) {
    embedded::check(&Suite::new(store)).await;
}

/// The store, and a client of it that no other run uses.
struct Suite<'a> {
    store: &'a dyn Store,
    client: String,
}

impl<'a> Suite<'a> {
    fn new(store: &'a dyn Store) -> Self {
        Self { store, client: Uuid::new_v4().simple().to_string() }
    }

    fn key(&self, name: &str) -> Arc<str> {
        format!("contract:{}:{name}", self.client).into()
    }

    /// A key next to those of locks, named as the library names it: `~`, its kind, and the id or
    /// the function that it belongs to.
    fn own_key(&self, kind: &str, name: &str) -> Arc<str> {
        format!("~{kind}:{}", self.key(name)).into()
    }

    fn token(&self, number: u64) -> Token {
        lock_core::token::made_by(&self.client, number)
    }

    async fn acquire(
        &self,
        clause: &str,
        key: &Arc<str>,
        number: u64,
        lease: Duration,
        if_held: IfHeld,
    ) -> Acquisition {
        let request = AcquireRequest::new(Arc::clone(key), self.token(number), lease);
        one(clause, self.store.acquire(&[request.if_held(if_held)])).await
    }

    /// Takes a lock that has to be free, or held by this token; returns the fence.
    async fn take(&self, clause: &str, key: &Arc<str>, number: u64, lease: Duration) -> u64 {
        granted(clause, self.acquire(clause, key, number, lease, IfHeld::GiveUp).await)
    }

    /// Asks for a lock that another token has to hold; returns the remaining time.
    async fn is_held(&self, clause: &str, key: &Arc<str>, number: u64) -> Duration {
        let answer = self.acquire(clause, key, number, LONG, IfHeld::GiveUp).await;
        let Acquisition::Held { remaining, ticket, .. } = answer else {
            broken(clause, "a lock that another token holds was granted")
        };
        demand(ticket.is_none(), clause, "`GiveUp` has joined the queue");
        let limited = "the lock never expires, though its lease has an end";
        remaining.unwrap_or_else(|| broken(clause, limited))
    }

    async fn renew(&self, clause: &str, key: &Arc<str>, number: u64, lease: Duration) -> bool {
        let request = RenewRequest::new(Arc::clone(key), self.token(number), lease);
        matches!(one(clause, self.store.renew(&[request])).await, Renewal::Renewed { .. })
    }

    async fn release(&self, clause: &str, key: &Arc<str>, number: u64) -> Release {
        let request = ReleaseRequest::new(Arc::clone(key), self.token(number));
        one(clause, self.store.release(&[request])).await
    }

    /// Another token is granted the lock, no earlier than `lease` after `asked`, when the lease was
    /// sent, and soon after that. Returns the fence.
    async fn is_free_after(
        &self,
        clause: &str,
        key: &Arc<str>,
        number: u64,
        (asked, lease): (Instant, Duration),
    ) -> u64 {
        let answered = Instant::now();
        loop {
            let sent = Instant::now();
            let answer = self.acquire(clause, key, number, LONG, IfHeld::GiveUp).await;
            if let Acquisition::Granted { fence, .. } = answer {
                let after = asked.elapsed();
                let early = format!("a lease of {lease:?} was over after {after:?}");
                demand(after + BREAK > lease, clause, early);
                return fence;
            }
            let late = format!("still held {:?} after a lease of {lease:?} began", sent - answered);
            demand(sent < answered + lease + LATE, clause, late);
            sleep(BREAK).await;
        }
    }
}

/// The answers to a batch, none of which may be an error.
async fn each<T>(clause: &str, items: usize, answers: Answers<'_, T>) -> Vec<T> {
    let answers = try_each(clause, items, answers).await.into_iter();
    answers.map(|answer| answer.unwrap_or_else(|error| broken(clause, error))).collect()
}

async fn try_each<T>(
    clause: &str,
    items: usize,
    answers: Answers<'_, T>,
) -> Vec<Result<T, StoreError>> {
    let Ok(answers) = timeout(BOUND, answers).await else {
        broken("bounded", format_args!("no answer within {BOUND:?} ({clause})"))
    };
    let count = answers.len();
    let counted = format!("{count} answers to {items} items ({clause})");
    demand(count == items, "an answer for each item", counted);
    answers
}

async fn one<T>(clause: &str, answers: Answers<'_, T>) -> T {
    each(clause, 1, answers).await.remove(0)
}

/// The fence of a grant.
fn granted(clause: &str, answer: Acquisition) -> u64 {
    let Acquisition::Granted { fence, .. } = answer else {
        broken(clause, format_args!("not granted: {answer:?}"))
    };
    let exact = format!("{fence} is larger than 2^53");
    demand(fence <= 1 << 53, "fences are at most 2^53", exact);
    fence
}

#[track_caller]
fn demand(kept: bool, clause: &str, what: impl fmt::Display) {
    if !kept {
        broken(clause, what);
    }
}

#[track_caller]
fn broken(clause: &str, what: impl fmt::Display) -> ! {
    panic!("{clause}: {what}")
}
