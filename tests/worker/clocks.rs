//! The clocks of this process.

use lock_tests::{Clock, rate_of};

/// The tolerance of a measured rate, in millionths.
const MISTAKEN: u64 = 300;

/// Ends the process if the clocks of leases and of timers do not run at this rate: with the
/// machine's clock, the tests would find nothing. Otherwise returns the measured rate.
pub(crate) fn check(rate: i64) -> i64 {
    let [boot, monotonic] = [Clock::Boot, Clock::Monotonic].map(|clock| {
        let mut measured = rate_of(clock);
        // Measured again if the machine was busy.
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
        "the clocks should run {rate} millionths faster than the machine's, but run {boot} and \
         {monotonic}: is the shim in effect, and does rustix use the C library?"
    );
    boot
}

fn is_about(measured: i64, rate: i64) -> bool {
    measured.abs_diff(rate) <= MISTAKEN
}

/// The reading of each clock, beside the machine's time.
pub(crate) fn times() -> String {
    let times = [Clock::Boot, Clock::Monotonic, Clock::Wall].map(Clock::beside_the_machines);
    times.iter().flatten().fold("times".to_owned(), |line, time| format!("{line} {time}"))
}
