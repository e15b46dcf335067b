//! Texts that every acquire makes: in one allocation each.

use std::sync::Arc;

/// What fits here needs no other allocation than the one of the result.
const SHORT: usize = 256;

/// The parts, one after the other.
pub(crate) fn concatenated(parts: &[&str]) -> Arc<str> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut short = [0; SHORT];
    let Some(buffer) = short.get_mut(..length) else { return parts.concat().into() };
    let mut end = 0;
    for part in parts {
        buffer[end..end + part.len()].copy_from_slice(part.as_bytes());
        end += part.len();
    }
    // Whole strings one after the other are a string.
    std::str::from_utf8(buffer).map_or_else(|_| parts.concat().into(), Arc::from)
}

/// A number, written in decimal.
pub(crate) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(crate) fn of(mut number: u64) -> Self {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { digits, start };
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[self.start..]).unwrap_or_default()
    }
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

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(Decimal::of(number).as_str(), number.to_string());
        }
    }
}
