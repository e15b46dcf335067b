//! Why a connection could not be made, in words that a person can act on.

use std::{fmt, io, sync::Arc, time::Duration};

use redis::{ErrorKind as RedisErrorKind, RedisError};

use super::codes::{advice_for, is_passing};
#[cfg(feature = "tls")]
use super::tls::trouble::{self, Shown};
use crate::{Error, ErrorKind};

/// Why a connection could not be made.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) kind: ErrorKind,
    text: String,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Refusal {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), cause: None }
    }

    /// A step of the handshake got no answer.
    pub(super) fn silent(step: &str, limit: Duration) -> Self {
        let text = format!(
            "there was no answer {step} within {limit:?}, so check that the server is running and \
             not overloaded, and that no firewall drops packets"
        );
        Self::new(ErrorKind::Unavailable, text)
    }

    /// The name of the host cannot be resolved.
    pub(super) fn unknown_name(error: io::Error) -> Self {
        let text = "the host name could not be resolved, so check its spelling and the name \
                    service";
        Self::new(ErrorKind::Unavailable, text).caused_by(error)
    }

    /// The system has no root certificates, so it trusts no server's certificate.
    #[cfg(feature = "tls")]
    pub(super) fn no_roots(error: Option<rustls_native_certs::Error>) -> Self {
        let text = "the system has no root certificates, so install them, or give the certificate \
                    authority of the server with `root_certificate`";
        let refusal = Self::new(ErrorKind::Unavailable, text);
        match error {
            Some(error) => refusal.caused_by(error),
            None => refusal,
        }
    }

    /// The application's provider of credentials gave none.
    pub(super) fn no_credentials(why: &str) -> Self {
        let text =
            format!("the provider that was given to `credentials` returned no credentials: {why}");
        Self::new(ErrorKind::Unavailable, text)
    }

    /// The node of a Cluster does not report which node serves which slot.
    pub(super) fn no_slots(error: RedisError) -> Self {
        let text = match error.code() {
            Some("NOPERM") => {
                "it does not let this user ask which node serves which slot, which the library \
                 needs in a Redis Cluster, so allow `+cluster|slots`, `+cluster|nodes` and \
                 `+cluster|info`"
            }
            Some("NOAUTH") => return Self::of(error),
            Some(code) if is_passing(code) => return Self::of(error),
            _ => {
                "it does not report which node serves which slot (CLUSTER SLOTS), so it is not a \
                 node of a Redis Cluster: use `redis://` for a standalone server"
            }
        };
        Self::new(ErrorKind::Rejected, text).caused_by(error)
    }

    /// The Cluster is not set up yet.
    pub(super) fn without_slots() -> Self {
        let text = "none of its nodes has a slot yet, so create the cluster (`redis-cli --cluster \
                    create`), or wait until that is done";
        Self::new(ErrorKind::Unavailable, text)
    }

    /// The server that answers is not a node of a Cluster.
    pub(super) fn no_node() -> Self {
        let text = "its answer to CLUSTER SLOTS is malformed, so check that it is a node of a \
                    Redis Cluster, and that nothing in between changes replies";
        Self::new(ErrorKind::Rejected, text)
    }

    /// The server does not report which replicas have which writes, at least not to this user.
    pub(super) fn may_not_wait(error: RedisError) -> Self {
        let text = if error.code() == Some("NOPERM") {
            "it does not let this user ask which replicas have a lock, which `min_replicas` needs, so \
             allow `+wait`"
        } else {
            "it does not report which replicas have a lock (WAIT), which `min_replicas` needs, so \
             leave `min_replicas` out, or use a server that does"
        };
        Self::new(ErrorKind::Rejected, text).caused_by(error)
    }

    /// TLS checks that a certificate is for the host, so this has to be a host name.
    #[cfg(feature = "tls")]
    pub(super) fn no_name_for_tls(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        let text = "TLS failed: the host is not a name that a certificate could contain, so check \
                    its spelling";
        Self::new(ErrorKind::Invalid, text).caused_by(error)
    }

    /// TLS could not be opened, or has ended.
    #[cfg(feature = "tls")]
    pub(super) fn of_tls(error: io::Error, shown: Shown) -> Self {
        match trouble::find(&error).map(|error| trouble::diagnose(error, shown)) {
            Some((kind, text)) => Self::new(kind, text).caused_by(error),
            None => Self::of(error.into()),
        }
    }

    /// Whether TLS has said why.
    #[cfg(feature = "tls")]
    pub(super) fn is_of_tls(&self) -> bool {
        self.cause.as_deref().is_some_and(|cause| trouble::find(cause).is_some())
    }

    /// The server, or the system on its behalf, has refused.
    pub(super) fn of(error: RedisError) -> Self {
        #[cfg(feature = "tls")]
        if let Some(found) = trouble::find(&error) {
            let (kind, text) = trouble::diagnose(found, Shown::default());
            return Self::new(kind, text).caused_by(error);
        }
        let (kind, text) = diagnose(&error);
        Self::new(kind, text).caused_by(error)
    }

    /// Whether the connection has ended without a stated reason.
    pub(super) fn is_unexplained(&self) -> bool {
        let error = self.cause.as_deref().and_then(|cause| cause.downcast_ref());
        matches!(
            error.and_then(io_kind),
            Some(
                io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::UnexpectedEof
            )
        )
    }

    fn caused_by(self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.because(Arc::new(cause))
    }

    pub(super) fn because(mut self, cause: Arc<dyn std::error::Error + Send + Sync>) -> Self {
        self.cause = Some(cause);
        self
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn cause(&self) -> Option<Arc<dyn std::error::Error + Send + Sync>> {
        self.cause.clone()
    }

    /// The error for the caller of a first connect.
    pub(super) fn into_error(self, address: &impl fmt::Display) -> Error {
        let text = match self.kind {
            ErrorKind::Unavailable => {
                format!("the Redis server at {address} could not be reached: {}", self.text)
            }
            _ => format!("the Redis server at {address} cannot be used: {}", self.text),
        };
        self.into_error_with(text)
    }

    /// The same after another text.
    pub(super) fn into_error_behind(self, text: impl fmt::Display) -> Error {
        let text = format!("{text}: {}", self.text);
        self.into_error_with(text)
    }

    fn into_error_with(self, text: String) -> Error {
        let error = Error::new(self.kind, text);
        match self.cause {
            Some(cause) => error.caused_by(cause),
            None => error,
        }
    }
}

fn diagnose(error: &RedisError) -> (ErrorKind, &'static str) {
    use ErrorKind::{Invalid, Rejected, Unavailable};

    let io = io_kind(error);
    let said = error.detail().unwrap_or_default();
    match (error.kind(), error.code()) {
        (_, Some("WRONGPASS")) => {
            (Rejected, "it does not accept the user or the password (WRONGPASS), so check both")
        }
        (_, Some("NOAUTH")) => {
            (Rejected, "it requires a user and a password (NOAUTH), so put them into the URL")
        }
        (_, Some("NOPERM")) => (
            Rejected,
            "this user may not run a command that a connection needs (NOPERM); docs/servers.md \
             lists the rights",
        ),
        (_, Some(code)) if is_passing(code) => (Unavailable, advice_for(code, said)),
        (_, Some("DENIED")) => (
            Rejected,
            "it is in protected mode and refuses other hosts, so set a password or `protected-mode no`",
        ),
        _ if said.contains("max number of clients") => (
            Unavailable,
            "it has reached its limit of clients (maxclients), so raise the limit, or close \
             connections",
        ),
        (RedisErrorKind::AuthenticationFailed, _) => {
            (Rejected, "it does not accept the user or the password, so check both")
        }
        (RedisErrorKind::InvalidClientConfig, _) => {
            (Invalid, "the settings of this connection contradict each other, so check the URL")
        }
        (RedisErrorKind::Parse, _) => (
            Rejected,
            "the program that answers there does not speak the Redis protocol, so check the port, \
             and whether the server requires TLS (`rediss://`)",
        ),
        (RedisErrorKind::Io, _) => match io {
            Some(io::ErrorKind::ConnectionRefused) => (
                Unavailable,
                "the connection was refused, so check host and port, and that the server is \
                 running",
            ),
            Some(io::ErrorKind::NotFound) => (
                Unavailable,
                "there is no such socket, so check the path, and that the server is running",
            ),
            Some(io::ErrorKind::PermissionDenied) => {
                (Unavailable, "this process may not open the socket, so check its permissions")
            }
            // What TLS libraries report for a bad certificate, or for a server that does not speak
            // TLS.
            Some(io::ErrorKind::InvalidData) => (
                Unavailable,
                "TLS failed, so check the server's certificate, its authority and host name, and \
                 whether the server speaks TLS",
            ),
            Some(io::ErrorKind::TimedOut) => (
                Unavailable,
                "there was no answer in time, so check that it is running, and that no firewall \
                 drops packets",
            ),
            _ => (
                Unavailable,
                "the connection ended before it was established, so check host and port, whether \
                 the server requires TLS, and that it is running",
            ),
        },
        (RedisErrorKind::Server(_) | RedisErrorKind::Extension, _) => (
            Rejected,
            "it answered a step of the handshake with an error, so check user, password and \
             database",
        ),
        _ => (
            Unavailable,
            "the connection could not be established, so check the URL, and that the server is \
             running",
        ),
    }
}

/// The kind of the system's error inside another.
fn io_kind(error: &RedisError) -> Option<io::ErrorKind> {
    type Shared = Arc<dyn std::error::Error + Send + Sync>;

    let source = std::error::Error::source(error)?;
    let shared = source.downcast_ref::<Shared>().and_then(|error| error.downcast_ref());
    let error: &io::Error = shared.or_else(|| source.downcast_ref())?;
    Some(error.kind())
}

#[cfg(test)]
mod tests {
    use super::{super::codes::tests::server_error, *};

    #[test]
    fn what_passes_does_not_look_like_a_fault_of_the_settings() {
        for (line, kind, says) in [
            ("BUSY Redis is busy running a script.", ErrorKind::Unavailable, "SCRIPT KILL"),
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Unavailable, "loading"),
            ("MISCONF Errors writing to the AOF file", ErrorKind::Unavailable, "disk"),
            ("CLUSTERDOWN The cluster is down", ErrorKind::Unavailable, "cluster is down"),
            ("MASTERDOWN Link with MASTER is down", ErrorKind::Unavailable, "failover"),
            ("WRONGPASS invalid username-password pair", ErrorKind::Rejected, "WRONGPASS"),
            ("ERR invalid DB index", ErrorKind::Rejected, "database"),
        ] {
            let (found, text) = diagnose(&RedisError::from(server_error(line)));
            assert_eq!(found, kind, "{line}");
            assert!(text.contains(says), "{line}: {text}");
        }
    }

    #[test]
    fn the_systems_error_is_found_inside_of_the_clients() {
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::InvalidData] {
            assert_eq!(io_kind(&RedisError::from(io::Error::from(kind))), Some(kind));
        }
    }
}
