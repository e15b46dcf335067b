//! Strings that every acquire builds, in one allocation each.

use std::sync::Arc;

/// A string of at most this many bytes needs no allocation besides that of the result.
const SHORT: usize = 256;

/// Returns the parts, concatenated.
#[must_use]
pub fn concatenated(parts: &[&str]) -> Arc<str> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut short = [0; SHORT];
    let Some(buffer) = short.get_mut(..length) else { return parts.concat().into() };
    let mut end = 0;
    for part in parts {
        buffer[end..end + part.len()].copy_from_slice(part.as_bytes());
        end += part.len();
    }
    // A concatenation of valid strings is valid.
    std::str::from_utf8(buffer).map_or_else(|_| parts.concat().into(), Arc::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_parts_are_put_together() {
        let long = "é".repeat(200);
        assert_eq!(&*concatenated(&["lock:", "", "é"]), "lock:é");
        assert_eq!(*concatenated(&["lock:", &long]), format!("lock:{long}"));
        assert_eq!(&*concatenated(&[]), "");
    }
}
