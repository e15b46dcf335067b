//! How the next link of a node is made: by trying until there is one.

use std::{sync::Weak, time::Duration};

use tokio::time::{self, Instant};

use super::{
    super::{
        backoff::{RECONNECT, jittered},
        link::Identity,
    },
    Node, State,
};

/// The previous link, if there was one.
#[derive(Default)]
pub(super) struct Before {
    pub(super) identity: Option<Identity>,
    /// The node has moved. If the user may not ask a server for its name, only this shows that
    /// another server answers.
    pub(super) moved: bool,
}

/// Tries to connect until it succeeds, or until the node is gone.
pub(super) async fn reconnect(owner: Weak<Node>, before: Before, pause: Duration) {
    let mut delay = pause;
    let mut last = None;
    let Some(mut places) = owner.upgrade().map(|node| node.places.clone()) else { return };
    loop {
        tokio::select! {
            () = time::sleep(jittered(delay)), if !delay.is_zero() => {}
            // The new place has not been tried yet.
            () = places.moved(), if !delay.is_zero() => {}
            else => {}
        }
        delay = (delay * 2).clamp(RECONNECT.0, RECONNECT.1);
        let place = tokio::select! {
            place = places.current() => place,
            () = nobody_wants(&owner) => return,
        };
        let Some(node) = owner.upgrade() else { return };
        let answered = || {
            node.state.send_modify(|state| {
                if let State::Connecting { answered_at, .. } = state {
                    *answered_at = Some(Instant::now());
                }
            });
        };
        let mut elsewhere = places.clone();
        let outcome = tokio::select! {
            outcome = node.handshake.connect(&place, before.identity.as_ref(), answered) => outcome,
            () = elsewhere.moved() => {
                delay = Duration::ZERO;
                continue;
            }
        };
        match outcome {
            Ok(mut opened) => {
                opened.is_other |= before.moved;
                return node.install(opened, &place, places, delay).await;
            }
            Err(refusal) => {
                node.troubles.send_modify(|times| *times += 1);
                // Once for each reason, not once for each attempt.
                if last.as_deref() != Some(refusal.text()) {
                    node.report("cannot connect to the Redis server", place.address(), &refusal);
                    last = Some(refusal.text().to_owned());
                }
                node.state.send_modify(|state| {
                    if let State::Connecting { answered_at, refusal: known } = state {
                        *answered_at = None;
                        *known = Some(refusal);
                    }
                });
            }
        }
    }
}

/// Returns when the node is gone, which is checked periodically while the node has no place.
async fn nobody_wants(owner: &Weak<Node>) {
    while owner.strong_count() > 0 {
        time::sleep(RECONNECT.1).await;
    }
}
