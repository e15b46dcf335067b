//! What a URL, or the environment, says about the store. No message repeats any part of a URL,
//! because it may carry a password.

use std::ffi::OsString;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Error;
#[cfg(feature = "redis")]
use crate::{
    Credentials,
    store::redis::{Endpoint, Layout},
};

#[cfg(feature = "redis")]
mod cluster;
#[cfg(feature = "redis")]
mod hosts;
#[cfg(feature = "redis")]
mod watched;

const SCHEMES: &str = "`redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://`, `unix:` or \
                       `memory:`";

/// The characters that must be percent-encoded in a URL (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The store that a URL names.
pub(crate) enum Target {
    Memory,
    #[cfg(feature = "redis")]
    Redis(Box<Layout>),
}

/// Settings that a URL has no place for.
#[derive(Default)]
pub(crate) struct Beside {
    #[cfg(feature = "redis")]
    pub(crate) certificates: Certificates,
    #[cfg(feature = "redis")]
    pub(crate) sentinel_credentials: Option<Credentials>,
}

/// Certificates for TLS, in PEM form.
#[cfg(feature = "redis")]
#[derive(Default)]
pub(crate) struct Certificates {
    pub(crate) root: Option<Vec<u8>>,
    /// The client's own, and its key.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Beside {
    /// Refuses settings for which this store has no place, and which would otherwise be ignored
    /// silently.
    pub(crate) fn refuse_all(&self) -> Result<(), Error> {
        #[cfg(feature = "redis")]
        {
            self.certificates.refuse_all()?;
            self.refuse_sentinels()?;
        }
        Ok(())
    }

    #[cfg(feature = "redis")]
    fn refuse_sentinels(&self) -> Result<(), Error> {
        match self.sentinel_credentials {
            Some(_) => {
                Err(Error::invalid("credentials of Sentinels need a `redis+sentinel://` URL"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(feature = "redis")]
impl Certificates {
    fn refuse_all(&self) -> Result<(), Error> {
        let what = match self {
            Self { root: Some(_), .. } => "a root certificate",
            Self { client: Some(_), .. } => "a client certificate",
            Self { root: None, client: None } => return Ok(()),
        };
        Err(Error::invalid(format!(
            "{what} needs a `rediss://`, `rediss+sentinel://` or `rediss+cluster://` URL; a \
             `redis::Client` has its own certificates (`Client::build_with_tls`)"
        )))
    }
}

impl Target {
    pub(crate) fn parse(url: &str, beside: Beside) -> Result<Self, Error> {
        if let Some(flaw) = flaw(url) {
            return Err(Error::invalid(format!("the URL has {flaw}: remove them")));
        }
        let (scheme, rest) = match url.split_once(':') {
            // In upper or lower case, as in every URL.
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, url),
        };
        match scheme.as_deref() {
            Some("memory") => beside.refuse_all().map(|()| Self::Memory),
            Some(
                scheme @ ("redis" | "rediss" | "unix" | "redis+unix" | "valkey" | "valkeys"
                | "valkey+unix"),
            ) => redis(&format!("{scheme}:{rest}"), beside),
            #[cfg(feature = "redis")]
            Some(
                scheme @ ("redis+sentinel" | "rediss+sentinel" | "valkey+sentinel"
                | "valkeys+sentinel"),
            ) => {
                let encrypted = matches!(scheme, "rediss+sentinel" | "valkeys+sentinel");
                let Beside { certificates, sentinel_credentials } = beside;
                let server = if encrypted { "rediss" } else { "redis" };
                let credentials = sentinel_credentials.as_ref();
                let watched = watched::parse(server, rest, &certificates, credentials)?;
                Ok(Self::Redis(Box::new(Layout::Watched(watched))))
            }
            #[cfg(feature = "redis")]
            Some(
                scheme
                @ ("redis+cluster" | "rediss+cluster" | "valkey+cluster" | "valkeys+cluster"),
            ) => {
                beside.refuse_sentinels()?;
                let encrypted = matches!(scheme, "rediss+cluster" | "valkeys+cluster");
                let server = if encrypted { "rediss" } else { "redis" };
                let seeds = cluster::parse(server, rest, &beside.certificates)?;
                Ok(Self::Redis(Box::new(Layout::Cluster(seeds))))
            }
            // A scheme that contains anything but letters could be anything, even a password.
            Some(scheme)
                if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) && scheme.len() < 16 =>
            {
                Err(Error::invalid(format!(
                    "the URL scheme `{scheme}` is not supported: use {SCHEMES}"
                )))
            }
            _ => Err(Error::invalid(format!(
                "this is not the URL of a store: such a URL begins with {SCHEMES}"
            ))),
        }
    }
}

#[cfg(feature = "redis")]
fn redis(url: &str, beside: Beside) -> Result<Target, Error> {
    beside.refuse_sentinels()?;
    let (url, has_slots) = hosts::without_slots(url)?;
    let endpoint = endpoint(&url, &beside.certificates)?;
    let layout = if has_slots { Layout::Proxy(endpoint) } else { Layout::One(endpoint) };
    Ok(Target::Redis(Box::new(layout)))
}

/// The server of a URL.
#[cfg(feature = "redis")]
fn endpoint(url: &str, certificates: &Certificates) -> Result<Endpoint, Error> {
    use redis::{Client, ConnectionAddr, IntoConnectionInfo, io::tcp::TcpSettings};

    // The error's own text may repeat parts of the URL, so it is not passed on.
    let unreadable = |_: redis::RedisError| {
        Error::invalid(
            "this URL cannot be read: its form must be \
             redis[s]://[[user]:password@]host[:port][/database], with special characters of the \
             password percent-encoded, or unix:///path[?db=..&user=..&pass=..]",
        )
    };
    let info = url.into_connection_info().map_err(unreadable)?;
    // Small requests must not wait in the kernel for more data.
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    if !encrypted {
        certificates.refuse_all()?;
    }
    if certificates.root.as_ref().is_some_and(|pem| !holds_certificate(pem)) {
        return Err(Error::invalid(
            "`root_certificate` contains no certificate: give that of the authority, in PEM form",
        ));
    }
    let is_unchecked = matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. });
    let client = Client::open(info).map_err(unreadable)?;
    if is_unchecked {
        return Err(Error::invalid(
            "the URL disables the verification of certificates (`#insecure`), which is not \
             supported: give the certificate authority of the server with `root_certificate`, or a \
             `redis::Client` that does not verify",
        ));
    }
    if encrypted { tls(client, certificates) } else { Ok(Endpoint::of_client(client)) }
}

/// The TLS library treats a file without a certificate as an unknown authority, and blames the
/// server.
#[cfg(feature = "redis")]
fn holds_certificate(pem: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    pem.windows(BEGIN.len()).any(|window| window == BEGIN)
}

#[cfg(all(feature = "redis", feature = "tls"))]
fn tls(client: redis::Client, certificates: &Certificates) -> Result<Endpoint, Error> {
    use crate::store::redis::{ClientCertificate, Roots, TlsSettings};

    let roots = match &certificates.root {
        Some(pem) => Roots::from_pem(pem).map_err(|error| {
            Error::invalid("TLS cannot be set up: check the root certificate")
                .caused_by(std::sync::Arc::new(error))
        })?,
        None => Roots::System,
    };
    let certificate = match &certificates.client {
        Some((pem, key)) => Some(ClientCertificate::from_pem(pem, key).map_err(Error::invalid)?),
        None => None,
    };
    Ok(Endpoint::with_tls(client, TlsSettings { roots, certificate }))
}

#[cfg(all(feature = "redis", not(feature = "tls")))]
fn tls(_: redis::Client, _: &Certificates) -> Result<Endpoint, Error> {
    Err(Error::invalid(
        "this program was built without the feature `tls`, which a `rediss://` URL needs",
    ))
}

#[cfg(not(feature = "redis"))]
fn redis(_: &str, _: Beside) -> Result<Target, Error> {
    Err(Error::invalid(
        "this program was built without the feature `redis`, so only `memory:` can be used",
    ))
}

/// What was copied along with a value, from a file that a shell was meant to read.
fn flaw(value: &str) -> Option<&'static str> {
    if value.trim() != value {
        return Some("spaces or line breaks around it");
    }
    value.starts_with(['"', '\'', '`']).then_some("quotes around it")
}

/// Reads the URL from the environment.
pub(crate) fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Result<String, Error> {
    let read = |name: &str| match variable(name).filter(|value| !value.is_empty()) {
        Some(value) => value.into_string().map(Some).map_err(|_| {
            // Without an error, another store than the intended one might be used unnoticed.
            Error::invalid(format!("the value of {name} is not UTF-8: set it again, or unset it"))
        }),
        None => Ok(None),
    };
    let set = |name: &str| match read(name)? {
        Some(value) => match flaw(&value) {
            Some(flaw) => Err(Error::invalid(format!(
                "the value of {name} has {flaw}, which are not part of the value: remove them"
            ))),
            None => Ok(Some(value)),
        },
        None => Ok(None),
    };
    for name in ["LOCK_URL", "REDIS_URL"] {
        if let Some(url) = set(name)? {
            return Ok(url);
        }
    }
    let (address, token) = (set("UPSTASH_REDIS_REST_URL")?, set("UPSTASH_REDIS_REST_TOKEN")?);
    let (Some(address), Some(token)) = (address, token) else {
        return Err(Error::invalid(
            "the environment names no store: set LOCK_URL, or REDIS_URL, or both \
             UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN",
        ));
    };
    let host = upstash_host(&address)?;
    let encoded = utf8_percent_encode(&token, RESERVED);
    Ok(format!("rediss://default:{encoded}@{host}:6379"))
}

/// The host of an address of Upstash's REST interface, where Redis is served on another port.
fn upstash_host(address: &str) -> Result<&str, Error> {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        // A bare host name is accepted; an address that has lost its colon is not.
        None if !address.contains('/') => ("https", address),
        None => ("", address),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let is_https = scheme.eq_ignore_ascii_case("https") && !authority.contains('@');
    if scheme.eq_ignore_ascii_case("http") || (is_https && port != "443") {
        return Err(Error::invalid(
            "UPSTASH_REDIS_REST_URL names a REST proxy, which does not speak the Redis protocol: \
             set LOCK_URL to the Redis port of the server behind it, such as redis://HOST:6379",
        ));
    }
    if !is_https || host.is_empty() {
        return Err(Error::invalid(
            "UPSTASH_REDIS_REST_URL is not of the form https://HOST: copy it from the Upstash \
             console",
        ));
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn env(variables: &[(&str, &str)]) -> Result<String, Error> {
        from_env(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn the_environment_is_read_in_its_order() {
        let upstash = [
            ("UPSTASH_REDIS_REST_URL", "https://eu1-x.upstash.io"),
            ("UPSTASH_REDIS_REST_TOKEN", "AX/y+z=="),
        ];
        let url = env(&upstash).unwrap();
        assert_eq!(url, "rediss://default:AX%2Fy%2Bz%3D%3D@eu1-x.upstash.io:6379");
        let mut all = upstash.to_vec();
        all.push(("REDIS_URL", "redis://b/"));
        assert_eq!(env(&all).unwrap(), "redis://b/");
        all.push(("LOCK_URL", "redis://a/"));
        assert_eq!(env(&all).unwrap(), "redis://a/");
        assert_eq!(env(&[("LOCK_URL", ""), ("REDIS_URL", "redis://b/")]).unwrap(), "redis://b/");
    }

    #[test]
    fn an_environment_without_a_store_names_all_the_variables() {
        for variables in [&[][..], &[("UPSTASH_REDIS_REST_URL", "https://h")][..]] {
            let message = env(variables).unwrap_err().to_string();
            for name in
                ["LOCK_URL", "REDIS_URL", "UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"]
            {
                assert!(message.contains(name), "{message}");
            }
        }
    }

    #[test]
    fn urls_that_name_no_store_are_refused_without_repeating_them() {
        for url in [
            "",
            "127.0.0.1",
            "http://user:secret@host",
            "redis://user:secret@host:port/x",
            "secret",
        ] {
            let Err(error) = Target::parse(url, Beside::default()) else {
                panic!("{url} was taken")
            };
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    #[cfg(feature = "tls")]
    fn a_url_that_trusts_everybody_is_refused() {
        let Err(error) = Target::parse("rediss://user:secret@host/#insecure", Beside::default())
        else {
            panic!("it was taken")
        };
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("root_certificate"), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }

    #[test]
    fn the_memory_has_a_url() {
        assert!(matches!(Target::parse("memory:", Beside::default()), Ok(Target::Memory)));
        assert!(matches!(Target::parse("Memory:", Beside::default()), Ok(Target::Memory)));
    }

    #[test]
    #[cfg(feature = "redis")]
    fn a_scheme_may_be_written_in_capitals() {
        for url in ["REDIS://user:Pass@Host:7000/1", "Unix:///Path", "VALKEY://h"] {
            let Ok(Target::Redis(layout)) = Target::parse(url, Beside::default()) else {
                panic!("{url}")
            };
            let Layout::One(endpoint) = *layout else { panic!("{url}") };
            let address = endpoint.client().get_connection_info().addr().to_string();
            assert!(
                ["Host:7000", "host:7000", "/Path", "h:6379"].contains(&&*address),
                "{address}"
            );
        }
    }

    #[test]
    fn quotes_and_blanks_are_named_and_nothing_is_repeated() {
        let refused = |error: Error, what: &str, name: &str| {
            let message = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(message.contains(what) && message.contains(name), "{message}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        };
        for (url, what) in [
            ("\"redis://u:secret@h/\"", "quotes"),
            ("'redis://u:secret@h/'", "quotes"),
            (" redis://u:secret@h/", "spaces"),
            ("redis://u:secret@h/\n", "line breaks"),
            (" ", "spaces"),
        ] {
            let Err(error) = Target::parse(url, Beside::default()) else {
                panic!("{url} was taken")
            };
            refused(error, what, "URL");
            refused(env(&[("LOCK_URL", url)]).unwrap_err(), what, "LOCK_URL");
            refused(env(&[("REDIS_URL", url)]).unwrap_err(), what, "REDIS_URL");
        }
        let (url, token) = ("UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN");
        let of = |address, secret| env(&[(url, address), (token, secret)]);
        refused(of("\"https://h\"", "secret").unwrap_err(), "quotes", url);
        refused(of("https://h ", "secret").unwrap_err(), "spaces", url);
        refused(of("https://h", "'secret'").unwrap_err(), "quotes", token);
        refused(of("https://h", "secret\n").unwrap_err(), "line breaks", token);
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_no_text_is_not_passed_over() {
        use std::os::unix::ffi::OsStringExt;

        let error = from_env(|name| match name {
            "LOCK_URL" => Some(OsString::from_vec(b"redis://\xff/".to_vec())),
            "REDIS_URL" => Some("redis://another/".into()),
            _ => None,
        });
        let error = error.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("LOCK_URL"));
    }

    #[test]
    fn the_address_of_a_rest_interface_is_read_and_that_of_a_proxy_is_not() {
        let of = |address| {
            env(&[("UPSTASH_REDIS_REST_URL", address), ("UPSTASH_REDIS_REST_TOKEN", "t")])
        };
        for address in ["https://h", "HTTPS://h/", "Https://h:443/x?y", "h"] {
            assert_eq!(of(address).unwrap(), "rediss://default:t@h:6379", "{address}");
        }
        for address in ["http://localhost:8079", "HTTP://h", "https://localhost:8079", "http://"] {
            let error = of(address).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{address}");
            assert!(error.to_string().contains("LOCK_URL"), "{error}");
        }
        for address in ["https://", "redis://h", "https://u:p@h", "://h", "https//h", "https:/h"] {
            let error = of(address).unwrap_err();
            assert!(error.to_string().contains("https://HOST"), "{address}: {error}");
        }
    }
}
