//! The world with one server: with a standby, and clients behind proxies.

use std::time::Duration;

use lock_tests::{HostClock, Proxy, Random, RedisServer, ms};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    end::End,
    faults::JUMP,
    world::{Clocks, Versions, World},
};

/// The number of processes.
pub(super) const CLIENTS: u64 = 4;

/// How long nothing breaks at the end.
const CALM: Duration = Duration::from_millis(2500);

pub(super) struct Single {
    seed: u64,
    pub(super) world: World,
    /// The proxy between each client and the server.
    pub(super) proxies: Vec<Proxy>,
    /// Locked by the task that breaks the server.
    pub(super) servers: tokio::sync::Mutex<Servers>,
}

pub(super) struct Servers {
    pub(super) primary: RedisServer,
    /// Takes the primary's place at a failover; unused before.
    pub(super) standby: RedisServer,
    /// The clock of both servers.
    pub(super) clock: HostClock,
    /// Data must not be lost before this time, because the counter is ahead of the clock.
    pub(super) keeps_data_until: u64,
}

impl Single {
    pub(super) fn start(seed: u64) -> Self {
        let clock = HostClock::build();
        let server = || {
            RedisServer::builder()
                .append_only(true)
                .flag("--auto-aof-rewrite-min-size", "16mb")
                .flag("--repl-diskless-sync-delay", "0")
                .clock(&clock)
                .start()
        };
        let (primary, standby) = (server(), server());
        let proxies: Vec<_> = (0..CLIENTS).map(|_| Proxy::start(primary.port())).collect();
        Self {
            seed,
            world: World::start(
                seed,
                proxies.iter().map(Proxy::url),
                Versions::Two,
                Clocks::OfTheirOwn,
            ),
            proxies,
            servers: Servers { primary, standby, clock, keeps_data_until: 0 }.into(),
        }
    }

    /// Breaks things until it is enough, heals everything, and then leaves the clients alone for a
    /// while.
    pub(super) async fn run(&self, is_enough: impl Fn() -> bool) {
        let enough = CancellationToken::new();
        let watching = async {
            while !is_enough() {
                sleep(ms(20)).await;
            }
            enough.cancel();
        };
        let breaking = async {
            tokio::join!(
                watching,
                self.break_network(Random::new(self.seed.wrapping_mul(3)), &enough),
                self.break_server(Random::new(self.seed.wrapping_mul(3) + 1), &enough),
                self.break_processes(Random::new(self.seed.wrapping_mul(3) + 2), &enough),
                self.step_clocks(Random::new(!self.seed), &enough),
            );
            self.proxies.iter().for_each(Proxy::heal);
            self.world.calm(CALM).await;
        };
        self.world.listen_until(breaking).await;
    }

    /// Lets all clients finish, and checks what is left.
    pub(super) async fn end(self) -> End {
        self.world.finish().await;
        let servers = self.servers.into_inner();
        // What the server's clock adds, and a margin.
        let late = ms(JUMP.unsigned_abs() + 2000);
        self.world.end(&[&servers.primary], &servers.primary.url(), late).await
    }
}
