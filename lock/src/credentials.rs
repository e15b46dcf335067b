//! The user and the password that a server is given.

use std::{fmt, time::Duration};

use redis::{Client, RedisResult};

/// A user and a password for a Redis server, as returned by the provider that
/// [`LocksBuilder::credentials`](crate::LocksBuilder::credentials) takes.
///
/// `Debug` shows neither.
///
/// ```
/// use lock::Credentials;
/// use std::time::Duration;
///
/// let credentials = Credentials::new("billing", "a token").valid_for(Duration::from_secs(900));
/// assert!(!format!("{credentials:?}").contains("token"));
/// ```
#[derive(Clone)]
pub struct Credentials {
    user: Option<String>,
    password: String,
    valid_for: Option<Duration>,
}

impl Credentials {
    /// Creates credentials with this user and this password. An empty user means the default user.
    ///
    /// ```
    /// # fn main() {
    /// use lock::{Credentials, Locks};
    ///
    /// // The default user, and a password that is rotated in a file.
    /// let builder = Locks::builder().url("rediss://cache.internal/").credentials(|| async {
    ///     let password = std::fs::read_to_string("/run/secrets/redis")?;
    ///     Ok::<_, std::io::Error>(Credentials::new("", password.trim()))
    /// });
    /// # drop(builder);
    /// # }
    /// ```
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        let user = Some(user.into()).filter(|user| !user.is_empty());
        Self { user, password: password.into(), valid_for: None }
    }

    /// Sets how long the server accepts these credentials, counted from when the provider is asked.
    ///
    /// The provider is asked again after four fifths of that time, at least a tenth of a second
    /// later, and the new credentials are sent on the open connections (`AUTH`).
    ///
    /// ```
    /// use std::time::Duration;
    /// use lock::Credentials;
    ///
    /// // The provider is asked again after twelve of the fifteen minutes.
    /// let credentials = Credentials::new("billing", "a token");
    /// let credentials = credentials.valid_for(Duration::from_secs(900));
    /// assert!(format!("{credentials:?}").contains("900s"));
    /// ```
    #[must_use]
    pub fn valid_for(mut self, time: Duration) -> Self {
        self.valid_for = Some(time);
        self
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// This client with these credentials; it must have no user and no password of its own.
    pub(crate) fn given_to(&self, client: &Client) -> RedisResult<Client> {
        let info = client.get_connection_info().clone();
        let mut settings = info.redis_settings().clone().set_password(&self.password);
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        Client::open(info.set_redis_settings(settings))
    }

    /// How long after these were given to ask for the next ones.
    pub(crate) fn good_for(&self) -> Option<Duration> {
        self.valid_for.map(|time| time / 5 * 4)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("valid_for", &self.valid_for).finish_non_exhaustive()
    }
}
