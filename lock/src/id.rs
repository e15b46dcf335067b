//! Ids, prefixes, and the keys that are made from them.

use std::sync::Arc;

use lock_core::text::concatenated;

use crate::error::{Error, Subject};

/// The longest id, in bytes.
const LONGEST: usize = 1024;

/// What the library's own keys begin with, after the prefix. No id may begin with it.
const RESERVED: char = '~';

/// The id of a lock and the key that holds it.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) id: Arc<str>,
    pub(crate) key: Arc<str>,
}

/// What every key of one `Locks` begins with.
#[derive(Clone, Debug)]
pub(crate) struct Prefix(Arc<str>);

impl Default for Prefix {
    fn default() -> Self {
        Self("lock:".into())
    }
}

impl Prefix {
    pub(crate) fn parse(prefix: &str) -> Result<Self, Error> {
        if prefix.len() > LONGEST {
            return Err(Error::invalid(format!(
                "a prefix may have at most {LONGEST} bytes, but this one has {}",
                prefix.len()
            )));
        }
        if prefix.contains(RESERVED) {
            return Err(Error::invalid(
                "a prefix may not contain `~`, which marks the library's own keys",
            ));
        }
        Ok(Self(prefix.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The lock of this id: the prefix and the id as they are, so that any client that uses
    /// `SET key token NX PX lease` on the same key takes part.
    pub(crate) fn lock(&self, id: &Arc<str>) -> Result<Named, Error> {
        check(Subject::Lock, id)?;
        Ok(self.named(id, ""))
    }

    /// The keys of a debounce: its window, and the lock of its run.
    pub(crate) fn debounce(&self, id: &Arc<str>) -> Result<(Named, Named), Error> {
        check(Subject::Debounce, id)?;
        Ok((self.named(id, "~debounce:"), self.named(id, "~run:")))
    }

    /// Refuses an id that is not allowed.
    #[cfg(feature = "durable")]
    pub(crate) fn check_id(&self, id: &Arc<str>) -> Result<(), Error> {
        check(Subject::DurableCall, id)
    }

    /// The keys of the durable calls of the function of this name.
    #[cfg(feature = "durable")]
    pub(crate) fn book(&self, name: &str) -> Result<lock_core::contract::DurableBook, Error> {
        check(Subject::DurableFunction, &name.into())?;
        let key = |kind| concatenated(&[&self.0, kind, name]);
        Ok(lock_core::contract::DurableBook::new(key("~due:"), key("~calls:"), key("~aside:")))
    }

    /// The lock of a run of this function. The length of the name separates it from the id.
    #[cfg(feature = "durable")]
    pub(crate) fn durable_run(&self, name: &str, id: &Arc<str>) -> Named {
        let length = name.len().to_string();
        let key = concatenated(&[&self.0, "~durable:", &length, ":", name, ":", id]);
        Named { id: Arc::clone(id), key }
    }

    fn named(&self, id: &Arc<str>, kind: &str) -> Named {
        Named { id: Arc::clone(id), key: concatenated(&[&self.0, kind, id]) }
    }
}

/// Refuses an id that is not allowed. A leading `~` is reserved for the library's own keys: it
/// keeps a lock and a debounce of the same id, and the fence counter, apart under any prefix, even
/// the empty one.
fn check(subject: Subject, id: &Arc<str>) -> Result<(), Error> {
    let invalid = if id.is_empty() {
        "an id must not be empty: name what the lock protects, as in `invoice:42`".to_owned()
    } else if id.len() > LONGEST {
        // The id itself stays out of the message: it may be megabytes long.
        return Err(Error::invalid(format!(
            "an id may have at most {LONGEST} bytes, but this one has {}: use a digest of it",
            id.len()
        )));
    } else if id.starts_with(RESERVED) {
        "an id may not begin with `~`, which marks the library's own keys".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::invalid(invalid).about(subject, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn keys_of_one_id_differ_by_kind_and_never_meet_another_id() {
        let prefix = Prefix::parse("").unwrap();
        let id: Arc<str> = "a".into();
        let (window, run) = prefix.debounce(&id).unwrap();
        assert_eq!(&*prefix.lock(&id).unwrap().key, "a");
        assert_eq!((&*window.key, &*run.key), ("~debounce:a", "~run:a"));
        for taken in [&window.key, &run.key] {
            assert_eq!(prefix.lock(taken).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn ids_that_cannot_be_are_refused() {
        let prefix = Prefix::parse("lock:").unwrap();
        for (id, right) in [
            (String::new(), false),
            ("x".repeat(1024), true),
            ("x".repeat(1025), false),
            ("~fence".to_owned(), false),
            ("a~b".to_owned(), true),
            ("{a}b".to_owned(), true),
        ] {
            assert_eq!(prefix.lock(&id.as_str().into()).is_ok(), right, "{} bytes", id.len());
        }
        assert!(Prefix::parse("a~").is_err() && Prefix::parse(&"x".repeat(1025)).is_err());
    }
}
