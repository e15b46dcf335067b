//! What the library says to code of the user's from where that code may not run: warnings to a
//! listener, events to a subscriber of `tracing`, measurements to a recorder.
//!
//! None of that code runs where it could stop the keeper. It runs on a thread of its own, which is
//! there while something is to be said, and a little longer. A listener that panics costs what it was
//! told; one that blocks costs what comes after the next [`MOST_WAITING`] things.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{contained::contained, observe};

/// How many things may wait to be said. What comes then is not said: a listener that blocks must
/// not fill the memory.
const MOST_WAITING: usize = 256;

/// For how long the thread waits for the next thing to say: a steady stream must not start one for
/// each.
const LINGER: Duration = Duration::from_secs(1);

/// How much room there has to be for something to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Any: it comes seldom, and somebody has to know of it.
    Any,
    /// Half: there may be very many of its kind, which must not keep anything else from being said.
    Half,
}

/// Says things, one after the other, in the order in which they happened.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to say.
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Event>,
    /// A thread is at it, or waits for more.
    is_attended: bool,
    /// How many were not said for want of room, since that was said.
    left_out: u64,
}

type Event = Box<dyn FnOnce() + Send>;

impl Events {
    /// Says it soon, elsewhere. Never blocks and never panics.
    pub(crate) fn say(&self, room: Room, event: impl FnOnce() + Send + 'static) {
        let most = match room {
            Room::Any => MOST_WAITING,
            Room::Half => MOST_WAITING / 2,
        };
        let mut queue = self.queue();
        if queue.waiting.len() >= most {
            queue.left_out += 1;
        } else {
            queue.waiting.push_back(Box::new(event));
        }
        if queue.is_attended {
            return self.0.more.notify_one();
        }
        let events = self.clone();
        let speaker = thread::Builder::new().name("lock-events".into());
        // Without a thread, it is said with the next thing that finds one.
        queue.is_attended = speaker.spawn(move || events.say_all()).is_ok();
    }

    fn say_all(&self) {
        while let Some(event) = self.next() {
            let _ = contained(event);
        }
    }

    fn next(&self) -> Option<Event> {
        let mut queue = self.queue();
        // Once there is room again for all that comes.
        if queue.left_out > 0 && queue.waiting.len() < MOST_WAITING / 2 {
            let left_out = mem::take(&mut queue.left_out);
            return Some(Box::new(move || observe::left_out(left_out)));
        }
        if queue.waiting.is_empty() {
            let waited = self.0.more.wait_timeout_while(queue, LINGER, |it| it.waiting.is_empty());
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let next = queue.waiting.pop_front();
        queue.is_attended = next.is_some();
        next
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code of others runs under it.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
        events.say(Room::Any, || panic!("as a listener would"));
        events.say(Room::Any, move || {
            let _ = gate.recv();
        });
        for number in 0..2 * MOST_WAITING {
            let said = said.clone();
            events.say(Room::Any, move || said.send(number).unwrap());
        }
        assert!(heard.try_recv().is_err(), "nothing overtakes");
        go_on.send(()).unwrap();
        drop(said);
        let heard: Vec<_> = heard.iter().collect();
        // The first two may have been taken out before the queue was full, or not.
        assert!((MOST_WAITING - 2..=MOST_WAITING).contains(&heard.len()), "{}", heard.len());
        assert!(heard.iter().copied().eq(0..heard.len()), "in order");
    }

    #[test]
    fn one_thread_says_what_comes_one_after_the_other() {
        let events = Events::default();
        let (said, heard) = mpsc::channel();
        let threads = (0..10).map(|_| {
            let said = said.clone();
            events.say(Room::Any, move || said.send(thread::current().id()).unwrap());
            heard.recv().unwrap()
        });
        let threads: std::collections::HashSet<_> = threads.collect();
        // It may have lingered for too short a time on a machine that stood still.
        assert!(threads.len() < 5, "{} threads", threads.len());
    }

    #[test]
    fn a_thread_that_has_gone_is_followed_by_another() {
        let events = Events::default();
        let (said, heard) = mpsc::channel();
        for number in 0..2 {
            let said = said.clone();
            events.say(Room::Any, move || said.send(number).unwrap());
            assert_eq!(heard.recv(), Ok(number));
            while events.queue().is_attended {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn what_comes_often_leaves_room_for_the_rest_and_what_was_left_out_is_counted() {
        let events = Events::default();
        let (go_on, gate) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        events.say(Room::Any, move || {
            begun.send(()).unwrap();
            let _ = gate.recv();
        });
        begins.recv().unwrap();
        let (said, heard) = mpsc::channel();
        for (room, number) in [(Room::Half, MOST_WAITING), (Room::Any, 1)] {
            for _ in 0..number {
                let said = said.clone();
                events.say(room, move || said.send(room).unwrap());
            }
        }
        assert_eq!(events.queue().left_out, MOST_WAITING as u64 / 2);
        drop((go_on, said));
        let heard: Vec<_> = heard.iter().collect();
        assert_eq!((heard.len(), heard.last()), (MOST_WAITING / 2 + 1, Some(&Room::Any)));
        while events.queue().is_attended {
            thread::yield_now();
        }
        assert_eq!(events.queue().left_out, 0, "it was said");
    }
}
