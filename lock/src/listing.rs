//! Lists what a store contains, for operators.

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

use crate::{DebounceStatus, Error, ErrorKind, Holder, context::Context, debounce};

/// How many keys the store looks at for one page, which takes about a millisecond of a Redis
/// server's time.
const PAGE: usize = 1000;

/// A lock that is held; see [`Locks::list`](crate::Locks::list).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{Listed, Locks};
///
/// let locks = Locks::in_memory();
/// let _guard = locks.lock("invoice:7").acquire().await?;
/// let listed: Vec<Listed> = locks.list("invoice:", 100).await?;
/// assert_eq!(listed[0].id, "invoice:7");
/// assert!(listed[0].by_us);
/// assert_eq!(listed[0].holders[0].pid, Some(std::process::id()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The id of the lock.
    pub id: String,
    /// Whether a guard of this [`Locks`](crate::Locks) or of one of its clones holds it.
    pub by_us: bool,
    /// The holders.
    pub holders: Vec<Holder>,
    /// What remains of the lease; [`Duration::MAX`] if a client of another library has taken the
    /// key without an expiry.
    pub remaining: Duration,
    /// How many callers wait for the lock, as in [`Status::Held`](crate::Status::Held).
    pub waiters: usize,
}

/// A debounce with a waiting call or a run; see
/// [`Locks::list_debounces`](crate::Locks::list_debounces).
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{ListedDebounce, Locks};
///
/// let locks = Locks::in_memory();
/// let _call = locks.debounce("save:7").spawn(|| async { "saved" });
/// let listed: Vec<ListedDebounce> = locks.list_debounces("save:", 100).await?;
/// assert_eq!(listed[0].id, "save:7");
/// assert!(listed[0].status.waiting.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedDebounce {
    /// The id of the debounce.
    pub id: String,
    /// The state of the debounce.
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

    /// The ids of the next page that were on no page before; `None` after the last page.
    async fn next(&mut self) -> Result<Option<Vec<Arc<str>>>, Error> {
        let Some(request) = self.next.take() else { return Ok(None) };
        let page = self.context.client().scan(request.clone()).await?;
        self.next = page.next.map(|cursor| request.after(Some(cursor)));
        // Others may have made keys whose names begin like ours: ids that are not allowed are left
        // out.
        let prefix = self.context.prefix();
        let ids = page.ids.into_iter().filter(|id| prefix.lock(id).is_ok());
        Ok(Some(ids.filter(|id| self.seen.insert(Arc::clone(id))).collect()))
    }
}

/// What is found. A foreign key in the place of one of ours costs only its own entry.
struct Found<T> {
    items: BTreeMap<Arc<str>, T>,
    refused: Option<Error>,
}

impl<T> Found<T> {
    fn new() -> Self {
        Self { items: BTreeMap::new(), refused: None }
    }

    fn take(&mut self, id: Arc<str>, item: Result<Option<T>, Error>) -> Result<(), Error> {
        match item {
            Ok(item) => {
                self.items.extend(item.map(|item| (id, item)));
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Rejected => {
                self.refused.get_or_insert(error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// At most `limit` items. An error if there are none and one was refused: all may have been
    /// refused.
    fn end(self, limit: usize) -> Result<impl Iterator<Item = (Arc<str>, T)>, Error> {
        match self.refused {
            Some(refused) if self.items.is_empty() => Err(refused),
            _ => Ok(self.items.into_iter().take(limit)),
        }
    }
}

/// The locks whose ids begin with `beginning`, at most `limit` of them.
pub(crate) async fn locks(
    context: &Context,
    beginning: &str,
    limit: usize,
) -> Result<Vec<Listed>, Error> {
    let client = context.client();
    let mut pages = Pages::new(context, ScanFor::HeldLocks, beginning);
    let mut held: Found<contract::Holder> = Found::new();
    while held.items.len() < limit
        && let Some(ids) = pages.next().await?
    {
        let holders = join_all(ids.into_iter().map(|id| async move {
            let holder = match context.prefix().lock(&id) {
                Ok(lock) => client.holder(lock.key).await,
                Err(error) => Err(error),
            };
            (id, holder)
        }));
        for (id, holder) in holders.await {
            // A lock that was released since is no longer there.
            held.take(id, holder.map(|holder| holder.filter(|holder| is_lock(context, holder))))?;
        }
    }
    let held: Vec<_> = held.end(limit)?.collect();
    // Each client's record is asked for once, however many locks it has.
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

/// With an empty prefix, each key of the store might be a lock: only those count that have a token
/// of this library's form.
fn is_lock(context: &Context, holder: &contract::Holder) -> bool {
    !context.prefix().as_str().is_empty() || token::is_of_this_library(&holder.token)
}

/// The debounces whose ids begin with `beginning`, at most `limit` of them.
pub(crate) async fn debounces(
    context: &Context,
    beginning: &str,
    limit: usize,
) -> Result<Vec<ListedDebounce>, Error> {
    let mut pages = Pages::new(context, ScanFor::Debounces, beginning);
    let mut known = Found::new();
    while known.items.len() < limit
        && let Some(ids) = pages.next().await?
    {
        let asked = ids.into_iter().map(|id| async move {
            let status = debounce::status(context, &id).await;
            (id, status)
        });
        for (id, status) in join_all(asked).await {
            // The store keeps a debounce for a while after its run.
            let goes_on =
                |status: &DebounceStatus| status.waiting.is_some() || status.running.is_some();
            known.take(id, status.map(|status| Some(status).filter(goes_on)))?;
        }
    }
    let known = known.end(limit)?;
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
