//! What processes with different versions of this library have to agree on, by its number.
//!
//! docs/protocol.md describes it: the keys, the marks in a queue, the words of notices, and what a
//! script leaves for another one. It has another number as soon as processes of the version before
//! can not lock beside those of the next. The histories run with both.

/// Its number.
const PROTOCOL: u32 = 1;

/// As the server's list of its clients names us (`CLIENT LIST`, from Redis 7.2 on).
pub(super) const LIBRARY: &str = "lock";

/// The version behind that name, with the number of the protocol as what semantic versioning calls
/// build metadata: blanks are not allowed there.
pub(super) fn library_version() -> String {
    format!("{}+protocol.{PROTOCOL}", env!("CARGO_PKG_VERSION"))
}
