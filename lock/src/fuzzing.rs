//! Parsers of untrusted input, for the fuzz targets (`--cfg fuzzing`, or the flag of the tests of
//! this repository).

use crate::{Error, url};

pub use crate::store::redis::fuzzing::{reply, wake};

/// Reads a URL, as [`Locks::connect`](crate::Locks::connect) does before it connects.
pub fn store_url(url: &str) -> Result<(), Error> {
    url::Target::parse(url, url::Beside::default()).map(drop)
}

/// Reads the URL from an environment, as [`Locks::from_env`](crate::Locks::from_env) does.
pub fn environment(variable: impl Fn(&str) -> Option<String>) -> Result<String, Error> {
    url::from_env(|name| variable(name).map(Into::into))
}
