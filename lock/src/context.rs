//! What everything that belongs to one `Locks` shares.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "durable")]
use crate::durable::registry::Registry;
use crate::{id::Prefix, keeper::Client};

/// The client of a store, the prefix of its keys, and the defaults of its locks. Clones share them.
#[derive(Clone)]
pub(crate) struct Context(Arc<Shared>);

struct Shared {
    client: Arc<Client>,
    prefix: Prefix,
    lease: Duration,
    wait: Duration,
    #[cfg(feature = "durable")]
    registry: Registry,
}

impl Context {
    pub(crate) fn new(
        client: Arc<Client>,
        prefix: Prefix,
        (lease, wait): (Duration, Duration),
    ) -> Self {
        Self(Arc::new(Shared {
            client,
            prefix,
            lease,
            wait,
            #[cfg(feature = "durable")]
            registry: Registry::default(),
        }))
    }

    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.0.client
    }

    pub(crate) fn prefix(&self) -> &Prefix {
        &self.0.prefix
    }

    /// The lease of locks that set none, and of runs.
    pub(crate) fn lease(&self) -> Duration {
        self.0.lease
    }

    /// The wait of locks that set none.
    pub(crate) fn wait(&self) -> Duration {
        self.0.wait
    }

    #[cfg(feature = "durable")]
    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    #[cfg(feature = "durable")]
    pub(crate) fn downgrade(&self) -> WeakContext {
        WeakContext(Arc::downgrade(&self.0))
    }
}

/// Does not keep the context alive.
#[cfg(feature = "durable")]
pub(crate) struct WeakContext(std::sync::Weak<Shared>);

#[cfg(feature = "durable")]
impl WeakContext {
    pub(crate) fn upgrade(&self) -> Option<Context> {
        self.0.upgrade().map(Context)
    }
}
