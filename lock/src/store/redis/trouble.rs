//! What went wrong, in words that a person can act on.
//!
//! An error says which server, what happened and what to change, in the library's words; what the
//! server or the system has said is its source, and not part of its text. So nothing is shown
//! twice, and no address with a password in it can slip in.

use std::{fmt, io, sync::Arc, time::Duration};

use redis::{ConnectionAddr, ErrorKind as RedisErrorKind, RedisError, ServerError, Value};

use crate::{
    Error, ErrorKind,
    contract::{Failure, StoreError},
    limits::whole_millis,
};

/// Where a server is, without user and password: `host:port`, or the path of a socket.
#[derive(Clone, Debug)]
pub(super) struct Address(Arc<str>);

impl Address {
    pub(super) fn of(address: &ConnectionAddr) -> Self {
        Self(match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
                if host.contains(':') =>
            {
                format!("[{host}]:{port}").into()
            }
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{host}:{port}").into()
            }
            ConnectionAddr::Unix(path) => path.to_string_lossy().into(),
            _ => "the server".into(),
        })
    }

    /// A call that was sent had no answer.
    pub(super) fn no_answer(&self, limit: Duration) -> StoreError {
        let limit = whole_millis(limit);
        Failure::new(
            format!(
                "the Redis server at {self} did not answer within {limit:?}: check that it runs and \
                 is not overloaded"
            ),
            None,
        )
        .unavailable()
    }

    /// The connection ended while a call was on its way.
    pub(super) fn broken(&self, cause: RedisError) -> StoreError {
        let text = format!(
            "the connection to the Redis server at {self} broke: check that the server runs and \
             what lies between"
        );
        Failure::new(text, Some(Arc::new(cause))).unavailable()
    }

    /// Another connection has taken the place of the one that the call was sent on.
    pub(super) fn replaced(&self) -> StoreError {
        let text = format!(
            "the connection to the Redis server at {self} went silent and was replaced: check that \
             the server is not overloaded and what lies between"
        );
        Failure::new(text, None).unavailable()
    }

    /// There is no connection, for the reason that the last attempt has given.
    pub(super) fn no_connection(&self, last: Option<&Refusal>) -> StoreError {
        let text = match last {
            Some(refusal) => format!(
                "there is no connection to the Redis server at {self}, and the last attempt failed: \
                 {}",
                refusal.text
            ),
            None => format!(
                "there is no connection to the Redis server at {self} yet: check that it runs and \
                 can be reached"
            ),
        };
        Failure::new(text, last.and_then(|refusal| refusal.cause.clone())).unavailable()
    }

    /// The server answered a call with an error.
    pub(super) fn answered_with(&self, error: ServerError) -> StoreError {
        let code = code(&error).to_owned();
        let text = self.text_for(&code, error.details().unwrap_or_default());
        // What a script of ours says is said already.
        let cause = (code != "LOCK").then(|| Arc::new(RedisError::from(error)) as _);
        let failure = Failure::new(text, cause);
        if is_passing(&code) { failure.unavailable() } else { failure.rejected() }
    }

    /// A script has caught an error of the server's, about one item of a batch.
    pub(super) fn refused(&self, error: &str) -> StoreError {
        let (code, details) = error.split_once(' ').unwrap_or((error, ""));
        let cause = std::io::Error::other(error.to_owned());
        Failure::new(self.text_for(code, details), Some(Arc::new(cause))).rejected()
    }

    fn text_for(&self, code: &str, details: &str) -> String {
        match code {
            // The words are those of a script of ours.
            "LOCK" => {
                format!("the Redis server at {self} has no usable counter of fences: {details}")
            }
            _ => {
                let advice = advice_for(code, details);
                format!("the Redis server at {self} answered with {code}: {advice}")
            }
        }
    }

    /// The server answered with something that the script never gives.
    pub(super) fn makes_no_sense(&self) -> StoreError {
        let text = format!(
            "the Redis server at {self} gave a reply that this script never gives: check that it is \
             a Redis or Valkey server and nothing on the way changes replies"
        );
        Failure::new(text, None).unavailable()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The code of a server's error. Before Redis 7, the error of a command in a script was text in
/// an error of the script: `ERR Error running script (call to f_..): @user_script:7: -NOREPLICAS ..`,
/// with the dash or without.
pub(super) fn code(error: &ServerError) -> &str {
    let within = error.details().filter(|_| error.code() == "ERR").and_then(|details| {
        let (_, inner) = details.rsplit_once("@user_script")?;
        let inner = inner.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':' || c == ' ');
        let inner = inner.strip_prefix('-').unwrap_or(inner);
        let code = inner.split([' ', '\r', '\n']).next()?;
        let is_code = code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        is_code.then_some(code)
    });
    within.unwrap_or_else(|| error.code())
}

/// Does a server that answers with this code say that it has not done what it was asked, for the
/// moment? It is worth another try.
pub(super) fn is_passing(code: &str) -> bool {
    const PASSING: [&str; 8] = [
        "LOADING",
        "MASTERDOWN",
        "BUSY",
        "TRYAGAIN",
        "CLUSTERDOWN",
        "NOREPLICAS",
        "MISCONF",
        "READONLY",
    ];
    PASSING.contains(&code)
}

/// Does the server refuse to write because another one is the primary?
pub(super) fn is_from_replica(reply: &Value) -> bool {
    match reply {
        Value::ServerError(error) => matches!(code(error), "READONLY" | "MASTERDOWN"),
        Value::Array(replies) => replies.first().is_some_and(is_from_replica),
        _ => false,
    }
}

fn advice_for(code: &str, details: &str) -> &'static str {
    match code {
        "WRONGTYPE" => {
            "a key of this id holds another type than this library gives it, so choose another id or \
             prefix"
        }
        "OOM" => "its memory is full, so raise `maxmemory` or remove keys",
        "NOPERM" => {
            "this user may not run a command or touch a key that the library needs; the README \
             lists the rights"
        }
        "READONLY" => "it is a read-only replica, so connect to its primary",
        "MASTERDOWN" => "it is a replica without its primary, so wait for the failover or end it",
        "LOADING" => "it is loading its data, so wait until that is done",
        "BUSY" => "a script of somebody else keeps it busy, so end that with SCRIPT KILL",
        "NOREPLICAS" => {
            "too few replicas follow it, so restore them or lower `min-replicas-to-write`"
        }
        "MISCONF" => "it cannot save to its disk, so see to that",
        "CLUSTERDOWN" => "its cluster is down, so wait for the failover or restore the lost slots",
        "TRYAGAIN" => "its keys are being moved, so wait until that is done",
        "CROSSSLOT" | "MOVED" | "ASK" => {
            "it is a node of a Redis Cluster, which this version cannot use; connect to a server \
             without cluster mode"
        }
        "NOAUTH" => "it wants a user and a password, so put them into the URL",
        "ERR" if details.starts_with("unknown command") => {
            "it does not know EVALSHA, which every operation needs, so connect to a server that does"
        }
        _ => "what it said is the source of this error",
    }
}

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

    /// A step of the handshake had no answer.
    pub(super) fn silent(step: &str, limit: Duration) -> Self {
        let text = format!(
            "there was no answer within {limit:?} {step}, so check that the server runs, is not \
             overloaded, and that no firewall drops what is sent"
        );
        Self::new(ErrorKind::Unavailable, text)
    }

    /// The name of the host means nothing.
    pub(super) fn unknown_name(error: io::Error) -> Self {
        let text = "the name of the host could not be resolved, so check how it is written and the \
                    name service";
        Self::new(ErrorKind::Unavailable, text).caused_by(error)
    }

    /// The server, or the system on its behalf, has refused.
    pub(super) fn of(error: RedisError) -> Self {
        let (kind, text) = diagnose(&error);
        Self::new(kind, text).caused_by(error)
    }

    fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What the caller of a first connect is told.
    pub(super) fn into_error(self, address: &Address) -> Error {
        let text = match self.kind {
            ErrorKind::Unavailable => {
                format!("the Redis server at {address} could not be reached: {}", self.text)
            }
            _ => format!("the Redis server at {address} is not usable: {}", self.text),
        };
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
            (Rejected, "it wants a user and a password (NOAUTH), so put them into the URL")
        }
        (_, Some("NOPERM")) => (
            Rejected,
            "this user may not run a command that a connection needs (NOPERM); the README lists the \
             rights",
        ),
        (_, Some(code)) if is_passing(code) => (Unavailable, advice_for(code, said)),
        (_, Some("DENIED")) => (
            Rejected,
            "it is in protected mode and refuses other hosts, so set a password or `protected-mode no`",
        ),
        _ if said.contains("max number of clients") => (
            Unavailable,
            "it has reached the limit of its clients (maxclients), so raise that or close some",
        ),
        (RedisErrorKind::AuthenticationFailed, _) => {
            (Rejected, "it does not accept the user or the password, so check both")
        }
        (RedisErrorKind::InvalidClientConfig, _) => {
            (Invalid, "the settings of this connection contradict each other, so check the URL")
        }
        (RedisErrorKind::Parse, _) => (
            Rejected,
            "what answers there does not speak the Redis protocol, so check the port, and whether \
             the server wants TLS (`rediss://`)",
        ),
        (RedisErrorKind::Io, _) => match io {
            Some(io::ErrorKind::ConnectionRefused) => (
                Unavailable,
                "the connection was refused, so check host and port, and that the server runs",
            ),
            Some(io::ErrorKind::NotFound) => (
                Unavailable,
                "there is no such socket, so check the path, and that the server runs",
            ),
            Some(io::ErrorKind::PermissionDenied) => {
                (Unavailable, "this process may not open the socket, so check its permissions")
            }
            // What TLS libraries make of a certificate, or of a server that does not speak TLS.
            Some(io::ErrorKind::InvalidData) => (
                Unavailable,
                "TLS failed, so check the server's certificate, its authority and host name, and \
                 whether it speaks TLS",
            ),
            Some(io::ErrorKind::TimedOut) => (
                Unavailable,
                "there was no answer in time, so check that it runs and that no firewall drops what \
                 is sent",
            ),
            _ => (
                Unavailable,
                "the connection ended before it was made, so check host and port, whether the \
                 server wants TLS, and that it runs",
            ),
        },
        (RedisErrorKind::Server(_) | RedisErrorKind::Extension, _) => (
            Rejected,
            "it answered a step of the handshake with an error, so check user, password and \
             database",
        ),
        _ => (Unavailable, "the connection could not be made, so check the URL and that it runs"),
    }
}

/// The kind of the system's error inside of another.
fn io_kind(error: &RedisError) -> Option<io::ErrorKind> {
    type Shared = Arc<dyn std::error::Error + Send + Sync>;

    let source = std::error::Error::source(error)?;
    let shared = source.downcast_ref::<Shared>().and_then(|error| error.downcast_ref());
    let error: &io::Error = shared.or_else(|| source.downcast_ref())?;
    Some(error.kind())
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn server_error(line: &str) -> ServerError {
        match parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_code_of_an_error_in_a_script_is_found_in_every_version() {
        for (line, expected, passing) in [
            ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", true),
            (
                "ERR Error running script (call to f_0b1c): @user_script:31: @user_script: 31: \
                 -NOREPLICAS Not enough good replicas to write.",
                "NOREPLICAS",
                true,
            ),
            (
                "ERR Error running script (call to f_0b1c): @user_script:7: -MISCONF Redis is \
                 configured to save RDB snapshots",
                "MISCONF",
                true,
            ),
            (
                "ERR Error running script (call to f_0b1c): @user_script:7: -READONLY You can't \
                 write against a read only replica.",
                "READONLY",
                true,
            ),
            (
                "READONLY You can't write against a read only replica. script: 5a, on \
                 @user_script:7.",
                "READONLY",
                true,
            ),
            ("WRONGTYPE Operation against a key", "WRONGTYPE", false),
            (
                "ERR Error running script (call to f_b085): @user_script:1: WRONGTYPE Operation \
                 against a key holding the wrong kind of value",
                "WRONGTYPE",
                false,
            ),
            ("ERR user_script:7: something: -7 is negative", "ERR", false),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "TRYAGAIN", true),
        ] {
            let error = server_error(line);
            assert_eq!(code(&error), expected, "{line}");
            assert_eq!(is_passing(expected), passing, "{line}");
        }
    }

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

    #[test]
    fn the_text_names_the_server_and_leaves_the_cause_to_the_source() {
        let address = Address::of(&ConnectionAddr::Tcp("db.internal".into(), 6380));
        let StoreError::Rejected(error) =
            address.answered_with(server_error("WRONGTYPE Operation against a key holding"))
        else {
            panic!("it is not worth another try")
        };
        let text = error.to_string();
        assert!(text.contains("db.internal:6380") && text.contains("WRONGTYPE"), "{text}");
        assert!(!text.contains("Operation against"), "{text}");
        assert!(error.source().is_some_and(|source| source.to_string().contains("Operation")));
    }

    #[test]
    fn addresses_are_written_as_in_a_url() {
        let shown = |address| Address::of(&address).to_string();
        assert_eq!(shown(ConnectionAddr::Tcp("::1".into(), 6379)), "[::1]:6379");
        assert_eq!(shown(ConnectionAddr::Unix("/run/redis.sock".into())), "/run/redis.sock");
    }
}
