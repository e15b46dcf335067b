//! The clocks that this process lives by.

use lock_tests::{Clock, rate_of};

/// By how many millionths of the time a rate may be mistaken.
const MISTAKEN: u64 = 300;

/// Ends the process if what a lease is measured by, and what timers go by, does not run at this
/// rate: a clock that is the machine's would find nothing. Else what was measured.
pub(crate) fn check(rate: i64) -> i64 {
    let [boot, monotonic] = [Clock::Boot, Clock::Monotonic].map(|clock| {
        let mut measured = rate_of(clock);
        // Once more where the machine was busy.
        for _ in 0..5 {
            if is_about(measured, rate) {
                break;
            }
            measured = rate_of(clock);
        }
        measured
    });
    assert!(
        is_about(boot, rate) && is_about(monotonic, rate),
        "the clocks are to run {rate} millionths faster than the machine's, and run {boot} and \
         {monotonic}: is the shim in effect, and does rustix use the C library?"
    );
    boot
}

fn is_about(measured: i64, rate: i64) -> bool {
    measured.abs_diff(rate) <= MISTAKEN
}

/// What each clock shows, beside the machine's time.
pub(crate) fn times() -> String {
    let times = [Clock::Boot, Clock::Monotonic, Clock::Wall].map(Clock::beside_the_machines);
    times.iter().flatten().fold("times".to_owned(), |line, time| format!("{line} {time}"))
}
