//! Sentinels, which know where the primary is.
//!
//! The library listens to each Sentinel (`+switch-master`) and asks it: once a second, when it has
//! said something, and when the primary is out of reach. A server that was the primary keeps
//! answering for many seconds after a failover, and only the Sentinels report it in time. So what
//! they say counts at once, even while the old server still serves.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use redis::{Msg, Pipeline, PushInfo, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};

use super::{
    super::{
        backoff::{RECONNECT, jittered},
        endpoint::Endpoint,
        handshake::{for_questions, greet_at},
        node::Node,
        place::{Member, Place, Places},
        refusal::Refusal,
        trouble::Address,
    },
    reports::{Report, Reports},
};
use crate::{Error, ErrorKind, events::Events, observe};

/// How often each Sentinel is asked.
const ASK: Duration = Duration::from_secs(1);
/// How much longer the others may take at the first connect, once one of them has answered.
const OTHERS: Duration = Duration::from_millis(200);
/// The channel on which they announce that another server has taken over.
const SWITCHES: &str = "+switch-master";

/// A primary that Sentinels watch.
pub(crate) struct Watched {
    /// What the Sentinels call it.
    pub(crate) name: String,
    pub(crate) sentinels: Vec<Endpoint>,
    /// How its server is reached, apart from the address.
    pub(crate) server: Endpoint,
}

pub(super) struct Sentinels(Arc<Shared>);

struct Shared {
    name: String,
    sentinels: Vec<Arc<Place>>,
    server: Endpoint,
    reports: Mutex<Reports>,
    place: watch::Sender<Option<Arc<Place>>>,
    /// Why the last question to each Sentinel got no report.
    refusals: watch::Sender<Vec<Option<Refusal>>>,
    /// The primary is out of reach, so each Sentinel is asked now.
    missed: Arc<Notify>,
    events: Events,
    /// The place of the primary was known once.
    is_known: OnceLock<()>,
    begun: OnceLock<()>,
}

impl Sentinels {
    /// Does no I/O; see [`begin`](Self::begin).
    pub(super) fn new(watched: Watched, events: Events) -> RedisResult<(Self, Places)> {
        let Watched { name, sentinels, server } = watched;
        let sentinels: Vec<_> = sentinels.into_iter().map(Place::of).collect::<RedisResult<_>>()?;
        let (place, seen) = watch::channel(None);
        let unknown = Address::unknown(format!(
            "an address that no Sentinel has given yet (of `{name}`, at {})",
            shown(&sentinels)
        ));
        let shared = Shared {
            reports: Mutex::new(Reports::of(sentinels.len())),
            place,
            refusals: watch::Sender::new(vec![None; sentinels.len()]),
            missed: Arc::default(),
            events,
            is_known: OnceLock::new(),
            begun: OnceLock::new(),
            name,
            sentinels,
            server,
        };
        Ok((Self(Arc::new(shared)), Places::told_by(seen, unknown, Member::Watched)))
    }

    /// Begins to follow the Sentinels, for as long as the node lives.
    pub(super) fn begin(&self, node: &Arc<Node>) {
        self.0.begun.get_or_init(|| {
            for sentinel in 0..self.0.sentinels.len() {
                tokio::spawn(follow(Arc::downgrade(&self.0), sentinel));
            }
            tokio::spawn(notice_troubles(Arc::downgrade(&self.0), node.troubles()));
        });
    }

    /// Waits until it is known where the primary is; fails if no Sentinel can say it.
    pub(super) async fn first_answer(&self) -> Result<(), Error> {
        let mut place = self.0.place.subscribe();
        let mut refusals = self.0.refusals.subscribe();
        let all_refused = async {
            let all = |refusals: &Vec<Option<Refusal>>| refusals.iter().all(Option::is_some);
            match refusals.wait_for(all).await {
                Ok(refusals) => refusals.iter().flatten().next().cloned(),
                Err(_) => None,
            }
        };
        tokio::select! {
            biased;
            _ = place.wait_for(Option::is_some) => {
                // The first to answer may lag behind.
                time::sleep(OTHERS).await;
                Ok(())
            }
            refusal = all_refused => Err(self.0.nobody_knows(refusal)),
        }
    }
}

impl Shared {
    fn take(&self, sentinel: usize, outcome: Result<(u64, Report), Refusal>) {
        let (report, refusal) = match outcome {
            Ok(report) => (Some(report), None),
            Err(refusal) => (None, Some(refusal)),
        };
        {
            // The place is set under the lock, so that two reports at once do not set it in the
            // wrong order.
            let mut reports = self.reports();
            if let Some(report) = reports.take(sentinel, report) {
                self.go_to(report);
            }
        }
        self.refusals.send_modify(|refusals| refusals[sentinel] = refusal);
    }

    fn go_to(&self, report: &Report) {
        let Report { host, port, .. } = report;
        let place = self.server.at(host, *port).and_then(Place::of);
        // Its settings were valid for another address.
        let place = place.expect("BUG: an address makes the settings of a client contradictory");
        let server = place.address().to_string();
        let is_first = self.is_known.set(()).is_ok();
        self.place.send_replace(Some(place));
        observe::primary_is_at(&self.events, server, self.name.clone(), is_first);
    }

    /// A Sentinel has announced that another server takes over. Until it has said which, no server
    /// is asked for a lock.
    fn doubt(&self, sentinel: usize, message: &[u8]) {
        let Some((name, (host, port))) = switched(message) else { return };
        if name == self.name && self.reports().doubt(sentinel, host, port) {
            self.place.send_replace(None);
        }
    }

    fn nobody_knows(&self, refusal: Option<Refusal>) -> Error {
        let text = format!(
            "none of the Sentinels at {} reports where the primary `{}` is",
            shown(&self.sentinels),
            self.name
        );
        match refusal {
            Some(refusal) => refusal.into_error_behind(text),
            None => Error::new(ErrorKind::Unavailable, text),
        }
    }

    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which primary has moved, and from where: the message is `name ip port new-ip new-port`.
fn switched(message: &[u8]) -> Option<(&str, (&str, u16))> {
    let mut words = std::str::from_utf8(message).ok()?.split(' ');
    let name = words.next()?;
    let (host, port) = (words.next()?, words.next()?.parse().ok()?);
    Some((name, (host, port)))
}

/// Listens to one Sentinel and asks it, over one connection after the other.
async fn follow(shared: Weak<Shared>, sentinel: usize) {
    let mut delay = RECONNECT.0;
    loop {
        let began = Instant::now();
        let refusal = {
            let heard = Arc::new(Notify::new());
            let connected = {
                let Some(shared) = shared.upgrade() else { return };
                connect(&shared, sentinel, &heard).await
            };
            match connected {
                Ok(connection) => match listen(&shared, sentinel, connection, &heard).await {
                    Some(refusal) => refusal,
                    None => return,
                },
                Err(refusal) => refusal,
            }
        };
        match shared.upgrade() {
            Some(shared) => shared.take(sentinel, Err(refusal)),
            None => return,
        }
        if began.elapsed() > ASK {
            delay = RECONNECT.0;
        }
        time::sleep(jittered(delay)).await;
        delay = (delay * 2).min(RECONNECT.1);
    }
}

async fn connect(
    shared: &Arc<Shared>,
    sentinel: usize,
    heard: &Arc<Notify>,
) -> Result<MultiplexedConnection, Refusal> {
    let (weak, heard) = (Arc::downgrade(shared), Arc::clone(heard));
    let pushes = for_questions().set_push_sender(move |push: PushInfo| -> Result<(), ()> {
        if let (Some(message), Some(shared)) = (Msg::from_push_info(push), weak.upgrade()) {
            shared.doubt(sentinel, message.get_payload_bytes());
            heard.notify_one();
        }
        Ok(())
    });
    let (mut connection, pushes) = greet_at(&shared.sentinels[sentinel], pushes).await?;
    if !pushes {
        // Without pushes, the question that is asked once a second finds out a little later.
        return Ok(connection);
    }
    let mut subscribe = redis::cmd("SUBSCRIBE");
    subscribe.arg(SWITCHES);
    match connection.send_packed_command(&subscribe).await {
        Ok(Value::ServerError(error)) => Err(Refusal::of(error.into())),
        Ok(_) => Ok(connection),
        Err(error) => Err(Refusal::of(error)),
    }
}

/// Asks until the Sentinel does not answer; `None` if the primary is no longer wanted.
async fn listen(
    shared: &Weak<Shared>,
    sentinel: usize,
    mut connection: MultiplexedConnection,
    heard: &Notify,
) -> Option<Refusal> {
    loop {
        let shared = shared.upgrade()?;
        // Registered before the question is sent: if the primary goes out of reach while the
        // question is in flight, another question is needed.
        let missed = Arc::clone(&shared.missed);
        let mut missed = pin!(missed.notified());
        missed.as_mut().enable();
        let asked = shared.reports().doubts();
        match ask(&shared.name, &mut connection).await {
            Ok(report) => shared.take(sentinel, Ok((asked, report))),
            Err(refusal) => return Some(refusal),
        }
        // Otherwise the tasks that listen would keep it alive for each other.
        drop(shared);
        tokio::select! {
            () = heard.notified() => {}
            () = missed => {}
            () = time::sleep(ASK) => {}
        }
    }
}

async fn ask(name: &str, connection: &mut MultiplexedConnection) -> Result<Report, Refusal> {
    let mut questions = Pipeline::new();
    // In this order, so that the address is not older than the epoch.
    questions.cmd("SENTINEL").arg("MASTER").arg(name);
    questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let answers = connection.send_packed_commands(&questions, 0, questions.len()).await;
    let mut answers = answers.map_err(Refusal::of)?.into_iter();
    match (answers.next(), answers.next()) {
        (Some(Value::ServerError(error)), _) => Err(match error.details() {
            Some(said) if said.contains("No such master") => Refusal::new(
                ErrorKind::Rejected,
                "they watch no primary with that name, so look up its name with SENTINEL MASTERS",
            ),
            Some(said) if said.contains("unknown command") => no_sentinel(),
            _ => Refusal::of(error.into()),
        }),
        (_, Some(Value::ServerError(error))) => Err(Refusal::of(error.into())),
        (Some(state), Some(place)) => Report::read(state, place).ok_or_else(no_sentinel),
        _ => Err(no_sentinel()),
    }
}

fn no_sentinel() -> Refusal {
    let text = "the program that answers there is not a Sentinel, so check host and port";
    Refusal::new(ErrorKind::Rejected, text)
}

/// Has all Sentinels asked when the primary is out of reach.
async fn notice_troubles(shared: Weak<Shared>, mut troubles: watch::Receiver<u64>) {
    while troubles.changed().await.is_ok() {
        let Some(shared) = shared.upgrade() else { return };
        shared.missed.notify_waiters();
    }
}

fn shown(sentinels: &[Arc<Place>]) -> String {
    let addresses = sentinels.iter().map(|sentinel| sentinel.address().to_string());
    addresses.collect::<Vec<_>>().join(", ")
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An endpoint may carry a password.
        f.debug_struct("Sentinels").field("name", &self.0.name).finish_non_exhaustive()
    }
}
