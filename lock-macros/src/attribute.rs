//! The two attributes, and the arguments that they take.

use syn::{Ident, ext::IdentExt as _};

/// What other libraries and languages call an argument.
const OTHER_NAMES: [(&str, &str); 9] = [
    ("key", "id"),
    ("name", "id"),
    ("ttl", "lease"),
    ("expire", "lease"),
    ("timeout", "wait"),
    ("delay", "wait"),
    ("client", "locks"),
    ("fallback", "or_else"),
    ("on_error", "or_else"),
];

/// One of the two attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Locked,
    Debounced,
}

impl Attribute {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Locked => "#[locked]",
            Self::Debounced => "#[debounced]",
        }
    }

    /// Every argument, with an example of how to write it.
    fn arguments(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Locked => &[
                ("id", "id = \"invoice:{invoice_id}\""),
                ("lease", "lease = \"30s\""),
                ("wait", "wait = 500"),
                ("hold_at_most", "hold_at_most = \"5m\""),
                ("hold_at_least", "hold_at_least = \"1s\""),
                ("locks", "locks = self.locks"),
                ("guard", "guard = guard"),
                ("or_else", "or_else = |error| .."),
                ("skip", "skip"),
                ("on_lost", "on_lost = \"continue\""),
                ("reentrant", "reentrant"),
                ("crate", "crate = path::to::lock"),
            ],
            Self::Debounced => &[
                ("id", "id = \"reindex:{document_id}\""),
                ("wait", "wait = \"1s\""),
                ("max_wait", "max_wait = \"10s\""),
                ("leading", "leading"),
                ("hold_at_most", "hold_at_most = \"5m\""),
                ("detached", "detached"),
                ("durable", "durable"),
                ("run", "run = run"),
                ("locks", "locks = self.locks"),
                ("or_else", "or_else = |error| .."),
                ("crate", "crate = path::to::lock"),
            ],
        }
    }

    /// How to write the argument `key`; empty if there is no argument of that name.
    pub(crate) fn usage(self, key: &str) -> &'static str {
        let found = self.arguments().iter().find(|(name, _)| *name == key);
        found.map_or("", |(_, usage)| *usage)
    }

    /// The end of an error about the syntax after `key`, which may be an unknown name.
    pub(crate) fn hint(self, key: &Ident) -> String {
        match self.usage(&key.unraw().to_string()) {
            "" => String::new(),
            usage => format!("; write `{usage}`"),
        }
    }

    /// How to write the argument that an unknown name stands for: another spelling of its name, or
    /// what other libraries call it.
    pub(crate) fn meant(self, name: &str) -> Option<&'static str> {
        let plain = |name: &str| name.replace('_', "").to_lowercase();
        let called = OTHER_NAMES.iter().find(|(other, _)| *other == name);
        let name = called.map_or(name, |(_, meant)| meant);
        let found = self.arguments().iter().find(|(known, _)| plain(known) == plain(name));
        found.map(|(_, usage)| *usage)
    }

    /// The names of all arguments.
    pub(crate) fn allowed(self) -> String {
        let names = self.arguments().iter().map(|(name, _)| format!("`{name}`"));
        names.collect::<Vec<_>>().join(", ")
    }
}
