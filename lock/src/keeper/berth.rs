//! Where a keeper lives.
//!
//! A keeper is driven by its callers: every one that sends it a message also lets it take a turn,
//! right there, so that a lock passes from one caller to the next without a third thread. What is
//! due later is the business of a driver, which sleeps until then.
//!
//! - The keeper of a store that is reached through a connection has one driver, on a thread of its
//!   own. It alone talks to the store, so no work of the callers can keep leases from being
//!   renewed, and requests that come while it is at it gather into one write.
//! - The keeper of an embedded store has a driver on each runtime that a caller comes from, and
//!   whoever takes a turn talks to the store. So it needs no particular runtime to go on: runtimes
//!   may end (each `#[tokio::test]` has its own), or stand still, and a guard may be dropped
//!   outside of any.
//!
//! Over 500 lines: the drivers and the lock around the keeper wake each other, and the proof that no
//! wake-up is lost is read in one piece.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Id},
    sync::{Notify, mpsc, oneshot},
    task, time,
};

use super::turns::{Keeper, Message, Turn};
use crate::{
    clock::Clock,
    core::Moment,
    error::{Error, ErrorKind},
    process::Process,
    runtime,
};

/// The longest sleep of a driver. Timers of the runtime stand still while the machine is
/// suspended; the keeper's clock does not, and is looked at again at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The place where a keeper runs.
pub(super) enum Berth {
    OwnThread(Home),
    Callers(Arc<Quay>),
}

/// The callers' hold on a keeper with a thread of its own. Dropped after the callers' end of the
/// queue: the driver is woken to find that nobody is there any more.
pub(super) struct Home {
    quay: Arc<Quay>,
    alarm: Arc<Alarm>,
    process: Process,
}

/// What the preparations on the thread come to.
pub(crate) struct Started(oneshot::Receiver<Result<(), Error>>);

impl Started {
    pub(crate) async fn wait(self) -> Result<(), Error> {
        self.0.await.map_err(|_| panicked())?
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A child that was forked has no such thread; what wakes one may be locked there for ever.
        if self.process.is_current() {
            self.alarm.bell.notify_one();
        }
    }
}

/// A keeper that its callers drive.
pub(super) struct Quay {
    /// `None` once it has ended.
    task: Mutex<Option<Keeper>>,
    clock: Arc<dyn Clock>,
    /// Somebody wants a turn: whoever is in one takes another.
    asked: AtomicBool,
    /// It ended because it was told to.
    ended: Arc<AtomicBool>,
    drivers: Arc<Drivers>,
    /// Rings all drivers.
    waker: Waker,
}

/// The drivers there are, one for each runtime that a caller came from, or one in all.
struct Drivers {
    list: Mutex<Vec<Arc<Alarm>>>,
    /// The last runtime that was found to have no timers: it is not asked with each call.
    timeless: Mutex<Option<Id>>,
}

/// What wakes one driver.
pub(super) struct Alarm {
    /// That of the callers which it is for; a keeper with a thread of its own has a runtime of its
    /// own.
    runtime: Option<Id>,
    /// When it wakes by itself, in nanoseconds of the keeper's clock.
    at: AtomicU64,
    bell: Notify,
}

impl Alarm {
    fn of(runtime: Option<Id>) -> Arc<Self> {
        let at = AtomicU64::new(Moment::NEVER.as_nanos());
        Arc::new(Self { runtime, at, bell: Notify::new() })
    }

    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

impl Berth {
    pub(super) fn of_callers(task: Keeper, clock: Arc<dyn Clock>) -> Self {
        Self::Callers(Arc::new(Quay::new(task, clock, Vec::new())))
    }

    /// Starts the thread, on which everything else happens: first `prepare`, which is given what
    /// rings, and then, if it succeeds, the keeper. The thread ends when all clients are gone, or when
    /// `prepare` fails.
    pub(super) fn own_thread<F, Fut>(
        clock: Arc<dyn Clock>,
        task: Keeper,
        prepare: F,
    ) -> Result<(Self, Started), Error>
    where
        F: FnOnce(Box<dyn Fn() + Send + Sync>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Error>>,
    {
        let alarm = Alarm::of(None);
        let quay = Arc::new(Quay::new(task, clock, vec![Arc::clone(&alarm)]));
        let process = Process::current();
        let home = Home { quay: Arc::clone(&quay), alarm: Arc::clone(&alarm), process };
        let (started, outcome) = oneshot::channel();
        let body = move || {
            // From here on, whatever happens to this thread is noticed by those who wait for it.
            let driver = ThreadDriver { alarm, quay };
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(no_thread(error)));
                    return;
                }
            };
            runtime.block_on(async move {
                let alarm = Arc::clone(&driver.alarm);
                match prepare(Box::new(move || alarm.ring())).await {
                    Ok(()) => {
                        // Whether or not somebody waits to hear it.
                        let _ = started.send(Ok(()));
                        driver.drive().await;
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            });
        };
        thread::Builder::new().name("lock-keeper".into()).spawn(body).map_err(no_thread)?;
        Ok((Self::OwnThread(home), Started(outcome)))
    }

    /// Sees to it that timers are looked at on the caller's runtime, which the keeper of an
    /// embedded store needs for whatever lasts: a held lock, a wait.
    pub(super) fn ensure_timers(&self) -> Result<(), Error> {
        let Self::Callers(quay) = self else { return Ok(()) };
        let current = Handle::try_current().map_err(|_| {
            Error::invalid(
                "an embedded store is served by the caller's Tokio runtime, and this is outside \
                 of one: call from a task, or use a Redis store",
            )
        })?;
        let id = current.id();
        if quay.drivers.has(id) {
            return Ok(());
        }
        if !runtime::has_timers() {
            return Err(Error::invalid(
                "an embedded store needs the timers of the caller's Tokio runtime: build it with \
                 `enable_time` or `enable_all`",
            ));
        }
        let alarm = Alarm::of(Some(id));
        quay.drivers.list().push(Arc::clone(&alarm));
        current.spawn(Driver { alarm, quay: Arc::downgrade(quay) }.drive());
        // A runtime that is shut down drops the driver right there.
        if quay.drivers.has(id) { Ok(()) } else { Err(self.gone()) }
    }

    /// The same for a caller that needs no timer itself, if there is something that lasts: the
    /// runtime where it began may have ended. Where there is no runtime, or one without timers,
    /// nothing is seen to, and the call goes on as it can.
    pub(super) fn offer_timers(&self) {
        let Self::Callers(quay) = self else { return };
        let Ok(current) = Handle::try_current() else { return };
        let id = current.id();
        if quay.drivers.has(id) || quay.drivers.is_timeless(id) || !quay.goes_on() {
            return;
        }
        if runtime::can_be_asked() && self.ensure_timers().is_err() {
            quay.drivers.set_timeless(id);
        }
    }

    /// What makes the keeper of an embedded store look at its queue soon, on a driver and not on
    /// the thread that rings.
    pub(super) fn bell(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let quay = match self {
            Self::OwnThread(home) => Arc::downgrade(&home.quay),
            Self::Callers(quay) => Arc::downgrade(quay),
        };
        move || {
            if let Some(quay) = quay.upgrade() {
                quay.waker.wake_by_ref();
            }
        }
    }

    /// Gives the keeper a message: right into its hands if nobody else is at it, or else through
    /// its queue. `None` if the keeper has ended.
    pub(super) fn tell(
        &self,
        queue: &mpsc::UnboundedSender<Message>,
        command: Message,
    ) -> Option<()> {
        let mut own = Some(command);
        match self {
            Self::OwnThread(home) => home.quay.local_turn(&home.alarm, &mut own),
            Self::Callers(quay) => quay.turn_with(&mut own),
        }
        let Some(command) = own else { return Some(()) };
        queue.send(command).ok()?;
        match self {
            Self::OwnThread(home) => home.quay.local_turn(&home.alarm, &mut None),
            Self::Callers(quay) => quay.turn(None),
        }
        Some(())
    }

    /// What to say when the keeper went away without an answer.
    pub(super) fn gone(&self) -> Error {
        match self {
            Self::OwnThread(home) if home.quay.ended.load(Ordering::Acquire) => Error::closed(),
            Self::OwnThread(_) => panicked(),
            Self::Callers(quay) if quay.ended.load(Ordering::Acquire) => Error::closed(),
            Self::Callers(quay) if quay.is_gone() => panicked(),
            Self::Callers(_) => Error::new(
                ErrorKind::Unavailable,
                "the Tokio runtime of this call was shut down: call from one that runs",
            ),
        }
    }
}

fn panicked() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the keeper has ended unexpectedly, through a panic: see its message on the standard error \
         output, and connect anew",
    )
}

impl fmt::Debug for Berth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnThread(_) => "own thread",
            Self::Callers(_) => "callers",
        })
    }
}

impl Drivers {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<Alarm>>> {
        // The list is changed in single steps, so a panic elsewhere leaves it whole.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_timeless(&self, runtime: Id) -> bool {
        *self.timeless.lock().unwrap_or_else(PoisonError::into_inner) == Some(runtime)
    }

    fn set_timeless(&self, runtime: Id) {
        *self.timeless.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
    }

    fn has(&self, runtime: Id) -> bool {
        self.list().iter().any(|alarm| alarm.runtime == Some(runtime))
    }

    /// Wakes the drivers that would sleep beyond this time.
    fn ring_before(&self, next: Moment, but: Option<Id>) {
        let next = next.as_nanos();
        for alarm in &*self.list() {
            if (but.is_none() || alarm.runtime != but) && alarm.at.load(Ordering::SeqCst) > next {
                alarm.bell.notify_one();
            }
        }
    }
}

impl Wake for Drivers {
    fn wake(self: Arc<Self>) {
        for alarm in &*self.list() {
            alarm.bell.notify_one();
        }
    }
}

impl Quay {
    fn new(task: Keeper, clock: Arc<dyn Clock>, drivers: Vec<Arc<Alarm>>) -> Self {
        let drivers = Drivers { list: Mutex::new(drivers), timeless: Mutex::default() };
        let drivers = Arc::new(drivers);
        let ended = task.ended();
        Self {
            task: Mutex::new(Some(task)),
            clock,
            asked: AtomicBool::new(false),
            ended,
            waker: Arc::clone(&drivers).into(),
            drivers,
        }
    }

    /// Is there anything that has to be looked at later? If somebody is in a turn, there may be.
    fn goes_on(&self) -> bool {
        self.peek(|task| task.is_some_and(Keeper::goes_on)).unwrap_or(true)
    }

    /// Has it ended, for whatever reason?
    fn is_gone(&self) -> bool {
        self.task.is_poisoned() || self.peek(|task| task.is_none()) == Some(true)
    }

    /// Rechecks at the keeper, if nobody is in a turn. Whoever came meanwhile found it busy, and relies
    /// on one more.
    fn peek<R>(&self, look: impl FnOnce(Option<&Keeper>) -> R) -> Option<R> {
        let seen = match self.task.try_lock() {
            Ok(task) => look(task.as_ref()),
            Err(_) => return None,
        };
        if self.asked.load(Ordering::SeqCst) {
            self.turn(None);
        }
        Some(seen)
    }

    /// Lets the keeper do, on a caller's thread, what needs no store, and rings its driver for
    /// the rest. Never blocks: see [`turn`](Self::turn).
    ///
    /// Takes `own` along if it gets a turn, and leaves it where it is if not.
    fn local_turn(&self, alarm: &Alarm, own: &mut Option<Message>) {
        self.asked.store(true, Ordering::SeqCst);
        while self.asked.load(Ordering::SeqCst) {
            let mut task = match self.task.try_lock() {
                Ok(task) => task,
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(poisoned)) => {
                    *poisoned.into_inner() = None;
                    return;
                }
            };
            self.asked.store(false, Ordering::SeqCst);
            let Some(keeper) = task.as_mut() else { return };
            let needs_driver = keeper.local_turn(own);
            let next = keeper.next_timer().unwrap_or(Moment::NEVER);
            drop(task);
            if needs_driver || alarm.at.load(Ordering::SeqCst) > next.as_nanos() {
                alarm.ring();
            }
        }
    }

    /// Lets the keeper do all there is to do now, on its own thread: which may wait for a caller
    /// that is in a turn. `None` once it has ended.
    fn thread_turn(&self, waker: &Waker) -> Option<Moment> {
        loop {
            let mut task = self.task.lock().unwrap_or_else(|poisoned| {
                // As in `turn`.
                let mut task = poisoned.into_inner();
                *task = None;
                task
            });
            self.asked.store(false, Ordering::SeqCst);
            let next = match task.as_mut()?.turn(waker) {
                Turn::Wait(next) => next.unwrap_or(Moment::NEVER),
                Turn::Ended => {
                    *task = None;
                    return None;
                }
            };
            drop(task);
            // Whoever came meanwhile found the keeper busy, and relies on this.
            if !self.asked.load(Ordering::SeqCst) {
                return Some(next);
            }
        }
    }

    /// A turn with a message that did not go through the queue, if nobody is in a turn.
    fn turn_with(&self, own: &mut Option<Message>) {
        if let Ok(mut task) = self.task.try_lock()
            && let Some(keeper) = task.as_mut()
            && let Some(command) = own.take()
        {
            keeper.enqueue(command);
            drop(task);
            self.turn(None);
        }
    }

    /// Lets the keeper do what there is to do now. Never blocks: if another caller is in a turn,
    /// that caller takes one more.
    ///
    /// A turn runs wakers, and those may drop guards, which ask for a turn on the same thread: so
    /// the lock is tried, not waited for. Asking comes before trying, and looking whether anybody
    /// asked comes after letting go; both in one total order, so either the trier gets the lock or
    /// its holder sees that it was asked.
    fn turn(&self, driver: Option<Id>) {
        #[cfg(feature = "__mutants")]
        if self.clock.is_stopped() {
            return;
        }
        self.asked.store(true, Ordering::SeqCst);
        while self.asked.load(Ordering::SeqCst) {
            let mut task = match self.task.try_lock() {
                Ok(task) => task,
                Err(TryLockError::WouldBlock) => return,
                // A store has panicked in the middle of a turn. What the keeper knows may be
                // wrong; that it is gone is right.
                Err(TryLockError::Poisoned(poisoned)) => {
                    *poisoned.into_inner() = None;
                    return;
                }
            };
            self.asked.store(false, Ordering::SeqCst);
            let Some(keeper) = task.as_mut() else { return };
            let next = match keeper.turn(&self.waker) {
                Turn::Wait(next) => next.unwrap_or(Moment::NEVER),
                Turn::Ended => {
                    *task = None;
                    return;
                }
            };
            drop(task);
            self.drivers.ring_before(next, driver);
        }
    }
}

impl Drop for Quay {
    fn drop(&mut self) {
        // The drivers have nothing to wait for any more.
        Waker::wake_by_ref(&self.waker);
    }
}

/// Drives a keeper that has a thread of its own, until it is shut down, or all clients are gone and
/// what they left is released.
struct ThreadDriver {
    alarm: Arc<Alarm>,
    quay: Arc<Quay>,
}

impl ThreadDriver {
    async fn drive(self) {
        let waker = Waker::from(Arc::clone(&self.alarm));
        loop {
            // Until it is known when this driver wakes by itself, every turn of somebody else that
            // leaves a timer rings.
            self.alarm.at.store(Moment::NEVER.as_nanos(), Ordering::SeqCst);
            let Some(next) = self.quay.thread_turn(&waker) else { return };
            let now = self.quay.clock.now();
            let sleep = next.after(now).min(LONGEST_SLEEP);
            if sleep.is_zero() {
                // The connection's own task is on this thread, too.
                task::yield_now().await;
                continue;
            }
            self.alarm.at.store((now + sleep).as_nanos(), Ordering::SeqCst);
            tokio::select! {
                () = self.alarm.bell.notified() => {}
                () = time::sleep(sleep) => {}
            }
        }
    }
}

impl Drop for ThreadDriver {
    fn drop(&mut self) {
        // Also when a store has panicked: nobody renews these locks any more, and the holders
        // have to know.
        *self.quay.task.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Lets a keeper take a turn when one of its timers is due.
struct Driver {
    alarm: Arc<Alarm>,
    quay: Weak<Quay>,
}

impl Driver {
    async fn drive(self) {
        let mut lingers = false;
        while let Some(quay) = self.quay.upgrade() {
            #[cfg(feature = "__mutants")]
            if quay.clock.is_stopped() {
                drop(quay);
                self.alarm.bell.notified().await;
                continue;
            }
            // Until it is known when this driver wakes by itself, every turn of somebody else that
            // leaves a timer rings.
            self.alarm.at.store(Moment::NEVER.as_nanos(), Ordering::SeqCst);
            quay.turn(self.alarm.runtime);
            let next = match quay.peek(|task| task.map(Keeper::next_timer)) {
                Some(Some(next)) => next,
                Some(None) => return,
                // Whoever is in a turn rings when it is over.
                None => None,
            };
            let now = quay.clock.now();
            drop(quay);
            // Where locks come and go, the last timer is gone at one moment and the next one there
            // at another: it would ring each time. So an idle driver wakes by itself once more.
            // Only once, for under a paused clock every timer makes time go on.
            let sleep = match next {
                Some(next) => Some(next.after(now).min(LONGEST_SLEEP)),
                None => lingers.then_some(LONGEST_SLEEP),
            };
            if let Some(sleep) = sleep {
                self.alarm.at.store((now + sleep).as_nanos(), Ordering::SeqCst);
            }
            lingers = tokio::select! {
                () = self.alarm.bell.notified() => true,
                () = time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => next.is_some(),
            };
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(quay) = self.quay.upgrade() {
            quay.drivers.list().retain(|alarm| !Arc::ptr_eq(alarm, &self.alarm));
        }
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "the keeper's thread could not be started ({error}): check the limits of this process"
        ),
    )
    .caused_by(Arc::new(error))
}
