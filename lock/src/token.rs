//! Lock tokens: who holds a lock, as the store writes it.

use std::{fmt, sync::Arc};

use crate::text::concatenated;

/// The proof of one acquisition: whoever has it can renew, release and [adopt] the lock.
///
/// It is what the store keeps under the lock's key, unique for each acquisition: the client's
/// uuid, a colon and a counter. [`LockGuard::leak`] hands it out so that another process can
/// [adopt] the lock; it can be sent there as text.
///
/// A token is a secret: it is in no message and no `Debug` output. Treat it like a password.
///
/// ```
/// use lock::Token;
///
/// let token = Token::from("5f0c1c6e8b5f4d3c9a7e2b1d0f8e6a4c:7".to_owned());
/// assert_eq!(token.as_str(), "5f0c1c6e8b5f4d3c9a7e2b1d0f8e6a4c:7");
/// assert_eq!(format!("{token:?}"), "Token(..)");
/// ```
///
/// [adopt]: crate::Lock::adopt
/// [`LockGuard::leak`]: crate::LockGuard::leak
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(Arc<str>);

impl Token {
    /// The token as text, to be sent to the process that adopts the lock.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The token of a client's n-th acquisition.
    pub(crate) fn new(client: &str, number: u64) -> Self {
        Self(concatenated(&[client, ":", itoa::Buffer::new().format(number)]))
    }

    /// The client and the number of its acquisition; a token of another form is a client of its
    /// own.
    pub(crate) fn parts(&self) -> (&str, u64) {
        let parts = self.0.rsplit_once(':');
        let parts = parts.and_then(|(client, number)| Some((client, number.parse().ok()?)));
        parts.unwrap_or((&*self.0, 0))
    }

    /// Was this token made by that client?
    pub(crate) fn is_of(&self, client: &str) -> bool {
        self.0.strip_prefix(client).is_some_and(|rest| rest.starts_with(':'))
    }
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

/// The uuid that the tokens of a client begin with: no two clients may have the same.
pub(crate) struct ClientId(pub(crate) String);

impl Default for ClientId {
    fn default() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }
}

impl From<u128> for ClientId {
    fn from(id: u128) -> Self {
        Self(uuid::Uuid::from_u128(id).simple().to_string())
    }
}
