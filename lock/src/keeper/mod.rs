//! The keeper: the one that renews, releases and waits for every lock of one `Locks`.
//!
//! Callers talk to it through [`Client`], one message a request, and never touch the store. So a
//! guard can be dropped anywhere, a future can be abandoned anywhere, and renewing cannot race
//! with releasing: one task does both.
//!
//! - [`command`]: what callers ask;
//! - [`task`]: the loop; what happens in a turn, and in which order;
//! - [`lines`]: callers that wait in line, and their entry in the store;
//! - [`attempts`]: callers that ask for themselves;
//! - [`held`]: one held lock, as its guard and the keeper share it;
//! - [`holds`]: held locks: renewal, loss, extension;
//! - [`releases`]: locks on their way to being free;
//! - [`calls`]: debounced calls on their way to a run;
//! - [`durable`]: the runs of durable calls;
//! - [`bulk`]: what may wait until there is room for it;
//! - [`shutdown`]: the end, and flushes;
//! - [`store_calls`]: how a call of the store begins;
//! - [`berth`]: where it lives: on a thread of its own, or wherever its callers are.

mod attempts;
mod berth;
mod bulk;
mod calls;
mod command;
#[cfg(feature = "durable")]
mod durable;
mod held;
mod holds;
#[cfg(feature = "__mutants")]
mod host;
mod lines;
mod maps;
mod releases;
mod reply;
mod shards;
mod shutdown;
mod signal;
mod store_calls;
mod task;
mod timers;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::mpsc;

pub(crate) use self::berth::Started;
pub(crate) use self::command::{Terms, WindowTerms};
#[cfg(feature = "durable")]
pub(crate) use self::durable::Claimed;
pub(crate) use self::held::{Held, Hold};
#[cfg(feature = "__mutants")]
pub use self::host::Host;
use self::{
    berth::Berth,
    command::{Acquire, Call, Command, Turn},
    reply::Reply,
};
// What the model has in common with the keeper.
#[cfg(test)]
pub(crate) use self::{holds::comes_too_late, releases::CLAIM_MARGIN};
use crate::{
    Status, Token,
    clock::Clock,
    contract::{CurrentDelivery, Delivery, Failure, Listener, Notice, StoreError, WindowEnd},
    error::{Error, ErrorKind},
    events::Events,
    id::Named,
    mutant,
    process::Process,
    store::Store,
};

/// The callers' end of a keeper. The keeper lives as long as one of these does.
pub(crate) struct Client {
    /// The uuid in this client's tokens.
    id: String,
    commands: mpsc::UnboundedSender<Command>,
    berth: Berth,
    numbers: Arc<AtomicU64>,
    delivery: Arc<CurrentDelivery>,
    #[cfg_attr(
        not(feature = "durable"),
        expect(dead_code, reason = "only a durable call says more")
    )]
    events: Events,
    process: Process,
    #[cfg(feature = "durable")]
    keeps_durable_calls: bool,
}

impl Client {
    /// A client of an embedded store: its keeper runs on the runtimes of its callers.
    pub(crate) fn embedded(
        id: ClientId,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let id = id.0;
        let (commands, queue) = mpsc::unbounded_channel();
        let (delivery, numbers) = (Arc::<CurrentDelivery>::default(), Arc::new(AtomicU64::new(1)));
        let shared = (Arc::clone(&numbers), Arc::clone(&delivery));
        let mut task = task::Task::new(&id, Arc::clone(&store), Arc::clone(&clock), queue, shared);
        task.is_embedded = store.embedded().is_some();
        #[cfg(feature = "__mutants")]
        let host = Arc::clone(&clock);
        let berth = Berth::of_callers(task, clock);
        #[cfg(feature = "__mutants")]
        host.when_it_goes_on(Box::new(berth.bell()));
        let events = Events::default();
        let listener = listener(commands.downgrade(), berth.bell(), &delivery, &events);
        // An embedded store has every answer at once; one that has not, wakes nobody.
        let mut listening = store.subscribe(&id, listener);
        if let Poll::Ready(how) = listening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            delivery.set(how);
        }
        drop(listening);
        let process = Process::current();
        Arc::new(Self {
            id,
            commands,
            berth,
            numbers,
            delivery,
            events,
            process,
            #[cfg(feature = "durable")]
            keeps_durable_calls: store.durable().is_some(),
        })
    }

    /// A client of a store that is reached through a connection: its keeper, and all that the store
    /// does, runs on a thread of its own. `connect` is done there, too, before anything else; what
    /// it comes to can be waited for.
    pub(crate) fn on_own_thread<F, Fut>(
        id: ClientId,
        clock: Arc<dyn Clock>,
        store: Arc<dyn Store>,
        events: Events,
        connect: F,
    ) -> Result<(Arc<Self>, Started), Error>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Error>>,
    {
        let id = id.0;
        #[cfg(feature = "durable")]
        let keeps_durable_calls = store.durable().is_some();
        let (commands, queue) = mpsc::unbounded_channel();
        let (delivery, numbers) = (Arc::<CurrentDelivery>::default(), Arc::new(AtomicU64::new(1)));
        let shared = (Arc::clone(&numbers), Arc::clone(&delivery));
        let task = task::Task::new(&id, Arc::clone(&store), Arc::clone(&clock), queue, shared);
        let prepare = {
            let (id, delivery, events) = (id.clone(), Arc::clone(&delivery), events.clone());
            let commands = commands.downgrade();
            move |ring: Box<dyn Fn() + Send + Sync>| async move {
                let listener = listener(commands, ring, &delivery, &events);
                let how = store.subscribe(&id, listener).await;
                // One that says how with each connect says so with the first one, too.
                if how != delivery.load() {
                    delivery.set(how);
                    report(how, &events);
                }
                connect().await
            }
        };
        let (berth, started) = Berth::own_thread(clock, task, prepare)?;
        let process = Process::current();
        let client = Self {
            id,
            commands,
            berth,
            numbers,
            delivery,
            events,
            process,
            #[cfg(feature = "durable")]
            keeps_durable_calls,
        };
        Ok((Arc::new(client), started))
    }

    /// What is said to code of the user's.
    #[cfg(feature = "durable")]
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// Does its store keep durable calls?
    #[cfg(feature = "durable")]
    pub(crate) fn keeps_durable_calls(&self) -> bool {
        self.keeps_durable_calls
    }

    /// Was it shut down?
    #[cfg(feature = "durable")]
    pub(crate) fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Was it made in this process, and not in one that this was forked from?
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process.is_current()
    }

    /// Is this a lock of this client?
    pub(crate) fn made(&self, hold: &Hold) -> bool {
        hold.token.is_of(&self.id)
    }

    /// How notices travel at the moment.
    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery.load()
    }

    pub(crate) async fn acquire(
        self: &Arc<Self>,
        lock: Named,
        terms: Terms,
        adopt: Option<Token>,
    ) -> Result<Held, Error> {
        let id = Arc::clone(&lock.id);
        let request = |number, reply| {
            let owner = if mutant::is("owner per process") { 1 } else { number };
            let token = Token::new(&self.id, owner);
            let client = Arc::clone(self);
            Command::Acquire(Box::new(Acquire { number, lock, token, adopt, terms, client, reply }))
        };
        let acquired = self.withdrawable(request).await;
        acquired.map(Held::delivered).map_err(|error| error.on(&id))
    }

    /// The guard of the run, or `None` if another call runs in the place of this one.
    pub(crate) async fn call(
        self: &Arc<Self>,
        (window, run): (Named, Named),
        terms: WindowTerms,
        lease: Duration,
    ) -> Result<Option<Held>, Error> {
        let id = Arc::clone(&window.id);
        let request = |number, reply| {
            let client = Arc::clone(self);
            Command::Call(Box::new(Call { number, window, run, terms, lease, client, reply }))
        };
        let turn = self.withdrawable(request).await.map_err(|error| error.on(&id))?;
        Ok(turn.map(|Turn { held, followed }| {
            if followed {
                let _ = self.send(Command::RunTaken(held.hold().name));
            }
            held.delivered()
        }))
    }

    /// True if a call waited in the window.
    pub(crate) async fn end_window(
        &self,
        keys: (Named, Named),
        end: WindowEnd,
    ) -> Result<bool, Error> {
        let id = Arc::clone(&keys.0.id);
        self.ask(|reply| Command::EndWindow { keys, end, reply })
            .await
            .map_err(|error| error.on(&id))
    }

    pub(crate) async fn extend(&self, hold: &Hold, by: Duration) -> Result<(), Error> {
        self.ask(|reply| Command::Extend { hold: hold.name, by, reply })
            .await
            .map_err(|error| error.on(&hold.lock.id))
    }

    pub(crate) async fn release(&self, hold: &Hold) -> Result<(), Error> {
        hold.let_go();
        self.ask(|reply| Command::Release {
            hold: hold.name,
            undelivered: false,
            reply: Some(reply),
        })
        .await
        .map_err(|error| error.on(&hold.lock.id))
    }

    /// Begins a release without waiting for it. Never blocks, never panics, on any thread.
    pub(crate) fn release_in_background(&self, hold: &Hold, undelivered: bool) {
        hold.let_go();
        // A keeper that is gone has been shut down, and has released everything.
        let _ = self.send(Command::Release { hold: hold.name, undelivered, reply: None });
    }

    pub(crate) fn leak(&self, hold: &Hold) {
        hold.let_go();
        let _ = self.send(Command::Leak { hold: hold.name });
    }

    pub(crate) async fn status(&self, lock: Named) -> Result<Status, Error> {
        let id = Arc::clone(&lock.id);
        self.ask(|reply| Command::Status { lock, reply }).await.map_err(|error| error.on(&id))
    }

    pub(crate) async fn force_release(&self, lock: Named) -> Result<bool, Error> {
        let id = Arc::clone(&lock.id);
        self.ask(|reply| Command::ForceRelease { lock, reply }).await.map_err(|error| error.on(&id))
    }

    pub(crate) async fn flush(&self) {
        self.wait_for(Command::Flush).await;
    }

    pub(crate) async fn shutdown(&self) {
        self.wait_for(Command::Shutdown).await;
    }

    /// Waits for a command that cannot fail; a keeper that is gone has nothing left to do.
    async fn wait_for(&self, command: impl FnOnce(Reply<()>) -> Command) {
        let (reply, done) = reply::channel();
        if self.send(command(reply)).is_ok() {
            self.berth.offer_timers();
            self.in_this_process(done).await;
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = reply::channel();
        self.send(command(reply))?;
        self.berth.offer_timers();
        match self.in_this_process(answer).await {
            Some(answer) => answer.map_err(|_| self.berth.gone())?,
            None => Err(Error::forked()),
        }
    }

    /// Waits for something that the keeper does: in a process that was forked meanwhile there is
    /// nothing to wait for.
    async fn in_this_process<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|context| match self.is_of_this_process() {
            true => future.as_mut().poll(context).map(Some),
            false => Poll::Ready(None),
        })
        .await
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        if !self.is_of_this_process() {
            return Err(Error::forked());
        }
        self.berth.tell(&self.commands, command).ok_or_else(|| self.berth.gone())
    }

    /// Like [`ask`](Self::ask), for what can be withdrawn: a caller that goes away says so at
    /// once, and a guard that is already on its way to it is dropped, which releases it.
    async fn withdrawable<T>(
        &self,
        command: impl FnOnce(u64, Reply<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        /// Made before the first byte is sent, so that there is no moment without it.
        struct Withdraw<'a> {
            client: &'a Client,
            number: Option<u64>,
        }

        impl Drop for Withdraw<'_> {
            fn drop(&mut self) {
                if let Some(number) = self.number {
                    let _ = self.client.send(Command::Cancel(number));
                }
            }
        }

        self.berth.ensure_timers()?;

        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut withdraw = Withdraw { client: self, number: Some(number) };
        let answer = self.ask(|reply| command(number, reply)).await;
        withdraw.number = None;
        answer
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The id is the public half of every token: enough to recognise a holder, not to forge it.
        f.debug_struct("Client")
            .field("id", &self.id)
            .field("delivery", &format_args!("{:?}", self.delivery().to_string()))
            .finish_non_exhaustive()
    }
}

/// What the store says goes to the keeper like any other message; `ring` sees to it that it is
/// looked at.
fn listener(
    commands: mpsc::WeakUnboundedSender<Command>,
    ring: impl Fn() + Send + Sync + 'static,
    delivery: &Arc<CurrentDelivery>,
    events: &Events,
) -> Listener {
    let (delivery, events) = (Arc::clone(delivery), events.clone());
    Listener::new(move |notice| {
        let Some(commands) = commands.upgrade() else { return false };
        if let Some(notice) = notice {
            if let Notice::Connected(how) = notice {
                delivery.set(how);
                report(how, &events);
            }
            let sent = commands.send(Command::Notice(notice)).is_ok();
            // First, for it may have become the last end of the queue.
            drop(commands);
            ring();
            return sent;
        }
        !commands.is_closed()
    })
}

/// Says how notices travel, at each connect.
fn report(delivery: Delivery, events: &Events) {
    events.say(move || match delivery {
        Delivery::Polling => tracing::info!(
            target: "lock",
            %delivery,
            "the store does not push: waiters look four times a second"
        ),
        _ => tracing::debug!(target: "lock", %delivery, "the store wakes waiters"),
    });
}

/// The uuid that the tokens of a client begin with: no two clients may have the same.
pub(crate) struct ClientId(String);

impl Default for ClientId {
    fn default() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }
}

impl From<u128> for ClientId {
    fn from(id: u128) -> Self {
        Self(uuid::Uuid::from_u128(id).simple().to_string())
    }
}

/// What becomes of a request without an answer.
const UNDONE: &str = "what was begun is undone in the background";
const REPEATED: &str = "it is tried again in the background";
const UNKNOWN: &str = "it may or may not have been done";
const NOTHING: &str = "nothing was changed";
const NOT_SENT: &str = "it was not sent";

/// The caller's words for a store's failure: what happened, what to change, and what becomes of a
/// request without an answer. What the server or the system said is the source, and no part of the
/// text.
fn store_error(error: &StoreError, without_answer: &str) -> Error {
    use StoreError::{Rejected, Unavailable, Unsupported};

    let (kind, source) = match error {
        Unavailable(source) => (ErrorKind::Unavailable, source),
        Rejected(source) => (ErrorKind::Rejected, source),
        Unsupported(what) => return Error::unsupported(what),
    };
    if let Some(failure) = source.downcast_ref::<Failure>() {
        let text = match kind {
            ErrorKind::Unavailable => format!("{failure}; {without_answer}"),
            _ => failure.to_string(),
        };
        let error = Error::new(kind, text);
        return match failure.cause() {
            Some(cause) => error.caused_by(Arc::clone(cause)),
            None => error,
        };
    }
    let text = match kind {
        ErrorKind::Unavailable => format!(
            "the store did not answer, so the outcome is not known: check that it is running and \
             can be reached; {without_answer}"
        ),
        _ => "the store refused, and nothing was changed: see what the source of this error says"
            .to_owned(),
    };
    Error::new(kind, text).caused_by(Arc::clone(source))
}
