//! Certificates for a server on the loopback interface, and for its clients.

use std::{fmt, fs, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// A certificate authority and one server certificate for `127.0.0.1` and `localhost`.
///
/// Each value has keys of its own, so a client that trusts one refuses the servers of another.
#[derive(Clone)]
pub struct Certificates {
    issuer: Arc<Issuer<'static, KeyPair>>,
    authority: String,
    server: String,
    server_key: String,
}

/// A client's certificate and its private key, in PEM; the key as PKCS#8.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Certificates {
    /// Makes new keys and signs the server's certificate.
    pub fn generate() -> Self {
        let authority_key = KeyPair::generate().expect("a key pair can be generated");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "lock-tests authority");
        let authority_certificate =
            authority.self_signed(&authority_key).expect("an authority can sign itself");
        let issuer = Arc::new(Issuer::new(authority, authority_key));
        let names = ["localhost", "127.0.0.1"];
        Self::signed(authority_certificate.pem(), issuer, &names, (2000, 2100))
    }

    /// Another server certificate from the same authority: for these names, valid from the first
    /// day of one year to the first day of another.
    pub fn for_server(&self, names: &[&str], from: i32, until: i32) -> Self {
        Self::signed(self.authority.clone(), Arc::clone(&self.issuer), names, (from, until))
    }

    /// A self-signed server certificate that is an authority.
    pub fn signing_itself() -> Self {
        let key = KeyPair::generate().expect("a key pair can be generated");
        let mut own = certificate_of("lock-tests", &["localhost", "127.0.0.1"], (2000, 2100));
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = own.self_signed(&key).expect("an authority can sign itself").pem();
        Self {
            authority: certificate.clone(),
            server: certificate,
            server_key: key.serialize_pem(),
            issuer: Arc::new(Issuer::new(own, key)),
        }
    }

    fn signed(
        authority: String,
        issuer: Arc<Issuer<'static, KeyPair>>,
        names: &[&str],
        years: (i32, i32),
    ) -> Self {
        let server_key = KeyPair::generate().expect("a key pair can be generated");
        let mut server = certificate_of("lock-tests server", names, years);
        // A replica presents it to its primary, and one Sentinel to another.
        server.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let server = server
            .signed_by(&server_key, &*issuer)
            .expect("the authority can sign the server's certificate");

        Self { authority, server: server.pem(), server_key: server_key.serialize_pem(), issuer }
    }

    /// The authority's certificate in PEM, which a client has to trust.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A client certificate from the same authority, with a new key.
    pub fn client(&self) -> ClientCertificate {
        self.client_with(KeyPair::generate().expect("a key pair can be generated"), 2100)
    }

    /// The same for a given key, in PEM and as PKCS#8, valid until the first day of a year.
    ///
    /// # Panics
    ///
    /// When `key` is not a key.
    pub fn client_of(&self, key: &str, until: i32) -> ClientCertificate {
        self.client_with(KeyPair::from_pem(key).expect("the key is valid"), until)
    }

    fn client_with(&self, key: KeyPair, until: i32) -> ClientCertificate {
        let mut client = certificate_of("lock-tests client", &[], (2000, until));
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = client
            .signed_by(&key, &*self.issuer)
            .expect("the authority can sign the client's certificate");
        ClientCertificate { certificate: client.pem(), key: key.serialize_pem() }
    }

    /// Writes the three files into `directory` and returns the flags that make a server use them.
    pub(crate) fn install(&self, directory: &Path) -> Vec<String> {
        let files = [
            ("--tls-ca-cert-file", "authority.pem", &self.authority),
            ("--tls-cert-file", "server.pem", &self.server),
            ("--tls-key-file", "server.key", &self.server_key),
        ];
        let mut flags = vec!["--tls-auth-clients".to_owned(), "no".to_owned()];
        for (flag, name, text) in files {
            let path = directory.join(name);
            fs::write(&path, text).expect("the server's directory can be written");
            flags.extend([flag.to_owned(), path.display().to_string()]);
        }
        flags
    }
}

fn certificate_of(subject: &str, names: &[&str], years: (i32, i32)) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("all names are valid");
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name.push(DnType::CommonName, subject);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    params
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}
