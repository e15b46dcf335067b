//! Brings the entries of all copies of the demo to all of them, in one order, through a stream on
//! the server. Without a server, entries go to this process's own board only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use redis::{AsyncConnectionConfig, Client, RedisResult, aio::MultiplexedConnection};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};

use crate::board::{Board, Entry};

const STREAM: &str = "lock-demo-journal";
/// How many entries the stream keeps, and for how long after the last one.
const ENTRIES: usize = 1_000;
const KEPT: Duration = Duration::from_secs(3600);
/// How long the reader asks the server to wait for a new entry.
const BLOCK: Duration = Duration::from_secs(1);

/// An entry, and a sender that is dropped once the entry is written.
type Written = (Entry, Option<oneshot::Sender<()>>);

/// The board of this process, and the queue of entries to write.
#[derive(Clone)]
pub(crate) struct Journal {
    entries: mpsc::UnboundedSender<Written>,
    board: watch::Sender<Board>,
    /// By how much the server's clock is ahead of this one, in milliseconds.
    ahead: Arc<AtomicI64>,
}

impl Journal {
    /// Starts to write entries, and to read those of all copies, including earlier ones.
    pub(crate) fn start(server: Option<Client>) -> Self {
        let (entries, written) = mpsc::unbounded_channel();
        let journal =
            Self { entries, board: watch::Sender::new(Board::default()), ahead: Arc::default() };
        match server {
            None => {
                tokio::spawn(keep_here(journal.clone(), written));
            }
            Some(client) => {
                tokio::spawn(append(journal.clone(), client.clone(), written));
                tokio::spawn(follow(journal.clone(), client));
            }
        }
        journal
    }

    /// Writes an entry, in the background; entries of one process stay in their order.
    pub(crate) fn write(&self, entry: Entry) {
        // The receiver lives as long as the runtime.
        let _ = self.entries.send((entry, None));
    }

    /// Writes an entry, and waits until it is written.
    pub(crate) async fn tell(&self, entry: Entry) {
        let (written, is_written) = oneshot::channel();
        let _ = self.entries.send((entry, Some(written)));
        let _ = is_written.await;
    }

    /// Subscribes to the board, which changes whenever something has happened.
    pub(crate) fn watch(&self) -> watch::Receiver<Board> {
        self.board.subscribe()
    }

    /// Redraws all pages of this process, after a change that is not on the board.
    pub(crate) fn touch(&self) {
        self.board.send_modify(|_| {});
    }

    /// The time by the clock that stamps the entries: the server's, if there is one.
    pub(crate) fn now_ms(&self) -> u64 {
        here_ms().saturating_add_signed(self.ahead.load(Ordering::Relaxed))
    }

    pub(crate) fn sweep(&self) {
        let now = self.now_ms();
        self.board.send_modify(|board| board.sweep(now));
    }

    fn apply(&self, at_ms: u64, entry: &Entry) {
        self.board.send_modify(|board| board.apply(at_ms, entry));
    }
}

fn here_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn keep_here(journal: Journal, mut written: mpsc::UnboundedReceiver<Written>) {
    while let Some((entry, _told)) = written.recv().await {
        journal.apply(here_ms(), &entry);
    }
}

async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let bounds = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_response_timeout(Some(2 * BLOCK));
    client.get_multiplexed_async_connection_with_config(&bounds).await
}

async fn append(journal: Journal, client: Client, mut written: mpsc::UnboundedReceiver<Written>) {
    let mut connection = None;
    while let Some((entry, _told)) = written.recv().await {
        match add(&client, &mut connection, &entry).await {
            Ok(at_ms) => {
                let ahead = at_ms.cast_signed() - here_ms().cast_signed();
                journal.ahead.store(ahead, Ordering::Relaxed);
            }
            // Other copies miss the entry, but this copy's own pages show it.
            Err(_) => {
                connection = None;
                journal.apply(journal.now_ms(), &entry);
                // Entries that have arrived in the meantime would each wait as long, and late ones
                // would get a wrong time.
                while let Ok((entry, _told)) = written.try_recv() {
                    journal.apply(journal.now_ms(), &entry);
                }
            }
        }
    }
}

/// Appends an entry. Returns the server's time.
async fn add(
    client: &Client,
    connection: &mut Option<MultiplexedConnection>,
    entry: &Entry,
) -> RedisResult<u64> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(connect(client).await?),
    };
    let text = serde_json::to_string(entry).expect("BUG: an entry is not JSON");
    let (position, ()): (String, ()) = redis::pipe()
        .cmd("XADD")
        .arg(STREAM)
        .arg(&["MAXLEN", "~"])
        .arg(ENTRIES)
        .arg(&["*", "entry", &text])
        .cmd("EXPIRE")
        .arg(STREAM)
        .arg(KEPT.as_secs())
        .ignore()
        .query_async(connection)
        .await
        .map(|(position,): (String,)| (position, ()))?;
    Ok(at_ms(&position))
}

/// When the entry was written: the first part of its position.
fn at_ms(position: &str) -> u64 {
    position.split('-').next().and_then(|time| time.parse().ok()).unwrap_or_default()
}

type Entries = Vec<(String, Vec<(String, String)>)>;

async fn follow(journal: Journal, client: Client) {
    let mut last = None;
    loop {
        // Entries missed while the server is away are read when it is back.
        let _ = read(&journal, &client, &mut last).await;
        sleep(Duration::from_millis(300)).await;
    }
}

async fn read(journal: &Journal, client: &Client, last: &mut Option<String>) -> RedisResult<()> {
    let mut connection = connect(client).await?;
    if last.is_none() {
        let mut before: Entries = redis::cmd("XREVRANGE")
            .arg(STREAM)
            .arg(&["+", "-", "COUNT"])
            .arg(ENTRIES)
            .query_async(&mut connection)
            .await?;
        before.reverse();
        *last = Some("0-0".to_owned());
        take(journal, before, last);
    }
    loop {
        let answer: Option<Vec<(String, Entries)>> = redis::cmd("XREAD")
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX))
            .arg("STREAMS")
            .arg(STREAM)
            .arg(last.as_deref().unwrap_or("0-0"))
            .query_async(&mut connection)
            .await?;
        for (_, entries) in answer.unwrap_or_default() {
            take(journal, entries, last);
        }
    }
}

fn take(journal: &Journal, entries: Entries, last: &mut Option<String>) {
    for (position, fields) in entries {
        for (_, text) in fields {
            // Another version of the demo may write events that this one does not know.
            if let Ok(entry) = serde_json::from_str(&text) {
                journal.apply(at_ms(&position), &entry);
            }
        }
        *last = Some(position);
    }
}
