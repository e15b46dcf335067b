//! What a server is told about who connects.

use std::{fmt, time::Duration};

use redis::{Client, RedisResult};

/// A user and a password for a Redis server, from a provider that
/// [`LocksBuilder::credentials`](crate::LocksBuilder::credentials) was given.
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
    /// This user with this password. An empty user is the default user.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        let user = Some(user.into()).filter(|user| !user.is_empty());
        Self { user, password: password.into(), valid_for: None }
    }

    /// Says that the server accepts them for this long from now on: the provider is asked again when
    /// four fifths of it are over, at the soonest after a tenth of a second, and `AUTH` is sent again
    /// on the connections that are there.
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

    /// A client that has no user and no password of its own, with these.
    pub(crate) fn given_to(&self, client: &Client) -> RedisResult<Client> {
        let info = client.get_connection_info().clone();
        let mut settings = info.redis_settings().clone().set_password(&self.password);
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        Client::open(info.set_redis_settings(settings))
    }

    /// When to ask for the next ones, counted from when these were given.
    pub(crate) fn good_for(&self) -> Option<Duration> {
        self.valid_for.map(|time| time / 5 * 4)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("valid_for", &self.valid_for).finish_non_exhaustive()
    }
}
