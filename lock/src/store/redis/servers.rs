//! What an application requires of its Redis servers, however they are reached.

use std::sync::Arc;

use super::admission::Provider;
use crate::{Error, warning::Warnings};

/// What an application requires of its Redis servers.
pub(crate) struct Servers {
    /// How many replicas have to acknowledge a grant.
    pub(crate) min_replicas: usize,
    /// The provider of user and password, if they change.
    pub(crate) provider: Option<Provider>,
    /// The prefix of every lock's key.
    pub(crate) prefix: Arc<str>,
    pub(crate) warnings: Warnings,
}

impl Default for Servers {
    fn default() -> Self {
        let (prefix, warnings) = ("".into(), Warnings::default());
        Self { min_replicas: 0, provider: None, prefix, warnings }
    }
}

impl Servers {
    /// Refuses settings that only a server could honour, for a store that has none.
    pub(crate) fn are_none(&self) -> Result<(), Error> {
        let needless = if self.min_replicas > 0 {
            "`min_replicas`"
        } else if self.provider.is_some() {
            "`credentials`"
        } else {
            return Ok(());
        };
        Err(Error::invalid(format!(
            "{needless} is for Redis servers, and this store has none: leave it out"
        )))
    }
}
