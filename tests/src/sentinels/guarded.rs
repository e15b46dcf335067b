//! Servers as they are deployed: each keeps its role, and admits only known users.

use std::time::Duration;

use redis::RedisResult;

use super::{NAME, PATIENCE, Sentinels};
use crate::{RedisServer, eventually};

/// Longer than elsewhere: a Sentinel first asks a new primary a second after its takeover, and
/// until the answer counts it as silent since then. With one second, every other failover on a busy
/// machine was followed by one more.
const DOWN_AFTER: Duration = Duration::from_secs(2);

/// The password of the clients, which are the default user.
const PASSWORD: &str = "clients";
/// The user and the password of the replicas, and those of the Sentinels.
const REPLICAS: (&str, &str) = ("replica", "follow");
const SENTINELS: (&str, &str) = ("sentinel", "watch");

impl Sentinels {
    /// Starts servers that keep their data and their role over a restart, and that know clients,
    /// replicas and Sentinels as three users: see [`cut_off`](Self::cut_off). A Sentinel that was
    /// stopped for a while resumes its work at once, from Redis 7.0 on.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_guarded() -> Self {
        let server = || {
            RedisServer::builder()
                .cluster_of_one(false)
                .append_only(true)
                .config_file(true)
                .flag("--auto-aof-rewrite-min-size", "16mb")
                .flag("--repl-diskless-sync-delay", "0")
                .flag("--requirepass", PASSWORD)
                .flag("--masteruser", REPLICAS.0)
                .flag("--masterauth", REPLICAS.1)
                .start()
        };
        let servers = vec![server(), server(), server()];
        let primary = servers[2].port();
        for server in &servers {
            let is_primary = server.port() == primary;
            let port = if is_primary { "ONE".to_owned() } else { primary.to_string() };
            let host = if is_primary { "NO" } else { "127.0.0.1" };
            for (user, password) in [REPLICAS, SENTINELS] {
                let password = format!(">{password}");
                let words = ["ACL", "SETUSER", user, "on", &password, "~*", "&*", "+@all"];
                told(server, &words).await;
            }
            told(server, &["REPLICAOF", host, &port]).await;
            told(server, &["CONFIG", "REWRITE"]).await;
        }
        // So the first Sentinel finds them at once, and not when it asks again ten seconds later.
        let this = Self { servers, sentinels: Vec::new(), password: Some(PASSWORD) };
        eventually(PATIENCE, || this.followed(primary)).await;
        let sentinel = || {
            let builder = RedisServer::builder().sentinel_of(primary);
            builder.sentinel_as(SENTINELS.0, SENTINELS.1).start()
        };
        let this = Self { sentinels: vec![sentinel(), sentinel(), sentinel()], ..this };
        if !RedisServer::version().is_before(7, 0) {
            for sentinel in &this.sentinels {
                told(sentinel, &["SENTINEL", "DEBUG", "TILT-TRIGGER", "60000"]).await;
            }
        }
        this.set_up(DOWN_AFTER).await;
        this
    }

    /// Separates a server from the other servers and from the Sentinels, but not from clients.
    ///
    /// The others open all links to the server, as users of their own: the server no longer admits
    /// these users, and closes their open links. No replica gets a byte from it, and no Sentinel an
    /// answer that counts (`NOAUTH` does not). Clients are another user, and are served.
    ///
    /// # Panics
    ///
    /// When the server refuses, or was not started by [`start_guarded`](Self::start_guarded).
    pub async fn cut_off(&self, server: &RedisServer) {
        for (user, _) in [REPLICAS, SENTINELS] {
            told(server, &["ACL", "SETUSER", user, "off"]).await;
        }
        for (user, _) in [REPLICAS, SENTINELS] {
            told(server, &["CLIENT", "KILL", "USER", user]).await;
        }
    }

    /// Ends the separation.
    ///
    /// # Panics
    ///
    /// When the server refuses.
    pub async fn let_in(&self, server: &RedisServer) {
        for (user, _) in [REPLICAS, SENTINELS] {
            told(server, &["ACL", "SETUSER", user, "on"]).await;
        }
    }

    /// Waits until all Sentinels name the same primary, and the two other servers themselves say
    /// that they follow it: a Sentinel may learn that ten seconds later.
    ///
    /// # Panics
    ///
    /// When that takes too long.
    pub async fn in_order(&self) -> &RedisServer {
        eventually(2 * PATIENCE, || async {
            let port = self.agreed().await.map_err(|ports| format!("{ports:?}"))?;
            self.followed(port).await
        })
        .await
    }

    /// The server on this port, if it is the primary and the others follow it.
    async fn followed(&self, port: u16) -> Result<&RedisServer, String> {
        let primary = self.at(port);
        let state = replication(primary).await?;
        let mut is_followed =
            state.contains("\r\nrole:master\r\n") && state.matches("state=online").count() == 2;
        for other in self.others(primary) {
            let state = replication(other).await?;
            is_followed &= state.contains(&format!("\r\nmaster_port:{port}\r\n"))
                && state.contains("\r\nmaster_link_status:up\r\n");
        }
        if is_followed { Ok(primary) } else { Err(state) }
    }

    /// Makes one of the three Sentinels begin a failover, unless one is under way.
    ///
    /// # Panics
    ///
    /// When it refuses for too long.
    pub async fn command_failover(&self, sentinel: usize) {
        eventually(PATIENCE, || async {
            let mut connection = self.sentinels[sentinel].try_connection().await?;
            let mut command = redis::cmd("SENTINEL");
            match command.arg("FAILOVER").arg(NAME).exec_async(&mut connection).await {
                Err(error) if error.code() == Some("INPROG") => Ok(()),
                answer => answer,
            }
        })
        .await;
    }
}

/// What a server says about its role. It may be closing its connections because the role has
/// changed.
async fn replication(server: &RedisServer) -> Result<String, String> {
    let state: RedisResult<String> = async {
        let mut connection = server.try_connection().await?;
        redis::cmd("INFO").arg("replication").query_async(&mut connection).await
    }
    .await;
    state.map_err(|error| error.to_string())
}

async fn told(server: &RedisServer, words: &[&str]) {
    let mut connection = server.connection().await;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let told = command.exec_async(&mut connection).await;
    told.unwrap_or_else(|error| panic!("{words:?}: {error}"));
}
