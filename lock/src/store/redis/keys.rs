//! The names of the keys that stand beside a lock's own.
//!
//! They begin with a tilde, so that no id can name them. On one server they need nothing else; where
//! all keys of a call have to be in one slot, this is the place that adds a tag of the lock's slot.

use redis::{RedisWrite, ToRedisArgs};

/// The counter that fences are drawn from: one per database, and the only key without an expiry.
/// No id can name it, for none may begin with a tilde, and no prefix may contain one.
pub(super) const FENCE: &str = "~fence";

/// The key of the queue of the lock of this key.
pub(super) struct QueueOf<'a>(pub(super) &'a str);

impl ToRedisArgs for QueueOf<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(format_args!("~queue:{}", self.0));
    }
}
