//! The Lua scripts, and how they are called.
//!
//! A script is called by its hash, and again by its source if the server does not know it (after a
//! restart, a `SCRIPT FLUSH` or a failover). Both calls go to the same node.
//!
//! A call that is repeated by its source runs after calls that were sent later, and these may undo
//! it or rely on it. So each connection begins by loading all scripts. If that is forbidden, each
//! script is called by its source the first time.

use std::{
    borrow::Cow,
    ptr,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use redis::{Cmd, Pipeline, ToRedisArgs, Value};

use super::slots::Slot;

/// One script, and the hash the server knows it by.
pub(super) struct Script {
    source: LazyLock<Cow<'static, str>>,
    hash: LazyLock<String>,
}

/// The text of a script; in mutation tests, with the mistake that is switched on.
fn text(source: &'static str) -> Cow<'static, str> {
    #[cfg(lock_mutants)]
    let text = super::mutants::written(source);
    #[cfg(not(lock_mutants))]
    let text = Cow::Borrowed(source);
    text
}

macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)*) => {
        $(pub(super) static $name: Script = Script {
            source: LazyLock::new(|| text(concat!($(include_str!($file)),+))),
            hash: LazyLock::new(|| redis::Script::new(&$name.source).get_hash().to_owned()),
        };)*

        /// All scripts.
        pub(super) static ALL: &[&Script] = &[$(&$name),*];
    };
}

// Code that several operations share comes first: before functions came with Redis 7, a server had
// no other way to share code between scripts.
scripts! {
    ACQUIRE = "fence.lua" "queue.lua" "acquire.lua";
    RENEW = "renew.lua";
    RELEASE = "queue.lua" "release.lua";
    EXTEND = "extend.lua";
    HOLDER = "queue.lua" "holder.lua";
    FORCE_RELEASE = "queue.lua" "force_release.lua";
    INTRODUCE = "introduce.lua";
    CLIENT = "client.lua";
    SCAN = "scan.lua";
    DEBOUNCE = "fence.lua" "queue.lua" "window.lua" "debounce.lua";
    DURABLE_CALL = "record.lua" "durable_call.lua";
    DURABLE_DUE = "durable_due.lua";
    DURABLE_WAITING = "durable_waiting.lua";
    DURABLE_CLAIM = "fence.lua" "record.lua" "durable_claim.lua";
    DURABLE_FINISH = "record.lua" "durable_finish.lua";
    DURABLE_ASIDE = "durable_aside.lua";
    DURABLE_TAKE_BACK = "record.lua" "durable_take_back.lua";
    END_WINDOW = "queue.lua" "window.lua" "end_window.lua";
    DUE_IN = "window.lua" "due_in.lua";
}

impl Script {
    /// Appends the command that loads this script into the server.
    pub(super) fn load(&self, pipeline: &mut Pipeline) {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(&**self.source);
    }
}

/// The scripts that the server knows, judging by what was sent on one connection.
pub(super) struct Known {
    /// One bit for each of [`ALL`].
    scripts: AtomicU32,
    all_were_loaded: bool,
}

impl Known {
    /// By the answers to [`Script::load`], in the order of [`ALL`].
    pub(super) fn loaded(answers: impl Iterator<Item = bool>) -> Self {
        let bits = answers.zip(ALL).enumerate();
        let scripts = bits.fold(0, |all, (number, (loaded, _))| all | u32::from(loaded) << number);
        Self {
            scripts: AtomicU32::new(scripts),
            all_were_loaded: scripts.count_ones() as usize == ALL.len(),
        }
    }

    /// Whether the server knows this script. It does from now on, because the caller sends the
    /// script's source if it did not.
    pub(super) fn learn(&self, script: &'static Script) -> bool {
        let number = ALL.iter().position(|known| ptr::eq(*known, script));
        let bit = number.map_or(0, |number| 1 << number);
        // Relaxed: a call that goes by the hash too early is repeated.
        self.scripts.load(Ordering::Relaxed) & bit != 0
            || self.scripts.fetch_or(bit, Ordering::Relaxed) & bit != 0
    }

    pub(super) fn forget(&self) {
        self.scripts.store(0, Ordering::Relaxed);
    }

    /// Whether this user may load scripts.
    pub(super) fn all_were_loaded(&self) -> bool {
        self.all_were_loaded
    }
}

/// One call of a script, written as it goes over the wire: no argument is copied twice.
pub(super) struct Invocation {
    script: &'static Script,
    /// The slot of all its keys.
    slot: Slot,
    by_hash: Cmd,
}

impl Invocation {
    /// Begins a call with this number of keys, all in one slot. They come before the arguments.
    pub(super) fn of(script: &'static Script, slot: Slot, keys: usize) -> Self {
        // Most calls are about one lock; a batch grows from there.
        let mut by_hash = Cmd::with_capacity(16, 512);
        by_hash.arg("EVALSHA").arg(&*script.hash).arg(keys);
        Self { script, slot, by_hash }
    }

    /// A key, or an argument.
    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.by_hash.arg(argument);
        self
    }

    pub(super) fn script(&self) -> &'static Script {
        self.script
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    pub(super) fn by_hash(&self) -> &Cmd {
        &self.by_hash
    }

    /// The same call with the script's source, after which the server knows the script.
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

impl AsRef<Invocation> for Invocation {
    fn as_ref(&self) -> &Invocation {
        self
    }
}

/// Whether the server does not know the script that was called by its hash.
pub(super) fn is_unknown(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT")
}
