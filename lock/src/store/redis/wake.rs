//! Wake-ups on Redis: one channel for each client.
//!
//! A server that speaks RESP3 pushes them on the connection that carries the requests, in order
//! with the replies. For any other there is a second connection in pub/sub mode; and where even
//! that is refused, none, and waiters poll. Which of the first two it is, the first connect finds
//! out.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use futures_util::StreamExt;
use redis::{Client, Msg, PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use super::connection::{CONNECT_LIMIT, RECONNECT, jittered};
use crate::{
    store::{Listener, Wake, WakeUps, wake::CurrentWakeUps},
    warning::{Warning, Warnings},
};

/// How often a connection that carries wake-ups only is asked whether it is alive.
const PING: Duration = Duration::from_secs(5);

/// The one who listens on a connection, once somebody does.
pub(super) struct Ear {
    listening: OnceLock<Listening>,
    current: CurrentWakeUps,
    warnings: Warnings,
}

struct Listening {
    channel: String,
    listener: Listener,
}

impl Ear {
    pub(super) fn new(warnings: Warnings) -> Self {
        Self { listening: OnceLock::new(), current: CurrentWakeUps::default(), warnings }
    }

    /// How wake-ups travel at the moment.
    pub(super) fn wake_ups(&self) -> WakeUps {
        self.current.load()
    }

    pub(super) fn open(&self, client: &str, listener: Listener) {
        let channel = format!("~wake:{client}");
        let _ = self.listening.set(Listening { channel, listener });
    }

    fn hear(&self, payload: &[u8]) {
        if let (Some(listening), Some(wake)) = (self.listening.get(), parse(payload)) {
            listening.listener.wake(wake);
        }
    }

    /// Wake-ups come from now on, or they do not; some may have been lost before.
    pub(super) fn connected(&self) {
        if let Some(listening) = self.listening.get() {
            listening.listener.wake(Wake::Connected(self.wake_ups()));
        }
    }

    /// What a RESP3 connection pushes. The sender is dropped, or used, when the connection ends.
    pub(super) fn pushes(
        self: &Arc<Self>,
    ) -> (impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static, oneshot::Receiver<()>) {
        let (ends, ended) = oneshot::channel::<()>();
        let ends = std::sync::Mutex::new(Some(ends));
        let ear = Arc::clone(self);
        let hear = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                // Dropped is all it has to be.
                ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            } else if let Some(message) = Msg::from_push_info(push) {
                ear.hear(message.get_payload_bytes());
            }
            Ok(())
        };
        (hear, ended)
    }

    /// Asks for pushes on a RESP3 connection, if somebody listens. A user may be forbidden to.
    pub(super) async fn subscribe(&self, connection: &mut MultiplexedConnection) {
        let Some(listening) = self.listening.get() else { return };
        let granted = connection.subscribe(&listening.channel).await.is_ok();
        self.current.set(if granted { WakeUps::Push } else { WakeUps::Polling });
        if !granted {
            self.warnings.say(Warning::NoWakeUps);
        }
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&listening.channel).arg("");
        let answer = connection.send_packed_command(&publish).await;
        if matches!(answer, Ok(Value::ServerError(_))) {
            self.warnings.say(Warning::MayNotPublish);
        }
    }

    /// Listens on a connection in pub/sub mode, if the server allows it, and from then on for as
    /// long as the listener's client lives.
    pub(super) async fn subscribe_apart(self: &Arc<Self>, client: Client) {
        let connected = self.connect_apart(&client).await;
        self.current.set(match &connected {
            Some(_) => WakeUps::PubSub,
            None => WakeUps::Polling,
        });
        if connected.is_none() {
            self.warnings.say(Warning::NoWakeUps);
        }
        tokio::spawn(listen_apart(Arc::downgrade(self), client, connected));
    }

    async fn connect_apart(&self, client: &Client) -> Option<redis::aio::PubSub> {
        let channel = &self.listening.get()?.channel;
        let connect = async {
            let mut connection = client.get_async_pubsub().await?;
            connection.subscribe(channel).await?;
            RedisResult::Ok(connection)
        };
        time::timeout(CONNECT_LIMIT, connect).await.ok()?.ok()
    }
}

/// Passes on what one connection after the other says.
async fn listen_apart(ear: Weak<Ear>, client: Client, mut connected: Option<redis::aio::PubSub>) {
    let mut delay = RECONNECT.0;
    loop {
        if let Some(connection) = connected.take() {
            delay = RECONNECT.0;
            hear_all(&ear, connection).await;
            let Some(ear) = ear.upgrade() else { return };
            ear.current.set(WakeUps::Polling);
            ear.connected();
        }
        time::sleep(jittered(delay)).await;
        // A server that forbids it is asked again now and then: its rules may change.
        delay = (delay * 2).min(RECONNECT.1 * 30);
        let Some(ear) = ear.upgrade() else { return };
        connected = ear.connect_apart(&client).await;
        if connected.is_some() {
            ear.current.set(WakeUps::PubSub);
            ear.connected();
        }
    }
}

/// Returns when the connection has ended or gone silent, or nobody listens any more.
async fn hear_all(ear: &Weak<Ear>, connection: redis::aio::PubSub) {
    let (mut sink, mut messages) = connection.split();
    let mut ping = time::interval_at(Instant::now() + PING, PING);
    loop {
        tokio::select! {
            message = messages.next() => {
                let (Some(message), Some(ear)) = (message, ear.upgrade()) else { return };
                ear.hear(message.get_payload_bytes());
            }
            _ = ping.tick() => {
                let answer = time::timeout(CONNECT_LIMIT, sink.ping::<redis::Value>()).await;
                if ear.strong_count() == 0 || !matches!(answer, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}

/// A word, and the number in the token that it is about.
pub(super) fn parse(payload: &[u8]) -> Option<Wake> {
    let (word, number) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    let number = number.parse().ok()?;
    match word {
        "granted" | "look" => Some(Wake::Granted { number }),
        "wanted" => Some(Wake::Wanted { number }),
        "taken" => Some(Wake::Taken { number }),
        "due" => Some(Wake::Due { number }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_no_script_sends_are_nothing() {
        assert_eq!(parse(b"granted 7"), Some(Wake::Granted { number: 7 }));
        assert_eq!(parse(b"look 7"), Some(Wake::Granted { number: 7 }));
        assert_eq!(parse(b"wanted 18446744073709551615"), Some(Wake::Wanted { number: u64::MAX }));
        assert_eq!(parse(b"taken 0"), Some(Wake::Taken { number: 0 }));
        assert_eq!(parse(b"due 7"), Some(Wake::Due { number: 7 }));
        for message in
            ["", "granted", "granted ", "granted -1", "granted 7 8", "free 7", "\u{ff} 1"]
        {
            assert_eq!(parse(message.as_bytes()), None, "{message:?}");
        }
        assert_eq!(parse(&[0xff, b' ', b'1']), None);
    }
}
