//! How the holder of a lock is shown: everything that is known except the token, which is a secret.

use lock::Holder;
use serde::Serialize;

use crate::output::{millis, printable, time};

/// A holder for programs.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    name: Option<&'a str>,
    host: Option<&'a str>,
    pid: Option<u32>,
    version: Option<&'a str>,
    held_for_ms: Option<u64>,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(holder: &'a Holder) -> Self {
        Self {
            name: holder.name.as_deref(),
            host: holder.host.as_deref(),
            pid: holder.pid,
            version: holder.version.as_deref(),
            held_for_ms: holder.held_for.and_then(millis),
        }
    }

    pub(crate) fn all(holders: &'a [Holder]) -> Vec<Self> {
        holders.iter().map(Self::new).collect()
    }
}

/// A holder for people: `billing-7 (process 4121 on web-3)`.
pub(crate) fn words(holder: &Holder) -> String {
    let process = holder.pid.map(|pid| format!("process {pid}"));
    let host = holder.host.as_deref().map(printable);
    let place = match (process, host) {
        (Some(process), Some(host)) => Some(format!("{process} on {host}")),
        (Some(process), None) => Some(process),
        (None, host) => host,
    };
    match (holder.name.as_deref().map(printable), place) {
        (Some(name), Some(place)) => format!("{name} ({place})"),
        (Some(name), None) => name,
        (None, Some(place)) => place,
        (None, None) if is_foreign(holder) => "an unknown client".to_owned(),
        (None, None) => "an unnamed client of this library".to_owned(),
    }
}

/// Whether the holder is a client of another library, which is not told when its lock is released.
/// Tokens of this library have a form of their own (docs/protocol.md).
pub(crate) fn is_foreign(holder: &Holder) -> bool {
    let is_of_the_library = |token: &str| {
        token.split_once(':').is_some_and(|(client, number)| {
            let is_client =
                client.len() == 32 && client.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_client && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    !is_of_the_library(holder.token.as_str())
}

pub(crate) fn held_for(holder: &Holder) -> String {
    holder.held_for.map_or_else(|| "unknown".to_owned(), time)
}

/// Several holders in one cell or line.
pub(crate) fn all(holders: &[Holder]) -> String {
    match holders {
        [] => "an unknown holder".to_owned(),
        holders => holders.iter().map(words).collect::<Vec<_>>().join(", "),
    }
}
