//! The tokens of other clients, which may be any bytes.

use std::{borrow::Cow, fmt::Write};

use lock_core::Token;

/// The prefix of the hexadecimal digits of a token that is not text.
const BINARY: &str = "~bytes:";

/// The token for the bytes that a server returned.
pub(super) fn token_of(bytes: &[u8]) -> Token {
    let digits = || {
        bytes.iter().fold(BINARY.to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    Token::from(std::str::from_utf8(bytes).map_or_else(|_| digits(), str::to_owned))
}

/// The bytes of this token on the server.
pub(super) fn bytes_of(token: &Token) -> Cow<'_, [u8]> {
    let digits = token.as_str().strip_prefix(BINARY).map(str::as_bytes);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = digits.filter(|digits| digits.len().is_multiple_of(2));
    let bytes = bytes.and_then(|digits| digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>());
    // A token that looks like this but is text after all.
    let bytes = bytes.filter(|bytes| std::str::from_utf8(bytes).is_err());
    bytes.map_or_else(|| Cow::Borrowed(token.as_str().as_bytes()), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_no_text_is_known_by_its_bytes() {
        let tokens =
            [&b"\xff\xfe\x01abc"[..], b"text", b"", b"~bytes:", b"~bytes:6162", b"~bytes:f"];
        for bytes in tokens {
            assert_eq!(&*bytes_of(&token_of(bytes)), bytes);
        }
    }
}
