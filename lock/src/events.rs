//! What the library says to code of the user's: warnings to a listener, events to a subscriber of
//! `tracing`.
//!
//! None of that code runs where it could stop the keeper. It runs on a thread of its own, which is
//! there while something is to be said. A listener that panics costs what it was told; one that
//! blocks costs what comes after the next [`MOST_WAITING`] things.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::contained::contained;

/// How many things may wait to be said. What comes then is not said: a listener that blocks must
/// not fill the memory.
const MOST_WAITING: usize = 256;

/// Says things, one after the other, in the order in which they happened.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Event>,
    /// A thread is at it.
    is_being_said: bool,
}

type Event = Box<dyn FnOnce() + Send>;

impl Events {
    /// Says it soon, elsewhere. Never blocks and never panics.
    pub(crate) fn say(&self, event: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue();
        if queue.waiting.len() >= MOST_WAITING {
            return;
        }
        queue.waiting.push_back(Box::new(event));
        if queue.is_being_said {
            return;
        }
        let events = self.clone();
        let speaker = thread::Builder::new().name("lock-events".into());
        // Without a thread, it is said with the next thing that finds one.
        queue.is_being_said = speaker.spawn(move || events.say_all()).is_ok();
    }

    fn say_all(&self) {
        while let Some(event) = self.next() {
            let _ = contained(event);
        }
    }

    fn next(&self) -> Option<Event> {
        let mut queue = self.queue();
        let next = queue.waiting.pop_front();
        queue.is_being_said = next.is_some();
        next
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code of others runs under it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_panic_costs_its_own_event_and_a_block_delays_what_comes_after() {
        let events = Events::default();
        let (said, heard) = mpsc::channel();
        let (go_on, gate) = mpsc::channel::<()>();
        events.say(|| panic!("as a listener would"));
        events.say(move || {
            let _ = gate.recv();
        });
        for number in 0..2 * MOST_WAITING {
            let said = said.clone();
            events.say(move || said.send(number).unwrap());
        }
        assert!(heard.try_recv().is_err(), "nothing overtakes");
        go_on.send(()).unwrap();
        drop(said);
        let heard: Vec<_> = heard.iter().collect();
        // The first two may have been taken out before the queue was full, or not.
        assert!((MOST_WAITING - 2..=MOST_WAITING).contains(&heard.len()), "{}", heard.len());
        assert!(heard.iter().copied().eq(0..heard.len()), "in order");
    }
}
