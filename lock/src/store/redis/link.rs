//! One connection to a server, and the calls on it.
//!
//! Messages go out in the order in which they are first polled, and are answered in that order. A
//! link knows nothing of the connections before and after it.

use std::{borrow::Cow, time::Duration};

use redis::{Cmd, Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use tokio::task::AbortHandle;

use super::{
    admission::Admission,
    scripts::{self, Invocation, Known},
};

/// An established connection.
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
    /// `driver` aborts the task that reads and writes for the connection, if it is ours.
    pub(super) fn new(
        connection: MultiplexedConnection,
        driver: Option<AbortHandle>,
        identity: Option<Identity>,
        known: Known,
    ) -> Self {
        Self { connection, driver, identity, known }
    }

    /// Closes the link: calls that wait for an answer get an error, if the connection's task is
    /// ours.
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

    /// Prepares calls for one write, each by its hash if the server should know it. A call that has
    /// to be sent a second time is overtaken by those that were sent after it.
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

    /// Prepares calls for a server that does not know a script. A server that has forgotten one
    /// script has forgotten all. It gets all of them back at once, so that no client finds it
    /// knowing only some.
    pub(super) fn call_to_forgetful<I: AsRef<Invocation>>(
        &self,
        invocations: &[I],
        asking: bool,
    ) -> Message<'static> {
        let mut several = Several::of(invocations.len(), asking);
        // A user that may not load scripts has to send each of them by its source once.
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
    /// The server's errors are values; an `Err` is a failure of the connection.
    pub(super) async fn send(&self, message: Message<'_>) -> RedisResult<Vec<Value>> {
        let mut connection = self.connection.clone();
        match message {
            Message::One(command) => {
                connection.send_packed_command(&command).await.map(|reply| vec![reply])
            }
            Message::Several(several) => several.send(&mut connection).await,
        }
    }

    /// Waits until `replicas` replicas have everything that was written on this connection, or
    /// until the limit has passed, and returns how many have it. The connection answers nothing
    /// else meanwhile.
    pub(super) async fn wait_for_replicas(
        &self,
        replicas: usize,
        limit: Duration,
    ) -> RedisResult<Value> {
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas).arg(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        self.connection.clone().send_packed_command(&wait).await
    }

    /// Sends other credentials to the server; a server's error is a value.
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
    /// The number of leading commands whose answers are not needed.
    skip: usize,
    /// Each call is preceded by `ASKING`, because the slot of its keys is still being moved to this
    /// node.
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
