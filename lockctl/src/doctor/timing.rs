//! How far away the servers are, and what their clocks show.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{RedisError, Value};

use super::{
    findings::Findings,
    server::{Server, texts},
};
use crate::output::time;

const TRIES: usize = 9;
/// The library supports round trips of up to a second; above this one, waiting is noticeable.
const SLOW: Duration = Duration::from_millis(200);
/// A replica that takes over with a clock that is ahead ends leases earlier by the difference.
const APART: Duration = Duration::from_secs(1);

/// How far the clock of a server is ahead of this machine's; negative if it is behind.
pub(crate) struct Offset {
    address: String,
    micros: i128,
}

/// Checks the round trip, and reads the clock.
pub(crate) async fn check(
    server: &Server,
    findings: &mut Findings,
) -> Result<Option<Offset>, RedisError> {
    let mut trips = Vec::with_capacity(TRIES);
    let mut offset = None;
    for _ in 0..TRIES {
        let (begin, began) = (now(), Instant::now());
        let answer = server.ask(&[&["TIME"]]).await?.pop();
        let trip = began.elapsed();
        trips.push(trip);
        // The shortest trip gives the most exact offset.
        let micros = answer.and_then(micros);
        let shortest = trips.iter().min() == Some(&trip);
        if let (Some(micros), true) = (micros, shortest) {
            let middle = begin + i128::try_from(trip.as_micros() / 2).unwrap_or(0);
            offset = Some(Offset { address: server.address.clone(), micros: micros - middle });
        }
    }
    trips.sort();
    let middle = trips[TRIES / 2];
    let shown = format!("{:.1} ms per round trip", middle.as_secs_f64() * 1000.0);
    if middle > SLOW {
        findings.warning(
            "round trip",
            &server.address,
            format!("{shown}: each acquire and each hand-over takes at least that long"),
            "bring the service and the server closer together; choose leases of 10 s or more",
        );
    } else {
        findings.ok("round trip", &server.address, shown);
    }
    Ok(offset)
}

/// Checks the clocks: against this machine's, and against each other.
pub(crate) fn compare(offsets: &[Offset], findings: &mut Findings) {
    const CHECK: &str = "clock";
    for Offset { address, micros } in offsets {
        let apart = Duration::from_micros(u64::try_from(micros.unsigned_abs()).unwrap_or(u64::MAX));
        let side = if *micros < 0 { "behind" } else { "ahead of" };
        if apart > APART {
            findings.warning(
                CHECK,
                address,
                format!(
                    "its clock is {} {side} this machine's. Leases depend on the server's clock \
                     alone, so locks work, but after a failover to a server with another clock, \
                     leases end earlier or later by the difference",
                    time(apart)
                ),
                "synchronize the clocks of the server and of this machine (NTP)",
            );
        } else {
            findings.ok(CHECK, address, "within a second of this machine's");
        }
    }
    let all = || offsets.iter().map(|offset| offset.micros);
    if let (Some(first), Some(last)) = (all().min(), all().max())
        && last - first > i128::try_from(APART.as_micros()).unwrap_or(i128::MAX)
    {
        findings.warning(
            CHECK,
            "",
            "the clocks of the servers differ: after a failover, leases end earlier or later by the \
             difference",
            "synchronize the clocks of all servers (NTP)",
        );
    }
}

fn now() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_micros()).unwrap_or(0)
}

fn micros(answer: Value) -> Option<i128> {
    let parts = texts(answer)?;
    let (seconds, micros): (i128, i128) =
        (parts.first()?.parse().ok()?, parts.get(1)?.parse().ok()?);
    Some(seconds * 1_000_000 + micros)
}
