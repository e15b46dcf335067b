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

/// How many processes lock.
pub(super) const CLIENTS: u64 = 4;

/// How long nothing breaks at the end.
const CALM: Duration = Duration::from_millis(2500);

pub(super) struct Single {
    seed: u64,
    pub(super) world: World,
    /// The way of each client to the server.
    pub(super) proxies: Vec<Proxy>,
    /// The hand that breaks the server has them to itself.
    pub(super) servers: tokio::sync::Mutex<Servers>,
}

pub(super) struct Servers {
    pub(super) primary: RedisServer,
    /// Takes the primary's place at a failover; not in use before.
    pub(super) standby: RedisServer,
    /// Of both.
    pub(super) clock: HostClock,
    /// No data is lost before, because the counter is ahead of the clock.
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

    /// Breaks things until it is enough, mends everything, and leaves everybody alone for a while.
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

    /// Lets everybody finish, and looks at what is left.
    pub(super) async fn end(self) -> End {
        self.world.finish().await;
        let servers = self.servers.into_inner();
        // What the clock of the server adds, and a margin.
        let late = ms(JUMP.unsigned_abs() + 2000);
        self.world.end(&[&servers.primary], &servers.primary.url(), late).await
    }
}
