//! Where the notices of a client go.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use lock_core::{
    contract::{Delivery, Notice},
    table::Subscriber,
};

/// Receives one client's notices from a [`Store`](crate::store::Store).
///
/// Clones belong to the same client, and do not keep it alive.
///
/// ```
/// # use std::sync::{Arc, Mutex};
/// use lock::{Locks, store::*};
///
/// /// A store whose connection may break.
/// #[derive(Clone, Default)]
/// struct Remote {
///     server: MemoryStore,
///     clients: Arc<Mutex<Vec<Listener>>>,
/// }
///
/// impl Store for Remote {
///     fn subscribe<'a>(
///         &'a self,
///         client: &'a str,
///         listener: Listener,
///     ) -> StoreFuture<'a, Delivery> {
///         self.clients.lock().expect("no panic").push(listener.clone());
///         self.server.subscribe(client, listener)
///     }
///     // ...
/// #   fn acquire<'a>(&'a self, batch: &'a [AcquireRequest]) -> Answers<'a, Acquisition> {
/// #       self.server.acquire(batch)
/// #   }
/// #   fn renew<'a>(&'a self, batch: &'a [RenewRequest]) -> Answers<'a, Renewal> {
/// #       self.server.renew(batch)
/// #   }
/// #   fn release<'a>(&'a self, batch: &'a [ReleaseRequest]) -> Answers<'a, Release> {
/// #       self.server.release(batch)
/// #   }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// let store = Remote::default();
/// let locks = Locks::builder().store(store.clone()).build().await?;
/// let client = store.clients.lock().expect("no panic")[0].clone();
/// // The connection broke, and is there again. A notice may have been lost in between.
/// assert!(client.notify(Notice::Connected(Delivery::PubSub)));
/// assert!(client.is_open());
/// drop(locks);
/// assert!(!client.is_open());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Listener(Arc<Hear>);

/// Takes a notice, or nothing, and says whether the client still exists.
type Hear = dyn Fn(Option<Notice>) -> bool + Send + Sync;

impl Listener {
    pub(crate) fn new(hear: impl Fn(Option<Notice>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Passes a notice on to the client; returns `false` if the client is gone. This never blocks,
    /// and runs none of the client's code on this thread, so a store may call it from within an
    /// operation.
    pub fn notify(&self, notice: Notice) -> bool {
        (self.0)(Some(notice))
    }

    /// Returns whether the client still exists.
    #[must_use]
    pub fn is_open(&self) -> bool {
        (self.0)(None)
    }
}

impl Subscriber for Listener {
    fn is_there(&self) -> bool {
        self.is_open()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

/// How the notices of a client currently travel.
#[derive(Debug, Default)]
pub(crate) struct CurrentDelivery(AtomicU8);

impl CurrentDelivery {
    pub(crate) fn set(&self, delivery: Delivery) {
        self.0.store(delivery as u8, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> Delivery {
        match self.0.load(Ordering::Relaxed) {
            2 => Delivery::Push,
            1 => Delivery::PubSub,
            _ => Delivery::Polling,
        }
    }
}
