//! The number of the protocol on which processes with different versions of this library have to
//! agree.
//!
//! docs/protocol.md describes the protocol: the keys, the marks in a queue, the words of notices,
//! and what one script leaves for another. The number changes as soon as processes of the previous
//! version cannot share locks with those of the next. The history tests run with both versions.

/// The number of the protocol.
const PROTOCOL: u32 = 1;

/// Our name in the server's list of clients (`CLIENT LIST`, from Redis 7.2 on).
pub(super) const LIBRARY: &str = "lock";

/// The version after that name, with the number of the protocol as build metadata (in the sense of
/// semantic versioning): blanks are not allowed there.
pub(super) fn library_version() -> String {
    format!("{}+protocol.{PROTOCOL}", env!("CARGO_PKG_VERSION"))
}
