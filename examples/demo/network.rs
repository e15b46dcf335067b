//! Where the locks are, and the connection from an instance to them, which can be cut or silenced.

use std::{net::Ipv4Addr, time::Duration};

use lock::{Locks, LocksBuilder, Warning, store::MemoryStore, test_util::FaultyStore};
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use serde::{Deserialize, Serialize};

use crate::{proxy::Proxy, servers::Servers};

/// Keeps the demo's locks apart from those of applications on the same server.
const PREFIX: &str = "lock-demo:";

/// Equal to the library's bound on a server's answer.
const SILENCE: Duration = Duration::from_secs(2);

/// Where the locks are.
#[derive(Clone)]
pub(crate) enum Address {
    /// In this process.
    Memory(MemoryStore),
    /// On a server.
    Redis(Box<ConnectionInfo>),
    /// On several servers, under this URL: Sentinels and their servers, or a Cluster.
    Several(String),
}

/// The condition of the connection to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Condition {
    /// It works.
    Open,
    /// Messages are lost, without an error.
    Silent,
    /// The connection is closed, and no new one can be made.
    Cut,
}

/// The connection from one instance to the store.
#[derive(Clone)]
pub(crate) enum Network {
    Memory(FaultyStore),
    Redis(Proxy),
    /// Has nothing in between that could cut it: a connection under TLS would notice a proxy, and
    /// several servers tell their clients their own addresses.
    Direct,
}

impl Address {
    /// A store in this process.
    pub(crate) fn memory() -> Self {
        Self::Memory(MemoryStore::new())
    }

    /// The store that `LOCK_URL` names.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        if url == "memory:" {
            return Ok(Self::memory());
        }
        if url.split_once("://").is_some_and(|(scheme, _)| {
            let scheme = scheme.to_ascii_lowercase();
            scheme.ends_with("+sentinel") || scheme.ends_with("+cluster")
        }) {
            return Ok(Self::Several(url.to_owned()));
        }
        // The error is left out: it may repeat a part of the URL, such as the password.
        let information = url
            .into_connection_info()
            .map_err(|_error| "LOCK_URL is not the URL of a Redis server".to_owned())?;
        Ok(Self::Redis(Box::new(information)))
    }

    /// The store in words, without its password.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Memory(_) => "in the memory of this process".to_owned(),
            Self::Redis(information) => match information.addr() {
                ConnectionAddr::Tcp(host, port) => format!("redis://{host}:{port}"),
                ConnectionAddr::TcpTls { host, port, .. } => format!("rediss://{host}:{port}"),
                other => other.to_string(),
            },
            Self::Several(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or_default();
                let hosts = rest.rsplit_once('@').map_or(rest, |(_credentials, hosts)| hosts);
                let hosts = hosts.split_once('?').map_or(hosts, |(hosts, _settings)| hosts);
                format!("{scheme}://{hosts}")
            }
        }
    }

    /// The server on which the copies of the demo tell each other what happens, and on which the
    /// ledger is. `None`: this process keeps both for itself.
    pub(crate) fn server(&self) -> Option<Client> {
        match self {
            Self::Redis(information) => Some(client(information)),
            Self::Memory(_) | Self::Several(_) => None,
        }
    }

    /// Locks over a connection that no page can cut, for the demo's own use.
    pub(crate) fn connect(&self) -> Result<Locks, lock::Error> {
        let builder = match self {
            Self::Memory(store) => Locks::builder().store(store.clone()),
            Self::Redis(information) => Locks::builder().client(client(information)),
            Self::Several(url) => Locks::builder().url(url),
        };
        lazily(builder.name("the demo itself"))
    }

    /// Locks of the instance with this name, and the network that they use.
    ///
    /// The proxy runs on the current runtime, because the instance's own may be blocked.
    pub(crate) async fn connect_breakable(
        &self,
        name: &str,
        servers: &Servers,
        on_warning: impl Fn(&Warning) + Send + Sync + 'static,
    ) -> Result<(Locks, Network), String> {
        let (builder, network) = match self {
            Self::Memory(store) => {
                let store = FaultyStore::new(store.clone());
                (Locks::builder().store(store.clone()), Network::Memory(store))
            }
            Self::Redis(information) => {
                let proxy = Proxy::start(information.addr()).await.map_err(|error| {
                    format!("no port for a connection that can be cut: {error}")
                })?;
                let (information, network) = match proxy {
                    Some(proxy) => {
                        servers.behind(proxy.address(), information.addr().to_string());
                        let here = (Ipv4Addr::LOCALHOST.to_string(), proxy.port());
                        let here = ConnectionAddr::Tcp(here.0, here.1);
                        ((**information).clone().set_addr(here), Network::Redis(proxy))
                    }
                    None => ((**information).clone(), Network::Direct),
                };
                (Locks::builder().client(client(&information)), network)
            }
            Self::Several(url) => (Locks::builder().url(url), Network::Direct),
        };
        let locks = lazily(builder.name(name).on_warning(on_warning));
        Ok((locks.map_err(|error| error.to_string())?, network))
    }
}

impl Network {
    /// Sets the condition from now on.
    pub(crate) fn set(&self, condition: Condition) {
        match self {
            Self::Memory(store) => match condition {
                Condition::Open => {
                    store.delay(Duration::ZERO);
                    store.come_back();
                }
                Condition::Silent => {
                    store.delay(SILENCE);
                    store.go_down();
                }
                Condition::Cut => {
                    store.delay(Duration::ZERO);
                    store.go_down();
                }
            },
            Self::Redis(proxy) => proxy.set(condition),
            Self::Direct => {}
        }
    }

    /// The address of the proxy, if there is one: the library takes it for its server's.
    pub(crate) fn proxy(&self) -> Option<String> {
        match self {
            Self::Redis(proxy) => Some(proxy.address()),
            Self::Memory(_) | Self::Direct => None,
        }
    }

    /// Puts the server's address in the place of the proxy's, in a text of the library.
    pub(crate) fn unmask(&self, text: &str) -> String {
        match self {
            Self::Redis(proxy) => proxy.unmask(text),
            Self::Memory(_) | Self::Direct => text.to_owned(),
        }
    }

    /// Whether it can be cut and silenced.
    pub(crate) fn is_breakable(&self) -> bool {
        !matches!(self, Self::Direct)
    }
}

fn client(information: &ConnectionInfo) -> Client {
    // `open` repeats a check that the URL has passed before.
    Client::open(information.clone()).expect("BUG: a URL that was parsed is refused")
}

/// Does not fail if the server is down: the page shows that, and the library waits for the server.
fn lazily(builder: LocksBuilder) -> Result<Locks, lock::Error> {
    builder.prefix(PREFIX).build_lazy()
}
