//! TLS as this library opens it.
//!
//! redis-rs uses the process's default crypto provider, and installs one if there is none. A
//! library must not: an application that installs its own later would fail. So a provider is chosen
//! for each connection, and the default is left as it is.

mod certificate;
pub(super) mod last_words;
pub(super) mod trouble;

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redis::io::tcp::TcpSettings;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, Error, RootCertStore, SignatureScheme,
        client::ResolvesClientCert,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, ServerName, pem::PemObject},
        sign::CertifiedKey,
    },
};

pub(crate) use self::certificate::ClientCertificate;
use self::trouble::Shown;
use super::{
    refusal::Refusal,
    stream::{connect, resolve, set_options},
};

/// The authorities that a connection trusts, and the certificate that it shows.
#[derive(Clone)]
pub(crate) struct TlsSettings {
    pub(crate) roots: Roots,
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
}

/// The authorities that a connection trusts.
#[derive(Clone, Debug)]
pub(crate) enum Roots {
    /// Those that the system trusts at the time of the connect.
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

    /// The authorities as they are now. Fails if the system has none.
    pub(super) fn load(&self) -> Result<Arc<RootCertStore>, Refusal> {
        match self {
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                let mut roots = RootCertStore::empty();
                // A certificate that cannot be read makes nothing trusted, so it is left out.
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

/// Opens a stream to the server and TLS on it. Has no time limit of its own.
pub(super) async fn open(
    host: &str,
    port: u16,
    settings: &TcpSettings,
    roots: Arc<RootCertStore>,
    certificate: Option<&ClientCertificate>,
) -> Result<TlsStream<TcpStream>, Refusal> {
    let name = ServerName::try_from(host).map_err(Refusal::no_name_for_tls)?;
    let (config, own) = config(roots, certificate)
        .map_err(|error| Refusal::of_tls(io::Error::other(error), Shown::default()))?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connect(resolve(host, port).await?).await?;
    set_options(&stream, settings);
    let opened = connector.connect(name.to_owned(), stream).await;
    opened.map_err(|error| Refusal::of_tls(error, own.shown()))
}

/// New for each connection: no session of one connection is resumed by the next, so each checks
/// the server's certificate.
fn config(
    roots: Arc<RootCertStore>,
    certificate: Option<&ClientCertificate>,
) -> Result<(ClientConfig, Arc<OwnCertificate>), Error> {
    let provider = provider();
    let certified = certificate.map(|own| own.certified(&provider)).transpose()?;
    let own = Arc::new(OwnCertificate {
        certified: certified.map(Arc::new),
        asked: AtomicBool::new(false),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::clone(&own) as _);
    Ok((config, own))
}

/// The crypto provider. If the application has installed one, that is used.
fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().map_or_else(|| ring::default_provider().into(), Arc::clone)
}

/// The client's certificate for one connection, if it has one. Records whether the server asks for
/// it.
struct OwnCertificate {
    certified: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl OwnCertificate {
    fn shown(&self) -> Shown {
        let asked = self.asked.load(Ordering::Relaxed);
        Shown { asked, has_one: Some(self.certified.is_some()) }
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.certified.clone()
    }

    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCertificate").finish_non_exhaustive()
    }
}
