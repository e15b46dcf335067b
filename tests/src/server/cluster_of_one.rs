//! A Redis Cluster of one node.
//!
//! A primary that starts serves nothing for two seconds, in case the others have elected another
//! one meanwhile. A replica does not wait for that. So the node starts as the replica of a primary
//! that does not exist and has all slots, and takes its place.

use std::{
    env, fs,
    io::{self, BufReader},
    net::TcpStream,
    path::Path,
};

use super::{
    node,
    process::{ask, ask_for_text},
};

/// The variable that makes every server a cluster of one, unless a test says otherwise.
const EVERYWHERE: &str = "LOCK_CLUSTER";

pub(super) fn wanted() -> bool {
    env::var_os(EVERYWHERE).is_some_and(|value| !value.is_empty() && value != "0")
}

/// The names of the node and of the invented primary. They contain the port, because names are
/// unique.
fn names(port: u16) -> (String, String) {
    (format!("a{port:039x}"), format!("b{port:039x}"))
}

/// Writes the file that tells the node about the cluster at its start.
pub(super) fn prepare(directory: &Path, port: u16) {
    let (name, other) = names(port);
    let bus = node::bus_port(port);
    // Nothing listens on port 1, so a client that is redirected to the other one comes back.
    let text = format!(
        "{name} 127.0.0.1:{port}@{bus} myself,slave {other} 0 0 1 connected\n\
         {other} 127.0.0.1:{port}@1 master - 0 0 1 connected 0-16383\n\
         vars currentEpoch 1 lastVoteEpoch 0\n",
    );
    let path = directory.join(node::FILE);
    fs::write(path, text).expect("the server's directory can be written");
}

/// Makes the node the primary, if it is ready for that.
pub(super) fn take_over(stream: &mut BufReader<TcpStream>, port: u16) -> io::Result<bool> {
    let state = ask_for_text(stream, &["CLUSTER", "INFO"])?;
    if !state.is_some_and(|state| state.contains("cluster_state:ok\r\n")) {
        return Ok(false);
    }
    if ask(stream, &["CLUSTER", "FAILOVER", "TAKEOVER"])? != "+OK" {
        return Ok(false);
    }
    Ok(ask(stream, &["CLUSTER", "FORGET", &names(port).1])? == "+OK")
}
