//! All readers of what a server sends, for the fuzz targets.

use lock_core::contract::{Acquisition, DebounceReply, DurableClaim};
use redis::Value;

use super::{decode, notices};

/// The largest fence with room for a fencing token below 2<sup>63</sup>.
const LARGEST: u64 = 1 << 53;

/// Reads a reply as that of each script. Returns how many of them it may come from.
pub fn reply(bytes: &[u8]) -> usize {
    let Ok(value) = redis::parse_redis_value(bytes) else { return 0 };
    // As in the store: a server's error is not the reply of a script.
    if let Value::ServerError(_) = value {
        return 0;
    }
    let mut scripts = 0;
    for items in 1..4 {
        let Some(acquired) = decode::acquired(value.clone(), items) else { continue };
        scripts += 1;
        assert_eq!(acquired.len(), items);
        for acquisition in acquired {
            if let Ok(Acquisition::Granted { fence, .. }) = acquisition {
                assert!(fence < LARGEST, "{fence}");
            }
        }
    }
    if let Some(debounced) = decode::debounced(value.clone()) {
        scripts += 1;
        if let DebounceReply::Granted { fence, .. } = debounced {
            assert!(fence < LARGEST, "{fence}");
        }
    }
    if let Some(claimed) = decode::claimed(value.clone()) {
        scripts += 1;
        if let DurableClaim::Granted { fence, .. } = claimed {
            assert!(fence < LARGEST, "{fence}");
        }
    }
    scripts += (1..4).filter(|&items| decode::holders(value.clone(), items).is_some()).count();
    let others = [
        decode::client(value.clone()).is_some(),
        decode::scanned(value.clone()).is_some(),
        decode::due_in(value.clone()).is_some(),
        decode::waiting(value.clone()).is_some(),
        decode::extended(value.clone()).is_some(),
        decode::was_there(value.clone()).is_some(),
        decode::kept(value.clone()).is_some(),
        decode::due(value.clone()).is_some(),
        decode::finished(value.clone()).is_some(),
        decode::set_aside(value.clone()).is_some(),
        decode::integer(value.clone()).and_then(decode::released).is_some(),
        decode::integer(value).and_then(decode::renewed).is_some(),
    ];
    scripts + others.into_iter().filter(|read| *read).count()
}

/// Reads a message as a notice. Returns whether it is one.
pub fn wake(payload: &[u8]) -> bool {
    notices::parse(payload).is_some()
}
