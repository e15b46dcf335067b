//! The clocks of another host.

use lock_tests::{HostClock, Worker, ms, rate_between};

/// The readings of a worker's clocks: for boot time, Rust's `Instant` and the wall clock, the
/// machine's time and the reading at that time.
fn times(worker: &mut Worker) -> [[u64; 2]; 3] {
    worker.tell("times");
    let times = worker.expect("times");
    [0, 2, 4].map(|place| [times[place], times[place + 1]])
}

fn worker_by(clock: &HostClock) -> Worker {
    Worker::start_by(clock, env!("CARGO_BIN_EXE_worker"))
}

#[test]
fn all_clocks_of_a_host_run_at_its_rate_and_what_it_says_is_the_machines_time() {
    for rate in [-9500, 0, 9500] {
        let clock = HostClock::build();
        clock.run_at(rate);
        let mut worker = worker_by(&clock);
        worker.tell(&format!("rate {rate}"));
        assert_eq!(worker.hear()[0], "rate");
        let started = lock_tests::now();
        let before = times(&mut worker);
        std::thread::sleep(ms(1000));
        let after = times(&mut worker);
        assert!((started..lock_tests::now()).contains(&after[0][0]), "{after:?}");
        for (before, after) in before.into_iter().zip(after) {
            let measured = rate_between(before, after);
            assert!(measured.abs_diff(rate) < 2000, "{measured} instead of {rate}");
        }
    }
}

#[test]
fn a_step_moves_the_wall_clock_alone() {
    let clock = HostClock::build();
    let mut worker = worker_by(&clock);
    let before = times(&mut worker);
    clock.set(7000);
    let after = times(&mut worker);
    let gone = |place: usize| {
        let [machines, shown] = [0, 1].map(|which| after[place][which] - before[place][which]);
        shown.abs_diff(machines) / 1_000_000
    };
    assert!(gone(0) < 1000 && gone(1) < 1000, "{before:?} {after:?}");
    assert!((6000..8000).contains(&gone(2)), "{before:?} {after:?}");
}

#[test]
fn a_worker_whose_clocks_run_otherwise_than_it_is_told_ends() {
    let clock = HostClock::build();
    clock.run_at(9500);
    let machines = Worker::start(env!("CARGO_BIN_EXE_worker"));
    for (mut worker, told) in [(machines, 9500), (worker_by(&clock), -9500)] {
        worker.tell(&format!("rate {told}"));
        let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.hear()));
        assert!(gone.is_err(), "it goes on at another rate than {told}");
    }
}
