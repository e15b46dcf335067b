//! What operators ask about locks, and what they do to them.

use std::{sync::Arc, time::Duration};

use crate::Token;

/// The holder of a lock.
///
/// ```
/// # mod lock { pub use lock_core::Token; pub mod store { pub use lock_core::contract::*; } }
/// use std::time::Duration;
/// use lock::{Token, store::Holder};
///
/// let token = Token::from("client:1".to_owned());
/// let holder = Holder::new(token, Some(Duration::from_secs(3))).waiters(2);
/// assert_eq!((holder.waiters, holder.held_for), (2, None));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Holder {
    /// The token of the holder.
    pub token: Token,
    /// How long the holder keeps the lock unless it renews it; `None` if the lock never expires.
    pub remaining: Option<Duration>,
    /// How many tokens wait in the queue.
    pub waiters: usize,
    /// How long ago the token was made, by the store's clock; `None` if the token does not contain
    /// that time. Its client may first have waited for the lock.
    pub held_for: Option<Duration>,
}

impl Holder {
    /// Creates a holder with this token and without waiters.
    #[must_use]
    pub fn new(token: Token, remaining: Option<Duration>) -> Self {
        Self { token, remaining, waiters: 0, held_for: None }
    }

    /// Sets how many tokens wait in the queue.
    #[must_use]
    pub fn waiters(mut self, waiters: usize) -> Self {
        self.waiters = waiters;
        self
    }

    /// Sets how long ago the token was made, if it [contains that time](Token::made_at). `now` is
    /// the store's clock, as the time since the Unix epoch.
    ///
    /// ```
    /// # mod lock { pub use lock_core::Token; pub mod store { pub use lock_core::contract::Holder; } }
    /// use std::time::Duration;
    /// use lock::{Token, store::Holder};
    ///
    /// let token = Token::from("5f0c1c6e8b5f4d3c9a7e2b1d0f8e6a4c:1790000000000000".to_owned());
    /// let holder = Holder::new(token, None).seen_at(Duration::from_secs(1_790_000_003));
    /// assert_eq!(holder.held_for, Some(Duration::from_secs(3)));
    /// ```
    #[must_use]
    pub fn seen_at(mut self, now: Duration) -> Self {
        // The client's clock may be ahead of the store's.
        self.held_for = self.token.made_at().map(|made_at| now.saturating_sub(made_at));
        self
    }
}

/// A request to release one lock by force.
///
/// ```
/// # mod lock { pub use lock_core::Token; pub mod store { pub use lock_core::contract::*; } }
/// use lock::{Token, store::ForceReleaseRequest};
///
/// let request = ForceReleaseRequest::new("lock:report");
/// assert_eq!(request.holder, None, "from any holder");
/// let holder = Token::from("client:1".to_owned());
/// let request = request.only_from(Some(holder.clone()));
/// assert_eq!(request.holder, Some(holder));
/// ```
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct ForceReleaseRequest {
    /// The lock's key.
    pub key: Arc<str>,
    /// Releases the lock only if this token holds it; `None` releases it from any holder.
    pub holder: Option<Token>,
}

impl ForceReleaseRequest {
    /// Creates a request to take the lock of this key away from its holder.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>) -> Self {
        Self { key: key.into(), holder: None }
    }

    /// Sets the only holder from which the lock may be taken.
    #[must_use]
    pub fn only_from(mut self, holder: Option<Token>) -> Self {
        self.holder = holder;
        self
    }
}

/// The record in which a client describes itself, for operators who ask who holds a lock.
///
/// ```
/// # mod lock { pub mod store { pub use lock_core::contract::*; } }
/// use lock::store::ClientRecord;
///
/// let record = ClientRecord::unknown()
///     .name(Some("billing-7".to_owned()))
///     .process(Some("host-3".to_owned()), Some(4711))
///     .version(None); // a store that did not keep it
/// assert_eq!(record.name.as_deref(), Some("billing-7"));
/// assert_eq!(record.pid, Some(4711));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ClientRecord {
    /// The name that the application has given the client.
    pub name: Option<String>,
    /// The name of the client's machine.
    pub host: Option<String>,
    /// The client's process id on that machine.
    pub pid: Option<u32>,
    /// The version of this library that the client runs.
    pub version: Option<String>,
}

impl ClientRecord {
    /// Creates the record of a client about which nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self { name: None, host: None, pid: None, version: None }
    }

    /// Sets the name that the application has given the client.
    #[must_use]
    pub fn name(mut self, name: Option<String>) -> Self {
        self.name = name;
        self
    }

    /// Sets the name of the machine and the process id on it.
    #[must_use]
    pub fn process(mut self, host: Option<String>, pid: Option<u32>) -> Self {
        (self.host, self.pid) = (host, pid);
        self
    }

    /// Sets the version of this library that the client runs.
    #[must_use]
    pub fn version(mut self, version: Option<String>) -> Self {
        self.version = version;
        self
    }
}

/// A request to keep the record of one client for a while.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct IntroduceRequest {
    /// The key of the record.
    pub key: Arc<str>,
    /// What the client says about itself.
    pub record: ClientRecord,
    /// How long the record is kept unless the client sends it again; whole milliseconds.
    pub keep: Duration,
}

impl IntroduceRequest {
    /// Creates a request to keep this record under this key.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, record: ClientRecord, keep: Duration) -> Self {
        Self { key: key.into(), record, keep }
    }
}

/// What a [`ScanRequest`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScanFor {
    /// Locks, except those of the library's own runs.
    HeldLocks,
    /// Debounced calls, by their windows.
    Debounces,
    /// Functions with durable calls that wait.
    Waiting,
    /// Functions with durable calls that were set aside.
    SetAside,
}

impl ScanFor {
    /// Returns the part of a key of this kind that is between the prefix and the id.
    ///
    /// ```
    /// # mod lock { pub mod store { pub use lock_core::contract::*; } }
    /// use lock::store::ScanFor;
    ///
    /// // The window of the debounce `report`, under the prefix `lock:`.
    /// let key = format!("lock:{}report", ScanFor::Debounces.infix());
    /// assert_eq!(key, "lock:~debounce:report");
    /// ```
    #[must_use]
    pub fn infix(self) -> &'static str {
        match self {
            Self::HeldLocks => "",
            Self::Debounces => "~debounce:",
            Self::Waiting => "~due:",
            Self::SetAside => "~aside:",
        }
    }
}

/// A request for one page of the ids that have an entry in a store.
#[derive(Clone, Debug, Hash)]
#[non_exhaustive]
pub struct ScanRequest {
    /// What to look for.
    pub what: ScanFor,
    /// What the keys begin with.
    pub prefix: Arc<str>,
    /// What the ids begin with.
    pub ids: Arc<str>,
    /// Where the previous page [ended](ScanPage::next); `None` for the first page.
    pub cursor: Option<Arc<str>>,
    /// Roughly how many keys the store looks at for one page.
    pub count: usize,
}

impl ScanRequest {
    /// Creates a request for the first page of the ids behind this prefix.
    #[must_use]
    pub fn new(what: ScanFor, prefix: impl Into<Arc<str>>, count: usize) -> Self {
        Self { what, prefix: prefix.into(), ids: "".into(), cursor: None, count }
    }

    /// Sets what the ids begin with.
    #[must_use]
    pub fn ids(mut self, begin_with: impl Into<Arc<str>>) -> Self {
        self.ids = begin_with.into();
        self
    }

    /// Sets where the previous page ended.
    ///
    /// ```
    /// # mod lock { pub mod store { pub use lock_core::contract::*; } }
    /// use lock::store::{ScanFor, ScanPage, ScanRequest};
    ///
    /// let first = ScanRequest::new(ScanFor::HeldLocks, "lock:", 1);
    /// // What a store has answered: there are more pages.
    /// let page = ScanPage::new(vec!["invoice:7".into()], Some("lock:invoice:7".into()));
    /// let second = first.clone().after(page.next);
    /// assert_eq!(second.cursor.as_deref(), Some("lock:invoice:7"));
    /// ```
    #[must_use]
    pub fn after(mut self, cursor: Option<Arc<str>>) -> Self {
        self.cursor = cursor;
        self
    }

    /// Returns the id in this key, if the request looks for that id.
    ///
    /// ```
    /// # mod lock { pub mod store { pub use lock_core::contract::{ScanFor, ScanRequest}; } }
    /// use lock::store::{ScanFor, ScanRequest};
    ///
    /// let locks = ScanRequest::new(ScanFor::HeldLocks, "lock:", 100).ids("invoice:");
    /// assert_eq!(locks.id_in("lock:invoice:7"), Some("invoice:7"));
    /// assert_eq!(locks.id_in("lock:~run:invoice:7"), None);
    /// ```
    #[must_use]
    pub fn id_in<'a>(&self, key: &'a str) -> Option<&'a str> {
        let id = key.strip_prefix(&*self.prefix)?.strip_prefix(self.what.infix())?;
        // At this place, the library's own keys have a tilde, and ids never do.
        (id.starts_with(&*self.ids) && !id.starts_with('~')).then_some(id)
    }
}

/// The answer to a [`ScanRequest`].
///
/// An id that exists from the first page to the last is in at least one page, and may be in
/// several. If parts of the store move in between, some ids may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ScanPage {
    /// The ids, in any order.
    pub ids: Vec<Arc<str>>,
    /// Where the next page begins; `None` if this is the last page.
    pub next: Option<Arc<str>>,
}

impl ScanPage {
    /// Creates a page with these ids.
    #[must_use]
    pub fn new(ids: Vec<Arc<str>>, next: Option<Arc<str>>) -> Self {
        Self { ids, next }
    }
}
