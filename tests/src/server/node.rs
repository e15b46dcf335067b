//! A server as a node of a Redis Cluster.

/// The file in which a node keeps what it knows about the others and itself.
pub(super) const FILE: &str = "nodes.conf";

/// The second port of a node, where the other nodes talk to it. It is fixed before version 7.0; see
/// [`ports`](crate::ports).
pub(crate) fn bus_port(port: u16) -> u16 {
    port + 10_000
}

pub(super) fn flags(has_tls: bool) -> impl Iterator<Item = String> {
    let flags = [
        ["--cluster-enabled", "yes"],
        ["--cluster-config-file", FILE],
        // Otherwise each would have to find out its address, and know none until then.
        ["--cluster-announce-ip", "127.0.0.1"],
    ];
    let of_tls = has_tls.then_some(["--tls-cluster", "yes"]);
    flags.into_iter().chain(of_tls).flatten().map(str::to_owned)
}
