//! Lock tokens: who holds a lock, as the store writes it.

use std::{fmt, sync::Arc};

use crate::text::concatenated;

/// The proof of one acquisition: with it, the lock can be renewed, released and adopted.
///
/// It is what the store keeps under the lock's key, unique for each acquisition: the client's
/// uuid, a colon and a counter. `LockGuard::leak` hands it out so that another process can
/// adopt the lock (`Lock::adopt`); it can be sent there as text.
///
/// A token is a secret: it is in no message and no `Debug` output. Treat it like a password.
///
/// ```
/// # mod lock { pub use lock_core::Token; }
/// use lock::Token;
///
/// let token = Token::from("5f0c1c6e8b5f4d3c9a7e2b1d0f8e6a4c:7".to_owned());
/// assert_eq!(token.as_str(), "5f0c1c6e8b5f4d3c9a7e2b1d0f8e6a4c:7");
/// assert_eq!(format!("{token:?}"), "Token(..)");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(Arc<str>);

impl Token {
    /// The token as text, to be sent to the process that adopts the lock.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The token of a client's acquisition with this number.
#[must_use]
pub fn made_by(client: &str, number: u64) -> Token {
    Token(concatenated(&[client, ":", itoa::Buffer::new().format(number)]))
}

/// The client and the number of its acquisition; a token of another form is a client of its own.
#[must_use]
pub fn parts(token: &Token) -> (&str, u64) {
    let parts = token.0.rsplit_once(':');
    let parts = parts.and_then(|(client, number)| Some((client, number.parse().ok()?)));
    parts.unwrap_or((&*token.0, 0))
}

/// Was this token made by that client?
#[must_use]
pub fn is_of(token: &Token, client: &str) -> bool {
    token.0.strip_prefix(client).is_some_and(|rest| rest.starts_with(':'))
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
