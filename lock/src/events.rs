//! Reports to user code from places where that code must not run: warnings to a listener, events to
//! a subscriber of `tracing`, measurements to a recorder.
//!
//! User code could stop the keeper, so it runs on a thread of its own, which exists while there is
//! something to report, and a little longer. A listener that panics costs the report that it was
//! given; a listener that blocks costs every report after the next [`MOST_WAITING`].

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{contained::contained, observe};

/// How many reports may wait. Further ones are left out: a listener that blocks must not fill the
/// memory.
const MOST_WAITING: usize = 256;

/// How long the thread waits for the next report: a steady stream must not start a thread for each.
const LINGER: Duration = Duration::from_secs(1);

/// How much room the queue must have to take a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Any: the report is rare, and must not be missed.
    Any,
    /// Half: there may be very many of its kind, which must not displace other reports.
    Half,
}

/// Makes reports, one after the other, in the order in which things happened.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to report.
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Event>,
    /// A thread makes reports, or waits for more.
    is_attended: bool,
    /// How many reports were left out for lack of room, since that was last reported.
    left_out: u64,
}

type Event = Box<dyn FnOnce() + Send>;

impl Events {
    /// Makes the report soon, on the other thread. Never blocks and never panics.
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
        // If no thread can be started, the report is made with the next one that starts a thread.
        queue.is_attended = speaker.spawn(move || events.say_all()).is_ok();
    }

    fn say_all(&self) {
        while let Some(event) = self.next() {
            let _ = contained(event);
        }
    }

    fn next(&self) -> Option<Event> {
        let mut queue = self.queue();
        // Only once there is room again for reports of any kind.
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
        // No user code runs while it is locked.
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
        // On a machine that stood still, the thread may have lingered for too short a time.
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
        assert_eq!(events.queue().left_out, 0, "it was reported");
    }
}
