//! Every reader of what a server says, for the fuzz targets.

use std::time::Duration;

use redis::Value;

use super::{durable, notices, read_acquired, read_debounced, read_holder, released};
use crate::{
    Acquisition, DebounceReply, Token,
    store::{DurableClaim, DurableReply, DurableStep},
};

/// The largest fence with room for a fencing token below 2<sup>63</sup>.
const LARGEST: u64 = 1 << 53;

/// Reads a reply as each script's. Output: how many of them it may come from.
pub fn reply(bytes: &[u8]) -> usize {
    let Ok(value) = redis::parse_redis_value(bytes) else { return 0 };
    let mut scripts = 0;
    for items in 1..4 {
        if let Ok(acquired) = answer(value.clone(), |reply| read_acquired(reply, items)) {
            scripts += 1;
            assert_eq!(acquired.len(), items);
            for acquisition in acquired {
                if let Ok(Acquisition::Granted { fence, .. }) = acquisition {
                    assert!(fence < LARGEST, "{fence}");
                }
            }
        }
    }
    if let Ok(debounced) = answer(value.clone(), read_debounced) {
        scripts += 1;
        if let DebounceReply::Granted { fence } = debounced {
            assert!(fence < LARGEST, "{fence}");
        }
    }
    scripts += usize::from(answer(value.clone(), read_holder).is_ok());
    if let Value::Int(number) = value {
        scripts += usize::from(released(number).is_some());
    }
    for step in steps() {
        if let Ok(read) = answer(value.clone(), |reply| durable::read(&step, reply)) {
            scripts += 1;
            if let DurableReply::Claimed(DurableClaim::Granted { fence, .. }) = read {
                assert!(fence < LARGEST, "{fence}");
            }
        }
    }
    scripts
}

/// As the store does it: an error of the server's is no reply of a script.
fn answer<T>(reply: Value, read: impl Fn(Value) -> Option<T>) -> Result<T, ()> {
    match reply {
        Value::ServerError(_) => Err(()),
        reply => read(reply).ok_or(()),
    }
}

/// Reads a message as a wake-up. Output: is it one?
pub fn wake(payload: &[u8]) -> bool {
    notices::parse(payload).is_some()
}

/// One of each step, for what is read depends on it.
fn steps() -> [DurableStep; 6] {
    let (id, run) = (|| "a".into(), || "b".into());
    let token = || Token::from("c".to_owned());
    let (lease, attempts) = (Duration::from_secs(1), 3);
    [
        DurableStep::Call {
            id: id(),
            arguments: "[]".into(),
            wait: lease,
            max_wait: None,
            attempts,
            pause: lease,
        },
        DurableStep::Due { limit: 2 },
        DurableStep::Claim { id: id(), run: run(), token: token(), lease },
        DurableStep::Finish {
            id: id(),
            run: run(),
            token: token(),
            call: 1,
            generation: 1,
            error: None,
        },
        DurableStep::Aside,
        DurableStep::TakeBack { id: id(), again: true },
    ]
}
