//! The Lua scripts, and how they are called.
//!
//! A script is called by its hash, and by its source where the server does not know it (after a
//! restart, a `SCRIPT FLUSH`, a failover): on the same connection, so never on another node than
//! the one that asked for it.

use std::{borrow::Cow, sync::LazyLock};

use redis::{Cmd, Pipeline, ToRedisArgs, Value};

use crate::mutant;

/// One script, and the hash the server knows it by.
pub(super) struct Script {
    source: LazyLock<Cow<'static, str>>,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)*) => {
        $(pub(super) static $name: Script = Script {
            source: LazyLock::new(|| mutant::script(concat!($(include_str!($file)),+))),
            hash: LazyLock::new(|| redis::Script::new(&$name.source).get_hash().to_owned()),
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
    DEBOUNCE = "fence.lua" "queue.lua" "window.lua" "debounce.lua";
    DURABLE_CALL = "record.lua" "durable_call.lua";
    DURABLE_DUE = "durable_due.lua";
    DURABLE_CLAIM = "fence.lua" "record.lua" "durable_claim.lua";
    DURABLE_FINISH = "record.lua" "durable_finish.lua";
    DURABLE_ASIDE = "durable_aside.lua";
    DURABLE_TAKE_BACK = "record.lua" "durable_take_back.lua";
    END_WINDOW = "queue.lua" "window.lua" "end_window.lua";
}

impl Script {
    /// Appends the command that makes the server know this script.
    pub(super) fn load(&self, pipeline: &mut Pipeline) {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(&**self.source);
    }
}

/// One call of a script, written as it goes over the wire: no argument is copied twice.
pub(super) struct Invocation {
    script: &'static Script,
    by_hash: Cmd,
}

impl Invocation {
    /// A call with so many keys. They come before the arguments.
    pub(super) fn of(script: &'static Script, keys: usize) -> Self {
        // Most calls are about one lock; a batch grows from there.
        let mut by_hash = Cmd::with_capacity(16, 512);
        by_hash.arg("EVALSHA").arg(&*script.hash).arg(keys);
        Self { script, by_hash }
    }

    /// A key, or an argument.
    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.by_hash.arg(argument);
        self
    }

    pub(super) fn by_hash(&self) -> &Cmd {
        &self.by_hash
    }

    /// The same call with the script's source, which makes the server know it from then on.
    pub(super) fn by_source(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(&**self.script.source);
        for argument in self.by_hash.args_iter().skip(2) {
            if let redis::Arg::Simple(argument) = argument {
                command.arg(argument);
            }
        }
        command
    }
}

/// Does the server not know the script that was called by its hash?
pub(super) fn is_unknown(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT")
}
