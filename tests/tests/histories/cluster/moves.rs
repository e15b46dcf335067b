//! Slots that move, and nodes that come and go.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use lock_tests::{Random, ms, now};
use tokio::time::sleep;

use super::{Shards, any, key_of, slot_of};
use crate::world::{answer, ask};

/// The measurements of a move.
const MOVE: &str = "a slot's move";
const FAT_MOVE: &str = "a move of a slot with 20,000 other keys";
const HALF_MOVED: &str = "longest acquire in a slot that moves";
const HAND_OVER: &str = "from a release behind a move to the next holder";

/// The lease of a lock that is held while its slot moves, and the least time for which the slot is
/// half moved: no lock outlives that without a renewal there.
const LEASE: Duration = ms(1500);
const HALFWAY: Duration = ms(1800);

/// How many ids have slots that move to an added node.
const NEWCOMERS: u64 = 30;

impl Shards {
    /// Moves three slots one after another, the first one with many other keys.
    pub(super) async fn move_slots(&self, kind: &'static str, random: &mut Random) {
        for number in 0..3 {
            let is_fat = number == 0;
            let id = any(if is_fat { &self.ids.hot } else { &self.ids.cold }, random);
            self.move_slot(id, is_fat, (kind, random)).await;
        }
    }

    /// Moves the slot of this id, while a lock in it is held and another client waits for it.
    async fn move_slot(&self, id: &str, is_fat: bool, (kind, random): (&'static str, &mut Random)) {
        let slot = slot_of(id);
        let from = self.cluster.primary_of(slot).await;
        let to = self.another_primary(from.port(), random).await;
        self.aim(|id| slot_of(id) == slot).await;
        let witness = format!("held{{{}}}", key_of(id));
        let held = self.holder.lock(&witness).lease(LEASE).wait(ms(3000));
        let held = held.acquire().await.unwrap();
        let next = self.successor.lock(&witness).lease(LEASE).wait(ms(30_000));
        let next = tokio::spawn(async move { (next.acquire().await, now()) });
        sleep(ms(random.below(100))).await;

        let keys: u64 = answer(&from, &format!("CLUSTER COUNTKEYSINSLOT {slot}")).await;
        let began = Instant::now();
        let half = self.cluster.begin_move(slot, &to).await;
        // None, some or all keys have moved, and this state lasts for a while.
        let some = random.below(1 + keys) as usize;
        let first = [0, some, usize::MAX][random.below(3) as usize];
        half.move_keys(first).await;
        sleep(HALFWAY + ms(random.below(400))).await;
        half.finish().await;
        self.time(if is_fat { FAT_MOVE } else { MOVE }, kind, began.elapsed());

        if !held.is_held() {
            let overdue = held.__overdue();
            self.world.violation(format!("{witness} was lost when it moved, overdue {overdue:?}"));
        }
        let released = now();
        if let Err(error) = held.release().await {
            self.world.violation(format!("{witness}: a release behind a move: {error}"));
        }
        let (next, at) = next.await.unwrap();
        match next {
            Ok(guard) => {
                let took = Duration::from_nanos(at.saturating_sub(released));
                self.time(HAND_OVER, kind, took);
                drop(guard.release().await);
            }
            Err(error) => self.world.violation(format!("{witness}: behind a move: {error}")),
        }
        self.time(HALF_MOVED, kind, self.concerned.aimed().await.longest);
        self.look_elsewhere(kind).await;
        self.account_for(|at, before, now| now == if at == slot { to.port() } else { before })
            .await;
    }

    /// Adds a node and removes one: the same one, or an older one.
    pub(super) async fn exchange_node(&self, kind: &'static str, random: &mut Random) {
        let added = self.cluster.add_node().await;
        let mut ids = BTreeSet::from([any(&self.ids.hot, random)]);
        for _ in 0..NEWCOMERS {
            ids.insert(any(&self.ids.cold, random));
        }
        let slots: BTreeSet<_> = ids.into_iter().map(|id| slot_of(id)).collect();
        self.aim(|id| slots.contains(&slot_of(id))).await;
        self.cluster.move_slots(slots.iter().copied(), &added).await;
        self.look_elsewhere(kind).await;
        self.account_for(|at, before, now| {
            now == if slots.contains(&at) { added.port() } else { before }
        })
        .await;
        sleep(ms(500)).await;

        let gone = if random.one_in(2) {
            self.cluster.remove_node(&added).await
        } else {
            let old = self.another_primary(added.port(), random).await;
            let replica = self.cluster.replica_of(&old).await;
            let gone = self.cluster.remove_node(&old).await;
            let name: String = answer(&added, "CLUSTER MYID").await;
            ask(&replica, &format!("CLUSTER REPLICATE {name}")).await;
            gone
        };
        let left = gone.keys().await;
        if !left.is_empty() {
            self.world.violation(format!("left where a node was removed: {left:?}"));
        }
        self.cluster.settled().await;
        self.account_for(|_, before, now| before == now || before == gone.port()).await;
    }
}
