//! Batches of requests: split into calls of one slot and sent to their nodes. The answers are then
//! put together again.

use std::{collections::HashMap, pin::pin, task::Poll};

use futures_util::future::join_all;
use lock_core::contract::{StoreError, answer_each};
use redis::Value;

use super::{
    decode,
    keys::Naming,
    node::{Acknowledgement, Terms, begin},
    scripts::Invocation,
    slots::Slot,
    topology::{Call, Items, Outcome, Part, Parts, Route, Topology},
    trouble::Address,
};

/// How the replies of calls are read.
pub(super) struct Reading<R, G> {
    /// Reads one reply as the answers for a number of items.
    pub(super) read: R,
    /// Whether an answer is a grant.
    pub(super) is_grant: G,
}

/// One call for the requests of each slot. If there are no slots, that is one call for all of them.
pub(super) fn one_for_each_slot<'q, Q>(
    batch: &'q [Q],
    naming: &Naming,
    key: impl Fn(&Q) -> &str,
    write: impl Fn(&[&'q Q]) -> Invocation,
) -> Vec<Call> {
    if !naming.is_slotted() {
        let all: Vec<_> = batch.iter().collect();
        return vec![Call::of(write(&all), Items::All(batch.len()))];
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut numbers: HashMap<Slot, usize> = HashMap::new();
    for (item, request) in batch.iter().enumerate() {
        let group = *numbers.entry(naming.home(key(request)).slot()).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(item);
    }
    let call = |items: Vec<usize>| {
        let requests: Vec<_> = items.iter().map(|item| &batch[*item]).collect();
        Call::of(write(&requests), Items::Some(items))
    };
    groups.into_iter().map(call).collect()
}

/// One call for each request.
pub(super) fn one_for_each<Q>(batch: &[Q], write: impl Fn(&Q) -> Invocation) -> Vec<Call> {
    let call = |(item, request)| Call::of(write(request), Items::One(item));
    batch.iter().enumerate().map(call).collect()
}

impl Topology {
    /// Sends the calls of a batch, each node's part in one write, and returns an answer for each
    /// item.
    pub(super) async fn perform<T, R, G>(
        &self,
        write: impl Fn(&Naming) -> Vec<Call>,
        items: usize,
        terms: Terms,
        reading: Reading<R, G>,
    ) -> Vec<Result<T, StoreError>>
    where
        R: Fn(&Address, Value, usize) -> Vec<Result<T, StoreError>>,
        G: Fn(&T) -> bool,
    {
        let naming = self.naming();
        let answers = self.perform_once(write(naming), items, terms, &reading).await;
        // The server has turned out to belong to a Cluster before anything was sent to it. Calls
        // that the engine retries come again in their order.
        let now = self.naming();
        if terms.tried_for.is_some()
            && now.is_slotted() != naming.is_slotted()
            && answers.iter().all(Result::is_err)
        {
            return self.perform_once(write(now), items, terms, &reading).await;
        }
        answers
    }

    async fn perform_once<T, R, G>(
        &self,
        calls: Vec<Call>,
        items: usize,
        terms: Terms,
        reading: &Reading<R, G>,
    ) -> Vec<Result<T, StoreError>>
    where
        R: Fn(&Address, Value, usize) -> Vec<Result<T, StoreError>>,
        G: Fn(&T) -> bool,
    {
        let Parts { mut parts, gate } = match self.parts(calls, terms.renews.is_some()).await {
            Ok(parts) => parts,
            Err(error) => return answer_each(Err(error), items),
        };
        // Usually there is one, and its items are in order.
        if let ([_], None) = (&parts[..], &gate)
            && let Some(part) = parts.pop()
        {
            let answers = self.perform_part(part, terms, reading).await;
            let answers = answers.into_iter().flat_map(|(_, answers)| answers).collect();
            return answer_each(Ok(answers), items);
        }
        let parts = parts.into_iter().map(|part| self.perform_part(part, terms, reading));
        let mut all = pin!(join_all(parts));
        let begun = begin(all.as_mut()).await;
        drop(gate);
        let parts = match begun {
            Poll::Ready(parts) => parts,
            Poll::Pending => all.await,
        };
        let mut answers: Vec<_> = (0..items).map(|_| None).collect();
        for (call, of_call) in parts.into_iter().flatten() {
            for (item, answer) in of_call.into_iter().enumerate() {
                answers[call.number(item)] = Some(answer);
            }
        }
        let missing = || Err(StoreError::unavailable("the store gave no answer for this item"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }

    /// The answers for the items of each call.
    async fn perform_part<T, R, G>(
        &self,
        part: Part,
        terms: Terms,
        reading: &Reading<R, G>,
    ) -> Vec<(Items, Vec<Result<T, StoreError>>)>
    where
        R: Fn(&Address, Value, usize) -> Vec<Result<T, StoreError>>,
        G: Fn(&T) -> bool,
    {
        let Part { mut route, calls } = part;
        let (replies, acknowledgement) = match route.invoke(&calls, terms).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let refused = |call: Call| {
                    let answers = answer_each(Err(error.clone()), call.items.len());
                    (call.items, answers)
                };
                return calls.into_iter().map(refused).collect();
            }
        };
        let address = route.address();
        let mut followed = self.follow_all(&route, &calls, &replies, terms).await;
        let mut answers = Vec::with_capacity(calls.len());
        for (number, (call, reply)) in calls.into_iter().zip(replies).enumerate() {
            let here = (Ok((reply, acknowledgement.clone())), address.clone());
            let (outcome, address) = followed.remove(&number).unwrap_or(here);
            let of_call = match outcome {
                Ok((reply, acknowledgement)) => {
                    let of_call = reading.read_all(&address, reply, call.items.len());
                    if of_call.iter().flatten().any(&reading.is_grant) {
                        route.found_fence();
                    }
                    acknowledged(of_call, acknowledgement, &reading.is_grant).await
                }
                Err(error) => answer_each(Err(error), call.items.len()),
            };
            answers.push((call.items, of_call));
        }
        answers
    }

    /// The outcomes of the calls that their node has redirected, by their numbers.
    async fn follow_all(
        &self,
        route: &Route,
        calls: &[Call],
        replies: &[Value],
        terms: Terms,
    ) -> HashMap<usize, Outcome> {
        // Usually none of them is an error.
        if !replies.iter().any(|reply| matches!(reply, Value::ServerError(_))) {
            return HashMap::new();
        }
        let follow =
            calls.iter().zip(replies).enumerate().map(|(number, (call, reply))| async move {
                Some((number, self.follow(route, call, reply, terms).await?))
            });
        join_all(follow).await.into_iter().flatten().collect()
    }
}

impl<R, G> Reading<R, G> {
    fn read_all<T>(
        &self,
        address: &Address,
        reply: Value,
        items: usize,
    ) -> Vec<Result<T, StoreError>>
    where
        R: Fn(&Address, Value, usize) -> Vec<Result<T, StoreError>>,
    {
        match reply {
            Value::ServerError(error) => answer_each(Err(address.answered_with(error)), items),
            reply => (self.read)(address, reply, items),
        }
    }
}

/// Reads a reply with one number for each item.
pub(super) fn numbers<T>(
    read: impl Fn(i64) -> Option<T>,
) -> impl Fn(&Address, Value, usize) -> Vec<Result<T, StoreError>> {
    move |address, reply, items| {
        let values = match reply {
            Value::Array(values) if values.len() == items => values,
            _ => return answer_each(Err(address.makes_no_sense()), items),
        };
        let item = |value| match value {
            Value::ServerError(error) => Err(address.answered_with(error)),
            value => decode::integer(value).and_then(&read).ok_or_else(|| address.makes_no_sense()),
        };
        values.into_iter().map(item).collect()
    }
}

/// Reads a reply with one item for each request: an answer, or the text of a server's error.
pub(super) fn each_or_error<T>(
    read: impl Fn(Value, usize) -> Option<Vec<Result<T, String>>>,
) -> impl Fn(&Address, Value, usize) -> Vec<Result<T, StoreError>> {
    move |address, reply, items| match read(reply, items) {
        Some(answers) => {
            let refused = |error: String| address.refused(&error);
            answers.into_iter().map(|answer| answer.map_err(refused)).collect()
        }
        None => answer_each(Err(address.makes_no_sense()), items),
    }
}

/// Reads a reply about one item. If the reply makes no sense, the answer is unknown.
pub(super) fn one<T>(
    read: impl Fn(Value) -> Option<T>,
) -> impl Fn(&Address, Value, usize) -> Vec<Result<T, StoreError>> {
    move |address, reply, _| vec![read(reply).ok_or_else(|| address.makes_no_sense())]
}

/// A grant that too few replicas have counts as unknown, so that the engine undoes it or asks
/// again.
async fn acknowledged<T>(
    mut answers: Vec<Result<T, StoreError>>,
    acknowledgement: Acknowledgement,
    is_grant: impl Fn(&T) -> bool,
) -> Vec<Result<T, StoreError>> {
    if answers.iter().flatten().any(&is_grant)
        && let Err(error) = acknowledgement.arrived().await
    {
        for answer in answers.iter_mut().filter(|answer| answer.as_ref().is_ok_and(&is_grant)) {
            *answer = Err(error.clone());
        }
    }
    answers
}
