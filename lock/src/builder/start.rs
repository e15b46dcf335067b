//! Turns settings into a client with its store: what is refused, what is made, and where it runs.

use std::sync::Arc;

use super::{LocksBuilder, Source};
use crate::{
    Error, Locks,
    clock::{BootClock, TokioClock},
    context::Context,
    events::Events,
    id::Prefix,
    introduction::Introduction,
    keeper::{Client, Started},
    limits,
    store::{MemoryStore, Store},
    url::Target,
};
#[cfg(feature = "redis")]
use crate::{
    store::redis::{Endpoint, Layout, Provider, RedisStore, Servers},
    warning::Warnings,
};
#[cfg(all(lock_mutants, feature = "redis"))]
use crate::{
    store::{AdminStore, DebounceStore, DurableStore},
    url::Beside,
};

impl LocksBuilder {
    /// Makes the client, which connects unless it is lazy.
    pub(super) fn start(self, lazy: bool) -> Result<(Locks, Option<Started>), Error> {
        let prefix = Prefix::parse(&self.prefix)?;
        limits::lease(self.lease)?;
        if !matches!(self.source, Some(Source::Url(_))) {
            self.beside.refuse_all()?;
        }
        let introduction = Introduction::new(prefix.clone(), self.name)?;
        let events = Events::default();
        #[cfg(feature = "redis")]
        let servers = Servers {
            min_replicas: self.min_replicas,
            provider: self.credentials.map(Provider::new).transpose()?,
            prefix: prefix.as_str().into(),
            warnings: Warnings::new(self.on_warning, events.clone()),
        };
        let (client, started) = match self.source {
            Some(Source::Url(url)) => match Target::parse(&url, self.beside)? {
                Target::Memory => {
                    #[cfg(feature = "redis")]
                    servers.are_none()?;
                    of_store(Arc::new(MemoryStore::new()), (introduction, events))?
                }
                #[cfg(feature = "redis")]
                Target::Redis(layout) => {
                    of_redis(RedisStore::new(*layout, servers)?, (introduction, events), lazy)?
                }
            },
            #[cfg(feature = "redis")]
            Some(Source::Client(client)) => {
                let store = RedisStore::new(Layout::One(Endpoint::of_client(*client)), servers)?;
                of_redis(store, (introduction, events), lazy)?
            }
            Some(Source::Store(store)) => {
                #[cfg(feature = "redis")]
                servers.are_none()?;
                of_store(store, (introduction, events))?
            }
            None => {
                return Err(Error::invalid(
                    "no store: name one with `.url(..)`, `.client(..)` or `.store(..)`",
                ));
            }
        };
        #[cfg(not(feature = "redis"))]
        let _ = lazy;
        let context = Context::new(client, prefix, (self.lease, self.wait));
        Ok((Locks::new(context), started))
    }
}

/// What a client says about itself in the store, and where its events go.
type Says = (Introduction, Events);

/// A client, and the outcome of its connect, if it connects.
type Connecting = (Arc<Client>, Option<Started>);

fn of_store(store: Arc<dyn Store>, says: Says) -> Result<Connecting, Error> {
    if store.embedded().is_some() {
        return Ok((Client::embedded(store, Arc::new(TokioClock::new()), says.0), None));
    }
    let clock = Arc::new(BootClock::new());
    let (client, started) = Client::on_own_thread(clock, store, says, || async { Ok(()) })?;
    Ok((client, Some(started)))
}

#[cfg(feature = "redis")]
fn of_redis(store: RedisStore, says: Says, lazy: bool) -> Result<Connecting, Error> {
    let store = Arc::new(store);
    let connection = Arc::clone(&store);
    let connect = move || async move { if lazy { Ok(()) } else { connection.connect().await } };
    let (client, started) =
        Client::on_own_thread(Arc::new(BootClock::new()), store, says, connect)?;
    Ok((client, Some(started)))
}

/// The Redis store of a URL without a `Locks`, for the tests that compare the stores.
#[cfg(all(lock_mutants, feature = "redis"))]
pub async fn redis_store(
    url: &str,
) -> Result<impl Store + AdminStore + DebounceStore + DurableStore, Error> {
    let store = match Target::parse(url, Beside::default())? {
        Target::Redis(layout) => RedisStore::new(*layout, Servers::default())?,
        Target::Memory => return Err(Error::invalid("this is not the URL of a Redis server")),
    };
    store.connect().await?;
    Ok(store)
}
