//! The Lua scripts, and how they are called.
//!
//! A script is called by its hash, and by its source where the server does not know it (after a
//! restart, a `SCRIPT FLUSH`, a failover): on the same connection, so never on another node than
//! the one that asked for it.

use std::sync::LazyLock;

use redis::{Cmd, Pipeline, ToRedisArgs, Value};

/// One script, and the hash the server knows it by.
pub(super) struct Script {
    source: &'static str,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)*) => {
        $(pub(super) static $name: Script = Script {
            source: concat!($(include_str!($file)),+),
            hash: LazyLock::new(|| {
                redis::Script::new(concat!($(include_str!($file)),+)).get_hash().to_owned()
            }),
        };)*

        /// Every script there is.
        pub(super) static ALL: &[&Script] = &[$(&$name),*];
    };
}

// What several operations share comes first: a server has no other way to share code between
// scripts before functions came with Redis 7.
scripts! {
    ACQUIRE = "fence.lua" "queue.lua" "acquire.lua";
    RENEW = "renew.lua";
    RELEASE = "queue.lua" "release.lua";
    EXTEND = "extend.lua";
    HOLDER = "queue.lua" "holder.lua";
    FORCE_RELEASE = "queue.lua" "force_release.lua";
    REGISTER = "debounce_register.lua";
    CLAIM = "fence.lua" "debounce_claim.lua";
}

impl Script {
    /// Appends the command that makes the server know this script.
    pub(super) fn load(&self, pipeline: &mut Pipeline) {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(self.source);
    }
}

/// One call of a script.
pub(super) struct Invocation {
    script: &'static Script,
    keys: usize,
    /// Keys, then arguments, as they go over the wire.
    arguments: Vec<Vec<u8>>,
}

impl Invocation {
    pub(super) fn of(script: &'static Script) -> Self {
        Self { script, keys: 0, arguments: Vec::new() }
    }

    /// Keys come before arguments.
    pub(super) fn key(mut self, key: &str) -> Self {
        debug_assert_eq!(self.keys, self.arguments.len());
        self.keys += 1;
        self.arguments.push(key.into());
        self
    }

    pub(super) fn argument(mut self, argument: impl ToRedisArgs) -> Self {
        self.arguments.extend(argument.to_redis_args());
        self
    }

    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    /// The same call with the script's source, which makes the server know it from then on.
    pub(super) fn by_source(&self) -> Cmd {
        self.command("EVAL", self.script.source)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys).arg(&self.arguments);
        command
    }
}

/// Does the server not know the script that was called by its hash?
pub(super) fn is_unknown(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT")
}
