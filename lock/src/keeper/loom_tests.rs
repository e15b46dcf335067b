//! Every order of the steps of two and three threads, and everything that each may see of the
//! others: how the combiner, the waking of a runner, and the signal of a loss work together.
//!
//! `tests/loom` runs them. Each says how many executions it tried.

pub(super) mod sync;

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures_util::FutureExt;
use lock_core::Moment;
use loom::{model::Builder, sync::atomic::AtomicBool, thread};

use self::sync::{
    Mutex,
    Ordering::{AcqRel, Acquire},
};
use super::{
    combiner::{
        Combiner,
        Entry::{self, Try, Wait},
    },
    signal::LossSignal,
    unpark::Unpark,
};

type Seen = Vec<bool>;

trait Enter: Send + Sync + 'static {
    fn enter(&self, entry: Entry, work: &mut dyn FnMut(&mut Seen));
}

impl Enter for Combiner<Seen> {
    fn enter(&self, entry: Entry, work: &mut dyn FnMut(&mut Seen)) {
        let work = |seen: &mut Seen| {
            work(seen);
            ControlFlow::Continue(())
        };
        self.enter(entry, work, |_| ());
    }
}

/// Tries every execution, or those with at most this many preemptions.
fn explore(name: &str, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    /// Reports how many there were, even if one failed.
    struct Tried<'a>(&'a str, Arc<AtomicU64>);

    impl Drop for Tried<'_> {
        fn drop(&mut self) {
            eprintln!("loom: {}: {} executions", self.0, self.1.load(Relaxed));
        }
    }

    let tried = Tried(name, Arc::default());
    let count = Arc::clone(&tried.1);
    let mut builder = Builder::new();
    // The environment takes precedence (`LOOM_MAX_PREEMPTIONS`).
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        model();
    });
}

/// Each thread leaves a message and enters. Messages are as weak as possible: only the combiner
/// makes them known.
fn every_message_is_seen<C: Enter>(entries: &[Entry], combiner: impl Fn(Seen) -> C) {
    let threads = entries.len();
    let combiner = Arc::new(combiner(vec![false; threads]));
    let inbox: Arc<[AtomicBool]> = (0..threads).map(|_| AtomicBool::new(false)).collect();
    let enter = |own: usize, entry: Entry| {
        let (combiner, inbox) = (Arc::clone(&combiner), Arc::clone(&inbox));
        move || {
            inbox[own].store(true, Relaxed);
            combiner.enter(entry, &mut |seen| {
                for (seen, message) in seen.iter_mut().zip(&*inbox) {
                    *seen |= message.load(Relaxed);
                }
            });
        }
    };
    let others: Vec<_> = (1..threads).map(|own| thread::spawn(enter(own, entries[own]))).collect();
    enter(0, entries[0])();
    others.into_iter().for_each(|other| other.join().expect("a thread of the model"));
    combiner.enter(Wait, &mut |seen| {
        assert!(seen.iter().all(|seen| *seen), "a message was overlooked");
    });
}

#[test]
fn of_two_that_try_both_are_served() {
    explore("two that try", None, || every_message_is_seen(&[Try, Try], Combiner::new));
}

#[test]
fn of_one_that_tries_and_one_that_waits_both_are_served() {
    explore("one tries, one waits", None, || every_message_is_seen(&[Try, Wait], Combiner::new));
}

#[test]
fn of_three_that_try_all_are_served() {
    explore("three that try", Some(2), || every_message_is_seen(&[Try, Try, Try], Combiner::new));
}

#[test]
fn of_two_that_try_and_one_that_waits_all_are_served() {
    let entries = &[Try, Try, Wait];
    explore("two try, one waits", Some(2), || every_message_is_seen(entries, Combiner::new));
}

/// A combiner with a mistake, to show that the tests above find one.
struct Mistaken {
    mistake: Mistake,
    value: Mutex<Seen>,
    asked: AtomicBool,
}

#[derive(Clone, Copy)]
enum Mistake {
    LooksBeforeLettingGo,
    LooksWithALoad,
}

impl Enter for Mistaken {
    fn enter(&self, _: Entry, work: &mut dyn FnMut(&mut Seen)) {
        let mut locked = self.value.try_lock().ok().or_else(|| {
            self.asked.swap(true, AcqRel);
            self.value.try_lock().ok()
        });
        while let Some(mut value) = locked {
            self.asked.swap(false, AcqRel);
            work(&mut value);
            let asked = match self.mistake {
                Mistake::LooksBeforeLettingGo => {
                    let asked = self.asked.fetch_or(false, AcqRel);
                    drop(value);
                    asked
                }
                Mistake::LooksWithALoad => {
                    drop(value);
                    self.asked.load(Acquire)
                }
            };
            if !asked {
                return;
            }
            locked = self.value.try_lock().ok();
        }
    }
}

fn explore_mistake(name: &str, mistake: Mistake) {
    let combiner =
        move |seen| Mistaken { mistake, value: Mutex::new(seen), asked: AtomicBool::new(false) };
    explore(name, None, move || every_message_is_seen(&[Try, Try], combiner));
}

#[test]
#[should_panic(expected = "a message was overlooked")]
fn a_look_before_letting_go_is_found_out() {
    explore_mistake("a look before letting go", Mistake::LooksBeforeLettingGo);
}

#[test]
#[should_panic(expected = "a message was overlooked")]
fn a_look_that_is_only_a_load_is_found_out() {
    explore_mistake("a look that is only a load", Mistake::LooksWithALoad);
}

/// A runner that is about to sleep is woken when a turn of another thread leaves an earlier time.
fn a_runner_is_woken(name: &str, preemptions: usize, entry: Entry, first: Option<Moment>) {
    let early = Some(Moment::from_nanos(50));
    // Tokio's timers are made, but never waited for.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter();
    explore(name, Some(preemptions), move || {
        let (combiner, unpark) = (Arc::new(Combiner::new(first)), Arc::<Unpark>::default());
        let message = Arc::new(AtomicBool::new(false));
        let turn = {
            let message = Arc::clone(&message);
            move |next: &mut Option<Moment>| {
                if message.load(Relaxed) {
                    *next = early;
                }
                ControlFlow::Continue(*next)
            }
        };
        // Blocks for ever unless it is woken, which loom detects.
        let park = |until| {
            unpark.park(Moment::default(), until).now_or_never().expect("the stand-in blocks")
        };
        // It has slept before, for a shorter time.
        unpark.unpark();
        park(Some(Moment::from_nanos(10)));

        let other = {
            let (combiner, unpark, turn) =
                (Arc::clone(&combiner), Arc::clone(&unpark), turn.clone());
            thread::spawn(move || {
                message.store(true, Relaxed);
                let next = combiner.enter(Try, turn, |_| ()).flatten();
                unpark.unpark_before(next);
            })
        };
        loop {
            unpark.awake();
            let next = combiner.enter(entry, &turn, |_| ()).flatten();
            if next == early {
                break;
            }
            park(next);
        }
        other.join().expect("a thread of the model");
    });
}

#[test]
fn a_runner_that_tries_is_woken() {
    a_runner_is_woken("a runner that tries, idle", 4, Try, None);
    a_runner_is_woken("a runner that tries", 4, Try, Some(Moment::from_nanos(100)));
}

#[test]
fn a_runner_that_waits_is_woken() {
    a_runner_is_woken("a runner that waits, idle", 4, Wait, None);
    a_runner_is_woken("a runner that waits", 4, Wait, Some(Moment::from_nanos(100)));
}

#[test]
fn of_a_raise_and_an_ask_at_once_neither_is_missed() {
    explore("signal", None, || {
        let signal = Arc::new(LossSignal::default());
        let raiser = {
            let signal = Arc::clone(&signal);
            thread::spawn(move || signal.raise())
        };
        let token = signal.token().clone();
        raiser.join().unwrap();
        assert!(token.is_cancelled(), "a loss was missed");
    });
}

#[test]
fn of_a_raise_and_two_asks_at_once_none_is_missed() {
    explore("signal, two ask", None, || {
        let signal = Arc::new(LossSignal::default());
        let spawn = |what: fn(&LossSignal)| {
            let signal = Arc::clone(&signal);
            thread::spawn(move || what(&signal))
        };
        let others = [spawn(LossSignal::raise), spawn(|signal| _ = signal.token())];
        let token = signal.token().clone();
        others.into_iter().for_each(|other| other.join().expect("a thread of the model"));
        assert!(token.is_cancelled(), "a loss was missed");
    });
}
