//! Credentials that change: asked for at each connect, and again on a connection that outlives
//! them.

use std::{
    borrow::Cow, error::Error as StdError, fmt, future::Future, pin::Pin, sync::Arc, time::Duration,
};

use redis::{Client, Cmd, RedisResult};
use tokio::{
    runtime::Handle,
    time::{self, Instant},
};

use super::refusal::Refusal;
use crate::{Credentials, Error};

/// How long a provider may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The least time before it is asked again: an expired token is good for no time, and a provider
/// that returns one must not be asked for the next as fast as it can answer.
const SOONEST: Duration = Duration::from_millis(100);

type Answer = Result<Credentials, Box<dyn StdError + Send + Sync>>;

/// The user's function that returns the current credentials.
pub(crate) type Ask = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// The source of the current credentials.
#[derive(Clone)]
pub(crate) struct Provider {
    ask: Ask,
    /// The runtime on which it is asked, that of the application. The provider may use connections
    /// that live there. If it blocks or panics, it must not stop the thread that keeps the locks.
    runtime: Handle,
}

/// Credentials, and when to ask for the next ones.
#[derive(Clone)]
pub(super) struct Admission {
    credentials: Credentials,
    pub(super) renew_at: Option<Instant>,
}

impl Provider {
    /// The provider is asked on the runtime that this is called on; fails if there is none.
    pub(crate) fn new(ask: Ask) -> Result<Self, Error> {
        match Handle::try_current() {
            Ok(runtime) => Ok(Self { ask, runtime }),
            Err(_) => Err(Error::invalid(
                "the provider of `credentials` runs on the Tokio runtime on which the `Locks` is \
                 built, and there is none here: build it inside a runtime",
            )),
        }
    }

    pub(super) async fn admission(&self) -> Result<Admission, Refusal> {
        let ask = Arc::clone(&self.ask);
        // The call itself is also made there: it is the user's code.
        let mut asked = self.runtime.spawn(async move { ask().await });
        let asked_at = Instant::now();
        match time::timeout(PATIENCE, &mut asked).await {
            Ok(Ok(Ok(credentials))) => {
                // Some are good for longer than a clock can count.
                let good_for = credentials.good_for().map(|time| time.max(SOONEST));
                let renew_at = good_for.and_then(|time| asked_at.checked_add(time));
                Ok(Admission { credentials, renew_at })
            }
            Ok(Ok(Err(error))) => Err(Refusal::no_credentials("it failed").because(error.into())),
            Ok(Err(error)) if error.is_panic() => Err(Refusal::no_credentials("it panicked")),
            Ok(Err(_)) => Err(Refusal::no_credentials(
                "the runtime on which the `Locks` was built, and on which the provider runs, was \
                 shut down",
            )),
            Err(_) => {
                asked.abort();
                Err(Refusal::no_credentials("it did not return within 10s"))
            }
        }
    }
}

/// The client to connect with: it has the current credentials, if they change.
pub(super) fn admitted<'a>(
    client: &'a Client,
    admission: Option<&Admission>,
) -> RedisResult<Cow<'a, Client>> {
    match admission {
        Some(admission) => admission.credentials.given_to(client).map(Cow::Owned),
        None => Ok(Cow::Borrowed(client)),
    }
}

impl Admission {
    /// The command that sends these credentials on an existing connection.
    pub(super) fn again(&self) -> Cmd {
        let mut command = redis::cmd("AUTH");
        if let Some(user) = self.credentials.user() {
            command.arg(user);
        }
        command.arg(self.credentials.password());
        command
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}
