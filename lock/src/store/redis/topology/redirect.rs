//! Follows the answer of a Cluster's node to a call that it has not carried out: go elsewhere, or
//! later.
//!
//! Such a call is sent again right here, but only if nothing was sent for its slot since, because
//! it would run after that: a release that follows an abandoned acquire must not overtake it.
//! Otherwise the answer stands, and the engine asks again. A renewal is sent again in any case: it
//! creates no key, and after its release it finds that its token does not hold the lock.

use std::time::Duration;

use redis::Value;
use tokio::time::{self, Instant};

use super::{
    super::{
        codes::{self, Redirect},
        node::Terms,
    },
    calls::{Call, Outcome, Route},
    cluster::Cluster,
    map::Peer,
};

/// How long a call is redirected from node to node: the rest of its batch waits meanwhile.
const REDIRECTED: Duration = Duration::from_millis(100);
/// How long a call is retried while the Cluster is down, which is the same for all of its batch.
const DOWN: Duration = Duration::from_secs(1);
/// How many redirects a call follows: nodes that redirect it in a circle do not agree on a map yet.
const MOST_HOPS: u32 = 5;
/// The pauses between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(40));

impl Cluster {
    /// See `Topology::follow`.
    pub(super) async fn follow(
        &self,
        route: &Route,
        call: &Call,
        reply: &Value,
        terms: Terms,
    ) -> Option<Outcome> {
        let mut redirect = codes::redirect(reply)?;
        let mut asked = route.peer().cloned()?;
        let renews = terms.renews.is_some();
        let limit = match (&redirect, terms.tried_for) {
            (Redirect::Halfway | Redirect::Down, Some(limit)) => limit,
            // The engine renews again, and spares the servers meanwhile.
            (Redirect::Down, None) if !renews => DOWN,
            _ => REDIRECTED,
        };
        let until = Instant::now() + limit;
        let may_wait = |redirect: &Redirect| match redirect {
            Redirect::Down => !renews,
            _ => terms.tried_for.is_some(),
        };
        let (mut pause, mut hops) = (PAUSE.0, 0);
        let mut followed: Option<Outcome> = None;
        loop {
            let mut turn = None;
            if !matches!(redirect, Redirect::Ask(_) | Redirect::Halfway) {
                self.doubt();
            }
            let (to, asking) = match &redirect {
                Redirect::Moved(text) => {
                    (self.route_to(&Peer::of_redirect(text, &asked)?, renews), false)
                }
                Redirect::Ask(text) => {
                    (self.route_to(&Peer::of_redirect(text, &asked)?, renews), true)
                }
                Redirect::Down if may_wait(&redirect) => {
                    // Thousands of calls may wait for their turn.
                    turn = time::timeout_at(until, self.recovery().turn(pause)).await.ok();
                    pause = (pause * 2).min(PAUSE.1);
                    (self.route_of(call.invocation.slot(), renews), false)
                }
                Redirect::Halfway if may_wait(&redirect) => {
                    time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                    (self.route_of(call.invocation.slot(), renews), false)
                }
                Redirect::Halfway | Redirect::Down => return followed,
            };
            hops += u32::from(!matches!(redirect, Redirect::Halfway | Redirect::Down));
            let too_late = Instant::now() >= until || hops > MOST_HOPS;
            if too_late || (!terms.in_any_order && !self.is_last(call)) {
                return followed;
            }
            let mut to = to?;
            let address = to.address();
            let terms = Terms { asking, ..terms };
            let outcome = match time::timeout_at(until, to.invoke(&[call], terms)).await {
                Ok(outcome) => outcome,
                Err(_) => return Some((Err(address.no_answer(limit)), address)),
            };
            let (reply, acknowledgement) = match outcome {
                Ok((mut replies, acknowledgement)) => (replies.pop()?, acknowledgement),
                Err(error) => return Some((Err(error), address)),
            };
            asked = to.peer().cloned()?;
            let next = codes::redirect(&reply);
            if let Some(turn) = turn
                && next != Some(Redirect::Down)
            {
                turn.served();
            }
            followed = Some((Ok((reply, acknowledgement)), address));
            match next {
                Some(next) => redirect = next,
                None => return followed,
            }
        }
    }
}
