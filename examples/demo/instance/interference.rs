//! What is done to an instance from outside, whatever it is at.

use std::{sync::Arc, time::Instant};

use super::{About, Instance};
use crate::{
    board::{Doing, Event},
    network::Condition,
};

impl Instance {
    pub(super) fn set_network(&self, condition: Condition) {
        {
            let mut state = self.state();
            let Some(life) = &state.life else { return };
            if !life.network.is_breakable() {
                return;
            }
            life.network.set(condition);
            state.condition = condition;
        }
        let (call, meaning) = match condition {
            Condition::Open => ("repair the network", "Renewals reach the store again."),
            Condition::Silent => (
                "stop renewing",
                "No renewal reaches the store any more. The lease runs out, unless you repair the \
                 network before.",
            ),
            Condition::Cut => (
                "cut the connection",
                "The library tries to connect again. The guard stays valid for the rest of its lease.",
            ),
        };
        self.answer(call, "done", meaning, condition == Condition::Open);
    }

    /// As an operator would, who has another client.
    pub(super) async fn force(&self, id: &str) {
        let Some(process) = self.process.upgrade() else { return };
        let outcome = process.operator.lock(id).force_release().await;
        let call = "lock.force_release().await";
        match outcome {
            Ok(true) => {
                self.write(Event::Forced { id: id.to_owned() });
                self.answer(call, "Ok(true)", "The lock was freed, and its holder was told.", true);
            }
            Ok(false) => self.answer(call, "Ok(false)", "Nobody held it.", true),
            Err(error) => self.answer(call, &format!("Err({error})"), "", false),
        }
    }

    /// Ends it as `kill -9` would: the store hears nothing, and what it held stays held for the rest
    /// of the lease.
    pub(super) fn kill(&self) {
        let mut state = self.state();
        let Some(life) = state.life.take() else { return };
        life.network.set(Condition::Cut);
        state.watch = None;
        // A guard that is dropped would be released, as soon as the store can be reached.
        if let Some(guard) = state.guard.take().and_then(Arc::into_inner) {
            let _ = guard.leak();
        }
        let held = state.doing == Doing::Holding;
        state.doing = Doing::Killed;
        state.since = Instant::now();
        life.killed.cancel();
        drop(state);
        self.write(Event::Killed);
        let meaning = if held {
            "Nobody has released the lock. Others get it when its lease has run out, and not before."
        } else {
            "It held no lock."
        };
        self.answer("kill -9", "killed", meaning, false);
    }

    /// To the resource that the lock protects. The lock's own state is not asked: the resource
    /// decides by the token.
    pub(super) async fn write_to_ledger(&self) {
        let Some(process) = self.process.upgrade() else { return };
        let (grant, dead, holds) = {
            let state = self.state();
            (state.grant.clone(), state.life.is_none(), state.doing == Doing::Holding)
        };
        let call = if holds {
            "ledger.write(value, guard.fencing_token())"
        } else {
            "ledger.write(value, old_token)"
        };
        let tell = |answer: &str, meaning: &str, good| {
            self.answer_about(About::Ledger, call, answer, meaning, good);
        };
        if dead {
            return tell("the process is dead", "Start it again first.", false);
        }
        let Some((id, fence)) = grant else {
            return tell("no token", "Acquire the lock first.", false);
        };
        match process.ledger.write(&id, &self.name, fence).await {
            Ok(accepted) => {
                self.write(Event::Wrote { id, fence, accepted });
                match (accepted, holds) {
                    (true, true) => tell("accepted", "No larger token has written before.", true),
                    (true, false) => tell(
                        "accepted",
                        "You no longer hold the lock, but no larger token has written yet, so the \
                         ledger could not tell.",
                        true,
                    ),
                    (false, _) => tell(
                        "refused",
                        "A larger token has written: this write is too late.",
                        false,
                    ),
                }
            }
            Err(why) => tell(&why, "", false),
        }
    }
}
