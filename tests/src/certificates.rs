//! Certificates for a server on the loopback interface.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority and one server certificate for `127.0.0.1` and `localhost`.
///
/// Each value has keys of its own, so a client that trusts one refuses the servers of another.
#[derive(Clone)]
pub struct Certificates {
    authority: String,
    server: String,
    server_key: String,
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
        let issuer = Issuer::new(authority, authority_key);

        let server_key = KeyPair::generate().expect("a key pair can be generated");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut server = CertificateParams::new(names).expect("both names are valid");
        server.use_authority_key_identifier_extension = true;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.distinguished_name.push(DnType::CommonName, "lock-tests server");
        let server = server
            .signed_by(&server_key, &issuer)
            .expect("the authority can sign the server's certificate");

        Self {
            authority: authority_certificate.pem(),
            server: server.pem(),
            server_key: server_key.serialize_pem(),
        }
    }

    /// The authority's certificate in PEM: what a client has to trust.
    pub fn authority(&self) -> &str {
        &self.authority
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

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}
