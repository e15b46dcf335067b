//! The client's own certificate, for servers that authenticate their clients by it.

use std::sync::Arc;

use tokio_rustls::rustls::{
    Error, InconsistentKeys,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{PemObject, SectionKind},
    },
    sign::CertifiedKey,
};

use super::provider;

/// The client's certificate, followed by those of its authorities, and its key.
pub(crate) struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ClientCertificate {
    /// Reads both, and checks that they belong together. The error says which of the two is wrong.
    /// It quotes neither of them, and no error of a library, because those quote what they read.
    pub(crate) fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Arc<Self>, &'static str> {
        let (first, second) = (Sections::of(certificate), Sections::of(key));
        if first.certificates.is_empty() && second.key.is_none() {
            let is_key = first.key.is_some() || first.is_encrypted;
            if is_key && !second.certificates.is_empty() {
                return Err(
                    "the two arguments of `client_certificate` are swapped: the certificate \
                            comes first, then its key",
                );
            }
        }
        if first.is_damaged {
            return Err("the first argument of `client_certificate` is damaged: give the whole \
                        certificate, in PEM form");
        }
        if first.certificates.is_empty() {
            return Err(
                "the first argument of `client_certificate` contains no certificate: give the \
                 client's own, followed by those of its authorities, in PEM form",
            );
        }
        let key = match second.key {
            Some(key) => key,
            None if second.is_encrypted => {
                return Err(
                    "the second argument of `client_certificate` is a key with a password, which \
                     TLS cannot use: remove the password, for example with `openssl pkey`",
                );
            }
            None if second.is_damaged => {
                return Err(
                    "the second argument of `client_certificate` is damaged: give the whole \
                            private key, in PEM form",
                );
            }
            None => {
                return Err(
                    "the second argument of `client_certificate` contains no private key: give \
                     that of the certificate, in PEM form (PKCS#8, PKCS#1 or SEC1)",
                );
            }
        };
        let this = Self { chain: first.certificates, key };
        match this.certified(&provider()) {
            Ok(_) => Ok(Arc::new(this)),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err("the two arguments of `client_certificate` do not belong together: give the \
                     certificate and the key that it was made for; if there are several \
                     certificates, the client's own is the first")
            }
            Err(Error::InvalidCertificate(_)) => Err(
                "the first argument of `client_certificate` is not a certificate that TLS can use: \
                     give one of X.509 version 3",
            ),
            Err(_) => {
                Err("the second argument of `client_certificate` is not a key that TLS can use: \
                     give an RSA key of 2048 bits or more, an ECDSA key on P-256 or P-384, or an \
                     Ed25519 key")
            }
        }
    }

    /// The certificate and the key, as loaded by this crypto provider.
    pub(super) fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), provider)
    }
}

/// What a file in PEM form holds.
#[derive(Default)]
struct Sections {
    certificates: Vec<CertificateDer<'static>>,
    /// The first one.
    key: Option<PrivateKeyDer<'static>>,
    is_encrypted: bool,
    is_damaged: bool,
}

impl Sections {
    fn of(pem: &[u8]) -> Self {
        let count = |word: &[u8]| pem.windows(word.len()).filter(|window| *window == word).count();
        let mut this = Self {
            // It is in the label of PKCS#8, and in a header of the other formats, at which every
            // reader fails.
            is_encrypted: count(b"ENCRYPTED") > 0,
            // The reader ignores a section that has no end.
            is_damaged: count(b"-----BEGIN ") != count(b"-----END "),
            ..Self::default()
        };
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let Ok((kind, der)) = section else {
                this.is_damaged = true;
                break;
            };
            match kind {
                SectionKind::Certificate => this.certificates.push(der.into()),
                kind => this.key = this.key.or_else(|| PrivateKeyDer::from_pem(kind, der)),
            }
        }
        this
    }
}
