//! A primary, its replicas, and the Sentinels that watch them.

mod events;
mod guarded;

use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, RedisResult, aio::MultiplexedConnection};

pub use self::events::{SentinelEvent, SentinelEvents};
use crate::{Certificates, RedisServer, RedisServerBuilder, eventually};

/// The Sentinels' name for the primary.
const NAME: &str = "main";
/// A primary that has been silent for this long counts as down.
const DOWN_AFTER: Duration = Duration::from_secs(1);
/// Bound on what Sentinels find out on their own.
const PATIENCE: Duration = Duration::from_secs(30);

/// One primary, two replicas and three Sentinels of the test's own.
#[derive(Debug)]
#[must_use = "the servers are killed when the value is dropped"]
pub struct Sentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
    /// The password of the servers, if they require one.
    password: Option<&'static str>,
}

impl Sentinels {
    /// Starts them, and waits until every Sentinel knows all the others.
    ///
    /// # Panics
    ///
    /// When one does not start, or they do not find each other.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with flags for the Sentinels.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_from(RedisServer::builder().cluster_of_one(false), flags).await
    }

    /// The same behind TLS, also among themselves: each requires a certificate from this authority
    /// of its peers. Only the harness talks to them without TLS.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_with_tls(certificates: &Certificates) -> Self {
        let builder = RedisServer::builder().certificates(certificates).tls_auth_clients(true);
        let builder = builder.cluster_of_one(false);
        Self::start_from(builder.flag("--tls-replication", "yes"), &[]).await
    }

    async fn start_from(builder: RedisServerBuilder, flags: &[&str]) -> Self {
        let primary = builder.clone().start();
        let port = primary.known_port().to_string();
        let replica = || builder.clone().flags(["--replicaof", "127.0.0.1", &port]).start();
        let sentinel = || {
            let builder = builder.clone().sentinel_of(primary.known_port());
            builder.flags(flags.iter().copied()).start()
        };
        let sentinels = vec![sentinel(), sentinel(), sentinel()];
        let this = Self { servers: vec![replica(), replica(), primary], sentinels, password: None };
        this.set_up(DOWN_AFTER).await;
        this
    }

    async fn set_up(&self, down_after: Duration) {
        for sentinel in &self.sentinels {
            let mut connection = sentinel.connection().await;
            for (setting, value) in [
                ("down-after-milliseconds", down_after.as_millis().to_string()),
                ("failover-timeout", "10000".to_owned()),
                ("parallel-syncs", "2".to_owned()),
                ("quorum", "2".to_owned()),
            ] {
                let mut set = redis::cmd("SENTINEL");
                set.arg("SET").arg(NAME).arg(setting).arg(value);
                set.exec_async(&mut connection).await.expect("a Sentinel takes its settings");
            }
        }
        self.settled().await;
    }

    /// Waits until every Sentinel sees two healthy replicas and two other Sentinels.
    ///
    /// # Panics
    ///
    /// When that takes too long.
    pub async fn settled(&self) {
        for sentinel in &self.sentinels {
            eventually(PATIENCE, || async {
                let state = self.state(sentinel).await;
                let field = |name: &str| state.iter().find(|(known, _)| known == name);
                let is = |name, wanted: &str| field(name).is_some_and(|(_, value)| value == wanted);
                let replicas = self.replicas_in_order(sentinel).await;
                if is("num-slaves", "2")
                    && is("num-other-sentinels", "2")
                    && is("flags", "master")
                    && replicas == 2
                {
                    Ok(())
                } else {
                    Err((replicas, state))
                }
            })
            .await;
        }
    }

    async fn state(&self, sentinel: &RedisServer) -> Vec<(String, String)> {
        let mut connection = sentinel.connection().await;
        let mut question = redis::cmd("SENTINEL");
        question.arg("MASTER").arg(NAME);
        question.query_async(&mut connection).await.expect("a Sentinel says what it knows")
    }

    async fn replicas_in_order(&self, sentinel: &RedisServer) -> usize {
        let mut connection = sentinel.connection().await;
        let mut question = redis::cmd("SENTINEL");
        question.arg("REPLICAS").arg(NAME);
        let replicas: Vec<Vec<(String, String)>> =
            question.query_async(&mut connection).await.expect("a Sentinel says what it knows");
        let value = |replica: &[(String, String)], wanted: &str| {
            replica.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        };
        let in_order = |replica: &&Vec<(String, String)>| {
            value(replica, "flags").as_deref() == Some("slave")
                && value(replica, "master-link-status").as_deref() == Some("ok")
        };
        replicas.iter().filter(in_order).count()
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        let host = |sentinel: &RedisServer| format!("127.0.0.1:{}", sentinel.known_port());
        let hosts: Vec<_> = self.sentinels.iter().map(host).collect();
        let has_tls =
            self.sentinels.iter().any(|sentinel| sentinel.known_port() != sentinel.port());
        let scheme = if has_tls { "rediss" } else { "redis" };
        let login = self.password.map(|password| format!(":{password}@")).unwrap_or_default();
        format!("{scheme}+sentinel://{login}{}/{NAME}", hosts.join(","))
    }

    /// The Sentinels.
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The server that most Sentinels call the primary.
    ///
    /// # Panics
    ///
    /// When they do not agree, or name an unknown server.
    pub async fn primary(&self) -> &RedisServer {
        let port = eventually(PATIENCE, || self.agreed()).await;
        self.at(port)
    }

    /// The server on this port.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn at(&self, port: u16) -> &RedisServer {
        self.servers.iter().find(|server| server.known_port() == port).expect("it is one of these")
    }

    /// The servers other than this one.
    pub fn others(&self, than: &RedisServer) -> Vec<&RedisServer> {
        self.servers.iter().filter(|server| server.port() != than.port()).collect()
    }

    /// The port of the primary, according to all reachable Sentinels.
    async fn agreed(&self) -> Result<u16, Vec<Option<u16>>> {
        let mut ports = Vec::new();
        for sentinel in &self.sentinels {
            ports.push(where_primary_is(sentinel).await.ok());
        }
        let known: Vec<_> = ports.iter().flatten().collect();
        match known.first() {
            Some(first) if known.iter().all(|port| port == first) => Ok(**first),
            _ => Err(ports),
        }
    }

    /// Makes a replica take over, and waits until all Sentinels say so.
    ///
    /// # Panics
    ///
    /// When the Sentinels refuse, or nothing happens.
    pub async fn fail_over(&self) -> &RedisServer {
        let before = self.primary().await.known_port();
        self.command_failover(0).await;
        self.moved_from(before).await
    }

    /// Waits until all Sentinels name a primary other than the one on this port.
    ///
    /// # Panics
    ///
    /// When they do not.
    pub async fn moved_from(&self, port: u16) -> &RedisServer {
        let now = eventually(PATIENCE, || async {
            let now = self.agreed().await?;
            if now == port { Err(vec![Some(now)]) } else { Ok(now) }
        })
        .await;
        self.at(now)
    }
}

async fn where_primary_is(sentinel: &RedisServer) -> RedisResult<u16> {
    let bound = Some(Duration::from_millis(500));
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(bound).set_response_timeout(bound);
    let client = Client::open(sentinel.url())?;
    let mut connection: MultiplexedConnection =
        client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(NAME);
    let (_host, port): (String, u16) = question.query_async(&mut connection).await?;
    Ok(port)
}
