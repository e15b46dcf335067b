//! The runners of a keeper whose store is embedded: one on each runtime that a caller comes from.
//!
//! The thread that takes a turn also talks to the store. So such a keeper depends on no particular
//! runtime: runtimes may end (each `#[tokio::test]` has its own), or stall, and a guard may be
//! dropped outside of any.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use lock_core::Moment;
use tokio::runtime::{Handle, Id};

use super::{
    combiner::{Combiner, Entry},
    held::Owner,
    turns::{Keeper, Message},
    unpark::{LONGEST_SLEEP, Unpark},
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind},
    runtime,
};

/// A keeper that its callers run.
pub(super) struct InlineRunner<O: Owner> {
    combiner: Combiner<Keeper<O>>,
    clock: Arc<dyn Clock>,
    /// Whether it ended because it was told to.
    ended: Arc<AtomicBool>,
    runtimes: Arc<Runtimes>,
    /// Wakes all runtimes.
    waker: Waker,
    /// The last runtime that was found to have no timers: it is not checked again with each call.
    timeless: Mutex<Option<Id>>,
}

/// The runtimes that watch timers, and what wakes them.
#[derive(Default)]
struct Runtimes(Mutex<Vec<(Id, Arc<Unpark>)>>);

impl<O: Owner> InlineRunner<O> {
    pub(super) fn new(keeper: Keeper<O>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let runtimes = Arc::<Runtimes>::default();
        Arc::new(Self {
            ended: keeper.ended(),
            combiner: Combiner::new(keeper),
            clock,
            waker: Arc::clone(&runtimes).into(),
            runtimes,
            timeless: Mutex::default(),
        })
    }

    /// Returns a waker that makes the keeper look at its queue soon, but not on the thread that
    /// wakes it.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Lets the keeper do all there is to do now, including a message that did not go through the
    /// queue, and returns when the next turn is due. Never blocks: if another caller is in a turn,
    /// that caller takes one more, and `own` stays where it is.
    pub(super) fn turn(&self, own: &mut Option<Message<O>>, on: Option<Id>) -> Option<Moment> {
        let turn = |keeper: &mut Keeper<O>| {
            own.take().into_iter().for_each(|message| keeper.enqueue(message));
            keeper.turn(&self.waker)
        };
        let next = self.combiner.enter(Entry::Try, turn, |_| ()).flatten();
        if next.is_some() {
            self.runtimes.unpark_before(next, on);
        }
        next
    }

    /// Makes sure that timers are watched on the caller's runtime: the keeper of an embedded store
    /// needs them for anything that lasts, such as a held lock or a wait.
    pub(super) fn ensure_timers(self: &Arc<Self>) -> Result<(), Error> {
        let current = Handle::try_current().map_err(|_| {
            Error::invalid(
                "an embedded store is served by the caller's Tokio runtime, and there is none \
                 here: make the call in a task, or use a Redis store",
            )
        })?;
        let id = current.id();
        if self.runtimes.has(id) {
            return Ok(());
        }
        if !runtime::has_timers() {
            return Err(Error::invalid(
                "an embedded store needs the timers of the caller's Tokio runtime: build it with \
                 `enable_time` or `enable_all`",
            ));
        }
        let unpark = Arc::<Unpark>::default();
        whole(&self.runtimes.0).push((id, Arc::clone(&unpark)));
        current.spawn(OnRuntime { id, unpark, runner: Arc::downgrade(self) }.run());
        // A runtime that is being shut down drops the task at once.
        if self.runtimes.has(id) { Ok(()) } else { Err(self.gone()) }
    }

    /// The same for a caller that needs no timer itself, if there is something that lasts: the
    /// runtime on which it began may have ended. Without a runtime, or on one without timers, this
    /// does nothing, and the call goes on as it can.
    pub(super) fn offer_timers(self: &Arc<Self>) {
        let Ok(current) = Handle::try_current() else { return };
        let id = current.id();
        if self.runtimes.has(id) || *whole(&self.timeless) == Some(id) || self.combiner.is_gone() {
            return;
        }
        let look = |keeper: &mut Keeper<O>| ControlFlow::Continue(keeper.goes_on());
        // If another thread is in a turn, there may be something.
        let goes_on = self.combiner.enter(Entry::Try, look, |_| ()).unwrap_or(true);
        // Callers that came during the look rely on a turn.
        self.turn(&mut None, None);
        if goes_on && runtime::can_be_asked() && self.ensure_timers().is_err() {
            *whole(&self.timeless) = Some(id);
        }
    }

    pub(super) fn gone(&self) -> Error {
        // In this order: a caller that sees that it is gone also sees why.
        match (self.combiner.is_gone(), self.ended.load(Ordering::Acquire)) {
            (_, true) => Error::closed(),
            (true, false) => Error::panicked(),
            (false, false) => Error::new(
                ErrorKind::Unavailable,
                "the Tokio runtime of this call was shut down: make the call on a runtime that is \
                 running",
            ),
        }
    }
}

impl<O: Owner> Drop for InlineRunner<O> {
    fn drop(&mut self) {
        // The tasks on the runtimes have nothing left to wait for.
        self.waker.wake_by_ref();
    }
}

impl Runtimes {
    fn has(&self, runtime: Id) -> bool {
        whole(&self.0).iter().any(|&(id, _)| id == runtime)
    }

    /// Wakes the runtimes that would sleep beyond this time.
    fn unpark_before(&self, next: Option<Moment>, but: Option<Id>) {
        for (id, unpark) in &*whole(&self.0) {
            if but != Some(*id) {
                unpark.unpark_before(next);
            }
        }
    }
}

impl Wake for Runtimes {
    fn wake(self: Arc<Self>) {
        for (_, unpark) in &*whole(&self.0) {
            unpark.unpark();
        }
    }
}

/// State that is changed in single steps is whole even after a panic elsewhere.
fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task on one runtime, which takes a turn when a timer is due.
struct OnRuntime<O: Owner> {
    id: Id,
    unpark: Arc<Unpark>,
    runner: Weak<InlineRunner<O>>,
}

impl<O: Owner> OnRuntime<O> {
    async fn run(self) {
        let mut lingers = false;
        while let Some(runner) = self.runner.upgrade() {
            self.unpark.awake();
            // `None` also if another thread is in a turn; that one unparks this task afterwards.
            let next = runner.turn(&mut None, Some(self.id));
            if runner.combiner.is_gone() {
                return;
            }
            let now = runner.clock.now();
            drop(runner);
            // Where locks come and go, the last timer disappears at one moment and the next one
            // appears at another, which would wake this task each time. So an idle task sets one
            // more timeout. Only one, because under a paused clock every timer makes time advance.
            let until = next.or_else(|| lingers.then(|| now + LONGEST_SLEEP));
            lingers = self.unpark.park(now, until).await || next.is_some();
        }
    }
}

impl<O: Owner> Drop for OnRuntime<O> {
    fn drop(&mut self) {
        if let Some(runner) = self.runner.upgrade() {
            whole(&runner.runtimes.0).retain(|(_, unpark)| !Arc::ptr_eq(unpark, &self.unpark));
        }
    }
}
