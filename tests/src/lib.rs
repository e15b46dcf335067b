//! The harness of the suite: real Redis servers, and faults between them and the library.
//!
//! The harness does not depend on the library, so a mistake in one cannot hide one in the other.
//!
//! - [`RedisServer`]: a `redis-server` process of its own for each test, on a free loopback port
//!   and in a temporary directory. Both are gone when the value is dropped.
//! - [`Sentinels`], [`SentinelEvents`]: a primary, its replicas, and the Sentinels that watch them.
//! - [`Cluster`]: a Redis Cluster, whose slots move, and whose nodes come and go.
//! - [`CommandCounts`], [`CommandWatch`]: the commands that a server ran, and those that its
//!   clients sent.
//! - [`Certificates`]: a certificate authority, and its certificates for servers and clients.
//! - [`Proxy`]: stands between a client and a server and breaks the network on demand.
//! - [`Worker`]: another process, which uses the library and can be killed or stopped.
//! - [`HostClock`]: the clocks of such processes, as if they ran on a host of their own.
//! - [`Clock`]: one of these clocks, as a process sees it.
//! - [`Random`]: random numbers from a seed.
//! - [`History`]: what the holders of locks saw, and its judge.
//! - [`end_with_this_process`], [`temporary_directory`]: a test process leaves nothing behind.
//! - [`eventually`]: waits for the state of another process, within a bound.
//!
//! A failing step panics with a message, because the only caller is a test. Values clean up in
//! their `Drop`, also while a test unwinds. A test process that is killed drops nothing: a shell
//! that outlives it then kills its servers and workers, and removes their directories.
#![forbid(unsafe_code)]

mod certificates;
mod children;
mod cluster;
mod commands;
mod host_clock;
mod ports;
mod proxy;
mod sentinels;
mod server;
mod signals;
mod wait;
mod wire;
mod worker;

pub use certificates::{Certificates, ClientCertificate};
pub use children::{end_with_this_process, temporary_directory};
pub use cluster::{Cluster, ClusterBuilder, SlotMove};
pub use commands::{ClientCommand, CommandCounts, CommandWatch};
pub use host_clock::{Clock, HostClock, rate_between, rate_of};
pub use lock_judge::{
    Call, Fate, Forgetting, History, Loss, Outcome, Random, Refusal, Section, Verdict,
};
pub use proxy::{Direction, Proxy};
pub use sentinels::{SentinelEvent, SentinelEvents, Sentinels};
pub use server::{RedisServer, RedisServerBuilder, ServerVersion};
pub use wait::{Observation, eventually, ms, now};
pub use worker::{WorkIds, Worker, worker_of_version_before};
