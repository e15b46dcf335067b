//! How a `Locks` is built: from a URL, a client or a store, and from settings.

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
    /// Connects to the store that this URL names.
    ///
    /// | URL | store |
    /// |---|---|
    /// | `redis://[[user]:password@]host[:port][/database]` | a Redis server |
    /// | `rediss://...` | the same over TLS, with the system's roots |
    /// | `unix:///path/to/socket[?db=..&user=..&pass=..]` | a Redis server on this machine |
    /// | `redis+sentinel://[[user]:password@]host[:port],host[:port]../name[/database]` | the primary that these Sentinels call `name`, wherever it moves; user, password and database are those of the servers |
    /// | `rediss+sentinel://...` | the same over TLS, also to the Sentinels |
    /// | `redis+cluster://[[user]:password@]host[:port],host[:port]..` | the Redis Cluster that these nodes belong to: each lock is kept by the node that has its slot |
    /// | `rediss+cluster://...` | the same over TLS |
    /// | `memory:` | this process, as [`in_memory`](Self::in_memory) |
    ///
    /// A plain URL of one node of a Redis Cluster also leads to the other nodes. Some proxies route
    /// each call to the right node, but refuse calls with keys of several slots. Behind such a
    /// proxy, add `?slots=1` to the URL: the keys are then named so that all keys of a call share a
    /// slot. See `docs/deploying.md` in the repository.
    ///
    /// A Redis store is served by a separate thread, so that a busy runtime does not lose its
    /// locks.
    ///
    /// # Errors
    ///
    /// - `Invalid` for a URL of any other form.
    /// - `Unavailable` if the server cannot be reached; each step of the handshake may take two
    ///   seconds. For a Redis Cluster, one primary that can be reached is enough.
    /// - `Rejected` if the server refuses the user, the password or the database, if the Sentinels
    ///   do not know the name, or if the server cannot keep locks: a read-only replica, a Sentinel,
    ///   or something that does not speak the Redis protocol.
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
    /// Upstash's REST address and token also give access to its Redis endpoint, which is the one
    /// that this connects to: `rediss://default:TOKEN@HOST:6379`.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming all of these variables, if none is set; otherwise as for
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

    /// Creates locks in the memory of this process: the same semantics without a server.
    ///
    /// For development and tests. The store follows tokio's paused clock, and its leases are
    /// renewed on the runtimes of its callers, which need timers (`enable_time`). Each call creates
    /// a separate store; to share a store, see [`MemoryStore`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use lock::Locks;
    ///
    /// let (one, other) = (Locks::in_memory(), Locks::in_memory());
    /// let _guard = one.lock("report").acquire().await?;
    /// assert!(other.lock("report").try_acquire().await?.is_some(), "it is in another store");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn in_memory() -> Self {
        let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(TokioClock::new()));
        let introduction = Introduction::unnamed(Prefix::default());
        let client = Client::embedded(store, clock, introduction);
        Self::new(Context::new(client, Prefix::default(), (DEFAULT_LEASE, DEFAULT_WAIT)))
    }

    /// Returns a builder for the settings that [`connect`](Self::connect) leaves at their defaults.
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
    /// assert_eq!(locks.lock("invoice:7").key(), "billing:invoice:7");
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

/// Builds a [`Locks`] from settings; created by [`Locks::builder`].
///
/// Name a store with [`url`](Self::url), [`client`] or [`store`](Self::store). If several are
/// named, the last one counts.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{Locks, store::MemoryStore};
///
/// let locks = Locks::builder().store(MemoryStore::new()).prefix("billing:").build().await?;
/// let _guard = locks.lock("invoice:7").acquire().await?;
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
    /// Uses the store that this URL names; [`Locks::connect`] lists the forms.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use lock::{ErrorKind, Locks};
    ///
    /// let locks = Locks::builder().url("memory:").build().await?;
    /// let _guard = locks.lock("report").acquire().await?;
    ///
    /// let error = Locks::builder().url("mysql://127.0.0.1/").build().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Invalid);
    /// # Ok(())
    /// # }
    /// ```
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.source = Some(Source::Url(url.into()));
        self
    }

    /// Uses the Redis server of this client. The client's own time-outs are ignored.
    ///
    /// TLS uses the process's default cryptography provider (`rustls`) if there is one, or else
    /// *ring*, and does not change the default. The exception is a client that has its own
    /// certificates, or that verifies none: the `redis` crate opens TLS for such a client, and
    /// installs a default provider if there is none.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // The client that the application uses for its own commands.
    /// let client = redis::Client::open("redis://127.0.0.1/")?;
    /// let locks = lock::Locks::builder().client(client.clone()).build().await?;
    /// # drop(locks);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    pub fn client(mut self, client: redis::Client) -> Self {
        self.source = Some(Source::Client(Box::new(client)));
        self
    }

    /// Uses this store, for example one of your own.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use lock::{Locks, LocksBuilder, store::MemoryStore};
    ///
    /// fn settings() -> LocksBuilder {
    ///     Locks::builder().url("redis://redis.internal/").prefix("billing:")
    /// }
    ///
    /// // In a test: the same settings, but another store, because the last one counts.
    /// let locks = settings().store(MemoryStore::new()).build().await?;
    /// let _guard = locks.lock("invoice:7").acquire().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn store(mut self, store: impl Store) -> Self {
        self.source = Some(Source::Store(Arc::new(store)));
        self
    }

    /// Registers a listener for problems that do not yet make a call fail, such as a server that
    /// may evict locks, or a server that has lost its data. The listener is called once for each
    /// warning, except that each restart and each loss of data is reported.
    ///
    /// The listener runs on a separate thread, shortly after the problem was found. A listener that
    /// blocks or panics does not affect any lock, but a listener that blocks may miss later
    /// warnings.
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

    /// Sets what every key begins with. Default: `lock:`. At most 1 KiB, without `~`.
    ///
    /// With an empty prefix, the id is the key, as in @upstash/lock, so that clients of that
    /// library and of this one exclude each other.
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

    /// Sets the name of this instance, such as `billing-7`, for operators who ask [who holds a
    /// lock](crate::Holder). Default: none; the host and the process are recorded anyway.
    ///
    /// The name need not be unique. From 1 to 256 bytes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// let locks = lock::Locks::builder().url("memory:").name("billing-7").build().await?;
    /// let _guard = locks.lock("report").acquire().await?;
    /// let listed = locks.list("report", 1).await?;
    /// assert_eq!(listed[0].holders[0].name.as_deref(), Some("billing-7"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the lease of locks that set none, and of debounced runs. Default: 10 s; see
    /// [`Lock::lease`](crate::Lock::lease).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use std::time::Duration;
    ///
    /// let lease = Duration::from_secs(30);
    /// let locks = lock::Locks::builder().url("memory:").lease(lease).build().await?;
    /// let guard = locks.lock("report").acquire().await?;
    /// assert!(guard.remaining() > Duration::from_secs(25));
    /// let guard = locks.lock("invoice:7").lease(Duration::from_secs(2)).acquire().await?;
    /// assert!(guard.remaining() < Duration::from_secs(2), "this lock has set its own");
    /// # Ok(())
    /// # }
    /// ```
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the wait of locks that set none. Default: 10 s; see [`Lock::wait`](crate::Lock::wait).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use std::time::Duration;
    /// use lock::{ErrorKind, Locks};
    ///
    /// let locks = Locks::builder().url("memory:").wait(Duration::ZERO).build().await?;
    /// let _guard = locks.lock("report").acquire().await?;
    /// let error = locks.lock("report").acquire().await.unwrap_err(); // immediately
    /// assert_eq!(error.kind(), ErrorKind::Busy);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets the certificate authority (PEM) that signed the server's certificate, for `rediss://`.
    /// It replaces the system's roots.
    ///
    /// TLS uses the process's default cryptography provider (`rustls`) if there is one, or else
    /// *ring*, and does not change the default.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let locks = lock::Locks::builder()
    ///     .url("rediss://redis.internal:6379/")
    ///     .root_certificate(std::fs::read("/etc/billing/authority.pem")?)
    ///     .build()
    ///     .await?;
    /// # drop(locks);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.beside.certificates.root = Some(pem.into());
        self
    }

    /// Sets the certificate of this client and its private key (both PEM), for servers that
    /// authenticate clients by certificate (`tls-auth-clients yes`). It requires a `rediss` URL of
    /// any form. Sentinels are shown the same certificate.
    ///
    /// If the server does not know the authority that signed the certificate, append the
    /// intermediate certificates up to an authority that it knows. The key is RSA, ECDSA on P-256
    /// or P-384, or Ed25519, in PKCS#8, PKCS#1 or SEC1 form, without a password. Certificate and
    /// key are read when the [`Locks`] is built, also by [`build_lazy`](Self::build_lazy), which
    /// fails with `Invalid` if one of them is unreadable or if they do not belong together. No
    /// error or `Debug` output shows them.
    ///
    /// If the server requires a certificate and none is given, or if it does not accept this one,
    /// [`build`](Self::build) fails with `Rejected`.
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

    /// Sets the user and the password for the Sentinels of a `redis+sentinel://` URL. Those in the
    /// URL are for the servers. An empty user means the default user.
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

    /// Asks this provider for the user and the password at each connect to a Redis server, instead
    /// of taking them from the URL: for passwords that are rotated, and for cloud tokens that
    /// expire.
    ///
    /// For credentials that are [valid for a limited time](Credentials::valid_for), the provider is
    /// asked again before that time is over, and the new credentials are sent on the open
    /// connection (`AUTH`). If the provider fails, panics, or takes longer than ten seconds, the
    /// connect fails, with the provider's error (if it returned one) as the source, and is tried
    /// again; only the first connect of [`build`](Self::build) is not. An open connection continues
    /// with its previous credentials.
    ///
    /// The provider runs on the Tokio runtime on which the [`Locks`] is built. It is not asked for
    /// the credentials of Sentinels, which are [set separately](Self::sentinel_credentials).
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

    /// Sets how many replicas of the Redis server must acknowledge a grant before it counts.
    /// Default: 0, which asks no replica.
    ///
    /// When a primary fails, a lock that no replica has yet is lost with it: the next primary
    /// grants it again while its guard is still valid. With `min_replicas(1)` behind Sentinels, at
    /// least one replica has each lock that was granted, and if all replicas have the same
    /// `replica-priority`, the one with the most data becomes the next primary. Even so, a valid
    /// lease proves nothing: check [fencing tokens](crate::LockGuard::fencing_token) where a stale
    /// write would be wrong.
    ///
    /// A grant waits for the replicas (`WAIT`) for at most a sixth of the shortest lease requested
    /// at the time, and never longer than 500 ms; an idle server notices the end of that time up to
    /// 100 ms late. Grants that are sent together share one such wait. A grant that too few
    /// replicas acknowledge is undone and tried again; after about two seconds, the call fails with
    /// `Unavailable`. The same applies to runs of debounced functions.
    ///
    /// Renewals use a separate connection and do not wait for replicas: if replicas are missing,
    /// held locks are kept, and [`Warning::TooFewReplicas`] is reported. Any other call may be
    /// delayed by such a wait. A lock that passes from one task to the next inside a process is not
    /// a new grant, so it waits for no replica. The user needs the right `+wait`.
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

    /// Connects, and returns the [`Locks`].
    ///
    /// # Errors
    ///
    /// `Invalid` if no store is named, or a setting is out of range; otherwise as for
    /// [`Locks::connect`].
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing is left behind.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lock::Error> {
    /// use lock::{ErrorKind, Locks};
    ///
    /// let error = Locks::builder().prefix("billing:").build().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Invalid, "no store is named");
    ///
    /// let locks = Locks::builder().prefix("billing:").url("memory:").build().await?;
    /// let _guard = locks.lock("invoice:7").acquire().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn build(self) -> Result<Locks, Error> {
        let (locks, started) = self.start(false)?;
        if let Some(started) = started {
            started.wait().await?;
        }
        Ok(locks)
    }

    /// Builds the [`Locks`] without connecting, for a service that must start while its store is
    /// down.
    ///
    /// Does no I/O. The first call connects, and calls wait for the connection within their usual
    /// limits: if the store stays down, they fail with `Unavailable`, and the error says why. The
    /// user, the password and the database are not checked before that.
    ///
    /// # Errors
    ///
    /// `Invalid` if no store is named, or a setting is out of range. A server that is down is not
    /// an error here.
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
