//! Notices: how a client receives them, on one channel for each client.
//!
//! A server that speaks RESP3 pushes them on the connection that carries the requests, in order
//! with the replies. For any other server there is a second connection in pub/sub mode. If even
//! that is refused, there are no notices, and waiters poll. The first connect finds out which
//! protocol the server speaks.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use lock_core::contract::{Delivery, Notice};
use redis::{Cmd, Msg, Pipeline, PushInfo, PushKind, RedisResult, Value, aio::PubSub};
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use super::{
    backoff::{RECONNECT, jittered},
    place::Places,
    stream::STEP,
    trouble::Address,
};
use crate::{
    store::{CurrentDelivery, Listener},
    warning::{Warning, Warnings},
};

/// How often a connection that carries only notices is pinged.
const PING: Duration = Duration::from_secs(5);

/// The notices of one server to a client, once there is a listener.
pub(super) struct Notices {
    subscription: OnceLock<Subscription>,
    current: CurrentDelivery,
    /// This user may not publish, so its releases wake nobody. It shows that by listening to a
    /// second channel, which `notifies` in queue.lua looks at: waiters for its locks then poll.
    mute: AtomicBool,
    /// There is a connection in pub/sub mode, or a task that tries to make one.
    has_pubsub: AtomicBool,
    warnings: Warnings,
}

struct Subscription {
    channel: String,
    listener: Listener,
}

impl Subscription {
    fn mute_channel(&self) -> String {
        format!("{}:mute", self.channel)
    }
}

impl Notices {
    pub(super) fn new(warnings: Warnings) -> Self {
        Self {
            subscription: OnceLock::new(),
            current: CurrentDelivery::default(),
            mute: AtomicBool::new(false),
            has_pubsub: AtomicBool::new(false),
            warnings,
        }
    }

    /// How notices currently travel.
    pub(super) fn delivery(&self) -> Delivery {
        self.current.load()
    }

    pub(super) fn subscribe(&self, client: &str, listener: Listener) {
        let channel = format!("~wake:{client}");
        let _ = self.subscription.set(Subscription { channel, listener });
    }

    fn deliver(&self, payload: &[u8]) {
        if let (Some(subscription), Some(notice)) = (self.subscription.get(), parse(payload)) {
            subscription.listener.notify(notice);
        }
    }

    /// Reports whether notices arrive from now on; earlier ones may have been lost.
    pub(super) fn connected(&self) {
        if let Some(subscription) = self.subscription.get() {
            subscription.listener.notify(Notice::Connected(self.delivery()));
        }
    }

    /// Reports that another server process answers than before, which may not have the data of that
    /// one.
    pub(super) fn replaced(&self) {
        if let Some(subscription) = self.subscription.get() {
            subscription.listener.notify(Notice::Replaced);
        }
    }

    /// Receives what a RESP3 connection pushes. The returned receiver resolves when the connection
    /// ends.
    pub(super) fn pushes(
        self: &Arc<Self>,
    ) -> (impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static, oneshot::Receiver<()>) {
        let (ends, ended) = oneshot::channel::<()>();
        let ends = std::sync::Mutex::new(Some(ends));
        let notices = Arc::clone(self);
        let receive = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                // Dropping it is enough.
                ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            } else if let Some(message) = Msg::from_push_info(push) {
                notices.deliver(message.get_payload_bytes());
            }
            Ok(())
        };
        (receive, ended)
    }

    /// Asks for pushes, if the connection can carry them, and whether this user may publish. A user
    /// may be forbidden both. Returns whether there is a listener.
    pub(super) fn ask(&self, pipeline: &mut Pipeline, pushes: bool) -> bool {
        let Some(subscription) = self.subscription.get() else { return false };
        if pushes {
            pipeline.cmd("SUBSCRIBE").arg(&subscription.channel);
        }
        pipeline.cmd("PUBLISH").arg(&subscription.channel).arg("");
        true
    }

    /// Takes the server's answers to that, and returns the command that remains to be sent, if any.
    pub(super) fn answered(
        &self,
        mut replies: impl Iterator<Item = Value>,
        pushes: bool,
        server: &Address,
    ) -> Option<Cmd> {
        let is_refused = |reply: Option<Value>| matches!(reply, Some(Value::ServerError(_)) | None);
        let subscribed = pushes && !is_refused(replies.next());
        if pushes {
            self.current.set(if subscribed { Delivery::Push } else { Delivery::Polling });
            if !subscribed {
                self.warnings.say(Warning::NoNotices, server);
            }
        }
        let mute = is_refused(replies.next());
        self.mute.store(mute, Ordering::Relaxed);
        if mute {
            self.warnings.say(Warning::MayNotPublish, server);
        }
        let channel = self.subscription.get().filter(|_| mute && subscribed)?.mute_channel();
        let mut command = redis::cmd("SUBSCRIBE");
        command.arg(channel);
        Some(command)
    }

    /// Listens on a connection in pub/sub mode, if the server allows it, and on later ones for as
    /// long as the listener's client lives.
    pub(super) async fn open_pubsub(self: &Arc<Self>, mut places: Places) {
        if self.subscription.get().is_none() || self.has_pubsub.swap(true, Ordering::Relaxed) {
            return;
        }
        let connected = self.connect_pubsub(&mut places).await;
        self.current.set(match &connected {
            Some(_) => Delivery::PubSub,
            None => Delivery::Polling,
        });
        if connected.is_none() {
            self.warnings.say(Warning::NoNotices, &places.address());
        }
        tokio::spawn(follow_pubsub(Arc::downgrade(self), places, connected));
    }

    async fn connect_pubsub(&self, places: &mut Places) -> Option<Listening> {
        let subscription = self.subscription.get()?;
        let place = places.current();
        let place = time::timeout(STEP * 3, place).await.ok()?;
        // This has a time limit of its own, because it may take longer than the rest.
        let admission = place.endpoint().admission().await.ok()?;
        let good_until = admission.as_ref().and_then(|admission| admission.renew_at);
        // This includes TLS; each of the other steps is one round trip.
        let open = place.endpoint().open_pubsub(admission.as_ref());
        let mut connection = time::timeout(STEP * 3, open).await.ok()??;
        let subscribe = async {
            connection.subscribe(&subscription.channel).await?;
            if self.mute.load(Ordering::Relaxed) {
                connection.subscribe(subscription.mute_channel()).await?;
            }
            RedisResult::Ok(Listening { connection, good_until })
        };
        time::timeout(STEP * 2, subscribe).await.ok()?.ok()
    }
}

/// A connection in pub/sub mode, which accepts no other credentials than its first.
struct Listening {
    connection: PubSub,
    good_until: Option<Instant>,
}

/// Passes on the notices of one connection after the other.
async fn follow_pubsub(
    notices: Weak<Notices>,
    mut places: Places,
    mut connected: Option<Listening>,
) {
    let mut delay = RECONNECT.0;
    loop {
        if let Some(connection) = connected.take() {
            delay = RECONNECT.0;
            tokio::select! {
                () = deliver_all(&notices, connection) => {}
                // The previous server may keep serving the connection for a while.
                () = places.moved() => {}
            }
            let Some(notices) = notices.upgrade() else { return };
            notices.current.set(Delivery::Polling);
            notices.connected();
        }
        time::sleep(jittered(delay)).await;
        // A server that forbids it is asked again from time to time: its rules may change.
        delay = (delay * 2).min(RECONNECT.1 * 30);
        let Some(notices) = notices.upgrade() else { return };
        connected = notices.connect_pubsub(&mut places).await;
        if connected.is_some() {
            notices.current.set(Delivery::PubSub);
            notices.connected();
        }
    }
}

/// Returns when the connection has ended or gone silent, when its credentials have to be replaced,
/// or when there is no listener any longer.
async fn deliver_all(notices: &Weak<Notices>, listening: Listening) {
    let Listening { connection, good_until } = listening;
    let (mut sink, mut messages) = connection.split();
    let expired = async {
        match good_until {
            Some(at) => time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let mut expired = std::pin::pin!(expired);
    let mut ping = time::interval_at(Instant::now() + PING, PING);
    loop {
        tokio::select! {
            message = messages.next() => {
                let (Some(message), Some(notices)) = (message, notices.upgrade()) else { return };
                notices.deliver(message.get_payload_bytes());
            }
            () = &mut expired => return,
            _ = ping.tick() => {
                let answer = time::timeout(STEP, sink.ping::<redis::Value>()).await;
                if notices.strong_count() == 0 || !matches!(answer, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}

/// Reads a word, and the number in the token that it is about.
pub(super) fn parse(payload: &[u8]) -> Option<Notice> {
    let (word, number) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    let number = number.parse().ok()?;
    match word {
        "granted" | "look" => Some(Notice::Granted { number }),
        "wanted" => Some(Notice::Contended { number }),
        "taken" => Some(Notice::Revoked { number }),
        "due" => Some(Notice::Flushed { number }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_no_script_sends_are_nothing() {
        assert_eq!(parse(b"granted 7"), Some(Notice::Granted { number: 7 }));
        assert_eq!(parse(b"look 7"), Some(Notice::Granted { number: 7 }));
        assert_eq!(
            parse(b"wanted 18446744073709551615"),
            Some(Notice::Contended { number: u64::MAX })
        );
        assert_eq!(parse(b"taken 0"), Some(Notice::Revoked { number: 0 }));
        assert_eq!(parse(b"due 7"), Some(Notice::Flushed { number: 7 }));
        for message in
            ["", "granted", "granted ", "granted -1", "granted 7 8", "free 7", "\u{ff} 1"]
        {
            assert_eq!(parse(message.as_bytes()), None, "{message:?}");
        }
        assert_eq!(parse(&[0xff, b' ', b'1']), None);
    }
}
