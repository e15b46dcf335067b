//! How a `Locks` is made: of a URL, a client or a store, and its settings.

mod start;

use std::{fmt, sync::Arc, time::Duration};

#[cfg(all(lock_mutants, feature = "redis"))]
pub use self::start::redis_store;

#[cfg(feature = "redis")]
use crate::{
    Credentials,
    store::redis::Ask,
    warning::{OnWarning, Warning},
};
use crate::{
    Error, Locks,
    clock::TokioClock,
    context::Context,
    id::Prefix,
    introduction::Introduction,
    keeper::Client,
    store::{MemoryStore, Store},
    url::Beside,
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
    /// | `redis+cluster://[[user]:password@]host[:port],host[:port]..` | a Redis Cluster, of which these are nodes: each lock is kept by the node that has its slot |
    /// | `rediss+cluster://...` | the same over TLS |
    /// | `memory:` | this process, as [`in_memory`](Self::in_memory) |
    ///
    /// A plain URL of a node of a Redis Cluster leads to the other nodes, too. Behind a proxy that leads
    /// each call to its node, and refuses those with keys of several slots, `?slots=1` at the end of the
    /// URL names keys so that there are none; see `docs/deploying.md` in the repository.
    ///
    /// A Redis store is served by a thread of its own, so that a busy runtime loses no locks.
    ///
    /// # Errors
    ///
    /// `Invalid` for a URL that is none of these; `Unavailable` if the server is out of reach: each
    /// step of the handshake may take two seconds; `Rejected` if it refuses user, password or
    /// database, if the Sentinels know no such name, or if it is no server for locks: a read-only replica, a Sentinel,
    /// or something that does not speak the Redis protocol. A Redis Cluster is connected to if one of its
    /// primaries is there.
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
        let introduction = Introduction::unnamed(Prefix::default());
        let client = Client::embedded(store, clock, introduction);
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
            name: None,
            lease: DEFAULT_LEASE,
            wait: DEFAULT_WAIT,
            beside: Beside::default(),
            #[cfg(feature = "redis")]
            on_warning: None,
            #[cfg(feature = "redis")]
            min_replicas: 0,
            #[cfg(feature = "redis")]
            credentials: None,
        }
    }
}

/// Settings of a [`Locks`] that is to be; made by [`Locks::builder`].
///
/// Name a store once: by [`url`](Self::url), [`client`] or [`store`](Self::store); the last one
/// counts.
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
#[cfg_attr(feature = "redis", doc = "[`client`]: LocksBuilder::client")]
#[cfg_attr(not(feature = "redis"), doc = "[`client`]: crate#features")]
#[must_use = "a builder does nothing until `build`"]
pub struct LocksBuilder {
    source: Option<Source>,
    prefix: String,
    name: Option<String>,
    lease: Duration,
    wait: Duration,
    beside: Beside,
    #[cfg(feature = "redis")]
    on_warning: Option<OnWarning>,
    #[cfg(feature = "redis")]
    min_replicas: usize,
    #[cfg(feature = "redis")]
    credentials: Option<Ask>,
}

enum Source {
    Url(String),
    #[cfg(feature = "redis")]
    Client(Box<redis::Client>),
    Store(Arc<dyn Store>),
}

impl LocksBuilder {
    /// The store of this URL; [`Locks::connect`] lists them.
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

    /// Registers a listener for problems that do not yet fail a call, such as a server that may
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

    /// What every key begins with. Default: `lock:`. At most 1 KiB, without `~`.
    ///
    /// The empty prefix gives raw keys: the id is the key, as in @upstash/lock, so that its
    /// clients and this library exclude each other.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// let locks = lock::Locks::builder().url("memory:").prefix("billing:").build().await?;
    /// assert_eq!(locks.lock("invoice:7").key(), "billing:invoice:7");
    /// # Ok(())
    /// # }
    /// ```
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The name of this instance, as `billing-7`, for operators who ask
    /// [who holds a lock](crate::Holder). Default: none; host and process are known all the same.
    ///
    /// It need not be unique. From 1 to 256 bytes. [`Holder`](crate::Holder) has an example.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The lease of locks that set none, and of debounced runs. Default: 10 s; see
    /// [`Lock::lease`](crate::Lock::lease).
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// The wait of locks that set none. Default: 10 s; see [`Lock::wait`](crate::Lock::wait).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use std::time::Duration;
    ///
    /// let locks = lock::Locks::builder()
    ///     .url("memory:")
    ///     .lease(Duration::from_secs(30))
    ///     .wait(Duration::from_secs(2))
    ///     .build()
    ///     .await?;
    /// # drop(locks);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The certificate authority (PEM) that signed the server's certificate, for `rediss://`;
    /// it replaces the system's roots. [`client_certificate`](Self::client_certificate) has an example.
    ///
    /// TLS uses the process's default provider of cryptography (`rustls`) if the application has
    /// installed one, else *ring*. The default stays as it is.
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.beside.certificates.root = Some(pem.into());
        self
    }

    /// The certificate of this client and its private key (both PEM), for `rediss://` and
    /// `rediss+sentinel://` servers that know their clients by one (`tls-auth-clients yes`). Sentinels
    /// are shown the same.
    ///
    /// Certificates of authorities that lie between this one and one that the server knows go behind
    /// it. The key is of RSA, of ECDSA on P-256 or P-384, or of Ed25519, as PKCS#8, PKCS#1 or SEC1,
    /// and without a password. Both are read when the [`Locks`] is made: one that is unreadable, or
    /// that does not belong to the other, is `Invalid` then, also in
    /// [`build_lazy`](Self::build_lazy). Neither is ever shown.
    ///
    /// A server that wants a certificate where none is given, or that does not accept this one,
    /// makes [`build`](Self::build) `Rejected`.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let locks = lock::Locks::builder()
    ///     .url("rediss://redis.internal:6379/")
    ///     .root_certificate(std::fs::read("/etc/billing/authority.pem")?)
    ///     .client_certificate(
    ///         std::fs::read("/etc/billing/client.pem")?,
    ///         std::fs::read("/etc/billing/client.key")?,
    ///     )
    ///     .build()
    ///     .await?;
    /// # drop(locks);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn client_certificate(
        mut self,
        certificate_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.beside.certificates.client = Some((certificate_pem.into(), key_pem.into()));
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
        self.beside.sentinel_credentials = Some(Credentials::new(user, password));
        self
    }

    /// Asks this provider for user and password at each connect to a Redis server, instead of taking
    /// them from the URL: for passwords that are rotated, and for tokens of a cloud that expire.
    ///
    /// Credentials that say [how long they are valid](Credentials::valid_for) are asked for again
    /// before that time is over, and are told to the server on the connection that is there (`AUTH`).
    /// A provider that fails, panics or takes longer than ten seconds has given none: a connect fails
    /// with its error as the source, and is tried again; a connection that is there goes on with what
    /// the server knows.
    ///
    /// The provider runs on the runtime of tokio on which the [`Locks`] are built. It is not asked for
    /// the Sentinels, which have [their own](Self::sentinel_credentials).
    ///
    /// ```
    /// use lock::{Credentials, Locks};
    /// use std::time::Duration;
    ///
    /// # async fn token_of_the_cloud() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # fn main() {
    /// let builder = Locks::builder().url("rediss://cache.internal:6379").credentials(|| async {
    ///     let token = token_of_the_cloud().await?;
    ///     let credentials = Credentials::new("billing", token);
    ///     Ok::<_, std::io::Error>(credentials.valid_for(Duration::from_secs(15 * 60)))
    /// });
    /// # drop(builder);
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    pub fn credentials<F, A, E>(mut self, provider: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.credentials = Some(Arc::new(move || {
            let answer = provider();
            Box::pin(async move { answer.await.map_err(Into::into) })
        }));
        self
    }

    /// Sets how many replicas of the Redis server have to acknowledge a grant before it counts.
    /// Default: 0, which asks none.
    ///
    /// A primary that fails takes with it what no replica had yet: the next one grants such a lock
    /// again while its guard is still valid. With `min_replicas(1)` behind Sentinels, a lock that was
    /// granted is known to a replica, and the one that has most is chosen as the next primary where all
    /// have the same `replica-priority`. Still a lease is no proof: check
    /// [fencing tokens](crate::LockGuard::fencing_token) where it matters.
    ///
    /// A grant waits for the replicas (`WAIT`), at most for a sixth of the shortest lease that is asked
    /// for at the time, and never longer than 500 ms; an idle server notices the end of that time up to
    /// 100 ms late. All that are sent at once share one such wait. One that too few replicas
    /// acknowledge is undone and, after tries for about two seconds, `Unavailable`. Runs of debounced
    /// functions are held to the same. Renewals have a connection of their own and wait for nobody:
    /// where replicas are missing, the lock is kept, and [`Warning::TooFewReplicas`] says so. Any
    /// other call may be delayed by such a wait then. A lock that passes from one task to the next
    /// inside a process is not granted anew, and no replica is asked for it. The user needs the right
    /// `+wait`.
    ///
    /// ```
    /// # fn main() {
    /// let builder = lock::Locks::builder()
    ///     .url("redis+sentinel://sentinel-1,sentinel-2,sentinel-3/main")
    ///     .min_replicas(1);
    /// # drop(builder);
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    pub fn min_replicas(mut self, replicas: usize) -> Self {
        self.min_replicas = replicas;
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
    /// # #[cfg(feature = "redis")] {
    /// use lock::{ErrorKind, Locks};
    ///
    /// // Nothing listens there.
    /// let locks = Locks::builder().url("redis://127.0.0.1:1/").build_lazy()?;
    /// let error = locks.lock("report").acquire().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unavailable);
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn build_lazy(self) -> Result<Locks, Error> {
        self.start(true).map(|(locks, _)| locks)
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
