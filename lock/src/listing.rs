//! What there is in a store, for operators.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use lock_core::{
    contract::{self, ScanFor, ScanRequest},
    token,
};

use crate::{DebounceStatus, Error, Holder, context::Context, debounce};

/// How many keys the store looks at for one page: a millisecond of a Redis server's time.
const PAGE: usize = 1000;

/// A lock that is held; see [`Locks::list`](crate::Locks::list).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The id of the lock.
    pub id: String,
    /// A guard of this [`Locks`](crate::Locks), or one of its clones, holds it.
    pub by_us: bool,
    /// Those that hold it.
    pub holders: Vec<Holder>,
    /// What remains of the lease; [`Duration::MAX`] if another client took the key for ever.
    pub remaining: Duration,
    /// How many callers wait for it, as in [`Status::Held`](crate::Status::Held).
    pub waiters: usize,
}

/// A debounce that has a call waiting, or a run; see
/// [`Locks::list_debounces`](crate::Locks::list_debounces).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedDebounce {
    /// The id of the debounce.
    pub id: String,
    /// What is known of it.
    pub status: DebounceStatus,
}

/// The ids of one kind, page by page, each once.
struct Pages<'a> {
    context: &'a Context,
    next: Option<ScanRequest>,
    seen: BTreeSet<Arc<str>>,
}

impl<'a> Pages<'a> {
    fn new(context: &'a Context, what: ScanFor, beginning: &str) -> Self {
        let request = ScanRequest::new(what, context.prefix().as_str(), PAGE).ids(beginning);
        Self { context, next: Some(request), seen: BTreeSet::new() }
    }

    /// Those of the next page that were on none before; `None` behind the last page.
    async fn next(&mut self) -> Result<Option<Vec<Arc<str>>>, Error> {
        let Some(request) = self.next.take() else { return Ok(None) };
        let page = self.context.client().scan(request.clone()).await?;
        self.next = page.next.map(|cursor| request.after(Some(cursor)));
        let fresh = page.ids.into_iter().filter(|id| self.seen.insert(Arc::clone(id)));
        Ok(Some(fresh.collect()))
    }
}

/// The locks whose ids begin so, at most `limit` of them.
pub(crate) async fn locks(
    context: &Context,
    beginning: &str,
    limit: usize,
) -> Result<Vec<Listed>, Error> {
    let client = context.client();
    let mut pages = Pages::new(context, ScanFor::Locks, beginning);
    let mut held: BTreeMap<Arc<str>, contract::Holder> = BTreeMap::new();
    while held.len() < limit
        && let Some(ids) = pages.next().await?
    {
        let holders = join_all(ids.into_iter().map(|id| async move {
            let key = context.prefix().lock(&id)?.key;
            Ok::<_, Error>((id, client.holder(key).await?))
        }));
        for found in holders.await {
            // One that was released since is not there any longer.
            if let (id, Some(holder)) = found?
                && is_lock(context, &holder)
            {
                held.insert(id, holder);
            }
        }
    }
    let held: Vec<_> = held.into_iter().take(limit).collect();
    // A client is asked for once, however many locks it has.
    let clients: BTreeMap<&str, &contract::Holder> =
        held.iter().map(|(_, holder)| (token::parts(&holder.token).0, holder)).collect();
    let records = join_all(
        clients
            .into_iter()
            .map(|(id, holder)| async move { (id, client.record_of(&holder.token).await) }),
    );
    let records: BTreeMap<_, _> = records.await.into_iter().collect();
    let listed = held.iter().map(|(id, holder)| {
        let record = records.get(token::parts(&holder.token).0).cloned();
        let record = record.unwrap_or_else(contract::ClientRecord::unknown);
        Listed {
            id: id.to_string(),
            by_us: client.is_ours(&holder.token),
            remaining: holder.remaining.unwrap_or(Duration::MAX),
            waiters: holder.waiters,
            holders: vec![Holder::known(holder.clone(), record)],
        }
    });
    Ok(listed.collect())
}

/// With an empty prefix each key of the store might be a lock: only those are that have a token of
/// this library's form.
fn is_lock(context: &Context, holder: &contract::Holder) -> bool {
    !context.prefix().as_str().is_empty() || token::is_of_this_library(&holder.token)
}

/// The debounces whose ids begin so, at most `limit` of them.
pub(crate) async fn debounces(
    context: &Context,
    beginning: &str,
    limit: usize,
) -> Result<Vec<ListedDebounce>, Error> {
    let mut pages = Pages::new(context, ScanFor::Debounces, beginning);
    let mut known = BTreeMap::new();
    while known.len() < limit
        && let Some(ids) = pages.next().await?
    {
        let asked = ids.into_iter().map(|id| async move {
            let status = debounce::status(context, &id).await?;
            Ok::<_, Error>((id, status))
        });
        for found in join_all(asked).await {
            let (id, status) = found?;
            // The store keeps what was run for a while.
            if status.waiting.is_some() || status.running.is_some() {
                known.insert(id, status);
            }
        }
    }
    let known = known.into_iter().take(limit);
    Ok(known.map(|(id, status)| ListedDebounce { id: id.to_string(), status }).collect())
}

/// The names of the functions that have durable calls, at most `limit` of them.
#[cfg(feature = "durable")]
pub(crate) async fn functions(context: &Context, limit: usize) -> Result<Vec<String>, Error> {
    let mut names = BTreeSet::new();
    for what in [ScanFor::Waiting, ScanFor::SetAside] {
        let mut pages = Pages::new(context, what, "");
        while names.len() < limit
            && let Some(ids) = pages.next().await?
        {
            names.extend(ids);
        }
    }
    Ok(names.into_iter().take(limit).map(|name| name.to_string()).collect())
}
