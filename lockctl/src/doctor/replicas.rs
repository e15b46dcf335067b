//! Replicas: a failover makes one of them the server that keeps the locks.

use super::{findings::Findings, server::Server, store::Store};

/// Connects to them as the library would after a failover: with the same user and password.
pub(crate) async fn connect(
    store: &Store,
    addresses: Vec<(String, u16)>,
    findings: &mut Findings,
) -> Vec<Server> {
    let mut replicas = Vec::with_capacity(addresses.len());
    for (host, port) in addresses {
        match Server::connect(store, &store.server_at(&host, port)).await {
            Ok(mut server) => {
                server.is_replica = true;
                replicas.push(server);
            }
            Err(error) => findings.warning(
                "replication",
                &format!("{host}:{port}"),
                format!(
                    "this replica accepts no connection from here: {error}. If a failover makes it \
                     the primary, no lock can be acquired"
                ),
                "start it, open the network to it, configure it to announce an address that \
                 clients can reach (`replica-announce-ip`), and give it the same users as the \
                 primary (ACL)",
            ),
        }
    }
    replicas
}
