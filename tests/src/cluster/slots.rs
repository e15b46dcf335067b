//! Which slot a key belongs to.

use super::Cluster;

/// How many slots there are.
pub(super) const SLOTS: u16 = 16_384;

impl Cluster {
    /// The slot of a key: that of the part between its first `{` and the next `}`, unless it is
    /// empty.
    pub fn slot_of(key: impl AsRef<[u8]>) -> u16 {
        let key = key.as_ref();
        let position = |of: u8, bytes: &[u8]| bytes.iter().position(|byte| *byte == of);
        let tag = position(b'{', key).and_then(|open| {
            let rest = &key[open + 1..];
            let close = position(b'}', rest)?;
            (close > 0).then(|| &rest[..close])
        });
        checksum(tag.unwrap_or(key)) % SLOTS
    }

    /// A word with this slot: `{word}` puts a key there.
    pub fn word_of(slot: u16) -> String {
        let mut words = (0_u32..).map(|number| number.to_string());
        words
            .find(|word| Self::slot_of(word) == slot)
            .expect("there is one in some hundred thousand")
    }
}

/// CRC16, as in XMODEM.
fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ (u16::from(*byte) << 8), |sum, _| {
            if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 }
        })
    })
}
