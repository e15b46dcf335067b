//! Where a server is, and what opens TLS to it.

use redis::{Client, ConnectionAddr, RedisResult, aio::PubSub};
use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::client::TlsStream;

#[cfg(feature = "tls")]
use super::tls::{self, Roots, TlsSettings, trouble::Shown};
use super::{
    admission::{Admission, Provider, admitted},
    refusal::Refusal,
};
use crate::Error;

/// One server, as the user specifies it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    client: Client,
    /// The provider that is asked for user and password at each connect, if they change.
    provider: Option<Provider>,
    #[cfg(feature = "tls")]
    tls: Tls,
}

/// What opens TLS, if the address requires it.
#[cfg(feature = "tls")]
#[derive(Clone)]
enum Tls {
    /// This library.
    Own(TlsSettings),
    /// This library, with the system's roots. If there are none, redis-rs, which an application may
    /// have built with bundled roots.
    OwnOrClient,
    /// redis-rs: nothing else can read the certificates in a client.
    Client,
}

impl Endpoint {
    /// A server as the user's own client reaches it.
    pub(crate) fn of_client(client: Client) -> Self {
        #[cfg(feature = "tls")]
        let tls = match client.get_connection_info().addr() {
            ConnectionAddr::TcpTls { insecure: false, tls_params: None, .. } => Tls::OwnOrClient,
            _ => Tls::Client,
        };
        Self {
            client,
            provider: None,
            #[cfg(feature = "tls")]
            tls,
        }
    }

    /// A server behind TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn with_tls(client: Client, settings: TlsSettings) -> Self {
        Self { client, provider: None, tls: Tls::Own(settings) }
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

    /// The same with credentials that change.
    pub(crate) fn with_provider(self, provider: Option<Provider>) -> Result<Self, Error> {
        let settings = self.client.get_connection_info().redis_settings();
        let has_own = settings.username().is_some() || settings.password().is_some();
        if provider.is_some() && has_own {
            return Err(Error::invalid(
                "user and password are given twice: leave them out of the URL, or leave out \
                 `credentials`",
            ));
        }
        Ok(Self { provider, ..self })
    }

    /// The current credentials, if they change.
    pub(super) async fn admission(&self) -> Result<Option<Admission>, Refusal> {
        match &self.provider {
            Some(provider) => provider.admission().await.map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// A stream with TLS on it, if the address requires TLS and this library opens it.
    #[cfg(feature = "tls")]
    pub(super) async fn open_tls(&self) -> Result<Option<TlsStream<TcpStream>>, Refusal> {
        let info = self.client.get_connection_info();
        let ConnectionAddr::TcpTls { host, port, .. } = info.addr() else { return Ok(None) };
        let (roots, certificate) = match &self.tls {
            Tls::Own(settings) => (settings.roots.load()?, settings.certificate.as_deref()),
            Tls::OwnOrClient => match Roots::System.load() {
                Ok(roots) => (roots, None),
                Err(_) => return Ok(None),
            },
            Tls::Client => return Ok(None),
        };
        tls::open(host, *port, info.tcp_settings(), roots, certificate).await.map(Some)
    }

    /// What the client shows when the server asks for its certificate, if this library opens TLS.
    #[cfg(feature = "tls")]
    pub(super) fn shown(&self) -> Shown {
        let has_one = match &self.tls {
            Tls::Own(settings) => Some(settings.certificate.is_some()),
            Tls::OwnOrClient => Some(false),
            Tls::Client => None,
        };
        Shown { asked: true, has_one }
    }

    #[cfg(feature = "tls")]
    pub(super) fn host(&self) -> Option<(&str, u16)> {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::TcpTls { host, port, .. } => Some((host, *port)),
            _ => None,
        }
    }

    /// Without the feature, TLS is left to the client, which may use another library for it.
    #[cfg(not(feature = "tls"))]
    pub(super) async fn open_tls(&self) -> Result<Option<TcpStream>, Refusal> {
        Ok(None)
    }

    /// A connection in pub/sub mode, with these credentials if they change.
    pub(super) async fn open_pubsub(&self, admission: Option<&Admission>) -> Option<PubSub> {
        let client = admitted(&self.client, admission).ok()?;
        if let Some(stream) = self.open_tls().await.ok()? {
            let settings = client.get_connection_info().redis_settings();
            return PubSub::new(settings, stream).await.ok();
        }
        client.get_async_pubsub().await.ok()
    }
}
