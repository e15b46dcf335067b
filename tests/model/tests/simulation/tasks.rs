//! Tasks of a process, each a future, on an executor driven by the agenda of the world.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use lock_core::engine::io::{self, Outcome, Refusal, Work};

use crate::{held::Held, process::Process, world::World};

type Task = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Default)]
pub(crate) struct Tasks {
    /// The tasks; `None` for those that have ended or are being polled.
    tasks: RefCell<Vec<Option<Task>>>,
    current: Cell<usize>,
}

impl Tasks {
    /// The task that is being polled.
    pub(crate) fn current(&self) -> usize {
        self.current.get()
    }

    pub(crate) fn poll(&self, task: usize) {
        let Some(mut future) = self.tasks.borrow_mut()[task].take() else { return };
        self.current.set(task);
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.tasks.borrow_mut()[task] = Some(future);
        }
    }

    /// Lists the tasks that have not ended.
    pub(crate) fn left(&self, of: &str) -> String {
        let tasks = self.tasks.borrow();
        let left = tasks.iter().enumerate().filter(|(_, task)| task.is_some());
        left.map(|(task, _)| format!(" {task} of {of}")).collect()
    }

    /// Drops all tasks.
    pub(crate) fn abort(&self) {
        let tasks: Vec<_> = self.tasks.borrow_mut().iter_mut().map(Option::take).collect();
        drop(tasks);
    }
}

impl Process {
    /// Starts a task.
    pub(crate) fn spawn(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) -> usize {
        if self.is_dead.get() {
            return 0;
        }
        let task = {
            let mut tasks = self.tasks.tasks.borrow_mut();
            tasks.push(Some(Box::pin(future)));
            tasks.len() - 1
        };
        self.wake(task);
        task
    }

    /// Starts a task that has to end before the world may.
    pub(crate) fn spawn_counted(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) {
        let counted = Counted::new(&self.world);
        self.spawn(async move {
            future.await;
            drop(counted);
        });
    }

    /// Wakes a task, which goes on as soon as its executor has time for it.
    pub(crate) fn wake(self: &Rc<Self>, task: usize) {
        let late = self.pause();
        self.wake_at(self.world.now() + late, task);
    }

    fn wake_at(self: &Rc<Self>, at: u64, task: usize) {
        self.world.on(at, self, move |_, process| process.tasks.poll(task));
    }

    /// Waits until this time.
    pub(crate) async fn sleep_until(self: &Rc<Self>, until: u64) {
        if self.world.now() >= until {
            return;
        }
        self.wake_at(until, self.tasks.current());
        poll_fn(|_| match self.world.now() >= until {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Waits until this time, or until a wake-up finds that `is_so` holds.
    pub(crate) async fn sleep_or(self: &Rc<Self>, until: u64, is_so: impl Fn() -> bool) {
        self.wake_at(until.max(self.world.now()), self.tasks.current());
        poll_fn(|_| match self.world.now() >= until || is_so() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    pub(crate) async fn sleep(self: &Rc<Self>, nanos: u64) {
        self.sleep_until(self.world.now() + nanos).await;
    }

    /// Returns the output of a future, or drops it if it takes longer than this.
    pub(crate) async fn within<F: Future>(
        self: &Rc<Self>,
        nanos: u64,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut sleep = pin!(self.sleep(nanos));
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            sleep.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}

/// What a caller is told.
pub(crate) enum Told {
    Granted(Held, Work),
    Else(Outcome),
}

/// The place where a caller waits for its answer.
pub(crate) struct Slot {
    pub(crate) task: usize,
    /// The lock that it asks for.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) answer: RefCell<Option<Result<Told, Refusal>>>,
    pub(crate) is_closed: Cell<bool>,
}

/// A waiting caller, as the engine knows it.
#[derive(Clone, Default)]
pub(crate) struct Caller(pub(crate) Option<Rc<Slot>>);

impl io::Caller for Caller {
    fn is_gone(&self) -> bool {
        self.0.as_ref().is_none_or(|slot| slot.is_closed.get())
    }
}

/// The caller's end of a slot.
pub(crate) struct Reply(pub(crate) Rc<Slot>);

impl Future for Reply {
    type Output = Result<Told, Refusal>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.answer.borrow_mut().take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.0.is_closed.set(true);
        // A lock that is already on its way to its caller is released.
        let answer = self.0.answer.borrow_mut().take();
        drop(answer);
    }
}

/// Counts, while it lives, as something that has to end before the world may.
pub(crate) struct Counted(Rc<World>);

impl Counted {
    pub(crate) fn new(world: &Rc<World>) -> Self {
        world.callers.set(world.callers.get() + 1);
        Self(Rc::clone(world))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.callers.set(self.0.callers.get() - 1);
    }
}
