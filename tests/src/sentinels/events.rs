//! The events that Sentinels publish.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use redis::Client;
use tokio::{
    sync::{Mutex, Notify},
    task::JoinSet,
    time::timeout,
};

use super::Sentinels;
use crate::now;

/// One message of a Sentinel.
#[derive(Clone)]
pub struct SentinelEvent {
    /// When it was received, by [`now`].
    pub at: u64,
    /// The index in [`Sentinels::sentinels`] of its sender.
    pub sentinel: usize,
    /// The kind of event, such as `+switch-master`.
    pub name: String,
    /// The instances that it concerns.
    pub text: String,
}

/// Everything that the Sentinels publish from the creation of this value until its drop.
#[derive(Debug)]
pub struct SentinelEvents {
    heard: Arc<Heard>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Heard {
    events: Mutex<Vec<SentinelEvent>>,
    more: Notify,
}

/// On one line, because a failing test prints many.
impl fmt::Debug for SentinelEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, sentinel, name, text } = self;
        write!(f, "{} ms, Sentinel {sentinel}: {name} {text}", at / 1_000_000)
    }
}

impl SentinelEvent {
    /// The word of the text with this index, as a port.
    ///
    /// # Panics
    ///
    /// When it is not a port.
    pub fn port(&self, word: usize) -> u16 {
        let port = self.text.split(' ').nth(word).and_then(|word| word.parse().ok());
        port.unwrap_or_else(|| panic!("no port at {word} in {self:?}"))
    }
}

impl SentinelEvents {
    /// Subscribes to the events of these Sentinels.
    ///
    /// # Panics
    ///
    /// When a subscription fails.
    pub async fn of(sentinels: &Sentinels) -> Self {
        let heard = Arc::new(Heard::default());
        let mut tasks = JoinSet::new();
        for (number, sentinel) in sentinels.sentinels().iter().enumerate() {
            let client = Client::open(sentinel.url()).expect("the harness's own URL is valid");
            let pubsub = client.get_async_pubsub().await;
            let mut pubsub = pubsub.expect("a Sentinel takes a connection");
            pubsub.psubscribe("*").await.expect("a Sentinel takes a subscription");
            let heard = Arc::clone(&heard);
            tasks.spawn(async move {
                let mut messages = pubsub.into_on_message();
                while let Some(message) = messages.next().await {
                    let (name, text) = (message.get_channel_name(), message.get_payload());
                    let text = text.expect("a Sentinel speaks UTF-8");
                    let name = name.to_owned();
                    let event = SentinelEvent { at: now(), sentinel: number, name, text };
                    heard.events.lock().await.push(event);
                    heard.more.notify_waiters();
                }
            });
        }
        Self { heard, _tasks: tasks }
    }

    /// Everything that was received since this time.
    pub async fn since(&self, time: u64) -> Vec<SentinelEvent> {
        let events = self.heard.events.lock().await;
        events.iter().filter(|event| event.at >= time).cloned().collect()
    }

    /// The first event of this name since this time; waits for it if necessary.
    ///
    /// # Panics
    ///
    /// When it does not come within the limit, with the events that came instead.
    pub async fn first(&self, since: u64, name: &str, limit: Duration) -> SentinelEvent {
        let search = async {
            loop {
                let more = self.heard.more.notified();
                let mut more = std::pin::pin!(more);
                more.as_mut().enable();
                let events = self.since(since).await;
                if let Some(event) = events.into_iter().find(|event| event.name == name) {
                    return event;
                }
                more.await;
            }
        };
        match timeout(limit, search).await {
            Ok(event) => event,
            Err(_) => panic!("no {name} within {limit:?}, but {:#?}", self.since(since).await),
        }
    }
}
