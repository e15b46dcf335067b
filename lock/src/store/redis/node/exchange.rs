//! Calls on the link of a node: sent in their order, each with a time limit.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use lock_core::contract::StoreError;
use redis::{RedisResult, Value};
use tokio::time::{self, Instant};

use super::{
    super::{
        backoff::RECONNECT,
        codes,
        link::{Link, Message},
        scripts::{self, Invocation},
    },
    Live, Node,
    acknowledge::{self, Acknowledgement},
    begin,
};

/// The terms of calls, apart from their content.
#[derive(Clone, Copy, Default)]
pub(in crate::store::redis) struct Terms {
    /// They may grant locks, the shortest of which has this lease, and replicas have to acknowledge
    /// that.
    pub(in crate::store::redis) grants: Option<Duration>,
    /// They renew locks, and an answer counts if it comes within this time. The link counts as
    /// silent long before that. Even then the answer may still come, until there is another link,
    /// on which the call can be tried again. Replicas are asked to acknowledge the renewal, but no
    /// call waits for that: if they do not, a warning is given.
    pub(in crate::store::redis) renews: Option<Duration>,
    /// How long calls that are refused for the moment are retried here, because nothing else
    /// retries them.
    pub(in crate::store::redis) tried_for: Option<Duration>,
    /// They create no key and free none, so they may run after calls that were sent later.
    pub(in crate::store::redis) in_any_order: bool,
    /// The slot is being moved to this node, which serves it only after `ASKING`.
    pub(in crate::store::redis) asking: bool,
}

/// How long calls that are refused for the moment are retried if nothing else retries them: for
/// several at once, where each has to wait for all of them, and for a single call.
const TRIED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

impl Terms {
    /// The terms of this number of calls that nothing else retries.
    pub(in crate::store::redis) fn tried(calls: usize) -> Self {
        let tried_for = if calls == 1 { TRIED.1 } else { TRIED.0 };
        Self { tried_for: Some(tried_for), ..Self::default() }
    }
}

impl Node {
    /// Calls scripts in one write, each by its hash, and repeats by their source those that the
    /// server does not know. Returns a reply for each call; the server's errors are also replies.
    pub(in crate::store::redis) async fn invoke<I: AsRef<Invocation>>(
        &self,
        invocations: &[I],
        terms: Terms,
    ) -> Result<(Vec<Value>, Acknowledgement), StoreError> {
        let message = |link: &Link| link.call(invocations, terms.asking);
        let (mut replies, mut acknowledgement) =
            self.exchange(message, invocations.len(), terms).await?;
        let unknown = |reply: &Value| scripts::is_unknown(reply);
        if replies.iter().any(unknown) {
            let missing = replies.iter().zip(invocations).filter(|(reply, _)| unknown(reply));
            let missing: Vec<_> = missing.map(|(_, invocation)| invocation).collect();
            let again = |link: &Link| link.call_to_forgetful(&missing, terms.asking);
            let (again, later) = self.exchange(again, missing.len(), terms).await?;
            // The later WAIT also counts what was written before, if it is on the same connection.
            // If not, the first acknowledgement reports that its own connection has ended.
            acknowledgement = acknowledgement.and(later);
            for (reply, again) in replies.iter_mut().filter(|reply| unknown(reply)).zip(again) {
                *reply = again;
            }
        }
        Ok((replies, acknowledgement))
    }

    /// Sends a message that has to get `count` replies.
    async fn exchange<'a>(
        &self,
        message: impl FnOnce(&Link) -> Message<'a>,
        count: usize,
        terms: Terms,
    ) -> Result<(Vec<Value>, Acknowledgement), StoreError> {
        let (replies, acknowledgement) = match terms.renews {
            Some(limit) => {
                let replies = self.exchange_patiently(message, limit).await?;
                (replies, Acknowledgement::NOT_WANTED)
            }
            None => self.exchange_in_time(message, terms.grants).await?,
        };
        if replies.len() == count {
            Ok((replies, acknowledgement))
        } else {
            Err(self.address().makes_no_sense())
        }
    }

    /// `lease` is that of the locks that the message may grant.
    async fn exchange_in_time<'a>(
        &self,
        message: impl FnOnce(&Link) -> Message<'a>,
        lease: Option<Duration>,
    ) -> Result<(Vec<Value>, Acknowledgement), StoreError> {
        let (gate, live) = self.ready().await?;
        let limit = self.round_trip.call_limit();
        let sent_at = Instant::now();
        let sent = live.link.send(message(&live.link));
        let mut exchange = pin!(time::timeout_at(sent_at + limit, sent));
        let begun = begin(exchange.as_mut()).await;
        let acknowledgement = match lease {
            Some(lease) => self.acknowledge(&live, lease),
            None => Acknowledgement::NOT_WANTED,
        };
        drop(gate);
        let outcome = match begun {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => exchange.await,
        };
        match outcome {
            Ok(outcome) => self.take(&live, outcome, sent_at).map(|reply| (reply, acknowledgement)),
            Err(_) => {
                self.suspect(&live, limit);
                Err(live.address.no_answer(limit))
            }
        }
    }

    async fn exchange_patiently<'a>(
        &self,
        message: impl FnOnce(&Link) -> Message<'a>,
        limit: Duration,
    ) -> Result<Vec<Value>, StoreError> {
        let (gate, live) = self.ready().await?;
        let sent_at = Instant::now();
        let mut sent = pin!(live.link.send(message(&live.link)));
        let begun = begin(sent.as_mut()).await;
        let _warned_of = acknowledge::is_worth_it(limit).then(|| self.acknowledge(&live, limit));
        drop(gate);
        if let Poll::Ready(outcome) = begun {
            return self.take(&live, outcome, sent_at);
        }
        let silent_after = self.round_trip.silent_after(limit);
        let mut changes = self.state.subscribe();
        let mut suspicion = pin!(time::sleep_until(sent_at + silent_after));
        loop {
            let replaced = changes
                .wait_for(|state| state.live().is_some_and(|current| !Arc::ptr_eq(current, &live)));
            tokio::select! {
                biased;
                outcome = sent.as_mut() => return self.take(&live, outcome, sent_at),
                () = suspicion.as_mut() => {
                    // And again: the answer to another call may have cleared the suspicion
                    // meanwhile.
                    self.suspect(&live, silent_after);
                    suspicion.as_mut().reset(Instant::now() + silent_after);
                }
                _ = replaced => return Err(live.replaced()),
                () = time::sleep_until(sent_at + limit) => {
                    return Err(live.address.no_answer(limit));
                }
            }
        }
    }

    fn take(
        &self,
        live: &Arc<Live>,
        outcome: RedisResult<Vec<Value>>,
        sent_at: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        // The answer of a server that is no longer in charge does not count.
        if live.places.has_moved() {
            self.replace(live, "another server has to be asked");
            return Err(live.replaced());
        }
        match outcome {
            Ok(replies) => {
                live.answered();
                self.round_trip.measured(sent_at.elapsed());
                // A failover may leave connections to the previous primary open. If there is no
                // better server, one look a second does no harm.
                if replies.first().is_some_and(codes::is_from_replica)
                    && live.since.elapsed() >= RECONNECT.1
                {
                    self.replace(live, "the server is a replica");
                }
                Ok(replies)
            }
            // The server's errors are values; this is a failure of the connection.
            Err(error) => {
                self.replace(live, "the connection broke");
                Err(live.address.broken(error))
            }
        }
    }
}
