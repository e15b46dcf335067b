//! What went wrong, in words that a person can act on.
//!
//! An error says in the library's words which server it concerns, what happened and what to change.
//! The words of the server or the system are its source, and not part of its text. So nothing is
//! shown twice, and no address with a password in it can slip in.

use std::{fmt, sync::Arc, time::Duration};

use lock_core::{
    contract::{Failure, StoreError},
    limits::whole_millis,
};
use redis::{ConnectionAddr, RedisError, ServerError};

use super::{
    codes::{advice_for, code, is_passing},
    refusal::Refusal,
};

/// Where a server is, without user and password: `host:port`, or the path of a socket.
#[derive(Clone, Debug)]
pub(super) struct Address(Arc<str>);

impl Address {
    pub(super) fn of(address: &ConnectionAddr) -> Self {
        Self(match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                return Self::of_tcp(host, port);
            }
            ConnectionAddr::Unix(path) => path.to_string_lossy().into(),
            _ => "the server".into(),
        })
    }

    /// As in a URL: an IPv6 address is in brackets.
    pub(super) fn of_tcp(host: &str, port: impl fmt::Display) -> Self {
        Self(if host.contains(':') {
            format!("[{host}]:{port}").into()
        } else {
            format!("{host}:{port}").into()
        })
    }

    /// A server that has no address yet, described by this text.
    pub(super) fn unknown(text: String) -> Self {
        Self(text.into())
    }

    /// A call that was sent got no answer.
    pub(super) fn no_answer(&self, limit: Duration) -> StoreError {
        let limit = whole_millis(limit);
        Failure::new(
            format!(
                "the Redis server at {self} did not answer within {limit:?}: check that it is \
                 running and not overloaded"
            ),
            None,
        )
        .unavailable()
    }

    /// A grant that too few replicas have.
    pub(super) fn too_few_replicas(
        &self,
        wanted: usize,
        acknowledged: i64,
        limit: Duration,
    ) -> StoreError {
        let limit = whole_millis(limit);
        let text = format!(
            "the Redis server at {self} granted the lock, but within {limit:?} only {acknowledged} \
             of the {wanted} replicas that `min_replicas` requires had it: restore the replicas, \
             or lower `min_replicas`"
        );
        Failure::new(text, None).unavailable()
    }

    /// The connection ended while a call was in flight.
    pub(super) fn broken(&self, cause: RedisError) -> StoreError {
        let text = format!(
            "the connection to the Redis server at {self} broke: check that the server is running, \
             and that the network to it works"
        );
        Failure::new(text, Some(Arc::new(cause))).unavailable()
    }

    /// Another connection has taken the place of the one that the call was sent on.
    pub(super) fn replaced(&self) -> StoreError {
        let text = format!(
            "the connection to the Redis server at {self} went silent and was replaced: check that \
             the server is not overloaded, and that the network to it works"
        );
        Failure::new(text, None).unavailable()
    }

    /// When the answer came, the server was no longer the primary, or no longer the one to ask.
    pub(super) fn moved(&self) -> StoreError {
        let text = format!(
            "the Redis server at {self} was the primary when the request was sent, but another \
             server has taken over since"
        );
        Failure::new(text, None).unavailable()
    }

    /// There is no connection, for the reason that the last attempt gave.
    pub(super) fn no_connection(&self, last: Option<&Refusal>) -> StoreError {
        let text = match last {
            Some(refusal) => format!(
                "there is no connection to the Redis server at {self}, and the last attempt failed: \
                 {}",
                refusal.text()
            ),
            None => format!(
                "there is no connection to the Redis server at {self} yet: check that it is \
                 running and can be reached"
            ),
        };
        Failure::new(text, last.and_then(Refusal::cause)).unavailable()
    }

    /// The server answered a call with an error.
    pub(super) fn answered_with(&self, error: ServerError) -> StoreError {
        let code = code(&error).to_owned();
        let text = self.text_for(&code, error.details().unwrap_or_default());
        // The words of our own script are already in the text.
        let cause = (code != "LOCK").then(|| Arc::new(RedisError::from(error)) as _);
        let failure = Failure::new(text, cause).by_the_server();
        if is_passing(&code) { failure.unavailable() } else { failure.rejected() }
    }

    /// A script caught a server's error about one item of a batch.
    pub(super) fn refused(&self, error: &str) -> StoreError {
        let (code, details) = error.split_once(' ').unwrap_or((error, ""));
        let cause = std::io::Error::other(error.to_owned());
        Failure::new(self.text_for(code, details), Some(Arc::new(cause))).rejected()
    }

    fn text_for(&self, code: &str, details: &str) -> String {
        match code {
            // The details are the words of our own script.
            "LOCK" => {
                format!("the Redis server at {self} has no usable fence counter: {details}")
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
            "the Redis server at {self} sent a reply that this script never returns: check that it \
             is a Redis or Valkey server, and that nothing in between changes replies"
        );
        Failure::new(text, None).unavailable()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::codes::tests::server_error, *};

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
