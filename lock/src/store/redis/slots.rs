//! The slots of a Redis Cluster: which slot a key is in, and how another key is put into the same
//! slot.

use std::sync::LazyLock;

/// One of the parts into which a Redis Cluster divides its keys.
pub(super) type Slot = u16;

/// How many there are.
pub(super) const SLOTS: usize = 16_384;

/// The slot of a key, as `CLUSTER KEYSLOT` reports it: that of the text between its first `{` and
/// the next `}` if there is any, otherwise that of the whole key.
pub(super) fn of(key: &[u8]) -> Slot {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        let length = behind.iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &behind[..length])
    });
    crc16(tag.unwrap_or(key)) % SLOTS as u16
}

/// The text that, in braces, puts a key into a slot.
pub(super) fn tag(slot: Slot) -> &'static str {
    let tag = &TAGS[usize::from(slot) % SLOTS];
    std::str::from_utf8(tag).expect("BUG: a tag is made of letters and digits")
}

const LETTERS: usize = 3;

/// The first tag of three letters or digits for each slot; every slot has one.
static TAGS: LazyLock<Box<[[u8; LETTERS]]>> = LazyLock::new(|| {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut tags = vec![[0; LETTERS]; SLOTS].into_boxed_slice();
    let mut missing = SLOTS;
    for one in ALPHABET {
        for two in ALPHABET {
            for three in ALPHABET {
                let tag = [*one, *two, *three];
                let known = &mut tags[usize::from(of(&tag))];
                if *known == [0; LETTERS] {
                    *known = tag;
                    missing -= 1;
                    if missing == 0 {
                        return tags;
                    }
                }
            }
        }
    }
    unreachable!("BUG: a slot has no tag of three letters");
});

/// CRC-16/XMODEM, as the Redis Cluster specification defines it
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>, appendix A).
fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = (byte as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, byte| crc << 8 ^ TABLE[usize::from(crc >> 8 ^ u16::from(*byte))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
    }

    #[test]
    fn slots_are_those_that_a_server_tells() {
        // By CLUSTER KEYSLOT.
        for (key, slot) in [("lock:plain", 905), ("~queue:lock:plain", 8276), ("~fence", 5857)] {
            assert_eq!(of(key.as_bytes()), slot, "{key}");
        }
        for (key, like) in
            [("a{b}c", "b"), ("{b}{c}", "b"), ("x{{b}}", "{b"), ("a{b}c}", "b"), ("{b", "{b")]
        {
            assert_eq!(of(key.as_bytes()), of(like.as_bytes()), "{key}");
        }
        // There is nothing between the braces, or the first one is never closed.
        for key in ["{}", "a{}b{c}", "}{", "a{"] {
            assert_eq!(of(key.as_bytes()), crc16(key.as_bytes()) % SLOTS as u16, "{key}");
        }
    }

    #[test]
    fn every_slot_has_a_tag() {
        for slot in 0..SLOTS as Slot {
            let tag = tag(slot);
            assert_eq!(of(tag.as_bytes()), slot);
            assert_eq!(of(format!("~queue:{{{tag}}}:a{{b}}c").as_bytes()), slot);
        }
    }
}
