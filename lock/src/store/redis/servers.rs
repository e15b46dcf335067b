//! What an application asks of its Redis servers, whatever leads to them.

use super::admission::Provider;
use crate::{Error, warning::Warnings};

/// What an application asks of its Redis servers.
#[derive(Default)]
pub(crate) struct Servers {
    /// How many replicas have to acknowledge a grant.
    pub(crate) min_replicas: usize,
    /// Who is asked for user and password, if they change.
    pub(crate) provider: Option<Provider>,
    pub(crate) warnings: Warnings,
}

impl Servers {
    /// Refuses what only a server could give, for a store that has none.
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
