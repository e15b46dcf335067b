//! Distributed locks and debounce for async Rust, on Redis, Valkey or in memory.
//!
//! For each id, at most one call of a [`#[locked]`](macro@locked) function runs, or one
//! [`LockGuard`] is held, at a time, across all processes that share a store. The lease is renewed
//! in the background, the lock is released on drop, and a `#[locked]` function is stopped when its
//! lock is lost. [`#[debounced]`](macro@debounced) turns a burst of calls, from any number of
//! processes, into one run of the last call.
//!
//! [What it promises](#what-it-promises) · [Quick start](#quick-start) ·
//! [Which type when](#which-type-when) · [When a lock is lost](#when-a-lock-is-lost) ·
//! [Which lease, which wait](#which-lease-which-wait) · [axum](#axum) ·
//! [Which `Locks` an attribute uses](#which-locks-an-attribute-uses) · [Features](#features) ·
//! [What it cannot do yet](#what-it-cannot-do-yet)
//!
//! # What it promises
//!
//! No lock service can promise that two processes never work at the same time: one of them may be
//! paused for longer than its lease, right before its next write. This library promises three
//! things.
//!
//! 1. **Within timing assumptions, at most one guard is valid.** A guard is valid until its
//!    deadline: the moment before the request was sent, plus the lease, minus a margin (a hundredth
//!    of the lease, at least 2 ms), on a clock that also runs while the machine is suspended. The
//!    assumptions are that clock rates differ by less than a hundredth, and that the store keeps
//!    its data. A Redis server that restarts empty, evicts keys, fails over to a replica without
//!    the lock, or has its clock set forward may grant the lock again while the old guard is valid.
//! 2. **Without any assumption about time, a resource can refuse stale writers.** [Fencing
//!    tokens](LockGuard::fencing_token) grow even after the store has lost its data. A resource
//!    that refuses tokens smaller than the largest it has seen accepts no stale write. The one
//!    exception is a store that loses its data *and* has its clock set back.
//! 3. **A running process learns of a loss before the deadline**, and a process that was paused
//!    learns of it when it resumes: see [When a lock is lost](#when-a-lock-is-lost).
//!
//! So use the lock alone if doing the work twice is merely wasteful. If it would be wrong, have the
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
//!     // ... the lock is held, and its lease renewed, until this returns
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
//! | one call at a time | [`#[locked]`](macro@locked), or [`Lock::acquire`] |
//! | to run a block under a lock, and stop it when the lock is lost | [`Lock::with`] |
//! | one attempt, without waiting | [`Lock::try_acquire`], or `wait = 0, skip` in the attribute |
//! | to poll a few times instead of waiting in line | [`Lock::retry`] |
//! | several locks, without deadlocks | several `#[locked]` on one function |
//! | a job that runs once per period, whichever machine starts it | `wait = 0, skip` and [`Lock::hold_at_least`] |
//! | one leader, until it stops or dies | [`Lock::acquire`] with [`wait(Duration::MAX)`](Lock::wait) |
//! | a maximum hold, if the holder may hang | [`Lock::hold_at_most`], [`Debounce::hold_at_most`] |
//! | one run for a burst of calls | [`#[debounced]`](macro@debounced), or [`Debounce::call`] |
//! | the same, in a handler whose client may hang up | `detached` in the attribute, or [`Debounce::spawn`] |
//! | calls that survive their process | [`Durable`], or `durable` in the attribute |
//! | to pass a lock to another process | [`LockGuard::leak`] here, [`Lock::adopt`] there |
//! | to see who holds a lock, and to free it by hand | [`Lock::status`], [`Locks::list`], [`Lock::force_release`] (not `DEL`) |
//! | to start while the server is down | [`LocksBuilder::build_lazy`] |
//! | to learn of problems before a call fails | [`LocksBuilder::on_warning`] |
//! | to test code that takes locks | [`Locks::in_memory`], [`Locks::scope`], [`test_util`] |
//! | to keep locks in another system | [`store`]: a trait with three required methods |
//!
//! # When a lock is lost
//!
//! A lock is lost when its lease runs out because the store is unreachable or the process is
//! paused, when the store loses its data, after [`hold_at_most`](Lock::hold_at_most), or when an
//! operator [frees it](Lock::force_release).
//!
//! | code | what it sees |
//! |---|---|
//! | the body of `#[locked]`, [`Lock::with`], a debounced run | it is dropped at its next `.await`; the call fails with [`ErrorKind::Lost`] |
//! | the holder of a [`LockGuard`] | [`lost()`](LockGuard::lost) resolves, [`lost_token()`](LockGuard::lost_token) is cancelled, [`is_held()`](LockGuard::is_held) is false |
//! | [`LockGuard::release`] | `Err` of kind `Lost`: part of the work may have overlapped with that of another holder |
//! | the resource | a fencing token smaller than the largest it has seen: it refuses the write |
//!
//! `is_held()` checks the clock, so it is correct even after the whole process was paused. Call it
//! before a side effect in code that does not `.await`. A task that the body has spawned is not
//! stopped with the body: pass it a `lost_token()`. Nothing that the body has done is undone.
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
//! number in Lua or in many JSON parsers) rounds them, and two holders may then have the same
//! number. Store a token as a 64-bit integer, or send it as text. [`fenced`] has the SQL for
//! PostgreSQL and a conditional write for Redis.
//!
//! # Which lease, which wait
//!
//! The lease does not bound the work: it is renewed every third of its length while the guard
//! lives.
//!
//! - **[`lease`](Lock::lease)**, 10 s unless set: after a crash, others wait until it ends; an
//!   outage of the store costs no lock if it is shorter than four tenths of the lease (a quarter, if
//!   the lease is under 6 s). Choose 50 s if your Redis takes 20 s to fail over. Choose 2 s if a
//!   crash must not block others for longer and the round trip to the server is short. From 50 ms
//!   to 24 h.
//! - **[`wait`](Lock::wait)**, 10 s unless set: how long a caller waits for the lock before
//!   [`ErrorKind::Busy`]. In a request, choose less than the client's time-out; in a job that
//!   another machine may already be running, zero; for a leader, `Duration::MAX`. Waiting costs
//!   each process one command per id every five seconds, if the holder also uses this library.
//! - **[`hold_at_most`](Lock::hold_at_most)**: a few times the longest normal run. Without it, a
//!   body that hangs keeps its lock for as long as its process lives.
//! - **[`hold_at_least`](Lock::hold_at_least)**: for a job that several machines start by their own
//!   clocks, longer than these clocks may differ.
//! - **[`Debounce::wait`]**, 1 s unless set, is the pause that ends a burst.
//!   [`max_wait`](Debounce::max_wait) bounds the delay while calls keep coming.
//!
//! # axum
//!
//! Put the attribute on the handler, and the [`Locks`] in the application state: cloning it is
//! cheap. With the feature `axum`, an [`Error`] converts into a response.
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
//! with 500. The body is a problem document (RFC 9457) with the members `kind` and `id`. The
//! error's message names servers, so it is not sent. A middleware can log it: the error is an
//! `Arc<lock::Error>` in `response.extensions()`. Without the feature, and in other frameworks,
//! derive the status from [`Error::kind`] and the header from [`Error::retry_after`].
//!
//! If the client hangs up before the response, the body is dropped and its lock is released. On
//! shutdown, call [`Locks::flush`] after the server has stopped, or [`Locks::shutdown`], which also
//! releases locks that are still held. `shutdown` also ends detached calls whose burst is not over
//! yet, so wait for these calls first. The example `service` (`examples/service` in the repository)
//! does all of this, and its tests show it.
//!
//! # Which `Locks` an attribute uses
//!
//! An attribute uses the `Locks` in `locks = ..`, or else that of the task ([`Locks::scope`], which
//! tests use), or else that of the process ([`Locks::install`]). If there is none, the call fails
//! with [`ErrorKind::NotInstalled`]. **Spawned tasks do not inherit a scope**: pass it on with
//! [`Locks::current`].
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `redis` | yes | `redis://` and `unix://`: one server of Redis 6.2 or newer, or Valkey; `redis+sentinel://`: a primary watched by Sentinels; `redis+cluster://`: a Redis Cluster; [`Warning`], [`fenced`] |
//! | `tls` | yes | `rediss://`, through `rustls`; [`LocksBuilder::root_certificate`] |
//! | `durable` | | [`Durable`]: debounced calls that are kept in the store and survive their process; serde must be able to serialize their arguments |
//! | `axum` | | [axum](#axum) 0.8 responses for [`Error`], through `axum-core` 0.5 |
//! | `metrics` | | measurements, through the [`metrics`](https://docs.rs/metrics) 0.24 facade, for the recorder that the application installs |
//! | `test-util` | | [`test_util`]: a store that fails on demand, and the contract tests for a [`store`] of your own |
//!
//! Without any features, locks and debounces work in memory, and in a [`store`] of your own. The
//! minimum supported Rust version is 1.88; the runtime is Tokio, with timers enabled.
//!
//! For TLS, this library uses the cryptography provider that the application has installed as the
//! default of `rustls`, or else *ring*. It does not change the default. ([`LocksBuilder::client`]
//! has the one exception.)
//!
//! # What it cannot do yet
//!
//! Quorums of independent servers, shared (reader) locks, and semaphores.
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
