//! Which locks the code on this thread runs under: it must not wait for one of them.
//!
//! While a body is polled, the locks it runs under are on a stack of the thread that polls it. So
//! the code that asks for a lock knows whether it holds it itself, without an identity of
//! tasks: a sibling in a `join!` is polled beside the body, not inside, and a spawned task is
//! polled by the executor. Both are others, who wait for each other as any two callers do. A body
//! that polls other tasks, as one does that runs a `LocalSet`, is told apart from them by Tokio.

use std::{cell::RefCell, sync::Arc};

use tokio::task;

use crate::keeper::{Client, Hold};

/// What a `#[locked]` function does when its caller runs under its lock already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reentry {
    /// It fails with kind `Deadlock`.
    Refused,
    /// Its body runs under the caller's guard.
    Allowed,
}

thread_local! {
    /// What the code that this thread polls at the moment runs under, the innermost last.
    static HELD: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// A lock that a body runs under, and the task that polls the body.
struct Frame {
    hold: Arc<Hold>,
    task: Option<task::Id>,
}

/// The locks of one body, on the stack for as long as a poll of it takes, a panic included.
pub(crate) struct Frames(usize);

impl Frames {
    pub(crate) fn of<'a>(holds: impl Iterator<Item = &'a Arc<Hold>>) -> Self {
        // A thread that is being torn down has no stack any more; then nothing is nested in it.
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
            // Taken out first: what is dropped may look at the stack.
            let popped = HELD.try_with(|held| held.borrow_mut().pop());
            drop(popped);
        }
    }
}

/// The lock of this key, if the code that asks runs under it. A lock that was lost or released is
/// not held, though a body of it may go on.
pub(crate) fn held(client: &Client, key: &str) -> Option<Arc<Hold>> {
    let found = HELD.try_with(|held| {
        let (held, task) = (held.borrow(), task::try_id());
        let is_it = |Frame { hold, task: its }: &&Frame| {
            *its == task && *hold.lock.key == *key && client.made(hold)
        };
        held.iter().rev().find(is_it).map(|frame| Arc::clone(&frame.hold))
    });
    // Not under the borrow: finding it lost wakes those who wait for that.
    found.ok().flatten().filter(|hold| hold.is_kept() && hold.is_held())
}
