//! The names of keys: those of locks, and those of the library's own keys beside them.
//!
//! The library's own keys begin with a tilde, or have one right after the prefix, so that no id can
//! name them.
//!
//! On one server nothing else is needed. If each server has only some of the keys, all keys of a
//! call have to be in one slot. A lock keeps its name, which others may know, and the keys beside
//! it have a tag of that name's slot. Keys that only the library uses, such as the window of a
//! debounce, the lock of its run and the book of durable calls, are tagged as a whole: by the slot
//! of the id, or of the function.

use std::sync::Arc;

use redis::{RedisWrite, ToRedisArgs};

use super::slots::{self, Slot};

/// How keys are named.
#[derive(Clone, Debug)]
pub(super) enum Naming {
    /// One server has them all.
    Plain,
    /// All keys of a call are in one slot. No prefix contains a tilde, and no id begins with one: a
    /// key that begins with the prefix and a tilde is the library's own.
    Slotted { prefix: Arc<str> },
}

impl Naming {
    pub(super) fn is_slotted(&self) -> bool {
        matches!(self, Self::Slotted { .. })
    }

    /// The pattern for the names of all keys that begin so; for the library's own, whatever their
    /// tags.
    pub(super) fn pattern(&self, beginning: &str) -> String {
        let Self::Slotted { prefix } = self else { return format!("{}*", literal(beginning)) };
        let is_own = beginning.strip_prefix(&**prefix).is_some_and(|own| own.starts_with('~'));
        format!("{}{}*", if is_own { "{*}" } else { "" }, literal(beginning))
    }

    /// A name without the library's tag, if it has one.
    pub(super) fn untagged<'a>(&self, name: &'a str) -> &'a str {
        let Self::Slotted { prefix } = self else { return name };
        let rest = name.strip_prefix('{').and_then(|tagged| tagged.split_once('}'));
        let own = rest
            .map(|(_, key)| key)
            .filter(|key| key.strip_prefix(&**prefix).is_some_and(|own| namesake(own).is_some()));
        own.unwrap_or(name)
    }

    /// Where a key is, with all keys beside it.
    pub(super) fn home<'a>(&self, key: &'a str) -> Home<'a> {
        let Self::Slotted { prefix } = self else { return Home { key, place: Place::Anywhere } };
        let place = match key.strip_prefix(&**prefix).and_then(namesake) {
            Some(namesake) => Place::Tagged(slots::of(format!("{prefix}{namesake}").as_bytes())),
            None => Place::Slot(slots::of(key.as_bytes())),
        };
        Home { key, place }
    }
}

/// The pattern, in the server's syntax, that matches this text and nothing else.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// What one of the library's own keys is named after: the id of a debounce, a function, or a
/// client. Keys with the same namesake are in one slot.
fn namesake(own: &str) -> Option<&str> {
    let (kind, rest) = own.strip_prefix('~')?.split_once(':')?;
    match kind {
        "debounce" | "run" | "due" | "calls" | "aside" | "client" => Some(rest),
        // The id of the call follows the function.
        "durable" => {
            let (length, rest) = rest.split_once(':')?;
            rest.get(..length.parse().ok()?)
        }
        _ => None,
    }
}

/// A key as a request names it, and where it is.
#[derive(Clone, Copy)]
pub(super) struct Home<'a> {
    key: &'a str,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    /// There are no slots, or they do not matter.
    Anywhere,
    /// In the slot of its own name.
    Slot(Slot),
    /// In this slot, of which its name gets a tag.
    Tagged(Slot),
}

impl<'a> Home<'a> {
    /// The slot of the key; 0 for all keys if there are no slots.
    pub(super) fn slot(self) -> Slot {
        match self.place {
            Place::Anywhere => 0,
            Place::Slot(slot) | Place::Tagged(slot) => slot,
        }
    }

    fn tag(self) -> Option<&'static str> {
        match self.place {
            Place::Anywhere => None,
            Place::Slot(slot) | Place::Tagged(slot) => Some(slots::tag(slot)),
        }
    }

    /// The key of this lock's queue.
    pub(super) fn queue(self) -> QueueOf<'a> {
        QueueOf(self)
    }

    /// The counter that this lock's fences are drawn from.
    pub(super) fn fence(self) -> Fence {
        Fence(self.tag())
    }
}

/// The key itself.
impl ToRedisArgs for Home<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        match self.place {
            Place::Tagged(slot) => {
                out.write_arg_fmt(format_args!("{{{}}}{}", slots::tag(slot), self.key));
            }
            _ => out.write_arg(self.key.as_bytes()),
        }
    }
}

pub(super) struct QueueOf<'a>(Home<'a>);

impl ToRedisArgs for QueueOf<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let key = self.0.key;
        match self.0.tag() {
            Some(tag) => out.write_arg_fmt(format_args!("~queue:{{{tag}}}:{key}")),
            None => out.write_arg_fmt(format_args!("~queue:{key}")),
        }
    }
}

/// The counter that fences are drawn from: one for each database, or in a Cluster one for each
/// slot. It is the only key without an expiry.
pub(super) struct Fence(Option<&'static str>);

impl Fence {
    /// The counter of a server that has every key.
    pub(super) const ONLY: Self = Self(None);
}

impl ToRedisArgs for Fence {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        match self.0 {
            Some(tag) => out.write_arg_fmt(format_args!("~fence:{{{tag}}}")),
            None => out.write_arg(b"~fence"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(argument: impl ToRedisArgs) -> String {
        let [argument] = &argument.to_redis_args()[..] else { panic!("one argument") };
        String::from_utf8(argument.clone()).unwrap()
    }

    const NASTY: [&str; 17] = [
        "plain",
        "a{b}c",
        "{}",
        "a{",
        "}{",
        "{",
        "}",
        "{a",
        "a}",
        "{a}",
        "{a}{b}",
        "x{{a}}",
        "{}{a}",
        "~queue:{a}:b",
        "ünïcode{ß}",
        "a b\r\n",
        "{x}:~run:y",
    ];

    #[test]
    fn a_lock_keeps_its_name_and_what_stands_beside_it_is_in_its_slot() {
        let naming = Naming::Slotted { prefix: "lock:".into() };
        for id in NASTY {
            let key = format!("lock:{id}");
            let home = naming.home(&key);
            assert_eq!(written(home), key);
            for beside in [written(home.queue()), written(home.fence())] {
                assert_eq!(slots::of(beside.as_bytes()), home.slot(), "{beside}");
            }
        }
    }

    #[test]
    fn what_is_named_after_one_id_or_one_function_is_in_one_slot() {
        for prefix in ["lock:", "", "{tenant}:", "a{", "}"] {
            let naming = Naming::Slotted { prefix: prefix.into() };
            for name in NASTY {
                let length = name.len();
                let runs = ["1", "{2}", ""].map(|id| format!("~durable:{length}:{name}:{id}"));
                let kinds = ["~debounce:", "~run:", "~due:", "~calls:", "~aside:"];
                let own = kinds.map(|kind| format!("{kind}{name}")).into_iter().chain(runs);
                let slot = slots::of(format!("{prefix}{name}").as_bytes());
                for own in own {
                    let key = format!("{prefix}{own}");
                    let home = naming.home(&key);
                    assert_eq!(home.slot(), slot, "{key}");
                    assert!(written(home).ends_with(&key), "{key}");
                    for written in [written(home), written(home.queue()), written(home.fence())] {
                        assert_eq!(slots::of(written.as_bytes()), slot, "{written}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_id_that_looks_like_a_key_of_the_library_is_a_lock() {
        let naming = Naming::Slotted { prefix: "lock:".into() };
        for key in ["lock:a~run:b", "~run:b", "lock:~other:b", "lock:~durable:x:b"] {
            assert_eq!(written(naming.home(key)), key);
        }
    }

    #[test]
    fn a_pattern_finds_names_by_what_they_begin_with() {
        let naming = Naming::Slotted { prefix: "lock:".into() };
        assert_eq!(naming.pattern("lock:a*[b"), r"lock:a\*\[b*");
        assert_eq!(naming.pattern("lock:~debounce:a"), "{*}lock:~debounce:a*");
        assert_eq!(Naming::Plain.pattern("lock:~debounce:"), "lock:~debounce:*");
        for key in ["lock:~debounce:{a}", "lock:~client:a", "lock:~run:}"] {
            assert_eq!(naming.untagged(&written(naming.home(key))), key);
            assert_eq!(Naming::Plain.untagged(key), key);
        }
        for key in ["{a}lock:b", "lock:a", "{", "{}"] {
            assert_eq!(naming.untagged(key), key, "an id, or somebody else's");
        }
    }

    #[test]
    fn one_server_needs_no_tags() {
        let home = Naming::Plain.home("lock:~run:{a}");
        assert_eq!(written(home), "lock:~run:{a}");
        assert_eq!(written(home.queue()), "~queue:lock:~run:{a}");
        assert_eq!(written(home.fence()), "~fence");
    }
}
