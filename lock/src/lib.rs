//! Distributed locks and debounce for async Rust, on Redis or in memory.
//!
//! At most one call of a [`#[locked]`](macro@locked) function, or one holder of a [`LockGuard`],
//! runs per id across all processes that share a store. The lease is renewed in the background, the
//! lock is released on drop, and a `#[locked]` function is stopped when its lock is lost.
//! [`#[debounced]`](macro@debounced) turns a burst of calls, from any number of processes, into one
//! run of the last call.
//!
//! [What it promises](#what-it-promises) · [Quick start](#quick-start) ·
//! [Which type when](#which-type-when) · [When a lock is lost](#when-a-lock-is-lost) ·
//! [Which lease, which wait](#which-lease-which-wait) · [axum](#axum) ·
//! [Which `Locks` an attribute uses](#which-locks-an-attribute-uses) · [Features](#features) ·
//! [What it cannot do yet](#what-it-cannot-do-yet)
//!
//! # What it promises
//!
//! No lock service can promise that two processes never run at once: one of them may be paused for
//! longer than its lease, right before its next write. This library promises three things.
//!
//! 1. **At most one guard is valid, within timing assumptions.** A guard is valid until its
//!    deadline: the time before the request was sent, plus the lease, minus a margin (a hundredth of
//!    the lease, at least 2 ms), on a clock that runs while the machine is suspended. This assumes
//!    that clocks run at the same rate to within a hundredth, and that the store keeps its data. A
//!    Redis server that restarts empty, evicts keys, or fails over to a replica without the lock may
//!    grant the lock again while the old guard is valid.
//! 2. **A resource can refuse stale writers, with no assumption about time.** Each grant has a
//!    larger [fencing token](LockGuard::fencing_token) than all grants before it, even after the
//!    store has lost its data. A resource that refuses tokens below the largest it has seen accepts
//!    no stale write. One exception: the store's data is lost *and* its clock was set back.
//! 3. **Loss is signalled before the deadline, whenever the process runs.** See
//!    [When a lock is lost](#when-a-lock-is-lost).
//!
//! So use a lock alone where doing the work twice is only a waste. Where it would be wrong, have the
//! resource check the fencing token.
//!
//! # Quick start
//!
//! ```no_run
//! use lock::{Error, Locks, debounced, locked};
//!
//! // One charge of an invoice at a time, across all instances of the service.
//! #[locked(id = "invoice:{invoice_id}")]
//! async fn charge(invoice_id: u64) -> Result<(), Error> {
//!     // ... the lock is held, and renewed, until this returns
//!     Ok(())
//! }
//!
//! // A burst of calls becomes one run: the last call's, one second after it.
//! #[debounced(id = "reindex:{document_id}", wait = "1s")]
//! async fn reindex(document_id: u64) {}
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     let locks = Locks::connect("redis://127.0.0.1/").await?;
//!     locks.install().expect("installed once"); // for the attributes
//!     charge(7).await?;
//!
//!     // The same without an attribute: a guard in a scope.
//!     let guard = locks.lock("report").acquire().await?;
//!     println!("writing with fencing token {}", guard.fencing_token());
//!     guard.release().await?; // or drop it: it is then released in the background
//!
//!     locks.flush().await; // waits for the releases that drops have started
//!     Ok(())
//! }
//! ```
//!
//! Development and tests need no server: [`Locks::in_memory`] behaves the same.
//!
//! # Which type when
//!
//! | I want | use |
//! |---|---|
//! | one at a time | [`#[locked]`](macro@locked), or [`Lock::acquire`] |
//! | to run a block under a lock, and stop it when the lock is lost | [`Lock::with`] |
//! | a single attempt, and to continue without the lock | [`Lock::try_acquire`], or `wait = 0, skip` in the attribute |
//! | to poll a few times instead of waiting in line | [`Lock::retry`] |
//! | several locks at once, without deadlocks | several `#[locked]` on one function |
//! | a job that runs once per period, whichever machine starts it | `wait = 0, skip` and [`Lock::hold_at_least`] |
//! | one leader, until it stops or dies | [`Lock::acquire`] with [`wait(Duration::MAX)`](Lock::wait) |
//! | a bound on a holder that hangs | [`Lock::hold_at_most`], [`Debounce::hold_at_most`] |
//! | one run for a burst of calls | [`#[debounced]`](macro@debounced), or [`Debounce::call`] |
//! | the same, in a handler whose client may hang up | `detached` in the attribute, or [`Debounce::spawn`] |
//! | calls that survive the death of their caller | [`Durable`], or `durable` in the attribute |
//! | to pass a lock to another process | [`LockGuard::leak`] there, [`Lock::adopt`] here |
//! | to see who holds a lock, and to free it by hand | [`Lock::status`], [`Locks::list`], [`Lock::force_release`] (not `DEL`) |
//! | to start while the server is down | [`LocksBuilder::build_lazy`] |
//! | to learn of problems before a call fails | [`LocksBuilder::on_warning`] |
//! | to test code that takes locks | [`Locks::in_memory`], [`Locks::scope`], [`test_util`] |
//! | locks in another system | [`store`]: three methods to start with |
//!
//! # When a lock is lost
//!
//! A lock is lost when the store cannot be reached until the lease runs out, when the store loses
//! its data, when the process is paused for longer than the lease, after
//! [`hold_at_most`](Lock::hold_at_most), or when an operator [frees it](Lock::force_release).
//!
//! | code | what it sees |
//! |---|---|
//! | the body of `#[locked]`, [`Lock::with`], a debounced run | it is dropped at its next `.await`; the call fails with [`ErrorKind::Lost`] |
//! | the holder of a [`LockGuard`] | [`lost()`](LockGuard::lost) resolves, [`lost_token()`](LockGuard::lost_token) is cancelled, [`is_held()`](LockGuard::is_held) is false |
//! | [`LockGuard::release`] | `Err` of kind `Lost`: part of the work may have overlapped with that of another holder |
//! | the resource | a fencing token smaller than the largest it has seen: it refuses the write |
//!
//! `is_held()` checks the clock, so it is correct even after the whole process was stopped. Call it
//! before a side effect in code that does not `.await`. A task that the body has spawned is not
//! stopped with the body: give it a `lost_token()`. Nothing that the body has done is undone.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), lock::Error> {
//! # let (locks, rows) = (lock::Locks::in_memory(), [1, 2, 3]);
//! let guard = locks.lock("copy").acquire().await?;
//! let (stop, fence) = (guard.lost_token(), guard.fencing_token());
//! let worker = tokio::spawn(async move {
//!     for row in rows.into_iter().take_while(|_| !stop.is_cancelled()) {
//!         println!("write row {row}, if no token above {fence} has written it");
//!     }
//! });
//! worker.await.expect("it does not panic");
//! guard.release().await?; // `Lost`: another holder may have copied at the same time
//! # Ok(())
//! # }
//! ```
//!
//! Fencing tokens fit an `i64`, but they exceed 2<sup>53</sup>: a double (a JavaScript number, a
//! number in Lua or in many JSON parsers) rounds them, and two holders may get the same number.
//! Store them as a 64-bit integer, or send them as text. [`fenced`] has the SQL for PostgreSQL and
//! a conditional write for Redis.
//!
//! # Which lease, which wait
//!
//! The lease does not bound the work: it is renewed every third of its length while the guard
//! lives.
//!
//! - **[`lease`](Lock::lease)**, 10 s unless set: after a crash, others wait until it ends; an
//!   outage of the store costs no lock if it is shorter than about two thirds of the lease. Choose
//!   40 s if your Redis takes 20 s to fail over. Choose 2 s if a crash must not block others for
//!   longer and the server is near. From 50 ms to 24 h.
//! - **[`wait`](Lock::wait)**, 10 s unless set: how long a caller waits for the lock before
//!   [`ErrorKind::Busy`]. In a request, choose less than the client's time-out; in a job that
//!   another machine can do as well, zero; for a leader, `Duration::MAX`. Waiting costs each
//!   process one command per id every five seconds, if the holder also uses this library.
//! - **[`hold_at_most`](Lock::hold_at_most)**: a few times the longest normal run. Without it, a
//!   body that hangs keeps its lock for as long as its process lives.
//! - **[`hold_at_least`](Lock::hold_at_least)**: for jobs that machines start by their own clocks,
//!   more than these clocks differ.
//! - **[`Debounce::wait`]**, 1 s unless set, is the pause that ends a burst;
//!   [`max_wait`](Debounce::max_wait) bounds the delay while calls keep coming.
//!
//! # axum
//!
//! The attribute goes on the handler; keep the [`Locks`] in the state. Cloning it is cheap. With the
//! feature `axum`, an [`Error`] is a response.
//!
//! ```
//! # #[cfg(feature = "axum")]
//! # mod service {
//! use axum::{Router, extract::{Path, State}, http::StatusCode, routing::post};
//! use lock::{Error, Locks, debounced, locked};
//!
//! #[derive(Clone)]
//! struct App { locks: Locks }
//!
//! #[locked(id = "invoice:{id}", locks = app.locks, wait = "2s")]
//! async fn pay(State(app): State<App>, Path(id): Path<u64>) -> Result<String, Error> {
//!     Ok(format!("invoice {id} is paid"))
//! }
//!
//! async fn changed(State(app): State<App>, Path(id): Path<u64>) -> Result<StatusCode, Error> {
//!     let ran = reindex(app, id).await?; // returns when its burst is over
//!     Ok(if ran.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED })
//! }
//!
//! // axum drops a handler whose client hangs up; a `detached` call stays in its burst.
//! #[debounced(id = "reindex:{id}", locks = app.locks, wait = "1s", detached)]
//! async fn reindex(app: App, id: u64) -> Result<(), Error> {
//!     Ok(())
//! }
//!
//! # pub
//! fn router(locks: Locks) -> Router {
//!     Router::new()
//!         .route("/invoices/{id}/pay", post(pay))
//!         .route("/documents/{id}/changed", post(changed))
//!         .with_state(App { locks })
//! }
//! #     pub async fn run() {
//! #         let app = App { locks: Locks::in_memory() };
//! #         assert!(pay(State(app.clone()), Path(7)).await.is_ok());
//! #         assert!(changed(State(app), Path(7)).await.is_ok());
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! #     #[cfg(feature = "axum")]
//! #     service::run().await;
//! # }
//! ```
//!
//! `Busy` is answered with 423 and `Retry-After`, `Lost` with 409, `Unavailable` with 503 and
//! `Retry-After`, `Closed` with 503, and all other kinds, which the client can do nothing about,
//! with 500. The body is a problem of RFC 9457, with the members `kind` and `id`. The error's
//! message names servers and is not sent: a middleware finds the error as an `Arc<lock::Error>` in
//! `response.extensions()`, and can log it. Without the feature, and in other frameworks,
//! [`Error::kind`] gives the status and [`Error::retry_after`] the header.
//!
//! If the client hangs up in the middle, the body is dropped and its lock released. On shutdown,
//! call [`Locks::flush`] after the server has stopped, or [`Locks::shutdown`], which also releases
//! locks that are still held. `shutdown` also ends detached calls that wait for the end of their
//! burst, so wait for these first. The example `service` (`examples/service` in the repository)
//! does all of this, and its tests show it.
//!
//! # Which `Locks` an attribute uses
//!
//! The one in `locks = ..`, else that of the task ([`Locks::scope`], which tests use), else that of
//! the process ([`Locks::install`]). If there is none, the call fails with
//! [`ErrorKind::NotInstalled`]. **Spawned tasks do not inherit a scope**: pass it on with
//! [`Locks::current`].
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `redis` | yes | `redis://` and `unix://`: one server of Redis 6.2 or newer, or Valkey; `redis+sentinel://`: a primary watched by Sentinels; `redis+cluster://`: a Redis Cluster; [`Warning`], [`fenced`] |
//! | `tls` | yes | `rediss://`, through `rustls`; [`LocksBuilder::root_certificate`] |
//! | `durable` | | [`Durable`]: debounced calls that are kept in the store, with arguments that serde can serialize |
//! | `axum` | | [`Error`] as a response of [axum](#axum) 0.8, through `axum-core` 0.5 |
//! | `metrics` | | measurements, through the facade [`metrics`](https://docs.rs/metrics) 0.24, for the recorder that the application installs |
//! | `test-util` | | [`test_util`]: a store that fails on demand, and the contract tests for a [`store`] of your own |
//!
//! Without features, locks and debounces work in memory, and in a [`store`] of your own. The
//! minimum supported Rust version is 1.88; the runtime is Tokio, with timers enabled.
//!
//! TLS uses the cryptography provider that the application has installed as the default of
//! `rustls`, else *ring*, for the connections of this library only: it does not change the default.
//! ([`LocksBuilder::client`] has the one exception.)
//!
//! # What it cannot do yet
//!
//! A quorum of servers, shared (reader) locks, semaphores.
//!
#![cfg_attr(not(feature = "durable"), doc = "[`Durable`]: #features")]
#![cfg_attr(not(feature = "test-util"), doc = "[`test_util`]: #features")]
#![cfg_attr(not(feature = "redis"), doc = "[`fenced`]: #features")]
#![cfg_attr(not(feature = "redis"), doc = "[`Warning`]: #features")]
#![cfg_attr(not(feature = "redis"), doc = "[`LocksBuilder::client`]: #features")]
#![cfg_attr(not(feature = "redis"), doc = "[`LocksBuilder::on_warning`]: #features")]
#![cfg_attr(not(feature = "tls"), doc = "[`LocksBuilder::root_certificate`]: #features")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(any(fuzzing, lock_mutants), feature = "redis"))]
#[doc(hidden)]
#[path = "fuzzing.rs"]
pub mod __fuzzing;
#[doc(hidden)]
#[path = "macro_support/mod.rs"]
pub mod __private;
#[cfg(feature = "axum")]
mod axum;
mod builder;
mod clock;
mod contained;
mod context;
#[cfg(feature = "redis")]
mod credentials;
mod debounce;
mod default;
#[cfg(feature = "durable")]
mod durable;
mod error;
mod events;
#[cfg(feature = "redis")]
pub mod fenced;
mod guard;
mod guarded;
mod holder;
mod id;
mod introduction;
mod keeper;
mod limits;
mod listing;
mod lock;
mod lock_set;
mod locks;
mod observe;
mod process;
mod reentrancy;
mod runtime;
mod status;
pub mod store;
#[cfg(feature = "test-util")]
pub mod test_util;
mod url;
#[cfg(feature = "redis")]
mod warning;

#[cfg(feature = "durable")]
pub use crate::durable::{
    Durable, DurableCalls, DurableOutput, DurableRun, Receipt, Waiting, WaitingCall,
};
pub use crate::{
    builder::LocksBuilder,
    debounce::{Debounce, DebounceStatus},
    error::{AlreadyInstalled, Error, ErrorKind},
    guard::LockGuard,
    holder::Holder,
    listing::{Listed, ListedDebounce},
    lock::Lock,
    locks::Locks,
    status::Status,
};
#[cfg(feature = "redis")]
pub use crate::{credentials::Credentials, warning::Warning};
pub use lock_core::Token;
#[cfg(feature = "durable")]
pub use lock_core::contract::SetAside;
pub use lock_macros::{debounced, locked};

/// The README's examples are tests.
#[cfg(all(
    doctest,
    feature = "redis",
    feature = "durable",
    feature = "axum",
    feature = "test-util"
))]
#[doc = include_str!("../README.md")]
struct Readme;
