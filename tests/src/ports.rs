//! Ports that no other test uses.

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    process,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::SystemTime,
};

/// Below the range from which kernels take the ports of outgoing connections (32768 on Linux, 49152
/// on macOS): a server that is down for a moment finds its port free when it returns. Redis Cluster
/// listens on a second port 10000 higher, which is also below the range.
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

/// A loopback TCP port that no other part of any test run is given while this value lives, even
/// while no process listens on it: between a kill and a restart, or while a proxy refuses
/// connections.
///
/// The claim is the UDP port of the same number, which nothing here uses otherwise, and which
/// the kernel takes back from a process that dies.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _claim: UdpSocket,
}

impl Port {
    /// Claims a port that is free now. Programs that do not take part in the claims may still take
    /// it, so the caller retries with another one.
    pub(crate) fn claim() -> Self {
        for _ in 0..COUNT {
            let number = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _claim: claim };
            }
        }
        panic!("all loopback ports from {FIRST} to {} are taken", FIRST + COUNT - 1);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
