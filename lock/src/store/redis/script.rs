//! The Lua scripts, and how they are called.
//!
//! A script is called by its hash, and by its source where the server does not know it (after a
//! restart, a `SCRIPT FLUSH`, a failover): on the same connection, so never on another node than
//! the one that asked for it.

use std::sync::LazyLock;

use redis::{Pipeline, ToRedisArgs, Value};

/// One script, and the hash the server knows it by.
pub(super) struct Script {
    source: &'static str,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: Script = Script {
            source: include_str!($file),
            hash: LazyLock::new(|| redis::Script::new(include_str!($file)).get_hash().to_owned()),
        };)*

        /// Every script there is.
        pub(super) static ALL: &[&Script] = &[$(&$name),*];
    };
}

scripts! {
    ACQUIRE = "acquire.lua";
    RENEW = "renew.lua";
    RELEASE = "release.lua";
    EXTEND = "extend.lua";
    HOLDER = "holder.lua";
    FORCE_RELEASE = "force_release.lua";
    REGISTER = "debounce_register.lua";
    CLAIM = "debounce_claim.lua";
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
}

/// The pipeline that calls scripts by their hashes.
pub(super) fn by_hash(invocations: &[Invocation]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(invocations.len());
    for invocation in invocations {
        append(&mut pipeline, "EVALSHA", &invocation.script.hash, invocation);
    }
    pipeline
}

/// The pipeline that calls those scripts again which the server did not know, and their places in
/// the first one. The first call of each sends the source, which makes it known to the others.
pub(super) fn unknown_by_source(
    invocations: &[Invocation],
    replies: &[Value],
) -> Option<(Vec<usize>, Pipeline)> {
    let unknown = replies.iter().enumerate().filter(|(_, reply)| is_no_script(reply));
    let places: Vec<usize> = unknown.map(|(place, _)| place).collect();
    if places.is_empty() {
        return None;
    }
    let mut pipeline = Pipeline::with_capacity(places.len());
    let mut sent: Vec<&str> = Vec::new();
    for place in &places {
        let invocation = &invocations[*place];
        let hash = invocation.script.hash.as_str();
        if sent.contains(&hash) {
            append(&mut pipeline, "EVALSHA", hash, invocation);
        } else {
            append(&mut pipeline, "EVAL", invocation.script.source, invocation);
            sent.push(hash);
        }
    }
    Some((places, pipeline))
}

fn append(pipeline: &mut Pipeline, command: &str, script: &str, invocation: &Invocation) {
    pipeline.cmd(command).arg(script).arg(invocation.keys).arg(&invocation.arguments);
}

fn is_no_script(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT")
}
