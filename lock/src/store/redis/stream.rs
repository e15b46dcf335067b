//! How a stream to a server is opened, before anything is said on it.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{
    RedisError,
    io::tcp::{TcpSettings, socket2::SockRef},
};
use tokio::{
    net::{TcpStream, lookup_host},
    time,
};

use super::refusal::Refusal;

/// The time limit of one step: a round trip of a second, and as long again for delays.
pub(super) const STEP: Duration = Duration::from_secs(2);

pub(super) async fn bounded<F: Future>(step: &str, future: F) -> Result<F::Output, Refusal> {
    time::timeout(STEP, future).await.map_err(|_| Refusal::silent(step, STEP))
}

/// Resolves the host and connects, each within its time limit.
pub(super) async fn open_tcp(host: &str, port: u16) -> Result<TcpStream, Refusal> {
    let addresses = bounded("from the name service", resolve(host, port)).await??;
    bounded("to the connect", connect(addresses)).await?
}

/// All addresses of a host.
pub(super) async fn resolve(
    host: &str,
    port: u16,
) -> Result<impl Iterator<Item = SocketAddr>, Refusal> {
    lookup_host((host, port)).await.map_err(Refusal::unknown_name)
}

/// Connects to all addresses of a host at once, and uses the first that answers.
pub(super) async fn connect(
    addresses: impl Iterator<Item = SocketAddr>,
) -> Result<TcpStream, Refusal> {
    let mut attempts: FuturesUnordered<_> = addresses.map(TcpStream::connect).collect();
    let mut last = None;
    while let Some(outcome) = attempts.next().await {
        match outcome {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => refused(error),
        None => Refusal::unknown_name(io::Error::other("the name has no address")),
    })
}

/// Applies the socket options of the URL or the client. An option that the system lacks is left
/// out.
pub(super) fn set_options(stream: &TcpStream, settings: &TcpSettings) {
    let socket = SockRef::from(stream);
    let _ = stream.set_nodelay(settings.nodelay());
    if let Some(keepalive) = settings.keepalive() {
        let _ = socket.set_tcp_keepalive(keepalive);
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    if let Some(timeout) = settings.user_timeout() {
        let _ = socket.set_tcp_user_timeout(Some(timeout));
    }
}

pub(super) fn refused(error: io::Error) -> Refusal {
    Refusal::of(RedisError::from(error))
}
