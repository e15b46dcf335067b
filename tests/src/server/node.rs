//! A server as a node of a Redis Cluster.

/// Where it keeps what it knows of the others, and of itself.
pub(super) const FILE: &str = "nodes.conf";

/// The second port of a node, where the others talk to it. Versions before 7.0 leave no choice; see
/// [`ports`](crate::ports).
pub(crate) fn bus_port(port: u16) -> u16 {
    port + 10_000
}

pub(super) fn flags(has_tls: bool) -> impl Iterator<Item = String> {
    let flags = [
        ["--cluster-enabled", "yes"],
        ["--cluster-config-file", FILE],
        // Each would find out by itself, and know no address until then.
        ["--cluster-announce-ip", "127.0.0.1"],
    ];
    let of_tls = has_tls.then_some(["--tls-cluster", "yes"]);
    flags.into_iter().chain(of_tls).flatten().map(str::to_owned)
}
