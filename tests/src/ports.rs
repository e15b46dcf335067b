//! Ports that nothing else is given by chance.

use std::{
    net::{Ipv4Addr, TcpListener},
    process,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::SystemTime,
};

/// Below the range from which kernels take the ports of outgoing connections (32768 on Linux,
/// 49152 on macOS): a server that is down for a moment finds its port free when it returns.
/// Redis Cluster listens on a second port 10000 higher, and that one is below the range too.
const FIRST: u16 = 12_000;
const COUNT: u16 = 8_000;

/// Every process starts elsewhere, so that two runs of the suite seldom try the same ports.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    let start = now.wrapping_add(process::id().wrapping_mul(7919));
    AtomicU16::new(u16::try_from(start % u32::from(COUNT)).expect("a remainder below COUNT fits"))
});

/// A loopback port that was free a moment ago and that this process has not handed out lately.
///
/// Another process may still take it, so the caller retries with the next one.
pub(crate) fn free_port() -> u16 {
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!(
        "all loopback ports from {FIRST} to {} are taken",
        FIRST + COUNT - 1
    );
}
