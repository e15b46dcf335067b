//! The maps of a keeper. Every lock passes through several of them, so hashing counts.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

/// By the key of a lock. Ids may come from anybody, so the hash is seeded.
pub(super) type ByKey<V> = HashMap<Arc<str>, V, foldhash::fast::RandomState>;

/// By a number of the keeper's own: nobody else chooses it, so spreading it is enough.
pub(crate) type ByNumber<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;

/// Spreads numbers that count up: a multiplication by the golden ratio puts them as far apart as
/// can be (Knuth, The Art of Computer Programming, volume 3, section 6.4).
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The map takes its bits from both ends, and the product is best at its upper one.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_count_up_are_spread_at_both_ends() {
        let mut low = std::collections::HashSet::new();
        let mut high = std::collections::HashSet::new();
        for number in 0..1024_u64 {
            let mut hasher = NumberHasher::default();
            hasher.write_u64(number);
            low.insert(hasher.finish() % 1024);
            high.insert(hasher.finish() >> 57);
        }
        assert!(low.len() > 500, "{}", low.len());
        assert_eq!(high.len(), 128);
    }
}
