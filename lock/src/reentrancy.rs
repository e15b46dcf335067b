//! Which locks the code on this thread runs under: it must not wait for any of them.
//!
//! While a body is polled, the locks it runs under are on a stack of the polling thread. So a
//! caller that asks for a lock can tell whether it already runs under it, from the order of polls:
//! a sibling in a `join!` is polled beside the body, not inside it, and a spawned task is polled by
//! the executor. Both are other callers, and wait as any two callers do. If a body polls other
//! tasks, as with a `LocalSet`, Tokio's task ids tell them apart.

use std::{cell::RefCell, sync::Arc};

use tokio::task;

use crate::keeper::{Client, Hold};

/// What a `#[locked]` function does when its caller already runs under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reentry {
    /// It fails with kind `Deadlock`.
    Refused,
    /// Its body runs under the caller's guard.
    Allowed,
}

thread_local! {
    /// The locks that the code polled by this thread runs under, the innermost last.
    static HELD: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// A lock that a body runs under, and the task that polls the body.
struct Frame {
    hold: Arc<Hold>,
    task: Option<task::Id>,
}

/// The locks of one body, on the stack for the time of one poll, even if it panics.
pub(crate) struct Frames(usize);

impl Frames {
    pub(crate) fn of<'a>(holds: impl Iterator<Item = &'a Arc<Hold>>) -> Self {
        // A thread that is being torn down no longer has a stack; nothing is nested in it.
        let pushed = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            let before = held.len();
            let task = task::try_id();
            held.extend(holds.map(|hold| Frame { hold: Arc::clone(hold), task }));
            held.len() - before
        });
        Self(pushed.unwrap_or(0))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        for _ in 0..self.0 {
            // Popped first: what is dropped may look at the stack.
            let popped = HELD.try_with(|held| held.borrow_mut().pop());
            drop(popped);
        }
    }
}

/// The lock of this key, if the caller runs under it. A lock that was lost or released is not held,
/// although its body may go on.
pub(crate) fn held(client: &Client, key: &str) -> Option<Arc<Hold>> {
    let found = HELD.try_with(|held| {
        let (held, task) = (held.borrow(), task::try_id());
        let is_it = |Frame { hold, task: its }: &&Frame| {
            *its == task && *hold.lock.key == *key && client.made(hold)
        };
        held.iter().rev().find(is_it).map(|frame| Arc::clone(&frame.hold))
    });
    // Not under the borrow: finding the lock lost wakes those who wait for its loss.
    found.ok().flatten().filter(|hold| hold.is_kept() && hold.is_held())
}
