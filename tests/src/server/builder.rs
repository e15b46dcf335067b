//! The settings of a server.

use std::{fs, path::PathBuf, sync::OnceLock};

use tempfile::TempDir;

use super::{RedisServer, Settings, cluster_of_one, node, process::Start, tls};
use crate::{
    certificates::Certificates, children::temporary_directory, host_clock::HostClock, ports::Port,
};

/// The name of the Unix domain socket in the server's directory.
pub(super) const UNIX_SOCKET: &str = "redis.sock";

/// How often the start is tried if the port was taken in between.
const ATTEMPTS: u32 = 20;

/// The flags of a [`RedisServer`] that is not started yet.
#[derive(Clone, Debug, Default)]
#[must_use = "the server is started by `start`"]
pub struct RedisServerBuilder {
    flags: Vec<String>,
    tls: bool,
    /// With TLS and `None`, new ones are made.
    certificates: Option<Certificates>,
    unix_socket: bool,
    append_only: bool,
    config_file: bool,
    /// The port of the primary that it watches, if it is a Sentinel.
    watches: Option<u16>,
    /// The user and password for that primary.
    watches_as: Option<(String, String)>,
    environment: Vec<(String, PathBuf)>,
    /// `None`: as the environment says.
    cluster_of_one: Option<bool>,
}

/// The ports that a server listens on.
#[derive(Debug)]
pub(crate) struct Ports {
    plain: Port,
    tls: Option<Port>,
}

impl Ports {
    /// The port that other servers and Sentinels know the server by.
    pub(crate) fn known(&self) -> u16 {
        self.tls.as_ref().unwrap_or(&self.plain).number()
    }
}

impl RedisServerBuilder {
    /// Adds one flag with one value, as on the command line: `flag("--requirepass", "secret")`.
    /// It comes after the harness's own flags, so it wins.
    pub fn flag(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags([name.into(), value.into()])
    }

    /// Adds words of the command line, for flags with no value or with several:
    /// `flags(["--replicaof", "127.0.0.1", "6379"])`.
    pub fn flags<F: Into<String>>(mut self, flags: impl IntoIterator<Item = F>) -> Self {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// The same, but before the flags that were added already, which win.
    pub(crate) fn flags_before<F: Into<String>>(
        mut self,
        flags: impl IntoIterator<Item = F>,
    ) -> Self {
        self.flags.splice(..0, flags.into_iter().map(Into::into));
        self
    }

    /// Whether to also listen with TLS, on a second port. Default: no.
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// Also listens with TLS, with these certificates.
    pub fn certificates(mut self, certificates: &Certificates) -> Self {
        self.certificates = Some(certificates.clone());
        self.tls(true)
    }

    /// Whether clients have to present a certificate from the server's authority. Default: no.
    pub fn tls_auth_clients(self, wanted: bool) -> Self {
        self.flag("--tls-auth-clients", if wanted { "yes" } else { "no" })
    }

    /// Whether to also listen on a Unix domain socket. Default: no.
    pub fn unix_socket(mut self, unix_socket: bool) -> Self {
        self.unix_socket = unix_socket;
        self
    }

    /// Whether to keep an append-only file, so that the keys survive
    /// [`RedisServer::restart`]. Default: no.
    ///
    /// A reply is sent after its command was written to the file, so [`RedisServer::kill`] loses
    /// nothing that was answered.
    pub fn append_only(mut self, append_only: bool) -> Self {
        self.append_only = append_only;
        self
    }

    /// Whether to start from a file, which `CONFIG REWRITE` writes to. Settings that a server has
    /// written there survive [`RedisServer::restart`]: its primary and its users. The flags survive
    /// in any case, and win. Default: no.
    pub fn config_file(mut self, config_file: bool) -> Self {
        self.config_file = config_file;
        self
    }

    /// Makes it a Sentinel that watches the primary on this port, under the name `main`.
    pub fn sentinel_of(mut self, primary: u16) -> Self {
        self.watches = Some(primary);
        self
    }

    /// Makes the Sentinel log in as this user at the servers that it watches.
    pub fn sentinel_as(mut self, user: &str, password: &str) -> Self {
        self.watches_as = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Whether it is a Redis Cluster of one node, which has all slots from the start and after each
    /// [`RedisServer::restart`]. Such a server has one database, and can be no other server's
    /// replica. Default: yes where the environment has `LOCK_CLUSTER=1`, unless it is started as a
    /// replica.
    pub fn cluster_of_one(mut self, wanted: bool) -> Self {
        self.cluster_of_one = Some(wanted);
        self
    }

    /// Runs the server by these clocks, which have to outlive it.
    pub fn clock(mut self, clock: &HostClock) -> Self {
        self.environment = clock.environment();
        self
    }

    /// Starts the process and returns when it answers.
    ///
    /// # Panics
    ///
    /// When the program does not exist, or when it is not ready within 10 seconds or ends, with the
    /// end of its log.
    pub fn start(self) -> RedisServer {
        self.try_start().unwrap_or_else(|message| panic!("{message}{}", tls::advice(&message)))
    }

    /// The same, with the end of the log as an error.
    pub(super) fn try_start(mut self) -> Result<RedisServer, String> {
        if self.tls && self.certificates.is_none() {
            self.certificates = Some(Certificates::generate());
        }
        for _ in 0..ATTEMPTS {
            if let Some(server) = self.try_start_on(self.claim(), None)? {
                return Ok(server);
            }
        }
        panic!("{ATTEMPTS} ports that were free were taken a moment later");
    }

    /// Ports that are free now.
    pub(crate) fn claim(&self) -> Ports {
        Ports { plain: Port::claim(), tls: self.tls.then(Port::claim) }
    }

    /// Starts the process on these ports, unless one was taken. It is a node of a Redis Cluster if
    /// it is given the content of [`node::FILE`].
    pub(crate) fn try_start_on(
        &self,
        ports: Ports,
        nodes: Option<&str>,
    ) -> Result<Option<RedisServer>, String> {
        let directory = temporary_directory("server-");
        if let Some(nodes) = nodes {
            let path = directory.path().join(node::FILE);
            fs::write(path, nodes).expect("the server's directory can be written");
        }
        let settings = self.settings(&directory, ports, nodes.is_some());
        match settings.spawn(directory.path()) {
            Start::Ready(process) => {
                let (process, sentinel) = (process.into(), OnceLock::new());
                Ok(Some(RedisServer { process, settings, directory, sentinel }))
            }
            Start::PortTaken => Ok(None),
            Start::Failed(message) => Err(message),
        }
    }

    fn is_cluster_of_one(&self) -> bool {
        let by_itself =
            || self.watches.is_none() && !self.flags.contains(&"--replicaof".to_owned());
        self.cluster_of_one.unwrap_or_else(|| cluster_of_one::wanted() && by_itself())
    }

    /// The whole command line.
    fn settings(&self, directory: &TempDir, ports: Ports, is_node: bool) -> Settings {
        let Ports { plain: port, tls: tls_port } = ports;
        let certificates = self.certificates.clone().filter(|_| self.tls);
        let cluster_of_one = !is_node && self.is_cluster_of_one();
        let append_only = if self.append_only { "yes" } else { "no" };
        let mut flags: Vec<String> =
            ["--bind", "127.0.0.1", "--daemonize", "no", "--save", "", "--appendonly", append_only]
                .map(str::to_owned)
                .to_vec();
        let mut flag = |name: &str, value: String| flags.extend([name.to_owned(), value]);
        flag("--port", port.number().to_string());
        flag("--dir", directory.path().display().to_string());
        if self.append_only {
            // With the default, a write can wait for a flush by a busy disk, while its reply does
            // not wait: a server that is killed then has lost writes that it has acknowledged.
            flag("--appendfsync", "no".to_owned());
        }
        if self.unix_socket {
            let path = directory.path().join(UNIX_SOCKET);
            flag("--unixsocket", path.display().to_string());
        }
        if is_node || cluster_of_one {
            flags.extend(node::flags(tls_port.is_some()));
        }
        let mut of_tls = Vec::new();
        if let (Some(tls_port), Some(certificates)) = (&tls_port, &certificates) {
            of_tls.extend(["--tls-port".to_owned(), tls_port.number().to_string()]);
            of_tls.extend(certificates.install(directory.path()));
        }
        if let Some(primary) = self.watches {
            // A Sentinel only starts from a file, which it writes to.
            let path = directory.path().join("sentinel.conf");
            let mut text = format!(
                "bind 127.0.0.1\nport {}\ndir {}\nsentinel monitor main 127.0.0.1 {primary} 1\n",
                port.number(),
                directory.path().display(),
            );
            if let Some((user, password)) = &self.watches_as {
                let lines =
                    format!("sentinel auth-user main {user}\nsentinel auth-pass main {password}\n");
                text.push_str(&lines);
            }
            fs::write(&path, text).expect("the server's directory can be written");
            flags = vec![path.display().to_string(), "--sentinel".to_owned()];
        } else if self.config_file {
            let path = directory.path().join("redis.conf");
            fs::write(&path, "").expect("the server's directory can be written");
            flags.insert(0, path.display().to_string());
        }
        flags.extend(of_tls);
        flags.extend(self.flags.iter().cloned());
        let password = self
            .flags
            .windows(2)
            .rev()
            .find(|words| words[0] == "--requirepass")
            .map(|words| words[1].clone());
        Settings {
            port,
            flags,
            password,
            certificates,
            tls_port,
            unix_socket: self.unix_socket,
            cluster_of_one,
            environment: self.environment.clone(),
        }
    }
}
