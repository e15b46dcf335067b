//! The entry point: one `Locks` a process.

use std::{
    fmt,
    future::Future,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use crate::{
    AlreadyInstalled, Debounce, Error, Lock,
    clock::{BootClock, TokioClock},
    events::Events,
    id::Prefix,
    keeper::{Client, ClientId, Started},
    limits,
    store::{MemoryStore, Store},
    url::Target,
};
#[cfg(feature = "redis")]
use crate::{
    store::redis::Endpoint,
    warning::{OnWarning, Warning, Warnings},
};

/// One in each process: what a parent has installed answers `Closed` in a child that it has forked.
static INSTALLED: RwLock<Option<Locks>> = RwLock::new(None);

tokio::task_local! {
    static SCOPED: Locks;
}

/// The locks and debounces of one store: the entry point of this crate.
///
/// Make one per process and clone it: clones are the same. It owns the connection and the keeper,
/// which renews and releases; both live until the last clone, [`Lock`], [`Debounce`] and
/// [`LockGuard`](crate::LockGuard) is gone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::Locks;
///
/// let locks = Locks::in_memory(); // or Locks::connect("redis://127.0.0.1/").await?
/// let guard = locks.lock("invoice:7").acquire().await?;
/// // ... the lock is held, and renewed, until here
/// drop(guard);
/// locks.flush().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Locks(Arc<Inner>);

struct Inner {
    client: Arc<Client>,
    prefix: Prefix,
    lease: Duration,
    wait: Duration,
    #[cfg(feature = "durable")]
    registry: crate::durable::Registry,
}

/// Does not keep it alive.
#[cfg(feature = "durable")]
pub(crate) struct WeakLocks(std::sync::Weak<Inner>);

#[cfg(feature = "durable")]
impl WeakLocks {
    pub(crate) fn upgrade(&self) -> Option<Locks> {
        self.0.upgrade().map(Locks)
    }
}

impl Locks {
    /// Connects to the store of this URL.
    ///
    /// | URL | store |
    /// |---|---|
    /// | `redis://[[user]:password@]host[:port][/database]` | a Redis server |
    /// | `rediss://...` | the same over TLS, with the system's roots |
    /// | `unix:///path/to/socket[?db=..&user=..&pass=..]` | a Redis server on this machine |
    /// | `memory:` | this process, as [`in_memory`](Self::in_memory) |
    ///
    /// A Redis store is served by a thread of its own, so that a busy runtime loses no locks.
    ///
    /// # Errors
    ///
    /// `Invalid` for a URL that is none of these; `Unavailable` if the server is out of reach: each
    /// step of the handshake may take two seconds; `Rejected` if it refuses user, password or
    /// database, or if it is no server for locks: a read-only replica, a Sentinel, a node of a Redis
    /// Cluster, or something that does not speak the Redis protocol.
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is left behind.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// let locks = lock::Locks::connect("redis://127.0.0.1:6379/0").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder().url(url).build().await
    }

    /// Connects to the store that the environment names: `LOCK_URL`, else `REDIS_URL`, else
    /// `UPSTASH_REDIS_REST_URL` with `UPSTASH_REDIS_REST_TOKEN`.
    ///
    /// Upstash's REST address and token also open its Redis endpoint, which is what is used:
    /// `rediss://default:TOKEN@HOST:6379`.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming all of these variables, if none is set; else as
    /// [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is left behind.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// let locks = lock::Locks::from_env().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn from_env() -> Result<Self, Error> {
        let url = crate::url::from_env(|name| std::env::var_os(name))?;
        Self::connect(&url).await
    }

    /// Locks in the memory of this process: the same semantics, no server.
    ///
    /// For development and tests. It obeys tokio's paused clock, and its leases are renewed on
    /// the runtimes of its callers, which need timers (`enable_time`). Each call makes a store of
    /// its own; see [`MemoryStore`] to share one.
    ///
    /// ```
    /// let locks = lock::Locks::in_memory();
    /// ```
    #[must_use]
    pub fn in_memory() -> Self {
        let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(TokioClock::new()));
        let client = Client::embedded(ClientId::default(), store, clock);
        Self(Arc::new(Inner {
            client,
            prefix: Prefix::default(),
            lease: DEFAULT_LEASE,
            wait: DEFAULT_WAIT,
            #[cfg(feature = "durable")]
            registry: Default::default(),
        }))
    }

    /// Settings that [`connect`](Self::connect) leaves at their defaults.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use std::time::Duration;
    ///
    /// let locks = lock::Locks::builder()
    ///     .url("memory:")
    ///     .prefix("billing:")
    ///     .lease(Duration::from_secs(30))
    ///     .build()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> LocksBuilder {
        LocksBuilder {
            source: None,
            prefix: Prefix::default().as_str().to_owned(),
            lease: DEFAULT_LEASE,
            wait: DEFAULT_WAIT,
            root_certificate: None,
            client_id: None,
            #[cfg(feature = "__mutants")]
            host: None,
            #[cfg(feature = "redis")]
            on_warning: None,
        }
    }

    /// The lock of this id. Does nothing yet, and cannot fail: an id that cannot be (empty, over
    /// 1 KiB, or beginning with `~`) is reported when it is acquired.
    pub fn lock(&self, id: impl Into<String>) -> Lock {
        Lock::new(self, id.into().into())
    }

    /// The debounce of this id. Does nothing yet, and cannot fail, as [`lock`](Self::lock). A
    /// lock and a debounce of one id have nothing to do with each other.
    pub fn debounce(&self, id: impl Into<String>) -> Debounce {
        Debounce::new(self, id.into().into())
    }

    /// Makes this the process's default, for the attributes.
    ///
    /// A process that was forked from one with a default has none yet.
    ///
    /// # Errors
    ///
    /// If there is one already; it stays.
    ///
    /// ```
    /// # fn main() -> Result<(), lock::AlreadyInstalled> {
    /// lock::Locks::in_memory().install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn install(&self) -> Result<(), AlreadyInstalled> {
        // Nothing below panics.
        let mut installed = INSTALLED.write().unwrap_or_else(PoisonError::into_inner);
        if installed.as_ref().is_some_and(|locks| locks.client().is_of_this_process()) {
            return Err(AlreadyInstalled(()));
        }
        *installed = Some(self.clone());
        Ok(())
    }

    /// Runs a future with this as its task's default, for the attributes; it wins over the
    /// process's. Tasks that the future spawns do not inherit it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use lock::{Locks, locked};
    ///
    /// #[locked(id = "invoice:{invoice_id}")]
    /// async fn charge(invoice_id: u64) -> Result<u64, lock::Error> {
    ///     Ok(invoice_id)
    /// }
    ///
    /// let charged = Locks::in_memory().scope(charge(7)).await;
    /// assert_eq!(charged.unwrap(), 7);
    /// # }
    /// ```
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        SCOPED.scope(self.clone(), future)
    }

    /// The `Locks` that the attributes would use here: that of the task's [`scope`](Self::scope), else
    /// the one that was [installed](Self::install), if there is one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use lock::Locks;
    ///
    /// assert!(Locks::current().is_none());
    /// Locks::in_memory()
    ///     .scope(async {
    ///         let locks = Locks::current().expect("this task has a scope");
    ///         // A task that is spawned does not inherit it.
    ///         tokio::spawn(locks.scope(async {})).await.unwrap();
    ///     })
    ///     .await;
    /// # }
    /// ```
    #[must_use]
    pub fn current() -> Option<Self> {
        SCOPED
            .try_with(Clone::clone)
            .ok()
            .or_else(|| INSTALLED.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Waits until every release that a drop has begun was answered, or given up after half a
    /// minute without an answer.
    ///
    /// A dropped guard is released in the background; a process that exits right away may not
    /// get to it. Call this before it does. Guards that are alive are left alone.
    ///
    /// # Cancel safety
    ///
    /// Safe: the releases go on.
    pub async fn flush(&self) {
        self.0.client.flush().await;
    }

    /// Releases every lock that is held, ends every wait, and stops the keeper.
    ///
    /// Guards that are alive count as lost. Whoever waits, and whoever comes later, gets the kind
    /// `Closed`. Takes two seconds at most, for a store that does not answer.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is carried out even if the future is dropped.
    pub async fn shutdown(&self) {
        self.0.client.shutdown().await;
    }

    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.0.client
    }

    pub(crate) fn prefix(&self) -> &Prefix {
        &self.0.prefix
    }

    #[cfg(feature = "durable")]
    pub(crate) fn registry(&self) -> &crate::durable::Registry {
        &self.0.registry
    }

    #[cfg(feature = "durable")]
    pub(crate) fn downgrade(&self) -> WeakLocks {
        WeakLocks(Arc::downgrade(&self.0))
    }

    pub(crate) fn default_lease(&self) -> Duration {
        self.0.lease
    }

    pub(crate) fn default_wait(&self) -> Duration {
        self.0.wait
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks")
            .field("client", &self.0.client)
            .field("prefix", &self.0.prefix)
            .field("lease", &self.0.lease)
            .field("wait", &self.0.wait)
            .finish()
    }
}

const DEFAULT_LEASE: Duration = Duration::from_secs(10);
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// Settings of a [`Locks`] that is to be; made by [`Locks::builder`].
///
/// Name a store once: by [`url`](Self::url), [`client`](Self::client) or [`store`](Self::store);
/// the last one counts.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{Locks, store::MemoryStore};
///
/// let locks = Locks::builder().store(MemoryStore::new()).prefix("billing:").build().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct LocksBuilder {
    source: Option<Source>,
    prefix: String,
    lease: Duration,
    wait: Duration,
    root_certificate: Option<Vec<u8>>,
    client_id: Option<u128>,
    #[cfg(feature = "__mutants")]
    host: Option<Arc<crate::__Host>>,
    #[cfg(feature = "redis")]
    on_warning: Option<OnWarning>,
}

enum Source {
    Url(String),
    #[cfg(feature = "redis")]
    Client(Box<redis::Client>),
    Store(Arc<dyn Store>),
}

impl LocksBuilder {
    /// The store of this URL; see [`Locks::connect`].
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.source = Some(Source::Url(url.into()));
        self
    }

    /// A Redis server, as this client reaches it. The client's own time-outs are not used.
    ///
    /// TLS goes by the process's default provider of cryptography if it has one, else by *ring*, and
    /// the default stays as it is. Only for a client with certificates of its own, or one that checks
    /// none, the `redis` crate opens TLS, which makes a provider the default where there is none.
    #[cfg(feature = "redis")]
    pub fn client(mut self, client: redis::Client) -> Self {
        self.source = Some(Source::Client(Box::new(client)));
        self
    }

    /// A store of your own making.
    pub fn store(mut self, store: impl Store) -> Self {
        self.source = Some(Source::Store(Arc::new(store)));
        self
    }

    /// Registers a listener for conditions that no call fails of yet, such as a server that may
    /// evict locks, or one that has lost its data. It is called once for each kind.
    ///
    /// The listener runs on a thread of its own, shortly after the condition was found. One that
    /// blocks or panics disturbs no lock; it only misses later warnings.
    ///
    /// ```
    /// # fn main() {
    /// use lock::{Locks, Warning};
    ///
    /// let builder = Locks::builder().url("redis://127.0.0.1/").on_warning(|warning| {
    ///     if matches!(warning, Warning::MayEvict { .. }) {
    ///         eprintln!("use another server: {warning}");
    ///     }
    /// });
    /// # drop(builder);
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    pub fn on_warning(mut self, listener: impl Fn(&Warning) + Send + Sync + 'static) -> Self {
        self.on_warning = Some(Box::new(listener));
        self
    }

    /// The uuid of this client, which its tokens begin with and its jitter is drawn from: for a
    /// simulation that has to be repeatable. No two clients of a store may have the same one.
    #[doc(hidden)]
    pub fn __client_id(mut self, id: u128) -> Self {
        self.client_id = Some(id);
        self
    }

    /// The machine of a simulation that an embedded store's client runs on.
    #[cfg(feature = "__mutants")]
    #[doc(hidden)]
    pub fn __host(mut self, host: Arc<crate::__Host>) -> Self {
        self.host = Some(host);
        self
    }

    /// What every key begins with. Default: `lock:`. At most 1 KiB, without `~`.
    ///
    /// The empty prefix gives raw keys: the id is the key, as in @upstash/lock, so that its
    /// clients and this library exclude each other.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The lease of locks that set none, and of debounced runs. Default: 10 s; see
    /// [`Lock::lease`].
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// The wait of locks that set none. Default: 10 s; see [`Lock::wait`].
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The certificate authority (PEM) that signed the server's certificate, for `rediss://`;
    /// it replaces the system's roots.
    ///
    /// TLS goes by the process's default provider of cryptography (`rustls`) if the application has
    /// installed one, else by *ring*, and the default stays as it is.
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// `Invalid` if no store is named, or a setting is out of range; else as [`Locks::connect`].
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is left behind.
    pub async fn build(self) -> Result<Locks, Error> {
        let (locks, started) = self.start(false)?;
        if let Some(started) = started {
            started.wait().await?;
        }
        Ok(locks)
    }

    /// Makes the [`Locks`] without connecting: for a service that is to start while its store is
    /// down.
    ///
    /// Does no I/O. The first call connects, and calls wait for the connection within their bounds:
    /// a store that stays down makes them `Unavailable`, and they say why. User, password and
    /// database, too, are checked by then only.
    ///
    /// # Errors
    ///
    /// `Invalid` if no store is named, or a setting is out of range. A server that is down is no
    /// error here.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use lock::{ErrorKind, Locks};
    ///
    /// // Nothing listens there.
    /// let locks = Locks::builder().url("redis://127.0.0.1:1/").build_lazy()?;
    /// let error = locks.lock("report").acquire().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unavailable);
    /// # Ok(())
    /// # }
    /// ```
    pub fn build_lazy(self) -> Result<Locks, Error> {
        self.start(true).map(|(locks, _)| locks)
    }

    fn start(self, lazy: bool) -> Result<(Locks, Option<Started>), Error> {
        let prefix = Prefix::parse(&self.prefix)?;
        limits::lease(self.lease)?;
        let events = Events::default();
        let id = self.client_id.map_or_else(ClientId::default, ClientId::from);
        #[cfg(feature = "redis")]
        let warnings = Warnings::new(self.on_warning, events.clone());
        let (client, started) = match self.source {
            Some(Source::Url(url)) => match Target::parse(&url, self.root_certificate)? {
                Target::Memory => of_store(id, Arc::new(MemoryStore::new()), events)?,
                #[cfg(feature = "redis")]
                Target::Redis(endpoint) => of_redis(id, *endpoint, warnings, lazy)?,
            },
            #[cfg(feature = "redis")]
            Some(Source::Client(client)) => {
                of_redis(id, Endpoint::of_client(*client), warnings, lazy)?
            }
            #[cfg(feature = "__mutants")]
            Some(Source::Store(store)) if self.host.is_some() => {
                let host = self.host.expect("BUG: it was just there");
                (Client::embedded(id, store, host), None)
            }
            Some(Source::Store(store)) => of_store(id, store, events)?,
            None => {
                return Err(Error::invalid(
                    "no store: name one with `.url(..)`, `.client(..)` or `.store(..)`",
                ));
            }
        };
        #[cfg(not(feature = "redis"))]
        let _ = lazy;
        let locks = Locks(Arc::new(Inner {
            client,
            prefix,
            lease: self.lease,
            wait: self.wait,
            #[cfg(feature = "durable")]
            registry: Default::default(),
        }));
        Ok((locks, started))
    }
}

impl fmt::Debug for LocksBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL and not the client: they may carry a password.
        f.debug_struct("LocksBuilder")
            .field("prefix", &self.prefix)
            .field("lease", &self.lease)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

/// A client, and what its connection comes to, if it makes one.
type Connecting = (Arc<Client>, Option<Started>);

fn of_store(id: ClientId, store: Arc<dyn Store>, events: Events) -> Result<Connecting, Error> {
    if store.embedded().is_some() {
        return Ok((Client::embedded(id, store, Arc::new(TokioClock::new())), None));
    }
    let clock = Arc::new(BootClock::new());
    let (client, started) = Client::on_own_thread(id, clock, store, events, || async { Ok(()) })?;
    Ok((client, Some(started)))
}

#[cfg(feature = "redis")]
fn of_redis(
    id: ClientId,
    endpoint: Endpoint,
    warnings: Warnings,
    lazy: bool,
) -> Result<Connecting, Error> {
    let events = warnings.events().clone();
    let store = Arc::new(crate::store::redis::RedisStore::new(endpoint, warnings)?);
    let connection = Arc::clone(&store);
    let connect = move || async move { if lazy { Ok(()) } else { connection.connect().await } };
    let (client, started) =
        Client::on_own_thread(id, Arc::new(BootClock::new()), store, events, connect)?;
    Ok((client, Some(started)))
}
