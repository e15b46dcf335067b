//! One connection to a server, and the calls on it.
//!
//! What is sent on it goes out in the order in which it was first polled, and is answered in that
//! order. It knows nothing of the connection before and the one behind it.

use std::{borrow::Cow, time::Duration};

use redis::{Cmd, Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use tokio::task::AbortHandle;

use super::{
    admission::Admission,
    scripts::{self, Invocation, Known},
};

/// One connection that was established.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: Option<AbortHandle>,
    identity: Option<Identity>,
    known: Known,
}

/// How a server process names one of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Numbers start again with every process, so they mean nothing without its name.
    pub(super) process: String,
    pub(super) number: i64,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

impl Link {
    /// `driver` ends what reads and writes for the connection, where that is ours to do.
    pub(super) fn new(
        connection: MultiplexedConnection,
        driver: Option<AbortHandle>,
        identity: Option<Identity>,
        known: Known,
    ) -> Self {
        Self { connection, driver, identity, known }
    }

    /// Ends it: what waits for an answer gets an error, where the connection is driven by us.
    pub(super) fn close(&self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }

    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Calls in one write: each by the hash where the server should know it. What has to be sent a
    /// second time is overtaken by what was sent behind it.
    pub(super) fn call<'a, I: AsRef<Invocation>>(
        &self,
        invocations: &'a [I],
        asking: bool,
    ) -> Message<'a> {
        if let ([invocation], false) = (invocations, asking) {
            return Message::One(self.command(invocation.as_ref()));
        }
        let mut several = Several::of(invocations.len(), asking);
        for invocation in invocations {
            several.call(self.command(invocation.as_ref()).into_owned());
        }
        Message::Several(several)
    }

    fn command<'a>(&self, invocation: &'a Invocation) -> Cow<'a, Cmd> {
        if self.known.learn(invocation.script()) {
            Cow::Borrowed(invocation.by_hash())
        } else {
            Cow::Owned(invocation.by_source())
        }
    }

    /// A server that has forgotten one script has forgotten all. It gets them back at once, so that
    /// no client finds it knowing some and not the others.
    pub(super) fn call_to_forgetful<I: AsRef<Invocation>>(
        &self,
        invocations: &[I],
        asking: bool,
    ) -> Message<'static> {
        let mut several = Several::of(invocations.len(), asking);
        // A user who may not do that has to send each of them by its source once.
        if self.known.all_were_loaded() {
            several.load_all();
        } else {
            self.known.forget();
        }
        for invocation in invocations {
            let invocation = invocation.as_ref();
            self.known.learn(invocation.script());
            several.call(invocation.by_source());
        }
        Message::Several(several)
    }

    /// Sends a message, and waits for its answer. The first poll puts its commands into the
    /// connection's queue.
    ///
    /// The server's errors come as values: an error is the connection's.
    pub(super) async fn send(&self, message: Message<'_>) -> RedisResult<Vec<Value>> {
        let mut connection = self.connection.clone();
        match message {
            Message::One(command) => {
                connection.send_packed_command(&command).await.map(|reply| vec![reply])
            }
            Message::Several(several) => several.send(&mut connection).await,
        }
    }

    /// Asks how many replicas have what was written on this connection, once they are so many or the
    /// time is over. Nothing else is answered on it meanwhile.
    pub(super) async fn wait_for_replicas(
        &self,
        replicas: usize,
        limit: Duration,
    ) -> RedisResult<Value> {
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas).arg(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        self.connection.clone().send_packed_command(&wait).await
    }

    /// Tells the server other credentials; an error of its own comes as a value.
    pub(super) async fn admit(&self, admission: &Admission) -> RedisResult<Value> {
        self.connection.clone().send_packed_command(&admission.again()).await
    }

    /// Asks whether the server answers on this connection.
    pub(super) async fn ping(&self) -> RedisResult<Value> {
        self.connection.clone().send_packed_command(&redis::cmd("PING")).await
    }
}

/// One write.
pub(super) enum Message<'a> {
    One(Cow<'a, Cmd>),
    Several(Several),
}

/// Several commands in one write.
pub(super) struct Several {
    pipeline: Pipeline,
    /// How many of them nobody wants the answers to.
    skip: usize,
    /// Each call has a word ahead of it, that the slot of its keys is still being moved here.
    asking: bool,
}

impl Several {
    fn of(calls: usize, asking: bool) -> Self {
        let commands = if asking { 2 * calls } else { calls };
        Self { pipeline: Pipeline::with_capacity(commands), skip: 0, asking }
    }

    /// Sends all scripts ahead of the calls.
    fn load_all(&mut self) {
        scripts::ALL.iter().for_each(|script| script.load(&mut self.pipeline));
        self.skip = self.pipeline.len();
    }

    fn call(&mut self, command: Cmd) {
        if self.asking {
            self.pipeline.cmd("ASKING");
        }
        self.pipeline.add_command(command);
    }

    async fn send(self, connection: &mut MultiplexedConnection) -> RedisResult<Vec<Value>> {
        let Self { pipeline, skip, asking } = self;
        let count = pipeline.len() - skip;
        let replies = connection.send_packed_commands(&pipeline, skip, count).await?;
        Ok(if asking { replies.into_iter().skip(1).step_by(2).collect() } else { replies })
    }
}
