//! Failovers of primaries.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::future::select_all;
use lock_tests::{Random, RedisServer, ms, now};
use redis::RedisResult;
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

use super::{Outage, Shards, any, key_of, slot_of};
use crate::{timings::NEXT_LOCK, world::nanos};

/// Bound on a failover; a failed election is repeated after a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Within this time, all locks on a new primary are renewed.
const RENEWED: Duration = Duration::from_secs(1);

/// The pause between two looks at which node serves.
const STEP: Duration = ms(3);

impl Shards {
    /// One fault, until the former primary follows the new one.
    pub(super) async fn fail_over(&self, kind: &'static str, random: &mut Random) {
        let cold = any(&self.ids.cold, random);
        let old = self.cluster.primary_of(slot_of(cold)).await;
        let ports = self.cluster.ports().await;
        let its = self.aim(|id| ports[usize::from(slot_of(id))] == old.port()).await;
        let key = format!("probe{{{}}}", key_of(cold));
        sleep(ms(random.below(500))).await;
        let from = now();
        let begin = async {
            match kind {
                "failover by command" => drop(self.cluster.fail_over(slot_of(cold)).await),
                "primary killed" => old.kill(),
                "primary stopped" => old.stop_process(),
                "primary cut off" => self.cluster.cut_off(&old).await,
                unknown => unreachable!("{unknown}"),
            }
        };
        let serves = timeout(PATIENCE, self.first_to_serve(&old, &key));
        let (serves, ()) = tokio::join!(serves, begin);
        let (new, promoted) = serves.expect("no node takes the place of a primary");
        let granted = self.concerned.first_lock_on(&new).await;
        if kind == "primary cut off" {
            refuses(&old, &key).await;
        }
        if kind != "failover by command" {
            self.world.forgetting_of(&its, from);
        }
        let granted = timeout(PATIENCE, granted).await.expect("no lock is granted");
        let granted = granted.expect("the prober goes on");
        let outage = Outage { ids: its, from, to: granted + nanos(RENEWED) };
        self.outages.lock().unwrap_or_else(PoisonError::into_inner).push(outage);
        self.time(NEXT_LOCK, kind, Duration::from_nanos(granted.saturating_sub(promoted)));
        self.look_elsewhere(kind).await;
        sleep(ms(random.below(1000))).await;
        match kind {
            "primary killed" => block_in_place(|| old.restart()),
            "primary stopped" => old.continue_process(),
            "primary cut off" => self.cluster.let_in(&old).await,
            _ => {}
        }
        self.cluster.settled().await;
        let was = old.port();
        self.account_for(|_, before, now| now == if before == was { new.port() } else { before })
            .await;
    }

    /// The first other node that takes a write in place of this one, and since when.
    async fn first_to_serve(&self, old: &RedisServer, key: &str) -> (Arc<RedisServer>, u64) {
        let mut others = self.cluster.servers();
        others.retain(|server| server.port() != old.port());
        let looks = others.into_iter().map(|server| {
            Box::pin(async move {
                let mut connection = server.connection().await;
                loop {
                    if takes(&mut connection, key).await.is_ok() {
                        break (server, now());
                    }
                    sleep(STEP).await;
                }
            })
        });
        select_all(looks).await.0
    }
}

/// Waits until the former primary has noticed that it is alone.
async fn refuses(old: &RedisServer, key: &str) {
    let mut connection = old.connection().await;
    let refused = async {
        while takes(&mut connection, key).await.is_ok() {
            sleep(STEP).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("an isolated primary stops serving");
}

async fn takes(connection: &mut redis::aio::MultiplexedConnection, key: &str) -> RedisResult<()> {
    redis::cmd("SET").arg(key).arg(1).arg("PX").arg(1000).query_async(connection).await
}
