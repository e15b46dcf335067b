//! What operators ask about locks, whichever client holds them.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "durable")]
use lock_core::contract::{DueRequest, WaitingCalls};
use lock_core::{
    contract::{ClientRecord, ForceReleaseRequest, Holder, ScanPage, ScanRequest},
    engine::io::{Outcome, Query},
    token::{self, Token},
};

use super::client::{Client, expected};
use crate::{
    error::{Error, Subject},
    id::Named,
    observe,
};

impl Client {
    /// Was this token made by this client?
    pub(crate) fn is_ours(&self, token: &Token) -> bool {
        token::is_of(token, self.id())
    }

    /// Returns the holder of the lock with this key. The waiters of this process that the store
    /// does not count are included.
    pub(crate) async fn holder(&self, key: Arc<str>) -> Result<Option<Holder>, Error> {
        self.ask(Query::Holder(key), expected!(Holder)).await
    }

    /// Returns what the client of this token has said about itself, as far as it is known: a holder
    /// can be reported without it.
    pub(crate) async fn record_of(&self, token: &Token) -> ClientRecord {
        if self.is_ours(token) {
            return self.introduction().record();
        }
        // Clients of other libraries have no record.
        let is_known = token::is_of_this_library(token);
        let known = is_known.then(|| self.introduction().key_of(token::parts(token).0));
        let Some(key) = known else { return ClientRecord::unknown() };
        let record = self.ask(Query::Client(key), expected!(Client)).await;
        record.ok().flatten().unwrap_or_else(ClientRecord::unknown)
    }

    /// Takes a lock away from its holder, or only from the one named; false if that one did not
    /// hold it.
    pub(crate) async fn force_release(
        &self,
        lock: Named,
        only_from: Option<Token>,
    ) -> Result<bool, Error> {
        let request = ForceReleaseRequest::new(lock.key).only_from(only_from);
        let released = self.ask(Query::ForceRelease(request), expected!(Truth)).await;
        let released = released.map_err(|error| error.on(&lock.id));
        observe::forced(&lock.id, &released);
        released
    }

    pub(crate) async fn scan(&self, request: ScanRequest) -> Result<ScanPage, Error> {
        self.ask(Query::Scan(request), expected!(Page)).await
    }

    /// Returns how long until the call that waits in this window is due, if one waits.
    pub(crate) async fn due_in(
        &self,
        window: Named,
        run: Named,
    ) -> Result<Option<Duration>, Error> {
        let ask = Query::DueIn { window: window.key, run: run.key };
        let due = self.ask(ask, expected!(DueIn)).await;
        due.map_err(|error| error.about(Subject::Debounce, &window.id))
    }

    #[cfg(feature = "durable")]
    pub(crate) async fn waiting(&self, request: DueRequest) -> Result<WaitingCalls, Error> {
        self.ask(Query::Waiting(request), expected!(Waiting)).await
    }
}
