//! Lock tokens: who holds a lock, as recorded by the store.

use std::{fmt, sync::Arc, time::Duration};

use crate::text::concatenated;

/// The proof of one acquisition: with it, the lock can be renewed, released and adopted.
///
/// The store keeps the token under the lock's key. Each acquisition has its own token: the client's
/// uuid, a colon, and a growing number, which is the time at which the token was made, in
/// microseconds since the Unix epoch. `LockGuard::leak` returns the token so that another process
/// can adopt the lock (`Lock::adopt`); it can be sent there as text.
///
/// A token is a secret: it appears in no message and in no `Debug` output. Treat it like a
/// password.
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
    /// Returns the token as text, to be sent to the process that adopts the lock.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns when the token was made, as the time since the Unix epoch on its client's clock;
    /// `None` for the tokens of other libraries and of older versions of this one, which do not
    /// contain that time.
    ///
    /// ```
    /// # mod lock { pub use lock_core::Token; }
    /// use std::time::Duration;
    /// use lock::Token;
    ///
    /// let token = Token::from("5f0c1c6e8b5f4d3c9a7e2b1d0f8e6a4c:1790000000000000".to_owned());
    /// assert_eq!(token.made_at(), Some(Duration::from_secs(1_790_000_000)));
    /// assert_eq!(Token::from("somebody else's".to_owned()).made_at(), None);
    /// ```
    #[must_use]
    pub fn made_at(&self) -> Option<Duration> {
        let (_, number) = parts(self);
        TIMES.contains(&number).then(|| Duration::from_micros(number))
    }
}

/// The numbers that are times. A client takes the microseconds of its clock, and each acquisition
/// gets a number at least two larger than the one before. The range begins in the year 2005, so
/// that a plain counter is not in it, and ends with the largest number that a script can compare.
const TIMES: std::ops::Range<u64> = 1 << 50..1 << 53;

/// Returns the token of a client's acquisition with this number.
#[must_use]
pub fn made_by(client: &str, number: u64) -> Token {
    Token(concatenated(&[client, ":", itoa::Buffer::new().format(number)]))
}

/// Splits a token into its client and the number of its acquisition. A token of another form counts
/// as a client of its own, with the number 0.
#[must_use]
pub fn parts(token: &Token) -> (&str, u64) {
    let parts = token.0.rsplit_once(':');
    let parts = parts.and_then(|(client, number)| Some((client, number.parse().ok()?)));
    parts.unwrap_or((&*token.0, 0))
}

/// Whether the token has the form of this library's own tokens.
#[must_use]
pub fn is_of_this_library(token: &Token) -> bool {
    let parts = token.0.rsplit_once(':');
    parts.is_some_and(|(client, number)| {
        client.len() == 32
            && client.bytes().all(|byte| byte.is_ascii_hexdigit())
            && number.parse::<u64>().is_ok()
    })
}

/// Whether the token was made by this client.
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
