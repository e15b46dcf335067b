//! Calls, and the routes to their nodes.

use std::sync::Arc;

use lock_core::contract::StoreError;
use redis::Value;
use tokio::sync::{MutexGuard, watch};

use super::{
    super::{
        node::{Acknowledgement, Node, Terms},
        scripts::Invocation,
        trouble::Address,
    },
    map::Peer,
};

/// Calls that go to one node, in one write.
pub(in crate::store::redis) struct Part {
    pub(in crate::store::redis) route: Route,
    pub(in crate::store::redis) calls: Vec<Call>,
}

/// One call of a script, and the items of its batch that it is about.
pub(in crate::store::redis) struct Call {
    pub(in crate::store::redis) invocation: Invocation,
    pub(in crate::store::redis) items: Items,
    /// How many calls were sent for its slot, including those of its batch.
    pub(super) sent: u32,
}

impl Call {
    pub(in crate::store::redis) fn of(invocation: Invocation, items: Items) -> Self {
        Self { invocation, items, sent: 0 }
    }
}

impl AsRef<Invocation> for Call {
    fn as_ref(&self) -> &Invocation {
        &self.invocation
    }
}

/// The result of one call, and the server that gave it.
pub(in crate::store::redis) type Outcome = (Result<(Value, Acknowledgement), StoreError>, Address);

/// Which items of a batch.
pub(in crate::store::redis) enum Items {
    /// All items, of which there are this many.
    All(usize),
    One(usize),
    Some(Vec<usize>),
}

impl Items {
    pub(in crate::store::redis) fn len(&self) -> usize {
        match self {
            Self::All(count) => *count,
            Self::One(_) => 1,
            Self::Some(items) => items.len(),
        }
    }

    /// The number of one of them in the batch.
    pub(in crate::store::redis) fn number(&self, item: usize) -> usize {
        match self {
            Self::All(_) => item,
            Self::One(number) => *number,
            Self::Some(items) => items[item],
        }
    }
}

/// The route to the node of a part.
pub(in crate::store::redis) struct Route {
    node: Arc<Node>,
    /// Where the node is among those of a Cluster.
    peer: Option<Peer>,
    /// Reports that the node must no longer be asked.
    retired: Option<watch::Receiver<bool>>,
}

impl Route {
    pub(super) fn new(
        node: &Arc<Node>,
        peer: Option<Peer>,
        retired: Option<watch::Receiver<bool>>,
    ) -> Self {
        Self { node: Arc::clone(node), peer, retired }
    }

    pub(super) fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    pub(in crate::store::redis) fn address(&self) -> Address {
        self.node.address()
    }

    /// A fence was drawn at the node.
    pub(in crate::store::redis) fn found_fence(&self) {
        self.node.found_fence();
    }

    /// Like [`Node::invoke`], but ends at once if the node must no longer be asked. The calls may
    /// or may not have been carried out by then.
    pub(in crate::store::redis) async fn invoke<I: AsRef<Invocation>>(
        &mut self,
        calls: &[I],
        terms: Terms,
    ) -> Result<(Vec<Value>, Acknowledgement), StoreError> {
        let Some(retired) = &mut self.retired else { return self.node.invoke(calls, terms).await };
        let is_retired = async {
            // An error means that the sender is gone, and the node with it.
            let _ = retired.wait_for(|retired| *retired).await;
        };
        tokio::select! {
            biased;
            // The answer of a server that is no longer in charge does not count.
            () = is_retired => Err(self.node.address().moved()),
            outcome = self.node.invoke(calls, terms) => outcome,
        }
    }
}

/// The parts to send, and the gate to hold until all of them have begun.
pub(in crate::store::redis) struct Parts<'a> {
    pub(in crate::store::redis) parts: Vec<Part>,
    pub(in crate::store::redis) gate: Option<MutexGuard<'a, ()>>,
}
