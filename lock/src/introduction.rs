//! What a client says about itself, for operators who ask who holds a lock.

use std::sync::Arc;

use lock_core::{contract::ClientRecord, text::concatenated};

use crate::{error::Error, id::Prefix};

/// The longest name, in bytes.
const LONGEST_NAME: usize = 256;

/// The name that an application gives its client, and the prefix of the keys of its records.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    prefix: Prefix,
    name: Option<String>,
}

impl Introduction {
    pub(crate) fn new(prefix: Prefix, name: Option<String>) -> Result<Self, Error> {
        let length = name.as_ref().map_or(1, String::len);
        if (1..=LONGEST_NAME).contains(&length) {
            return Ok(Self { prefix, name });
        }
        Err(Error::invalid(format!(
            "the name of a client may have 1 to {LONGEST_NAME} bytes, but this one has {length}: \
             use the name of the instance, as in `billing-7`"
        )))
    }

    pub(crate) fn unnamed(prefix: Prefix) -> Self {
        Self { prefix, name: None }
    }

    /// The key of a client's record, from the first part of its tokens. Clients with another prefix
    /// have their records elsewhere.
    pub(crate) fn key_of(&self, client: &str) -> Arc<str> {
        concatenated(&[self.prefix.as_str(), "~client:", client])
    }

    /// The record of this process.
    pub(crate) fn record(&self) -> ClientRecord {
        ClientRecord::unknown()
            .name(self.name.clone())
            .process(host(), Some(std::process::id()))
            .version(Some(env!("CARGO_PKG_VERSION").to_owned()))
    }
}

/// The name of this machine, as its processes see it: in a container, the container's.
fn host() -> Option<String> {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").ok();
    name.filter(|name| !name.is_empty())
}
