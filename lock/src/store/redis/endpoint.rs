//! Where a server is, and who opens TLS to it.

use redis::{Client, ConnectionAddr, RedisResult, aio::PubSub};
use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::client::TlsStream;

use super::refusal::Refusal;
#[cfg(feature = "tls")]
use super::tls::{self, Roots};

/// One server, as a user names it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    client: Client,
    #[cfg(feature = "tls")]
    tls: Tls,
}

/// Who opens TLS, where the address wants it.
#[cfg(feature = "tls")]
#[derive(Clone)]
enum Tls {
    /// This library.
    Own(Roots),
    /// This library, with the system's roots. Where there are none, redis-rs, which an application
    /// may have built with roots inside.
    OwnOrClient,
    /// redis-rs: nobody else can read the certificates in a client.
    Client,
}

impl Endpoint {
    /// A server as a client of the user's reaches it.
    pub(crate) fn of_client(client: Client) -> Self {
        #[cfg(feature = "tls")]
        let tls = match client.get_connection_info().addr() {
            ConnectionAddr::TcpTls { insecure: false, tls_params: None, .. } => Tls::OwnOrClient,
            _ => Tls::Client,
        };
        Self {
            client,
            #[cfg(feature = "tls")]
            tls,
        }
    }

    /// A server behind TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn with_tls(client: Client, roots: Roots) -> Self {
        Self { client, tls: Tls::Own(roots) }
    }

    /// The same at another address.
    pub(super) fn at(&self, host: &str, port: u16) -> RedisResult<Self> {
        let info = self.client.get_connection_info();
        let host = host.to_owned();
        let address = match info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        Ok(Self { client: Client::open(info.clone().set_addr(address))?, ..self.clone() })
    }

    /// The same address, with other settings.
    pub(crate) fn with_client(self, client: Client) -> Self {
        Self { client, ..self }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// A stream with TLS on it, if the address wants TLS and that is this library's to open.
    #[cfg(feature = "tls")]
    pub(super) async fn open_tls(&self) -> Result<Option<TlsStream<TcpStream>>, Refusal> {
        let info = self.client.get_connection_info();
        let ConnectionAddr::TcpTls { host, port, .. } = info.addr() else { return Ok(None) };
        let roots = match &self.tls {
            Tls::Own(roots) => roots.load()?,
            Tls::OwnOrClient => match Roots::System.load() {
                Ok(roots) => roots,
                Err(_) => return Ok(None),
            },
            Tls::Client => return Ok(None),
        };
        tls::open(host, *port, info.tcp_settings(), roots).await.map(Some)
    }

    /// Without the feature, TLS is the client's, which may have another library for it.
    #[cfg(not(feature = "tls"))]
    pub(super) async fn open_tls(&self) -> Result<Option<TcpStream>, Refusal> {
        Ok(None)
    }

    /// A connection in pub/sub mode.
    pub(super) async fn open_pubsub(&self) -> Option<PubSub> {
        if let Some(stream) = self.open_tls().await.ok()? {
            let settings = self.client.get_connection_info().redis_settings();
            return PubSub::new(settings, stream).await.ok();
        }
        self.client.get_async_pubsub().await.ok()
    }
}
