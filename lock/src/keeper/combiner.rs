//! A value that many threads work on, and that none of them waits for.
//!
//! A thread that comes while another is at work leaves a message and goes away; the one at work
//! takes another turn ("flat combining").

use std::{
    cell::Cell,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use super::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

thread_local! {
    /// Whether this thread is in a turn.
    static IN_TURN: Cell<bool> = const { Cell::new(false) };
}

/// Is this thread in a turn, of any value? What it calls now may keep all others waiting.
pub(super) fn is_in_turn() -> bool {
    // A thread that is ending is in no turn.
    IN_TURN.try_with(Cell::get).unwrap_or(false)
}

/// Does the work as a turn of this thread.
fn in_turn<L>(work: impl FnOnce() -> L) -> std::thread::Result<L> {
    let before = IN_TURN.try_with(|it| it.replace(true)).unwrap_or(false);
    let left = catch_unwind(AssertUnwindSafe(work));
    let _ = IN_TURN.try_with(|it| it.set(before));
    left
}

/// A value, and whose turn it is.
pub(super) struct Combiner<T> {
    /// `None` once it is gone. Never poisoned: a panic of the work is caught under the lock.
    value: Mutex<Option<T>>,
    /// Somebody found the value taken: the thread that is in a turn takes another one.
    asked: AtomicBool,
    is_gone: AtomicBool,
}

/// What to do while another thread is in a turn.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    /// Leave the work to that thread. A turn runs wakers, and those may drop guards, which enter
    /// again on the same thread: they must never wait.
    Try,
    /// Wait until that turn is over.
    Wait,
}

impl<T> Combiner<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(Some(value)),
            asked: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
        }
    }

    /// Has the work ended, or panicked? Set before the value is dropped.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Works on the value, and again as long as somebody asks meanwhile; `after` runs after each
    /// turn, when others can have the value again. Returns what the last turn left: nothing if
    /// another thread is in a turn, which then also works for this caller, or if the value is gone.
    ///
    /// The value is gone once the work breaks off. It is also gone if the work panics, since its
    /// contents may then be wrong.
    ///
    /// No message is overlooked. Every step on `asked` is a read-modify-write, so the steps have
    /// one order, and each knows what was done before those ahead of it. An entrant that finds the
    /// value taken asks (sets `asked`), and tries again. A thread that lets go of the value looks
    /// (reads `asked`).
    ///
    /// - If the asking is ahead of the looking, the looking finds it, or a turn has cleared it, and
    ///   knows the message. No turn clears it too early, that is, ahead of the asking: the asking
    ///   would know that this turn has the value, and the second try would be about it.
    /// - If the looking is ahead, the asking knows that the value was let go of: the second try
    ///   finds it free, or with another holder, for which the same is true.
    ///
    /// Another turn is asked for only on entering. So two threads that look and try alternately do
    /// not keep each other busy.
    pub(super) fn enter<L>(
        &self,
        entry: Entry,
        mut work: impl FnMut(&mut T) -> ControlFlow<(), L>,
        after: impl Fn(&L),
    ) -> Option<L> {
        let mut last = None;
        let mut locked = self.lock(entry).or_else(|| {
            self.asked.swap(true, Ordering::AcqRel);
            self.lock(entry)
        });
        while let Some(mut value) = locked {
            self.asked.swap(false, Ordering::AcqRel);
            let present = value.as_mut()?;
            match in_turn(|| work(present)) {
                Ok(ControlFlow::Continue(left)) => {
                    drop(value);
                    after(last.insert(left));
                }
                Ok(ControlFlow::Break(())) => {
                    self.remove(value);
                    return None;
                }
                Err(panic) => {
                    self.remove(value);
                    resume_unwind(panic);
                }
            }
            // Not a load: that could miss an asking, which would not know of the looking either.
            if !self.asked.fetch_or(false, Ordering::AcqRel) {
                break;
            }
            locked = self.lock(entry);
        }
        last
    }

    /// Drops the value, after the turn that another thread may be in.
    pub(super) fn clear(&self) {
        self.lock(Entry::Wait).into_iter().for_each(|value| self.remove(value));
    }

    fn lock(&self, entry: Entry) -> Option<MutexGuard<'_, Option<T>>> {
        match entry {
            Entry::Try => self.value.try_lock().ok(),
            Entry::Wait => self.value.lock().ok(),
        }
    }

    /// Code that runs when the value is dropped may enter again, and finds it gone.
    fn remove(&self, mut value: MutexGuard<'_, Option<T>>) {
        self.is_gone.store(true, Ordering::Release);
        let left = value.take();
        drop(value);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        thread,
    };

    use super::*;

    #[test]
    fn what_is_asked_during_a_turn_is_done_in_one_more() {
        let combiner = Combiner::new(0);
        let last = combiner.enter(
            Entry::Try,
            |turns| {
                *turns += 1;
                if *turns == 1 {
                    let nested = combiner.enter(Entry::Try, |_| ControlFlow::Continue(()), |_| ());
                    assert!(nested.is_none());
                }
                ControlFlow::Continue(*turns)
            },
            |_| assert!(combiner.value.try_lock().is_ok(), "others can have it"),
        );
        assert_eq!(last, Some(2));
    }

    #[test]
    fn a_thread_knows_whether_it_is_in_a_turn() {
        let (outer, inner) = (Combiner::new(()), Combiner::new(()));
        let go_on = ControlFlow::<(), ()>::Continue(());
        let turn = |_: &mut ()| {
            assert!(is_in_turn());
            inner.enter(Entry::Try, |_| go_on, |_| ());
            assert!(is_in_turn(), "still");
            go_on
        };
        outer.enter(Entry::Try, turn, |_| assert!(!is_in_turn()));
        let panics = || outer.enter(Entry::Try, |_| -> ControlFlow<()> { panic!("a bug") }, |_| ());
        catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert!(!is_in_turn());
    }

    #[test]
    fn a_value_whose_work_panics_is_dropped_at_once() {
        let waits = Arc::new(());
        let combiner = Combiner::new(Arc::clone(&waits));
        let panics =
            || combiner.enter(Entry::Try, |_| -> ControlFlow<()> { panic!("a bug") }, |_| ());
        catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert!(combiner.is_gone());
        assert_eq!(Arc::strong_count(&waits), 1, "those who wait for it know");
        let entered = combiner.enter(Entry::Wait, |_| ControlFlow::Continue(()), |_| ());
        assert!(entered.is_none());
    }

    #[test]
    fn a_value_that_comes_back_when_it_is_dropped_is_gone() {
        struct ComesBack(Arc<Combiner<Option<ComesBack>>>);

        impl Drop for ComesBack {
            fn drop(&mut self) {
                assert!(self.0.is_gone());
                self.0.enter(Entry::Wait, |_| -> ControlFlow<()> { unreachable!() }, |_| ());
            }
        }

        let combiner = Arc::new(Combiner::new(None));
        let value = ComesBack(Arc::clone(&combiner));
        let mut value = Some(value);
        let put = |slot: &mut Option<ComesBack>| {
            *slot = value.take();
            ControlFlow::Continue(())
        };
        combiner.enter(Entry::Try, put, |_| ());
        combiner.enter(Entry::Try, |_| ControlFlow::<(), ()>::Break(()), |_| ());
        assert_eq!(Arc::strong_count(&combiner), 1);
    }

    #[test]
    fn of_many_that_come_at_once_all_are_served() {
        const EACH: usize = 200;
        let (combiner, inbox) = (Combiner::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for entry in [Entry::Try, Entry::Try, Entry::Wait] {
                let (combiner, inbox) = (&combiner, &inbox);
                scope.spawn(move || {
                    for _ in 0..EACH {
                        inbox.fetch_add(1, Relaxed);
                        let work = |seen: &mut usize| {
                            *seen += inbox.swap(0, Relaxed);
                            ControlFlow::Continue(())
                        };
                        combiner.enter(entry, work, |_| ());
                    }
                });
            }
        });
        let seen = combiner.enter(Entry::Try, |&mut seen| ControlFlow::Continue(seen), |_| ());
        assert_eq!(seen, Some(3 * EACH));
    }
}
