//! Why a connection over TLS ended, or stayed silent, before anything was said on it.
//!
//! In TLS 1.3 a server checks the client's certificate after its own part of the handshake: the
//! client considers TLS open, says hello, and the connection ends. The reason is in an alert. The
//! alert is lost together with data that was sent and not read, or by redis-rs, which keeps the
//! first error of several replies only if all of them come. And a server without TLS usually gives
//! no answer at all to what it takes for the beginning of a line. So another connection is made, on
//! which nothing important is sent.

use std::{future::poll_fn, pin::Pin, time::Duration};

use redis::{AsyncConnectionConfig, Client, RedisConnectionInfo, RedisError};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time,
};

use super::{
    super::{
        endpoint::Endpoint,
        refusal::Refusal,
        stream::{STEP, open_tcp},
    },
    trouble,
};
use crate::ErrorKind;

/// How long a server has for its last words.
const LISTENS: Duration = Duration::from_millis(500);

/// The reason that can be found out; if there is none, the one that is known.
pub(in crate::store::redis) async fn of(endpoint: &Endpoint, known: Refusal) -> Refusal {
    let found = async {
        match over_tls(endpoint).await {
            Some(refusal) => Some(refusal),
            None => without_tls(endpoint).await,
        }
    };
    time::timeout(STEP, found).await.ok().flatten().unwrap_or(known)
}

/// The alert that the server sends on its own.
async fn over_tls(endpoint: &Endpoint) -> Option<Refusal> {
    match time::timeout(LISTENS * 2, endpoint.open_tls()).await.ok()? {
        Ok(Some(mut stream)) => {
            let mut word = [0; 1];
            let mut word = ReadBuf::new(&mut word);
            let read = poll_fn(|context| Pin::new(&mut stream).poll_read(context, &mut word));
            let said = time::timeout(LISTENS, read).await.ok()?.err()?;
            trouble::find(&said)?;
            Some(Refusal::of_tls(said, endpoint.shown()))
        }
        // The user's client opens TLS, and receives nothing unless it has sent a command.
        Ok(None) => {
            let info = endpoint.client().get_connection_info().clone();
            let nothing = RedisConnectionInfo::default().set_skip_set_lib_name();
            let client = Client::open(info.set_redis_settings(nothing)).ok()?;
            let said = time::timeout(LISTENS * 2, ping(&client)).await.ok()?.err()?;
            trouble::find(&said)?;
            Some(Refusal::of(said))
        }
        Err(refusal) => refusal.is_of_tls().then_some(refusal),
    }
}

async fn ping(client: &Client) -> Result<(), RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None);
    let open = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = open.await?;
    connection.send_packed_command(&redis::cmd("PING")).await.map(drop)
}

/// Whether the server answers without TLS.
async fn without_tls(endpoint: &Endpoint) -> Option<Refusal> {
    let (host, port) = endpoint.host()?;
    let stream = open_tcp(host, port).await.ok()?;
    stream.writable().await.ok()?;
    // It fits into the kernel's send buffer.
    stream.try_write(b"PING\r\n").ok()?;
    time::timeout(LISTENS, stream.readable()).await.ok()?.ok()?;
    let mut word = [0; 1];
    stream.try_read(&mut word).ok()?;
    match word[0] {
        b'+' | b'-' => {
            let text = "TLS failed: the server answers without TLS, so connect without it \
                        (`redis://`), or to the server's port for TLS";
            Some(Refusal::new(ErrorKind::Unavailable, text))
        }
        _ => None,
    }
}
