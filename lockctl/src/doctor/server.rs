//! One server that is asked about itself.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, Pipeline, RedisError, Value,
    aio::MultiplexedConnection,
};

use super::store::Store;

/// The bound for a connect, and for each answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A connection to a server, a Sentinel or a node of a Cluster.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) client: Client,
    /// Whether it accepts writes only after a failover.
    pub(crate) is_replica: bool,
    connection: MultiplexedConnection,
}

impl Server {
    pub(crate) async fn connect(store: &Store, info: &ConnectionInfo) -> Result<Self, RedisError> {
        let client = store.client(info)?;
        let bounds = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connection = client.get_multiplexed_async_connection_with_config(&bounds).await?;
        let address = info.addr().to_string();
        let server = Self { address, client, is_replica: false, connection };
        // A server that requires a password, or is still loading, refuses even PING. A user without
        // the right to PING may have others: the users of Sentinels do not get it.
        match server.ask(&[&["PING"]]).await?.pop() {
            Some(Value::ServerError(error)) if error.code() != "NOPERM" => Err(error.into()),
            _ => Ok(server),
        }
    }

    /// Sends all commands at once; the answer to a refused one is a [`Value::ServerError`] in its
    /// place.
    pub(crate) async fn ask<W: AsRef<str>>(
        &self,
        commands: &[&[W]],
    ) -> Result<Vec<Value>, RedisError> {
        let mut pipeline = Pipeline::new();
        for words in commands {
            let (name, rest) = words.split_first().expect("BUG: a command has a name");
            let command = pipeline.cmd(name.as_ref());
            for word in rest {
                command.arg(word.as_ref());
            }
        }
        self.connection.clone().send_packed_commands(&pipeline, 0, pipeline.len()).await
    }

    /// The sections of INFO, or none if this user may not ask.
    pub(crate) async fn info(&self) -> Result<Option<Info>, RedisError> {
        const SECTIONS: [&str; 6] =
            ["server", "clients", "memory", "persistence", "stats", "replication"];
        let questions = SECTIONS.map(|section| ["INFO", section]);
        let questions: Vec<&[&str]> = questions.iter().map(<[_; 2]>::as_slice).collect();
        let answers = self.ask(&questions).await?;
        let sections: Option<Vec<_>> = answers.into_iter().map(text).collect();
        Ok(sections.map(|sections| Info(sections.concat())))
    }
}

/// What INFO says.
pub(crate) struct Info(String);

impl Info {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.lines().find_map(|(known, value)| (known == name).then_some(value))
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| line.trim_end().split_once(':'))
    }
}

/// An answer that is text.
pub(crate) fn text(answer: Value) -> Option<String> {
    match answer {
        Value::BulkString(text) => String::from_utf8(text).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// An answer that is a list of text.
pub(crate) fn texts(answer: Value) -> Option<Vec<String>> {
    match answer {
        Value::Array(list) => list.into_iter().map(text).collect(),
        _ => None,
    }
}

/// The value of a setting of the server, if this user may ask for it.
pub(crate) async fn setting(server: &Server, name: &str) -> Option<String> {
    let answers = server.ask(&[&["CONFIG", "GET", name]]).await.ok()?;
    texts(answers.into_iter().next()?)?.into_iter().nth(1)
}
