//! The faults in the world of a history, and the four tasks that cause them.

use std::time::Duration;

use lock_tests::{Direction, Proxy, Random, RedisServer, eventually, ms, now};
use tokio::{select, task::block_in_place, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    single::{CLIENTS, Servers, Single},
    world::{answer, ask, nanos},
};

/// How far the server's clock jumps. A loss of the counter while the clock is behind it would be
/// two faults at once, which the fencing tokens do not survive: see docs/guarantees.md.
pub(super) const JUMP: i64 = 2500;

/// Faults on the way between one client and the server.
const NETWORK: [&str; 9] = [
    "connections reset",
    "black hole",
    "bytes held back",
    "bytes delayed",
    "cut after some bytes",
    "cut instead of a reply",
    "half closed",
    "messages dropped",
    "connections refused",
];

/// Faults of the server that keep its data; each comes three times as often as a loss.
const SERVER: [&str; 6] = [
    "server stopped",
    "server killed",
    "clients killed",
    "clients paused",
    "scripts flushed",
    "out of memory",
];

/// Faults that make it forget: keys are gone, or expire early.
const LOSSES: [&str; 6] = [
    "server killed, data lost",
    "data flushed",
    "keys evicted",
    "failover with a lost suffix",
    "server's clock ahead",
    "server's clock behind",
];

/// Faults of a client's process.
const PROCESS: [&str; 2] = ["client stopped", "client killed"];

/// The fault of a client's wall clock.
const STEPPED: &str = "client's clock stepped";

/// Its largest difference from the machine's, in milliseconds.
const STEPS: u64 = 5000;

/// The number of kinds.
pub(super) const KINDS: usize = NETWORK.len() + SERVER.len() + LOSSES.len() + PROCESS.len() + 1;

impl Single {
    pub(super) async fn break_network(&self, mut random: Random, enough: &CancellationToken) {
        let mut bag = Vec::new();
        while !enough.is_cancelled() {
            sleep(ms(random.below(400))).await;
            let kind = random.draw(&mut bag, || NETWORK.to_vec());
            let proxy = &self.proxies[random.below(CLIENTS) as usize];
            let direction = match random.below(3) {
                0 => Direction::ToServer,
                1 => Direction::ToClient,
                _ => Direction::Both,
            };
            let lasts = match kind {
                "connections reset" => {
                    proxy.reset_connections();
                    0
                }
                "black hole" => {
                    proxy.black_hole(direction);
                    random.below(1500)
                }
                "bytes held back" => {
                    proxy.hold(direction);
                    random.below(1500)
                }
                "bytes delayed" => {
                    proxy.delay_between(direction, ms(0)..=ms(60), random.any());
                    random.below(500)
                }
                "cut after some bytes" => {
                    proxy.cut_after(direction, random.below(3000) as usize);
                    200
                }
                "cut instead of a reply" => {
                    proxy.cut_instead_of_reply(1 + random.below(5));
                    200
                }
                "half closed" => {
                    proxy.half_close(direction);
                    random.below(300)
                }
                "messages dropped" => {
                    proxy.drop_messages(1 + random.below(3));
                    random.below(1000)
                }
                "connections refused" => {
                    proxy.refuse_connections();
                    proxy.reset_connections();
                    random.below(800)
                }
                unknown => unreachable!("{unknown}"),
            };
            sleep(ms(lasts)).await;
            proxy.heal();
            self.world.count(kind);
        }
    }

    pub(super) async fn break_server(&self, mut random: Random, enough: &CancellationToken) {
        let mut servers = self.servers.lock().await;
        let mut bag = Vec::new();
        while !enough.is_cancelled() {
            sleep(ms(200 + random.below(800))).await;
            let kind = random.draw(&mut bag, || [SERVER, SERVER, SERVER, LOSSES].concat());
            if LOSSES.contains(&kind) {
                sleep(Duration::from_nanos(servers.keeps_data_until.saturating_sub(now()))).await;
                self.lose_data(kind, &mut servers, &mut random).await;
            } else {
                keep_data(kind, &servers.primary, &mut random).await;
            }
            self.world.count(kind);
        }
    }

    async fn lose_data(&self, kind: &str, servers: &mut Servers, random: &mut Random) {
        let server = &servers.primary;
        let mut from = now();
        match kind {
            "server killed, data lost" => {
                server.kill();
                server.lose_append_only_file();
                block_in_place(|| server.restart());
            }
            "data flushed" => ask(server, "FLUSHALL").await,
            "keys evicted" => {
                const POLICIES: [&str; 7] = [
                    "allkeys-lru",
                    "allkeys-lfu",
                    "allkeys-random",
                    "volatile-lru",
                    "volatile-lfu",
                    "volatile-random",
                    "volatile-ttl",
                ];
                let policy = POLICIES[random.below(POLICIES.len() as u64) as usize];
                // Separately: before Redis 7.0, a command sets only one parameter.
                ask(server, &format!("CONFIG SET maxmemory-policy {policy}")).await;
                ask(server, "CONFIG SET maxmemory 1").await;
                sleep(ms(random.below(100))).await;
                ask(server, "CONFIG SET maxmemory 0").await;
                ask(server, "CONFIG SET maxmemory-policy noeviction").await;
            }
            "failover with a lost suffix" => {
                block_in_place(|| servers.standby.restart());
                let link = Proxy::start(server.port());
                ask(&servers.standby, &format!("REPLICAOF 127.0.0.1 {}", link.port())).await;
                eventually(ms(20_000), async || {
                    let answer: String = answer(&servers.standby, "INFO replication").await;
                    answer.contains("master_link_status:up")
                })
                .await;
                // The successor does not know grants from here on.
                link.black_hole(Direction::Both);
                sleep(ms(50 + random.below(200))).await;
                from = now();
                server.kill();
                ask(&servers.standby, "REPLICAOF NO ONE").await;
                for proxy in &self.proxies {
                    proxy.fail_over_to(servers.standby.port());
                }
                std::mem::swap(&mut servers.primary, &mut servers.standby);
            }
            "server's clock ahead" => {
                servers.clock.set(JUMP);
                self.world.forgetting(from);
                sleep(ms(random.below(500))).await;
                self.world.set_back();
                servers.clock.set(0);
                servers.keeps_data_until = now() + nanos(ms(JUMP.unsigned_abs() + 500));
                return;
            }
            "server's clock behind" => {
                self.world.set_back();
                servers.clock.set(-JUMP);
                sleep(ms(random.below(500))).await;
                // The return to the right time is a jump ahead.
                from = now();
                servers.clock.set(0);
            }
            unknown => unreachable!("{unknown}"),
        }
        self.world.forgetting(from);
    }

    pub(super) async fn break_processes(&self, mut random: Random, enough: &CancellationToken) {
        let mut bag = Vec::new();
        while !enough.is_cancelled() {
            sleep(ms(500 + random.below(1500))).await;
            let kind = random.draw(&mut bag, || PROCESS.to_vec());
            if kind == "client stopped" {
                let client = &self.world.clients[random.below(CLIENTS) as usize];
                client.worker().stop();
                select! {
                    () = sleep(ms(random.below(2500))) => {}
                    () = enough.cancelled() => {}
                }
                client.worker().go_on();
            } else {
                let client = &self.world.clients[1 + random.below(CLIENTS - 1) as usize];
                client.worker().kill();
                // All that it has reported, including what is still in the pipe.
                self.world.hear_out(client);
                client.begin(&self.world);
            }
            self.world.count(kind);
        }
    }

    pub(super) async fn step_clocks(&self, mut random: Random, enough: &CancellationToken) {
        while !enough.is_cancelled() {
            select! {
                () = sleep(ms(2000 + random.below(4000))) => {}
                () = enough.cancelled() => return,
            }
            let client = &self.world.clients[random.below(CLIENTS) as usize];
            let clock = client.clock.as_ref().expect("each has its own");
            clock.set(random.below(2 * STEPS).cast_signed() - STEPS.cast_signed());
            self.world.count(STEPPED);
        }
    }
}

/// A fault of a server that keeps its data, from its beginning to its end.
async fn keep_data(kind: &str, server: &RedisServer, random: &mut Random) {
    match kind {
        "server stopped" => {
            server.stop_process();
            sleep(ms(random.below(1200))).await;
            server.continue_process();
        }
        "server killed" => {
            server.kill();
            sleep(ms(random.below(800))).await;
            block_in_place(|| server.restart());
        }
        "clients killed" => {
            let which = if random.one_in(2) { "normal" } else { "pubsub" };
            for _ in 0..1 + random.below(5) {
                ask(server, &format!("CLIENT KILL TYPE {which} SKIPME yes")).await;
                sleep(ms(random.below(60))).await;
            }
        }
        "clients paused" => {
            let what = if random.one_in(2) { "WRITE" } else { "ALL" };
            let time = 1 + random.below(1000);
            ask(server, &format!("CLIENT PAUSE {time} {what}")).await;
            sleep(ms(time)).await;
        }
        "scripts flushed" => {
            for _ in 0..10 {
                ask(server, "SCRIPT FLUSH").await;
                sleep(ms(random.below(10))).await;
            }
        }
        "out of memory" => {
            ask(server, "CONFIG SET maxmemory-policy noeviction").await;
            ask(server, "CONFIG SET maxmemory 1").await;
            sleep(ms(random.below(700))).await;
            ask(server, "CONFIG SET maxmemory 0").await;
        }
        unknown => unreachable!("{unknown}"),
    }
}
