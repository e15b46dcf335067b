//! Credentials that change: asked for at each connect, and again on a connection that outlives them.

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

/// How soon it is asked again, at the soonest: a token that has expired is one that lasts for no
/// time, and who gives it must not be asked for the next one as fast as it can answer.
const SOONEST: Duration = Duration::from_millis(100);

type Answer = Result<Credentials, Box<dyn StdError + Send + Sync>>;

/// What a user gives: a function that tells the credentials of the moment.
pub(crate) type Ask = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// Who knows the credentials of the moment.
#[derive(Clone)]
pub(crate) struct Provider {
    ask: Ask,
    /// Where it is asked: the runtime of the application. It may use connections that live there;
    /// and one that blocks or panics must not stop the thread that keeps the locks.
    runtime: Handle,
}

/// Credentials, and when the next ones are to be asked for.
#[derive(Clone)]
pub(super) struct Admission {
    credentials: Credentials,
    pub(super) renew_at: Option<Instant>,
}

impl Provider {
    /// It is asked on the runtime that this is called on; fails where there is none.
    pub(crate) fn new(ask: Ask) -> Result<Self, Error> {
        match Handle::try_current() {
            Ok(runtime) => Ok(Self { ask, runtime }),
            Err(_) => Err(Error::invalid(
                "the provider of `credentials` is asked on the runtime of tokio that the `Locks` are \
                 built on, and there is none: build them inside of one",
            )),
        }
    }

    pub(super) async fn admission(&self) -> Result<Admission, Refusal> {
        let ask = Arc::clone(&self.ask);
        // The call itself is made there, too: it is the user's code.
        let mut asked = self.runtime.spawn(async move { ask().await });
        let asked_at = Instant::now();
        match time::timeout(PATIENCE, &mut asked).await {
            Ok(Ok(Ok(credentials))) => {
                // Some last for longer than a clock can count.
                let good_for = credentials.good_for().map(|time| time.max(SOONEST));
                let renew_at = good_for.and_then(|time| asked_at.checked_add(time));
                Ok(Admission { credentials, renew_at })
            }
            Ok(Ok(Err(error))) => {
                Err(Refusal::no_credentials("it has failed").because(error.into()))
            }
            Ok(Err(error)) if error.is_panic() => Err(Refusal::no_credentials("it has panicked")),
            Ok(Err(_)) => Err(Refusal::no_credentials(
                "the runtime on which it was given, and on which it is asked, is shut down",
            )),
            Err(_) => {
                asked.abort();
                Err(Refusal::no_credentials("it has given none within 10s"))
            }
        }
    }
}

/// The client as it connects: with the credentials of the moment, if they change.
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
    /// What a connection that is there is told.
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
