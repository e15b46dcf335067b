//! Reads a URL once more, because the library does not expose what it read.
//!
//! The library has checked the URL by then, so mistakes are not explained here.

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisResult, TlsCertificates,
};

use crate::target::Target;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// How the servers of a store belong together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server, or a node of a Cluster whose URL does not say so.
    One,
    /// An address behind which any number of servers may be.
    Proxy,
    /// A primary that Sentinels watch under this name.
    Watched(String),
    Cluster,
}

/// The store, as redis-rs reaches its servers.
pub(crate) struct Store {
    pub(crate) kind: Kind,
    /// The servers that the URL names: Sentinels, if it is watched.
    pub(crate) named: Vec<ConnectionInfo>,
    /// The settings for a server of the store, whatever its address.
    server: ConnectionInfo,
    root_certificate: Option<Vec<u8>>,
    client_certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Store {
    pub(crate) fn new(target: &Target) -> Option<Self> {
        let (scheme, rest) = target.url.split_once(':')?;
        let scheme = scheme.to_ascii_lowercase().replace("valkeys", "rediss");
        let scheme = scheme.replace("valkey", "redis");
        let (kind, named, server) = match scheme.split_once('+') {
            Some((server, "sentinel")) => watched(server, rest, target.sentinel_login.as_ref())?,
            Some((server, "cluster")) => {
                let authority = rest.strip_prefix("//")?.split('/').next()?;
                let (user, hosts) = hosts(authority, PORT);
                let named = all(hosts.iter().map(|host| format!("{server}://{user}{host}")))?;
                let server = named.first()?.clone();
                (Kind::Cluster, named, server)
            }
            _ => {
                let url = format!("{scheme}:{rest}");
                let (url, is_proxy) = without_slots(&url);
                let server = url.into_connection_info().ok()?;
                let kind = if is_proxy { Kind::Proxy } else { Kind::One };
                (kind, vec![server.clone()], server)
            }
        };
        let login = |info: ConnectionInfo| match &target.login {
            Some(login) => with_login(info, login),
            None => info,
        };
        let is_watched = matches!(kind, Kind::Watched(_));
        Some(Self {
            kind,
            // Sentinels have users of their own.
            named: named.into_iter().map(|one| if is_watched { one } else { login(one) }).collect(),
            server: login(server),
            root_certificate: target.root_certificate.clone(),
            client_certificate: target.client_certificate.clone(),
        })
    }

    /// The settings for the server of this store at an address.
    pub(crate) fn server_at(&self, host: &str, port: u16) -> ConnectionInfo {
        let host = host.to_owned();
        let address = match self.server.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.server.clone().set_addr(address)
    }

    pub(crate) fn client(&self, info: &ConnectionInfo) -> RedisResult<Client> {
        // Each answer has one form in RESP2; in RESP3 it depends on the command and on the version.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let settings = settings.set_skip_set_lib_name();
        let info = info.clone().set_redis_settings(settings);
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Client::open(info);
        }
        let client_tls = self.client_certificate.clone();
        let client_tls =
            client_tls.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let certificates = TlsCertificates { client_tls, root_cert: self.root_certificate.clone() };
        Client::build_with_tls(info, certificates)
    }
}

type Read = (Kind, Vec<ConnectionInfo>, ConnectionInfo);

fn watched(scheme: &str, rest: &str, login: Option<&(String, String)>) -> Option<Read> {
    let (authority, path) = rest.strip_prefix("//")?.split_once('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    let (name, database) = match path.split_once('/') {
        Some((name, database)) => (name, format!("/{database}")),
        None => (path, String::new()),
    };
    let (user, hosts) = hosts(authority, SENTINEL_PORT);
    let sentinels = all(hosts.iter().map(|host| format!("{scheme}://{host}")))?;
    let sentinels = match login {
        Some(login) => sentinels.into_iter().map(|one| with_login(one, login)).collect(),
        None => sentinels,
    };
    let server = format!("{scheme}://{user}localhost{database}").into_connection_info().ok()?;
    Some((Kind::Watched(name.to_owned()), sentinels, server))
}

fn all(urls: impl Iterator<Item = String>) -> Option<Vec<ConnectionInfo>> {
    urls.map(|url| url.into_connection_info().ok()).collect()
}

fn with_login(info: ConnectionInfo, (user, password): &(String, String)) -> ConnectionInfo {
    let mut settings = info.redis_settings().clone().set_password(password);
    if !user.is_empty() {
        settings = settings.set_username(user);
    }
    info.set_redis_settings(settings)
}

/// The user and the password as they are written, and each host with a port.
fn hosts(authority: &str, port: u16) -> (String, Vec<String>) {
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let host = |host: &str| {
        // IPv6 addresses also have colons, and are in brackets.
        let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
        if behind.contains(':') { host.to_owned() } else { format!("{host}:{port}") }
    };
    (user, hosts.split(',').map(host).collect())
}

fn without_slots(url: &str) -> (String, bool) {
    let Some((before, query)) = url.split_once('?') else { return (url.to_owned(), false) };
    let (slots, others): (Vec<_>, Vec<_>) = query.split('&').partition(|word| *word == "slots=1");
    let rest = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
    (format!("{before}{rest}"), !slots.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Store {
        let target = Target {
            url: url.to_owned(),
            prefix: "lock:".to_owned(),
            login: None,
            sentinel_login: Some(("watcher".to_owned(), "w".to_owned())),
            root_certificate: None,
            client_certificate: None,
        };
        Store::new(&target).expect("the URL can be read")
    }

    fn addresses(store: &Store) -> Vec<String> {
        store.named.iter().map(|info| info.addr().to_string()).collect()
    }

    #[test]
    fn every_form_of_url_is_read() {
        let watched = read("VALKEY+sentinel://u:p%40@h1,h2:7000,[::1]/main.db/3");
        assert_eq!(watched.kind, Kind::Watched("main.db".to_owned()));
        assert_eq!(addresses(&watched), ["h1:26379", "h2:7000", "::1:26379"]);
        let sentinel = watched.named[0].redis_settings();
        assert_eq!((sentinel.username(), sentinel.password()), (Some("watcher"), Some("w")));
        let server = watched.server_at("h9", 7);
        let settings = server.redis_settings();
        assert_eq!(server.addr().to_string(), "h9:7");
        let known = (settings.username(), settings.password(), settings.db());
        assert_eq!(known, (Some("u"), Some("p@"), 3));

        let cluster = read("rediss+cluster://:p@h1,h2:1/");
        assert_eq!(
            (&cluster.kind, addresses(&cluster)),
            (&Kind::Cluster, vec!["h1:6379".to_owned(), "h2:1".to_owned()])
        );
        assert!(matches!(cluster.server_at("h", 1).addr(), ConnectionAddr::TcpTls { .. }));

        assert_eq!(read("redis://h").kind, Kind::One);
        assert_eq!(read("redis://h/0?slots=1").kind, Kind::Proxy);
        assert_eq!(addresses(&read("unix:///run/redis.sock?db=1")), ["/run/redis.sock"]);
    }
}
