//! The callers' end of a keeper.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

#[cfg(feature = "durable")]
use lock_core::contract::{
    DueCalls, DueRequest, DurableBook, DurableFinish, FinishRequest, KeepRequest, Kept, SetAside,
    TakeBackRequest,
};
#[cfg(feature = "durable")]
use lock_core::engine::io::RunClaim;
use lock_core::{
    contract::{Delivery, Notice, WindowEnd},
    engine::{
        Engine, ShardOf,
        io::{
            Acquire, Acquirer, Command, DebouncedCall, Outcome, Patience, Query, Terms,
            WindowTerms, Work,
        },
    },
    token::{self, Token},
};
use tokio::sync::mpsc;

use super::{
    caller::{Caller, Told},
    combiner::is_in_turn,
    executor::Executor,
    held::{self, Hold, Owner},
    inline::InlineRunner,
    numbers::Numbers,
    refusal, reply,
    runner::Runner,
    thread::{Started, ThreadRunner},
    turns::{Keeper, Message},
};
use crate::{
    clock::Clock,
    contained::contained,
    error::{Error, Subject},
    events::{Events, Room},
    id::Named,
    introduction::Introduction,
    observe::{self, Asking, LetGo, Mode},
    process::Process,
    store::{CurrentDelivery, Listener, Store},
};

/// Takes the only outcome that an answer may have.
macro_rules! expected {
    ($outcome:ident) => {
        |outcome| if let Outcome::$outcome(it) = outcome { Some(it) } else { None }
    };
}
pub(super) use expected;

/// The callers' end of a keeper. The keeper lives as long as one of these does.
pub(crate) struct Client {
    handle: Handle,
    runner: Runner<Client>,
    process: Process,
}

/// A client's side of its keeper, the same for every runner.
struct Handle {
    /// The uuid in this client's tokens.
    id: String,
    messages: mpsc::UnboundedSender<Message<Client>>,
    numbers: Numbers,
    introduction: Introduction,
    delivery: Arc<CurrentDelivery>,
    clock: Arc<dyn Clock>,
    /// Whether anybody wants to be told who waits for a lock. The keeper must not ask, because that
    /// runs the subscriber's code; callers have asked it.
    is_heard: AtomicBool,
    events: Events,
    #[cfg(feature = "durable")]
    keeps_durable_calls: bool,
}

impl Handle {
    fn new(
        store: &Arc<dyn Store>,
        is_embedded: bool,
        clock: &Arc<dyn Clock>,
        introduction: Introduction,
        events: Events,
    ) -> (Self, Keeper<Client>) {
        observe::describe();
        let (messages, queue) = mpsc::unbounded_channel();
        let id = uuid::Uuid::new_v4().simple().to_string();
        let executor = Executor::new(Arc::clone(store), is_embedded);
        let shards = Arc::clone(store);
        // This runs the store's code, which may panic.
        let shard_of: ShardOf = match is_embedded {
            true => Arc::new(|_| 0),
            false => Arc::new(move |key| contained(|| shards.shard(key)).unwrap_or_default()),
        };
        let engine = Engine::new(&*id, shard_of);
        let engine = engine.introducing(introduction.key_of(&id), introduction.record());
        let keeper = Keeper::new(engine, executor, (Arc::clone(clock), events.clone()), queue);
        #[cfg(feature = "durable")]
        let keeps_durable_calls = store.durable().is_some();
        let handle = Self {
            id,
            messages,
            numbers: Numbers::new(Arc::clone(clock)),
            introduction,
            delivery: Arc::default(),
            clock: Arc::clone(clock),
            is_heard: AtomicBool::new(false),
            events,
            #[cfg(feature = "durable")]
            keeps_durable_calls,
        };
        (handle, keeper)
    }

    /// Makes a listener: notices of the store go to the keeper like any other message, and the
    /// waker makes the keeper look at them.
    fn listener(&self) -> impl FnOnce(Waker) -> Listener + Send + use<> {
        let (delivery, events) = (Arc::clone(&self.delivery), self.events.clone());
        let messages = self.messages.downgrade();
        |waker| {
            Listener::new(move |notice| {
                let Some(messages) = messages.upgrade() else { return false };
                let Some(notice) = notice else { return !messages.is_closed() };
                if let Notice::Connected(how) = notice {
                    delivery.set(how);
                    observe::delivery(&events, how);
                }
                let sent = messages.send(Message::Notice(notice)).is_ok();
                // Dropped first, because it may have become the last end of the queue.
                drop(messages);
                waker.wake_by_ref();
                sent
            })
        }
    }

    #[inline]
    fn is_heard_by_callers(&self, is_heard: bool) {
        // Usually unchanged, so written only if it differs: otherwise all callers would write to
        // the same cache line.
        if self.is_heard.load(Ordering::Relaxed) != is_heard {
            self.is_heard.store(is_heard, Ordering::Relaxed);
        }
    }

    fn client(self, runner: Runner<Client>) -> Arc<Client> {
        Arc::new(Client { handle: self, runner, process: Process::current() })
    }
}

impl Client {
    /// A client of an embedded store: its keeper runs on the runtimes of its callers.
    pub(crate) fn embedded(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        introduction: Introduction,
    ) -> Arc<Self> {
        let is_embedded = store.embedded().is_some();
        let (handle, keeper) =
            Handle::new(&store, is_embedded, &clock, introduction, Events::default());
        let runner = InlineRunner::new(keeper, Arc::clone(&clock));
        // An embedded store has every answer at once; one that does not wakes nobody.
        let mut listening = store.subscribe(&handle.id, handle.listener()(runner.waker()));
        if let Poll::Ready(how) = listening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            handle.delivery.set(how);
            let _ = handle.messages.send(Message::Notice(Notice::Connected(how)));
        }
        drop(listening);
        handle.client(Runner::Inline(runner))
    }

    /// A client of a store that is reached through a connection: its keeper, and everything that
    /// the store does, runs on a thread of its own. `connect` also runs there, before anything
    /// else; its outcome can be waited for.
    pub(crate) fn on_own_thread<F, Fut>(
        clock: Arc<dyn Clock>,
        store: Arc<dyn Store>,
        (introduction, events): (Introduction, Events),
        connect: F,
    ) -> Result<(Arc<Self>, Started), Error>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Error>>,
    {
        let (handle, keeper) = Handle::new(&store, false, &clock, introduction, events);
        let (id, delivery) = (handle.id.clone(), Arc::clone(&handle.delivery));
        let listener = handle.listener();
        let prepare = move |waker| async move {
            let listener = listener(waker);
            let how = store.subscribe(&id, listener.clone()).await;
            // A store that reports this at each connect also does so at the first one.
            if how != delivery.load() {
                listener.notify(Notice::Connected(how));
            }
            connect().await
        };
        let (runner, started) = ThreadRunner::start(clock, keeper, prepare)?;
        Ok((handle.client(Runner::Thread(runner)), started))
    }

    /// Was it made in this process, and not in one from which this one was forked?
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process.is_current()
    }

    /// Was this lock acquired by this client?
    pub(crate) fn made(&self, hold: &Hold) -> bool {
        token::is_of(&hold.token, &self.handle.id)
    }

    /// The first part of its tokens.
    pub(super) fn id(&self) -> &str {
        &self.handle.id
    }

    /// What operators are told about it.
    pub(crate) fn introduction(&self) -> &Introduction {
        &self.handle.introduction
    }

    /// How notices travel at the moment.
    pub(crate) fn delivery(&self) -> Delivery {
        self.handle.delivery.load()
    }

    pub(crate) async fn acquire(
        self: &Arc<Self>,
        lock: Named,
        (terms, patience): (Terms, Patience),
        adopt: Option<Token>,
    ) -> Result<Held, Error> {
        let told = self.asking_for(lock, (Mode::Exclusive, terms), |acquirer| {
            Command::Acquire(Box::new(Acquire { acquirer, patience, adopt }))
        });
        match told.await? {
            Told::Granted(held, _) => Ok(held.delivered()),
            Told::Else(_) => unreachable!("BUG: a lock is granted or refused"),
        }
    }

    /// Returns the guard of the run, or `None` if another call runs in place of this one.
    pub(crate) async fn call(
        self: &Arc<Self>,
        (window, run): (Named, Named),
        (window_terms, terms): (WindowTerms, Terms),
    ) -> Result<Option<Held>, Error> {
        let told = self.asking_for(run, (Mode::Run, terms), |acquirer| {
            let (window, terms) = (window.key, window_terms);
            Command::Debounce(Box::new(DebouncedCall { acquirer, window, terms }))
        });
        match told.await? {
            Told::Granted(held, work) => {
                if let Work::Burst { followed: true } = work {
                    let _ = self.send(Command::RunTaken(held.hold().name));
                }
                Ok(Some(held.delivered()))
            }
            Told::Else(_) => Ok(None),
        }
    }

    /// True if a call waited in the window.
    pub(crate) async fn end_window(
        &self,
        (window, run): (Named, Named),
        end: WindowEnd,
    ) -> Result<bool, Error> {
        let ask = Query::EndWindow { window: window.key, run: run.key, end, waited: false };
        let ended = self.ask(ask, expected!(Truth)).await;
        ended.map_err(|error| error.about(Subject::Debounce, &window.id))
    }

    pub(crate) async fn flush(&self) {
        let _ = self.answered(None, Command::Flush).await;
    }

    pub(crate) async fn shutdown(&self) {
        let _ = self.answered(None, Command::Shutdown).await;
    }

    /// Returns the store's answer to a request that changes nothing in the engine.
    pub(super) async fn ask<T>(
        &self,
        ask: Query,
        expected: fn(Outcome) -> Option<T>,
    ) -> Result<T, Error> {
        let told = self.answered(None, |caller| Command::Query(Box::new(ask), caller)).await?;
        let outcome = if let Told::Else(outcome) = told { expected(outcome) } else { None };
        Ok(outcome.expect("BUG: what was asked is answered"))
    }

    /// Asks for a lock. A caller that goes away withdraws its request at once, and a guard that is
    /// already on its way to the caller is dropped, which releases the lock.
    async fn asking_for(
        self: &Arc<Self>,
        lock: Named,
        (mode, terms): (Mode, Terms),
        command: impl FnOnce(Acquirer<Caller<Self>>) -> Command<Caller<Self>>,
    ) -> Result<Told<Self>, Error> {
        /// Made before the first byte is sent, so that there is no moment without it.
        struct Withdraw<'a> {
            client: &'a Client,
            id: Arc<str>,
            asking: Asking,
            /// Zero once it is answered.
            number: u64,
        }

        impl Drop for Withdraw<'_> {
            fn drop(&mut self) {
                if self.number > 0 {
                    let _ = self.client.send(Command::Cancel(self.number));
                    if self.client.is_of_this_process() && self.asking.is_observed() {
                        let (asking, id) = (self.asking, Arc::clone(&self.id));
                        let clock = Arc::clone(&self.client.handle.clock);
                        self.client.tell(move || {
                            asking.end(&id, &*clock, observe::Told::<Hold>::Cancelled);
                        });
                    }
                }
            }
        }

        let id = Arc::clone(&lock.id);
        let timers = self.runner.ensure_timers();
        let timers = timers.map_err(|error| error.about(mode.subject(), &id));
        timers.inspect_err(|error| observe::refused_at_once(&id, mode, error))?;
        let number = self.handle.numbers.draw();
        let asking = Asking::begin(&id, mode, &*self.handle.clock);
        self.handle.is_heard_by_callers(asking.wants_to_hear());
        let mut withdraw = Withdraw { client: self, id, asking, number };
        let key = Arc::clone(&lock.key);
        let told = self.answered(Some((lock, Arc::clone(self))), |to| {
            command(Acquirer { number, key, terms, to })
        });
        let told = told.await.map_err(|error| error.about(mode.subject(), &withdraw.id));
        withdraw.number = 0;
        let Withdraw { id, asking, .. } = &withdraw;
        let end = match &told {
            Ok(Told::Granted(held, _)) => observe::Told::Granted(&**held.hold()),
            Ok(Told::Else(Outcome::Superseded)) => observe::Told::Superseded,
            Ok(Told::Else(_)) => observe::Told::NotDue,
            Err(error) => observe::Told::Refused(error),
        };
        asking.end(id, &*self.handle.clock, end);
        told
    }

    async fn answered(
        &self,
        lock: Option<(Named, Arc<Self>)>,
        command: impl FnOnce(Caller<Self>) -> Command<Caller<Self>>,
    ) -> Result<Told<Self>, Error> {
        let (reply, told) = reply::channel();
        self.send(command(Caller { reply, lock }))?;
        self.runner.offer_timers();
        match self.in_this_process(told).await {
            Some(told) => told.map_err(|_| self.runner.gone())?.map_err(refusal::error),
            None => Err(Error::forked()),
        }
    }

    /// Waits for something that the keeper does. In a process that was forked meanwhile, there is
    /// nothing to wait for.
    async fn in_this_process<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|context| match self.is_of_this_process() {
            true => future.as_mut().poll(context).map(Some),
            false => Poll::Ready(None),
        })
        .await
    }

    /// Reports what a drop has caused: here, unless a waker of the keeper's has dropped it, because
    /// no user code may hold up a turn.
    fn tell(&self, event: impl FnOnce() + Send + 'static) {
        if is_in_turn() { self.handle.events.say(Room::Any, event) } else { event() }
    }

    fn send(&self, command: Command<Caller<Self>>) -> Result<(), Error> {
        if !self.is_of_this_process() {
            return Err(Error::forked());
        }
        let message = Message::Command(command);
        self.runner.tell(&self.handle.messages, message).ok_or_else(|| self.runner.gone())
    }
}

impl Owner for Client {
    fn release_in_background(&self, hold: &Arc<Hold>, undelivered: bool) {
        hold.let_go();
        // A keeper that is gone has been shut down, and has released everything.
        let _ = self.send(Command::Release { hold: hold.name, undelivered, to: None });
        let at = if undelivered { None } else { observe::letting_go(&**hold) };
        if at.is_some() && self.is_of_this_process() {
            let hold = Arc::clone(hold);
            self.tell(move || observe::let_go(&*hold, at, LetGo::Dropped));
        }
    }

    fn is_heard(&self) -> bool {
        self.handle.is_heard.load(Ordering::Relaxed)
    }

    fn process(&self) -> Process {
        self.process.clone()
    }
}

/// A lock that a client holds.
pub(crate) type Held = held::Held<Client>;

impl Held {
    pub(crate) async fn extend(&self, by: Duration) -> Result<(), Error> {
        let hold = self.hold();
        let extended = self.owner().answered(None, |to| Command::Extend(hold.name, by, to));
        // If the holder found the deadline passed before the answer came, the lock stays lost.
        let late = || Error::lost("the deadline of the lock had passed before the answer came");
        let extended = extended.await.and_then(|_| hold.is_held().then_some(()).ok_or_else(late));
        extended.map_err(|error| error.on(&hold.lock.id))
    }

    pub(crate) async fn release(self) -> Result<(), Error> {
        // Defused only after the answer: a future that is dropped before that drops this, and the
        // second release finds nothing left to do.
        let hold = self.hold();
        hold.let_go();
        let at = observe::letting_go(&**hold);
        let released = self.owner().answered(None, |to| Command::Release {
            hold: hold.name,
            undelivered: false,
            to: Some(to),
        });
        let answer = released.await.map(drop).map_err(|error| error.on(&hold.lock.id));
        observe::let_go(&**hold, at, LetGo::Released(&answer));
        self.defuse();
        answer
    }

    /// The store has freed the lock as part of another operation.
    #[cfg(feature = "durable")]
    pub(crate) fn freed(self) {
        let hold = &**self.hold();
        hold.let_go();
        let _ = self.owner().send(Command::Leak(hold.name));
        observe::let_go(hold, observe::letting_go(hold), LetGo::Released(&Ok(())));
        self.defuse();
    }

    pub(crate) fn leak(self) -> Token {
        let hold = &**self.hold();
        let token = hold.token.clone();
        hold.let_go();
        let _ = self.owner().send(Command::Leak(hold.name));
        observe::let_go(hold, observe::letting_go(hold), LetGo::Leaked);
        self.defuse();
        token
    }
}

/// Requests to the store about durable calls.
#[cfg(feature = "durable")]
impl Client {
    /// Where events for user code are sent.
    pub(crate) fn events(&self) -> &Events {
        &self.handle.events
    }

    /// Does its store keep durable calls?
    pub(crate) fn keeps_durable_calls(&self) -> bool {
        self.handle.keeps_durable_calls
    }

    /// Was it shut down?
    pub(crate) fn has_ended(&self) -> bool {
        self.handle.messages.is_closed()
    }

    pub(crate) async fn keep(&self, request: KeepRequest) -> Result<Kept, Error> {
        self.ask_durable(Query::Keep(request), expected!(Kept)).await
    }

    pub(crate) async fn due(&self, request: DueRequest) -> Result<DueCalls, Error> {
        self.ask_durable(Query::Due(request), expected!(Due)).await
    }

    pub(crate) async fn finish(&self, request: FinishRequest) -> Result<DurableFinish, Error> {
        self.ask_durable(Query::Finish(request), expected!(Finished)).await
    }

    pub(crate) async fn set_aside(&self, book: DurableBook) -> Result<Vec<SetAside>, Error> {
        self.ask_durable(Query::SetAside(book), expected!(SetAside)).await
    }

    pub(crate) async fn take_back(&self, request: TakeBackRequest) -> Result<bool, Error> {
        self.ask_durable(Query::TakeBack(request), expected!(Truth)).await
    }

    async fn ask_durable<T>(
        &self,
        ask: Query,
        expected: fn(Outcome) -> Option<T>,
    ) -> Result<T, Error> {
        self.runner.ensure_timers()?;
        self.ask(ask, expected).await
    }

    /// Returns the run of this id, or `None` if there is nothing to run now.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        book: DurableBook,
        run: Named,
        terms: Terms,
    ) -> Result<Option<Claimed>, Error> {
        let id = Arc::clone(&run.id);
        let told = self.asking_for(run, (Mode::Durable, terms), |acquirer| {
            Command::Claim(Box::new(RunClaim { acquirer, book, id }))
        });
        Ok(match told.await? {
            Told::Granted(held, Work::Durable { call, attempt, arguments }) => {
                Some(Claimed { held: held.delivered(), call, attempt, arguments })
            }
            Told::Granted(..) | Told::Else(_) => None,
        })
    }
}

/// The run of a durable call, under its lock.
#[cfg(feature = "durable")]
pub(crate) struct Claimed {
    pub(crate) held: Held,
    pub(crate) call: u64,
    pub(crate) attempt: u32,
    pub(crate) arguments: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The id is the public half of every token: enough to recognise a holder, not to forge it.
        f.debug_struct("Client")
            .field("id", &self.handle.id)
            .field("delivery", &format_args!("{:?}", self.delivery().to_string()))
            .finish_non_exhaustive()
    }
}
