//! A link that outlives its credentials: the server is sent new ones on it.

use std::sync::{Arc, Weak};

use redis::Value;
use tokio::{
    select,
    time::{self, Instant},
};

use super::{
    super::{
        admission::Admission,
        backoff::{RECONNECT, jittered},
        place::Place,
        refusal::Refusal,
        stream::bounded,
    },
    Live, Node,
};

impl Node {
    /// Asks for new credentials from `at` on, and sends them to the server, for as long as the link
    /// is in use. Credentials that the server does not accept do not end the link: it continues
    /// with the old ones until the server ends it.
    pub(super) fn keep_admitted(&self, live: &Arc<Live>, place: &Arc<Place>, at: Instant) {
        let (node, live) = (Weak::clone(&self.weak), Arc::downgrade(live));
        let (mut states, place) = (self.state.subscribe(), Arc::clone(place));
        tokio::spawn(async move {
            let used = Weak::clone(&live);
            // The provider is not asked on behalf of a link that is gone: credentials may last for
            // hours.
            let is_gone = states.wait_for(|state| {
                state.live().is_none_or(|current| Arc::as_ptr(current) != used.as_ptr())
            });
            select! {
                _ = is_gone => {}
                () = renew(node, live, place, at) => {}
            }
        });
    }
}

async fn renew(node: Weak<Node>, live: Weak<Live>, place: Arc<Place>, mut at: Instant) {
    let mut delay = RECONNECT.0;
    loop {
        time::sleep_until(at).await;
        let admission = match place.endpoint().admission().await {
            Ok(Some(admission)) => Ok(admission),
            Ok(None) => return,
            Err(refusal) => Err(refusal),
        };
        let (Some(node), Some(live)) = (node.upgrade(), live.upgrade()) else { return };
        let outcome = match admission {
            Ok(admission) => tell(&live, &admission).await.map(|()| admission.renew_at),
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(Some(next)) => (at, delay) = (next, RECONNECT.0),
            Ok(None) => return,
            Err(refusal) => {
                let what = "the connection to the Redis server keeps its old credentials";
                node.report(what, place.address(), &refusal);
                at = Instant::now() + jittered(delay);
                delay = (delay * 2).min(RECONNECT.1);
            }
        }
    }
}

async fn tell(live: &Live, admission: &Admission) -> Result<(), Refusal> {
    match bounded("to AUTH", live.link.admit(admission)).await?.map_err(Refusal::of)? {
        Value::ServerError(error) => Err(Refusal::of(error.into())),
        _ => Ok(()),
    }
}
