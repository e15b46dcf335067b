//! Ids for the probe: one for each primary of a Cluster.

use redis::{RedisError, Value};

use super::{probe, server::Server, store::Kind};

/// How many ids are drawn so that each node has one. A node with a hundredth of all slots is left
/// out once in about 20,000 runs.
const DRAWN: usize = 1_000;

/// An id for each of these primaries, which that primary keeps; or one id, if the store is no
/// Cluster.
pub(crate) async fn ids(
    servers: &[Server],
    kind: &Kind,
    prefix: &str,
) -> Result<Vec<String>, RedisError> {
    if *kind != Kind::Cluster {
        return Ok(vec![probe::id()]);
    }
    let drawn: Vec<_> = (0..DRAWN).map(|_| probe::id()).collect();
    let mut ids = Vec::with_capacity(servers.len());
    for server in servers.iter().filter(|server| !server.is_replica) {
        // A node answers EXISTS with a number only for a key that it keeps, and asking changes
        // nothing.
        for some in drawn.chunks(50) {
            let keys: Vec<_> = some.iter().map(|id| format!("{prefix}{id}")).collect();
            let questions: Vec<_> = keys.iter().map(|key| ["EXISTS", key.as_str()]).collect();
            let questions: Vec<&[&str]> = questions.iter().map(<[_; 2]>::as_slice).collect();
            let answers = server.ask(&questions).await?;
            let own = answers.iter().position(|answer| matches!(answer, Value::Int(_)));
            if let Some(own) = own {
                ids.push(some[own].clone());
                break;
            }
        }
    }
    Ok(ids)
}
