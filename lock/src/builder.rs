//! How a `Locks` is made: of a URL, a client or a store, and its settings.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Error, Locks,
    clock::{BootClock, TokioClock},
    context::Context,
    events::Events,
    id::Prefix,
    keeper::{Client, ClientId, Started},
    limits,
    store::{MemoryStore, Store},
    url::{Beside, Target},
};
#[cfg(feature = "redis")]
use crate::{
    store::redis::{Endpoint, RedisStore},
    warning::{OnWarning, Warning, Warnings},
};

const DEFAULT_LEASE: Duration = Duration::from_secs(10);
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

impl Locks {
    /// Connects to the store of this URL.
    ///
    /// | URL | store |
    /// |---|---|
    /// | `redis://[[user]:password@]host[:port][/database]` | a Redis server |
    /// | `rediss://...` | the same over TLS, with the system's roots |
    /// | `unix:///path/to/socket[?db=..&user=..&pass=..]` | a Redis server on this machine |
    /// | `redis+sentinel://[[user]:password@]host[:port],host[:port]../name[/database]` | the primary that these Sentinels call `name`, wherever it moves; user, password and database are those of the servers |
    /// | `rediss+sentinel://...` | the same over TLS, to the Sentinels, too |
    /// | `memory:` | this process, as [`in_memory`](Self::in_memory) |
    ///
    /// A Redis store is served by a thread of its own, so that a busy runtime loses no locks.
    ///
    /// # Errors
    ///
    /// `Invalid` for a URL that is none of these; `Unavailable` if the server is out of reach: each
    /// step of the handshake may take two seconds; `Rejected` if it refuses user, password or
    /// database, if the Sentinels know no such name, or if it is no server for locks: a read-only replica, a Sentinel, a node of a Redis
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
        Self::new(Context::new(client, Prefix::default(), (DEFAULT_LEASE, DEFAULT_WAIT)))
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
            beside: Beside::default(),
            client_id: None,
            #[cfg(feature = "__mutants")]
            host: None,
            #[cfg(feature = "redis")]
            on_warning: None,
        }
    }
}

/// Settings of a [`Locks`] that is to be; made by [`Locks::builder`].
///
/// Name a store once: by [`url`](Self::url), [`client`](LocksBuilder::client) or [`store`](Self::store);
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
    beside: Beside,
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
    /// [`Lock::lease`](crate::Lock::lease).
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// The wait of locks that set none. Default: 10 s; see [`Lock::wait`](crate::Lock::wait).
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
        self.beside.root_certificate = Some(pem.into());
        self
    }

    /// The user and the password that the Sentinels of a `redis+sentinel://` URL want: those in the
    /// URL are for the servers. An empty user is the default user.
    ///
    /// ```
    /// # fn main() {
    /// let builder = lock::Locks::builder()
    ///     .url("redis+sentinel://billing:secret@sentinel-1,sentinel-2,sentinel-3/main")
    ///     .sentinel_credentials("watcher", "another secret");
    /// # drop(builder);
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    pub fn sentinel_credentials(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        let user = Some(user.into()).filter(|user| !user.is_empty());
        self.beside.sentinel_credentials = Some((user, password.into()));
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
            Some(Source::Url(url)) => match Target::parse(&url, self.beside)? {
                Target::Memory => of_store(id, Arc::new(MemoryStore::new()), events)?,
                #[cfg(feature = "redis")]
                Target::Redis(endpoint) => {
                    of_redis(id, RedisStore::new(*endpoint, warnings)?, events, lazy)?
                }
                #[cfg(feature = "redis")]
                Target::Watched(watched) => {
                    of_redis(id, RedisStore::watched(*watched, warnings)?, events, lazy)?
                }
            },
            #[cfg(feature = "redis")]
            Some(Source::Client(client)) => {
                let store = RedisStore::new(Endpoint::of_client(*client), warnings)?;
                of_redis(id, store, events, lazy)?
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
        let context = Context::new(client, prefix, (self.lease, self.wait));
        Ok((Locks::new(context), started))
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
    store: RedisStore,
    events: Events,
    lazy: bool,
) -> Result<Connecting, Error> {
    let store = Arc::new(store);
    let connection = Arc::clone(&store);
    let connect = move || async move { if lazy { Ok(()) } else { connection.connect().await } };
    let (client, started) =
        Client::on_own_thread(id, Arc::new(BootClock::new()), store, events, connect)?;
    Ok((client, Some(started)))
}
