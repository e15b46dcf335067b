//! TLS as this library opens it.
//!
//! redis-rs takes the process's default provider of cryptography, and makes one the default where
//! there is none. A library must not: an application that installs its own later would fail. So a
//! provider is chosen for each connection, and the default is left as it is.

use std::{io, sync::Arc};

use redis::{RedisError, io::tcp::TcpSettings};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::{
    refusal::Refusal,
    stream::{connect, refused, resolve, set_options},
};

/// Whom a connection trusts.
#[derive(Clone, Debug)]
pub(crate) enum Roots {
    /// What the system trusts at the time of the connect.
    System,
    Given(Arc<RootCertStore>),
}

impl Roots {
    /// The authorities of a file in PEM form.
    pub(crate) fn from_pem(pem: &[u8]) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        Ok(Self::Given(Arc::new(roots)))
    }

    /// The authorities as they are now. Fails where the system has none.
    pub(super) fn load(&self) -> Result<Arc<RootCertStore>, Refusal> {
        match self {
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                let mut roots = RootCertStore::empty();
                // A certificate that nobody can read is one that nobody is trusted by.
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(Refusal::no_roots(found.errors.into_iter().next()));
                }
                Ok(Arc::new(roots))
            }
            Self::Given(roots) => Ok(Arc::clone(roots)),
        }
    }
}

/// Opens a stream to the server and TLS on it. Has no bound of its own.
pub(super) async fn open(
    host: &str,
    port: u16,
    settings: &TcpSettings,
    roots: Arc<RootCertStore>,
) -> Result<TlsStream<TcpStream>, Refusal> {
    let name = ServerName::try_from(host).map_err(|error| Refusal::of(RedisError::from(error)))?;
    let connector = TlsConnector::from(Arc::new(config(roots)?));
    let stream = connect(resolve(host, port).await?).await?;
    set_options(&stream, settings);
    connector.connect(name.to_owned(), stream).await.map_err(refused)
}

/// New for each connection: no session of one connection is resumed by the next, so each checks
/// the server's certificate.
fn config(roots: Arc<RootCertStore>) -> Result<ClientConfig, Refusal> {
    // One that the application has installed is respected.
    let provider =
        CryptoProvider::get_default().map_or_else(|| ring::default_provider().into(), Arc::clone);
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| Refusal::of(RedisError::from(error)))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
